//! What can go wrong with a run, beside what goes wrong with any command.

use std::io;
use std::path::PathBuf;

use rollout_core::job::JobError;
use rollout_core::{ExitCode, JobId};
use rollout_process::SpawnError;
use rollout_transport::{CallError, ConnectError};

/// Why a run does not start, or ends without all results.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("{what}, line {line}: {why}")]
    Params { what: String, line: u64, why: String },
    #[error(
        "{} has {found} lines, and a job at least one and at most 4294967296 items", path.display()
    )]
    ParamCount { path: PathBuf, found: u64 },
    #[error("say which items: --count N, or --params FILE")]
    NoItems,
    #[error(transparent)]
    Job(#[from] JobError),
    #[error("--coordinator `{0}`: write host:port or https://host:port")]
    Address(String),
    #[error(
        "--coordinator needs a certificate: --tls-dir, or --ca, --cert and --key (`rollout cert \
         issue --identity /client/<name>` makes one)"
    )]
    NoCertificate,
    #[error("--workers has no effect on a running fleet: leave it out")]
    WorkersOfFleet,
    #[error(
        "[config] has no effect on a running fleet, whose workers have loaded their plugins: leave \
         it out, or leave --coordinator out"
    )]
    ConfigOfFleet,
    #[error("{dir} holds an unfinished run: go on with `rollout resume {dir}`, or name another --out",
            dir = .0.display())]
    Unfinished(PathBuf),
    #[error("{} holds a finished run: name another --out", .0.display())]
    Finished(PathBuf),
    #[error("{} holds other files: name another --out", .0.display())]
    Foreign(PathBuf),
    #[error("{} holds no run", .0.display())]
    NoRun(PathBuf),
    #[error("the run in {} is just starting or stopping: ask again", .0.display())]
    Starting(PathBuf),
    #[error("nothing is running in {dir}, and the run there was not stopped in good order: go on \
             with `rollout resume {dir}`", dir = .0.display())]
    Killed(PathBuf),
    #[error("another `rollout run` or `rollout resume` is working on {}: wait for it, or stop it",
            .0.display())]
    Busy(PathBuf),
    #[error(
        "the job is not the one in {dir} any more, these differ: {differences}; undo that, or \
         start anew with another --out", dir = dir.display()
    )]
    Changed { dir: PathBuf, differences: String },
    #[error("cannot {doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("cannot start {0}")]
    Spawn(&'static str, #[source] SpawnError),
    #[error("{who} cannot start ({exit}); it says: {said}")]
    CannotStart { who: String, exit: String, code: Option<i32>, said: String },
    #[error("the coordinator cannot be reached")]
    Connect(#[from] ConnectError),
    #[error("the coordinator does not do what it is asked")]
    Call(#[from] CallError),
    #[error("the coordinator knows no job {0}: it was cancelled, or is another coordinator")]
    NoJob(JobId),
    #[error("the coordinator refuses the job: {0}")]
    Invalid(String),
    #[error("no worker can run the job within its start_timeout ({after}): {why}")]
    NobodyCan { after: String, why: String },
    #[error("the coordinator's ledger and the results here do not agree: {0}")]
    Disagree(String),
    /// It has been said already.
    #[error("work is left undone")]
    LeftUndone,
}

impl RunError {
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    /// Whether the message is on the screen already.
    pub(crate) const fn is_said(&self) -> bool {
        matches!(self, Self::LeftUndone)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Params { .. } | Self::ParamCount { .. } | Self::Damaged { .. } => {
                ExitCode::BadData
            }
            Self::NoItems
            | Self::Job(_)
            | Self::Address(_)
            | Self::NoCertificate
            | Self::WorkersOfFleet => ExitCode::Usage,
            Self::ConfigOfFleet | Self::Changed { .. } | Self::Invalid(_) => ExitCode::Config,
            Self::Unfinished(_) | Self::Finished(_) | Self::Foreign(_) => ExitCode::CannotCreate,
            Self::NoRun(_) => ExitCode::NoInput,
            Self::Starting(_) => ExitCode::Unavailable,
            Self::Killed(_) => ExitCode::Unfinished,
            Self::File { doing: "read" | "find", source, .. }
                if source.kind() == io::ErrorKind::NotFound =>
            {
                ExitCode::NoInput
            }
            Self::File { doing: "make", .. } => ExitCode::CannotCreate,
            Self::File { .. } => ExitCode::Io,
            Self::CannotStart { code, .. } => started(*code),
            Self::Connect(ConnectError::Refused { .. }) => ExitCode::Refused,
            Self::Busy(_)
            | Self::Spawn(..)
            | Self::Connect(_)
            | Self::Call(_)
            | Self::NoJob(_)
            | Self::NobodyCan { .. } => ExitCode::Unavailable,
            Self::Disagree(_) => ExitCode::Internal,
            Self::LeftUndone => ExitCode::Unfinished,
        }
    }
}

/// The exit code of a process that did not start, as this process's own.
fn started(code: Option<i32>) -> ExitCode {
    const PASSED_ON: [ExitCode; 8] = [
        ExitCode::BadData,
        ExitCode::NoInput,
        ExitCode::Unavailable,
        ExitCode::CannotCreate,
        ExitCode::Io,
        ExitCode::Refused,
        ExitCode::Config,
        ExitCode::Internal,
    ];
    let same = |exit: &&ExitCode| Some(i32::from(exit.code())) == code;
    PASSED_ON.iter().find(same).copied().unwrap_or(ExitCode::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_to_be_read_is_a_missing_input() {
        let failed = |doing| RunError::file(doing, "x")(io::ErrorKind::NotFound.into()).exit_code();
        assert_eq!((failed("read"), failed("find")), (ExitCode::NoInput, ExitCode::NoInput));
        assert_eq!((failed("write"), failed("make")), (ExitCode::Io, ExitCode::CannotCreate));
    }
}
