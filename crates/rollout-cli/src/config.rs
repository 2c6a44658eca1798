//! Reads configuration files, and `rollout config check`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use rollout_core::{ConfigError, CoordinatorConfig, JobFile, WorkerConfig};
use rollout_plugin_host::Manifest;

use crate::error::CliError;
use crate::process;

/// Reads a coordinator's file.
pub(crate) fn coordinator(path: &Path) -> Result<CoordinatorConfig, CliError> {
    parse(path, CoordinatorConfig::parse)
}

/// Reads a worker's file.
pub(crate) fn worker(path: &Path) -> Result<WorkerConfig, CliError> {
    parse(path, WorkerConfig::parse)
}

/// Reads any file that is configuration.
pub(crate) fn parse<T>(
    path: &Path,
    with: impl Fn(&str) -> Result<T, ConfigError>,
) -> Result<T, CliError> {
    let text = read(path)?;
    with(&text).map_err(process::invalid(path))
}

fn read(path: &Path) -> Result<String, CliError> {
    fs::read_to_string(path).map_err(|source| CliError::Read { path: path.to_owned(), source })
}

/// Checks every file and says of each what it is, or what is wrong with it.
pub(crate) fn check(files: &[PathBuf]) -> Result<(), CliError> {
    let mut failed = Vec::new();
    for path in files {
        match check_one(path) {
            Ok(kind) => print(&format!("{}: a valid {kind}\n", path.display()))?,
            Err(error) => {
                error.print();
                failed.push(error);
            }
        }
    }
    match (failed.len(), failed.pop()) {
        (_, None) => Ok(()),
        (1, Some(only)) => Err(CliError::Checked(Box::new(only))),
        (failed, Some(_)) => Err(CliError::Check { failed, checked: files.len() }),
    }
}

/// A file is known by its keys: jobs and plugins have a table of that name, only a coordinator listens, only a worker has a coordinator.
fn check_one(path: &Path) -> Result<&'static str, CliError> {
    let text = read(path)?;
    let has = |key: &str| {
        text.lines().any(|line| {
            line.trim_start()
                .strip_prefix(key)
                .is_some_and(|rest| rest.trim_start().starts_with(['=', ']']))
        })
    };
    if has("[plugin") {
        Manifest::load(path)?;
        return Ok("plugin manifest");
    }
    if has("[job") {
        return parse(path, JobFile::parse).map(|_| "job file");
    }
    if has("coordinator") {
        return worker(path).map(|_| "worker configuration");
    }
    if has("listen") {
        return coordinator(path).map(|_| "coordinator configuration");
    }
    Err(CliError::Unknown { path: path.to_owned() })
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    std::io::stdout().write_all(text.as_bytes()).map_err(CliError::Output)
}
