//! The files that commands write about their runs.

use std::fs;
use std::io;
use std::path::Path;

use rollout_core::ExitCode;
use rollout_harness::{Check, Record, report};

use crate::args::PageArgs;
use crate::{complain, say};

/// Writes the page of a run, if one is wanted; the exit code if it cannot be written.
pub(crate) fn page(args: &PageArgs, record: &Record, checks: &[Check]) -> Result<(), u8> {
    let Some(path) = &args.html else { return Ok(()) };
    write(path, &report::html(record, checks))?;
    say(&format!("  the run to look at: {}\n", path.display()));
    Ok(())
}

/// Writes a file; the exit code if it cannot be written.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), u8> {
    wrote(path, fs::write(path, text))
}

/// Complains of a file that could not be written.
pub(crate) fn wrote(path: &Path, result: io::Result<()>) -> Result<(), u8> {
    result.map_err(|error| {
        complain(&format!("cannot write {}: {error}", path.display()));
        ExitCode::Io.code()
    })
}
