//! What a command needs that kills real workers: the tools, the binaries, a directory of its own.

use rollout_core::{ExitCode, chain};
use rollout_harness::binaries::{self, Binaries, BuildError, Profile};
use rollout_harness::{Interrupt, interrupt, preflight};
use tempfile::TempDir;

use crate::complain;

/// What there is then.
pub(crate) struct Prepared {
    /// What is run.
    pub(crate) binaries: Binaries,
    /// An empty directory, removed with this value.
    pub(crate) root: TempDir,
}

/// Sees to it; the exit code if something is not to be had, which has been said.
pub(crate) fn prepare(profile: Profile, interrupt: &Interrupt) -> Result<Prepared, u8> {
    if !crate::preflight::passes() {
        return Err(preflight::EXIT_CODE);
    }
    let binaries = built(binaries::build(profile, interrupt, &mut |_| {}))?;
    let root = tempfile::tempdir().map_err(|error| {
        complain(&format!("cannot create a temporary directory: {error}"));
        ExitCode::CannotCreate.code()
    })?;
    Ok(Prepared { binaries, root })
}

/// What was built; the exit code if it was not, which has been said.
pub(crate) fn built<T>(outcome: Result<T, BuildError>) -> Result<T, u8> {
    outcome.map_err(|error| match error {
        BuildError::Interrupted(signal) => interrupt::exit_code(signal),
        error => {
            complain(&chain(&error));
            1
        }
    })
}
