//! What can go wrong with a command: the exit code, and the message with its causes, printed once.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use rollout_coordinator::CoordinatorError;
use rollout_core::{ConfigError, ExitCode};
use rollout_plugin_host::PluginError;
use rollout_storage::StorageError;
use rollout_transport::{CertError, RejectReason};
use rollout_worker::WorkerError;

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` is invalid", path.display())]
    Config { path: PathBuf, source: ConfigError },
    /// It has been printed already.
    #[error(transparent)]
    Checked(Box<Self>),
    #[error("{failed} of {checked} files are invalid")]
    Check { failed: usize, checked: usize },
    #[error("`{}` is neither a coordinator's, a worker's nor a plugin's file", path.display())]
    Unknown { path: PathBuf },
    #[error("the certificate in `{}` is {found}'s, not a {wanted}'s", path.display())]
    WrongIdentity { path: PathBuf, found: String, wanted: String },
    #[error(transparent)]
    Cert(#[from] CertError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    #[error("cannot start the process's runtime")]
    Runtime(#[source] io::Error),
    #[error("stopped by a second signal before everything was in order")]
    Hurried,
}

impl CliError {
    /// Prints the message and its causes to standard error.
    pub(crate) fn print(&self) {
        if matches!(self, Self::Checked(_)) {
            return;
        }
        eprintln!("rollout: {self}");
        let mut cause = self.source();
        while let Some(error) = cause {
            eprintln!("  because: {}", error.to_string().trim_end().replace('\n', "\n    "));
            cause = error.source();
        }
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ExitCode::NoInput
            }
            Self::Read { .. } | Self::Output(_) => ExitCode::Io,
            Self::Config { .. } | Self::Check { .. } | Self::Unknown { .. } => ExitCode::Config,
            Self::Checked(error) => error.exit_code(),
            Self::WrongIdentity { .. } => ExitCode::Refused,
            Self::Cert(error) => cert(error),
            Self::Storage(error) => storage(error),
            Self::Coordinator(error) => coordinator(error),
            Self::Worker(error) => worker(error),
            Self::Plugin(error) => plugin(error),
            Self::Runtime(_) => ExitCode::Internal,
            Self::Hurried => ExitCode::Unfinished,
        }
    }
}

fn storage(error: &StorageError) -> ExitCode {
    match error {
        StorageError::Locked { .. } | StorageError::Overloaded { .. } => ExitCode::Unavailable,
        StorageError::Damaged { .. } | StorageError::Row { .. } => ExitCode::BadData,
        StorageError::Io { .. } | StorageError::Engine { .. } | StorageError::Closed { .. } => {
            ExitCode::Io
        }
        StorageError::Encode { .. } => ExitCode::Internal,
    }
}

fn coordinator(error: &CoordinatorError) -> ExitCode {
    match error {
        CoordinatorError::Listen { .. } => ExitCode::Unavailable,
        CoordinatorError::OtherRun { .. } => ExitCode::Config,
        CoordinatorError::Ledger(error) => storage(error),
        CoordinatorError::Transport(_) => ExitCode::Unavailable,
        CoordinatorError::Thread(_) | CoordinatorError::EngineLost => ExitCode::Internal,
    }
}

fn worker(error: &WorkerError) -> ExitCode {
    match error {
        WorkerError::Plugin(error) => plugin(error),
        WorkerError::OtherWorker { .. } => ExitCode::Config,
        WorkerError::Memory(error) => storage(error),
        error if error.is_identity() => ExitCode::Refused,
        WorkerError::Rejected { reason: RejectReason::Run | RejectReason::Timing, .. } => {
            ExitCode::Config
        }
        WorkerError::Rejected { .. } => ExitCode::Unavailable,
        WorkerError::Unreachable { .. } => ExitCode::Unavailable,
        _ => ExitCode::Internal,
    }
}

fn plugin(error: &PluginError) -> ExitCode {
    match error.code() {
        "invalid" | "unknown_field" => ExitCode::Config,
        "not_found" => ExitCode::NoInput,
        "hash_mismatch" => ExitCode::BadData,
        _ => ExitCode::Unavailable,
    }
}

fn cert(error: &CertError) -> ExitCode {
    match error {
        CertError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            ExitCode::NoInput
        }
        CertError::Io { .. } => ExitCode::Io,
        CertError::NoCa(_) => ExitCode::NoInput,
        CertError::CaExists(_) => ExitCode::CannotCreate,
        CertError::Host(_) => ExitCode::Usage,
        CertError::Pem { .. } | CertError::Unreadable(_) => ExitCode::BadData,
        CertError::Make(_) | CertError::Setup(_) => ExitCode::Internal,
        CertError::Exposed { .. }
        | CertError::Key { .. }
        | CertError::NoIdentity(_)
        | CertError::Untrusted { .. }
        | CertError::WrongIdentity { .. }
        | CertError::NoIssuer { .. }
        | CertError::ForeignCa(_) => ExitCode::Refused,
    }
}
