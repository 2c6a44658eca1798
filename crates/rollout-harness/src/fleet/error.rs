//! Why a fleet cannot go on.

use std::io;

use nix::sys::signal::Signal;
use rollout_core::{ExitCode, chain};
use rollout_process::SpawnError;

use crate::fixtures::FixtureError;
use crate::interrupt;

/// Why a fleet cannot go on; never for what its processes do wrong, save when nothing can follow.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A file of the run.
    #[error(transparent)]
    File(#[from] FixtureError),
    /// A process cannot be started.
    #[error("cannot start {name}")]
    Spawn {
        /// The process.
        name: String,
        /// Why.
        #[source]
        source: SpawnError,
    },
    /// There is no such process.
    #[error("the fleet has no process `{0}`")]
    Unknown(String),
    /// There are two of that name.
    #[error("the fleet has a process `{0}` already")]
    Twice(String),
    /// What is to be started runs.
    #[error("{0} runs already")]
    Runs(String),
    /// What something is to be done to does not run.
    #[error("{0} does not run")]
    NotRunning(String),
    /// The process has no such link.
    #[error("{0} has no link that could be cut: give it one")]
    NoLink(String),
    /// The process was not started with a disk that can fail.
    #[error("{0} has no disk that could fail: give it one")]
    NoDisk(String),
    /// The worker has no such plugin, or its process cannot be told from the others.
    #[error("{0} runs no sidecar")]
    NoSidecar(String),
    /// A process is to have faults, and there is no program that has them.
    #[error("{0} needs the program built with the feature `faults`, and none was given")]
    NoFaults(String),
    /// A link cannot be made.
    #[error("cannot make a link for {name}")]
    Link {
        /// The worker.
        name: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The coordinator does not come up.
    #[error("the coordinator does not listen: {0}")]
    NotListening(String),
    /// Not everybody beats, so that there is nothing to be done to the fleet.
    #[error("the fleet did not come up: {0}")]
    NotUp(String),
    /// Someone asked the harness to stop. What it had started is gone.
    #[error("stopped by {0}; nothing that was started is left")]
    Interrupted(Signal),
}

impl FleetError {
    /// The exit code of a command that ends with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let code = match self {
            Self::File(FixtureError::Taken { .. }) => ExitCode::Unavailable,
            Self::File(FixtureError::Syntax { .. }) => ExitCode::Config,
            Self::File(FixtureError::File { .. }) => ExitCode::Io,
            Self::NotUp(_) => return 1,
            Self::Interrupted(signal) => return interrupt::exit_code(*signal),
            _ => ExitCode::Internal,
        };
        code.code()
    }
}

/// Why a step of a run did not come to its end.
pub(crate) enum Trouble {
    /// What was run did not do its part: a matter for the judge.
    Failed(String),
    /// The harness cannot go on.
    Harness(FleetError),
}

impl From<FleetError> for Trouble {
    fn from(error: FleetError) -> Self {
        match error {
            FleetError::File(_) | FleetError::Interrupted(_) => Self::Harness(error),
            error => Self::Failed(chain(&error)),
        }
    }
}

impl From<FixtureError> for Trouble {
    fn from(error: FixtureError) -> Self {
        Self::Harness(error.into())
    }
}
