//! Why there are no figures.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rollout_core::ExitCode;
use rollout_plugin_host::PluginError;
use rollout_process::{Exit, SpawnError};
use rollout_storage::StorageError;
use rollout_transport::CertError;

/// Why a suite gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// Something of the system's is not to be had.
    #[error("{what}")]
    Io {
        /// What it is.
        what: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A program could not be started.
    #[error("a process cannot be measured")]
    Spawn(#[from] SpawnError),
    /// `rollout` ended otherwise than it should.
    #[error("`rollout {command}` {exit}; run it by hand to see why")]
    Rollout {
        /// Its arguments.
        command: String,
        /// How it ended.
        exit: Exit,
    },
    /// A process of the suite `work` ended otherwise than it should.
    #[error("`{command}` {exit} and said:\n{said}")]
    Failed {
        /// What it is.
        command: &'static str,
        /// How it ended.
        exit: Exit,
        /// The last it wrote to standard error.
        said: String,
    },
    /// Results are missing, or there are too many.
    #[error("there are {found} results of {items} items")]
    Results {
        /// How many there are.
        found: u64,
        /// How many there should be.
        items: u64,
    },
    /// `rollout run` and its peer did not do the same.
    #[error("`rollout run` and the pool have different results for item {item}")]
    Disagree {
        /// The first such item.
        item: u64,
    },
    /// `rollout plugin bench --json` did not say what was asked.
    #[error("`rollout {command}` has no `{row}` in what it printed")]
    NoRow {
        /// Its arguments.
        command: String,
        /// What is missing.
        row: String,
    },
    /// A plugin did not do what is measured.
    #[error("a plugin that is measured failed")]
    Plugin(#[from] PluginError),
    /// A call that had to end in an error did not, or ended in another.
    #[error("a call had to end in `{want}` and ended in {got}")]
    Ending {
        /// The error's code.
        want: &'static str,
        /// What came.
        got: String,
    },
    /// Something did not happen in time.
    #[error("waited {0:?} for {1}")]
    Late(std::time::Duration, &'static str),
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// A certificate could not be used.
    #[error("cannot use a certificate")]
    Certificate(#[from] CertError),
    /// A key could not be read.
    #[error("cannot read a key")]
    Key(#[from] rustls::pki_types::pem::Error),
    /// The TLS stack does not accept its settings.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// Nor those about clients.
    #[error("cannot set up TLS")]
    Clients(#[from] rustls::client::VerifierBuilderError),
    /// What is measured ended.
    #[error("what is measured ended by itself; what it said is on standard error")]
    ServerEnded,
    /// The system does not say what a process costs.
    #[error("the system does not say what a process costs: this needs Linux's /proc")]
    NoCost,
    /// The store could not be opened.
    #[error("the store cannot be measured")]
    Open(#[from] StorageError),
    /// The store could not write.
    #[error("the store cannot be measured")]
    Store(#[source] Arc<StorageError>),
    /// redb could not do it either.
    #[error("bare redb cannot be measured")]
    Redb(#[from] redb::Error),
    /// There is no build to measure.
    #[error("`cargo build` {0}")]
    Cargo(Exit),
    /// The figures could not be written.
    #[error("cannot write {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Somebody asked to stop.
    #[error("stopped by {0}")]
    Interrupted(&'static str),
}

impl BenchError {
    /// For `map_err`.
    pub(crate) fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Io { .. } => ExitCode::Io,
            Self::File { .. } => ExitCode::CannotCreate,
            Self::Interrupted(_) => ExitCode::Unfinished,
            _ => ExitCode::Unavailable,
        }
    }
}
