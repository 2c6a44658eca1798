//! What a command needs that kills real workers: the tools, the binaries, a directory of its own.

use rollout_core::ExitCode;
use rollout_harness::binaries::{self, Binaries, BuildError, Profile};
use rollout_harness::smoke::chain;
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
pub(crate) fn prepare(release: bool, interrupt: &Interrupt) -> Result<Prepared, u8> {
    if !crate::preflight::passes() {
        return Err(preflight::EXIT_CODE);
    }
    let profile = if release { Profile::Release } else { Profile::own() };
    let binaries = binaries::build(profile, interrupt, &mut |_| {}).map_err(|error| {
        if let BuildError::Interrupted(signal) = error {
            return u8::try_from(interrupt::exit_code(signal)).unwrap_or(u8::MAX);
        }
        complain(&chain(&error));
        1
    })?;
    let root = tempfile::tempdir().map_err(|error| {
        complain(&format!("cannot create a temporary directory: {error}"));
        ExitCode::CannotCreate.code()
    })?;
    Ok(Prepared { binaries, root })
}
