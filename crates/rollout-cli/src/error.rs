//! What can go wrong with a command: the exit code, and the message with its causes, printed once.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use rollout_coordinator::CoordinatorError;
use rollout_core::{ConfigError, ExitCode};
use rollout_plugin_host::{Cause, Executed, PluginError};
use rollout_storage::StorageError;
use rollout_transport::{CertError, RejectReason};
use rollout_worker::WorkerError;

use crate::run::error::RunError;

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
    #[error("`{}` is neither a job's, a coordinator's, a worker's nor a plugin's file", path.display())]
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
    #[error(transparent)]
    Run(#[from] RunError),
    /// A call that its caller asked for by hand.
    #[error(transparent)]
    Call(PluginError),
    #[error("plugin `{plugin}`: {failed} of {checked} checks failed")]
    Conformance { plugin: String, failed: usize, checked: usize },
    #[error(
        "`{name}` can't be the name: write --name with up to 64 lower-case letters, digits and `_`, \
         no keyword and no module of Python's or crate of Rust's own"
    )]
    PluginName { name: String },
    #[error("`{}` is not empty", path.display())]
    NotEmpty { path: PathBuf },
    #[error("cannot write `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot make a private temporary directory")]
    Temporary(#[source] io::Error),
    #[error("the plugin lists no methods")]
    NoMethods,
    #[error("the baseline could not be measured")]
    Baseline(#[source] io::Error),
    #[error("stopped by {0}")]
    Interrupted(&'static str),
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
        if matches!(self, Self::Checked(_)) || matches!(self, Self::Run(error) if error.is_said()) {
            return;
        }
        eprintln!("rollout: {}", plain(&self.to_string()));
        let mut cause = self.source();
        while let Some(error) = cause {
            eprintln!("  because: {}", indented(&error.to_string()));
            cause = error.source();
        }
        if let Self::Call(error) = self {
            let again = if error.retryable() { "; it may be tried again" } else { "" };
            eprintln!("  code: {}, executed: {}{again}", error.code(), error.executed.as_str());
            if let Cause::User { traceback: Some(traceback), .. } = &*error.cause {
                eprintln!("  traceback: {}", indented(traceback));
            }
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
            Self::Run(error) => error.exit_code(),
            Self::Call(error) => call(error),
            Self::NoMethods | Self::Conformance { .. } => ExitCode::Unavailable,
            Self::PluginName { .. } => ExitCode::Usage,
            Self::NotEmpty { .. } | Self::Write { .. } | Self::Temporary(_) => {
                ExitCode::CannotCreate
            }
            Self::Interrupted(_) => ExitCode::Unfinished,
            Self::Baseline(_) | Self::Runtime(_) => ExitCode::Internal,
            Self::Hurried => ExitCode::Unfinished,
        }
    }
}

/// A text in which what a plugin says can't steer a terminal: control characters are shown, not sent.
pub(crate) fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

fn indented(text: &str) -> String {
    plain(text.trim_end()).replace('\n', "\n    ")
}

fn storage(error: &StorageError) -> ExitCode {
    match error {
        StorageError::Locked { .. }
        | StorageError::Overloaded { .. }
        | StorageError::Fenced { .. } => ExitCode::Unavailable,
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
        CoordinatorError::Blobs(_) => ExitCode::Io,
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

/// A call's own code: its caller's mistakes, what may succeed when it is tried again, and the rest.
fn call(error: &PluginError) -> ExitCode {
    match error.code() {
        "unknown_method" => ExitCode::Usage,
        "bad_params" => ExitCode::BadData,
        "too_large" if error.executed == Executed::No => ExitCode::BadData,
        _ if error.retryable() => ExitCode::Unfinished,
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
