//! The faults of this process, from the file that `ROLLOUT_FAULTS` names. Compiled with the feature
//! `faults` alone.

use std::env;
use std::path::PathBuf;

use rollout_core::faults::{self, Faults};

use crate::config;
use crate::error::CliError;

/// The variable that names the file.
const VARIABLE: &str = "ROLLOUT_FAULTS";

/// Reads the file, if one is named, and makes its faults this process's own.
pub(crate) fn install() -> Result<(), CliError> {
    if let Some(path) = env::var_os(VARIABLE).map(PathBuf::from) {
        // A process calls this once.
        faults::install(config::parse(&path, Faults::parse)?);
    }
    Ok(())
}
