//! The one error of this crate: which plugin, which method, what went wrong, and whether the call
//! may have been executed.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rollout_core::duration::as_ms;
use rollout_core::{Clock, Mono, SystemClock};
use serde_json::{Value, json};

/// Why a plugin could not be loaded, started, called or ended.
#[derive(Debug)]
pub struct PluginError {
    /// The plugin's name; its manifest's file name while the name is not known.
    pub plugin: String,
    /// The method called, if one was.
    pub method: Option<String>,
    /// Whether the plugin may have executed the call.
    pub executed: Executed,
    /// What went wrong.
    pub cause: Box<Cause>,
}

/// Whether a failed call was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executed {
    /// It never reached the plugin's code.
    No,
    /// It reached the plugin, which did not say.
    Maybe,
    /// The plugin's own code answered.
    Yes,
}

impl Executed {
    /// The word on the wire and in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Maybe => "maybe",
            Self::Yes => "yes",
        }
    }
}

/// How a sidecar's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// The last it wrote to standard error.
    pub stderr_tail: String,
}

impl fmt::Display for Exited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exited with {code}")?,
            (None, Some(signal)) => write!(f, "was killed by signal {signal}")?,
            (None, None) => write!(f, "ended")?,
        }
        write!(f, "{}", Tail(&self.stderr_tail))
    }
}

/// The end of a message that shows what a sidecar last wrote.
struct Tail<'a>(&'a str);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.trim_end() {
            "" => write!(f, "; it wrote nothing to standard error"),
            tail => write!(f, "; the last it wrote to standard error:\n{tail}"),
        }
    }
}

/// What went wrong, with what the code names.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The manifest's text is wrong.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The manifest.
        path: PathBuf,
        /// What is wrong and where.
        message: String,
    },
    /// The manifest has a key that is not known.
    #[error("{}: {message}", path.display())]
    UnknownField {
        /// The manifest.
        path: PathBuf,
        /// The key, the line and the keys that are known.
        message: String,
    },
    /// The library is not the one that the manifest pins.
    #[error(
        "{} has SHA-256 {got}, but `entry.cdylib.sha256` is {want}: load the library that was \
         reviewed, or pin the new one", path.display()
    )]
    HashMismatch {
        /// The library.
        path: PathBuf,
        /// The manifest's pin.
        want: String,
        /// The library's hash.
        got: String,
    },
    /// The manifest or the library can't be read.
    #[error("cannot read {}", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a shared library.
    #[error("{} is not a shared library of this system", path.display())]
    NotALibrary {
        /// The file.
        path: PathBuf,
    },
    /// The library is for another processor.
    #[error("{} is built for {have}, this worker for {want}", path.display())]
    WrongArch {
        /// The file.
        path: PathBuf,
        /// The library's processor.
        have: String,
        /// The worker's.
        want: &'static str,
    },
    /// The system's loader refused the library.
    #[error("cannot load {}", path.display())]
    Unloadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: libloading::Error,
    },
    /// The library is no plugin.
    #[error("{} does not export `{symbol}`: is it a plugin? (`export_plugin!` makes the symbol)", path.display())]
    MissingSymbol {
        /// The file.
        path: PathBuf,
        /// The symbol.
        symbol: &'static str,
    },
    /// The plugin speaks another major version of the C ABI or of the wire.
    #[error("it speaks version {have}, this worker {want}: build it with an SDK of this version")]
    AbiMismatch {
        /// The plugin's version.
        have: String,
        /// The worker's.
        want: String,
    },
    /// The library's descriptor is not one.
    #[error("{} has a broken descriptor: {message}", path.display())]
    BadDescriptor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The sidecar could not be started.
    #[error("cannot start it: {doing}")]
    Spawn {
        /// What failed.
        doing: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The sidecar ended before it was ready.
    #[error("it {0}, before it was ready")]
    Exited(Exited),
    /// The plugin was not ready in time.
    #[error("it was not ready within `limits.start_timeout` ({limit:?}){}", .stderr_tail.as_deref().map(|tail| Tail(tail).to_string()).unwrap_or_default())]
    Timeout {
        /// The limit.
        limit: Duration,
        /// What a sidecar last wrote to standard error.
        stderr_tail: Option<String>,
    },
    /// The plugin refused to start, or the host refused the plugin.
    #[error("it was refused: {message}")]
    Refused {
        /// Why.
        message: String,
    },
    /// The plugin has no such method.
    #[error("no such method{}", list(known))]
    UnknownMethod {
        /// The methods it has; none where it is the plugin that refuses one of its own.
        known: Vec<String>,
    },
    /// The method can't use these parameters.
    #[error("bad params: {message}")]
    BadParams {
        /// What is wrong with them.
        message: String,
    },
    /// The plugin's own code reports an error.
    #[error("{message}")]
    User {
        /// The plugin's text.
        message: String,
        /// Where it was raised, if the plugin says so.
        traceback: Option<String>,
    },
    /// The plugin's code panicked; its instance was made anew.
    #[error("it panicked: {message}")]
    Panicked {
        /// The panic's text.
        message: String,
    },
    /// The call was not answered in time.
    #[error("no answer within {limit:?}")]
    Deadline {
        /// The limit.
        limit: Duration,
    },
    /// The plugin gave the call up.
    #[error("cancelled: {message}")]
    Cancelled {
        /// The plugin's text.
        message: String,
    },
    /// The plugin has as many calls as it takes.
    #[error("it has {limit} calls in flight and takes no more (`limits.max_in_flight`)")]
    Overloaded {
        /// The limit in force.
        limit: usize,
    },
    /// The plugin broke the protocol.
    #[error("it broke the protocol: {message}")]
    Malformed {
        /// How.
        message: String,
    },
    /// A call or an answer is too large.
    #[error("{what} of {got} bytes is over `{key}` ({limit} bytes)")]
    TooLarge {
        /// The call or the answer.
        what: &'static str,
        /// The limit, in bytes.
        limit: usize,
        /// The size, in bytes.
        got: u64,
        /// The manifest's key.
        key: &'static str,
    },
    /// The plugin has been shut down, or has closed its socket.
    #[error("it is closed: {message}")]
    Closed {
        /// By whom.
        message: &'static str,
    },
    /// The plugin is gone.
    #[error("{message}")]
    Crashed {
        /// How it ended.
        message: String,
        /// How its process ended, if it is a sidecar's.
        exited: Option<Exited>,
    },
    /// The plugin failed too often and is left alone for a while.
    #[error("it failed too often (`restart.max_crashes` within `restart.window`) and {}", rest(*wait))]
    BreakerOpen {
        /// When it is tried again; now, if it is being tried with another call.
        until: Mono,
        /// How long that is from now.
        wait: Duration,
    },
    /// The library's thread is stuck in a call that outlived its deadline.
    #[error("`{stuck}` does not return and cannot be killed: run it as a sidecar")]
    Wedged {
        /// The method it is stuck in.
        stuck: String,
    },
}

fn list(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!("; it has: {}", known.join(", ")) }
}

fn rest(wait: Duration) -> String {
    if wait.is_zero() {
        return "is being tried with one call alone".to_owned();
    }
    format!("is not called for {wait:?}")
}

impl Cause {
    /// The stable word for this kind of error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::UnknownField { .. } => "unknown_field",
            Self::HashMismatch { .. } => "hash_mismatch",
            Self::NotFound { .. } => "not_found",
            Self::NotALibrary { .. } => "not_a_library",
            Self::WrongArch { .. } => "wrong_arch",
            Self::Unloadable { .. } => "unloadable",
            Self::MissingSymbol { .. } => "missing_symbol",
            Self::AbiMismatch { .. } => "abi_mismatch",
            Self::BadDescriptor { .. } => "bad_descriptor",
            Self::Spawn { .. } => "spawn",
            Self::Exited(_) => "exited",
            Self::Timeout { .. } => "timeout",
            Self::Refused { .. } => "refused",
            Self::UnknownMethod { .. } => "unknown_method",
            Self::BadParams { .. } => "bad_params",
            Self::User { .. } => "user",
            Self::Panicked { .. } => "panicked",
            Self::Deadline { .. } => "deadline",
            Self::Cancelled { .. } => "cancelled",
            Self::Overloaded { .. } => "overloaded",
            Self::Malformed { .. } => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::Closed { .. } => "closed",
            Self::Crashed { .. } => "crashed",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::Wedged { .. } => "wedged",
        }
    }

    /// For a call that is refused until then.
    pub(crate) fn breaker_open(until: Mono) -> Self {
        Self::BreakerOpen { until, wait: until.since(SystemClock.now()) }
    }

    /// The error for a plugin that is not being called.
    pub(crate) fn at(self, plugin: &str) -> PluginError {
        PluginError {
            plugin: plugin.to_owned(),
            method: None,
            executed: Executed::No,
            cause: Box::new(self),
        }
    }
}

impl PluginError {
    /// The stable word for this kind of error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.cause.code()
    }

    /// Whether the same call may succeed on this or another instance of the plugin.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        matches!(
            *self.cause,
            Cause::Deadline { .. }
                | Cause::Cancelled { .. }
                | Cause::Overloaded { .. }
                | Cause::Closed { .. }
                | Cause::Crashed { .. }
                | Cause::BreakerOpen { .. }
                | Cause::Wedged { .. }
        )
    }

    /// What the code names, as data: exit status, traceback, limits; null when it names nothing.
    #[must_use]
    pub fn detail(&self) -> Value {
        match &*self.cause {
            Cause::HashMismatch { want, got, .. } => json!({ "want": want, "have": got }),
            Cause::WrongArch { have, want, .. } => json!({ "have": have, "want": want }),
            Cause::AbiMismatch { have, want } => json!({ "have": have, "want": want }),
            Cause::Exited(exited) | Cause::Crashed { exited: Some(exited), .. } => json!({
                "code": exited.code, "signal": exited.signal, "stderr_tail": exited.stderr_tail,
            }),
            Cause::Timeout { stderr_tail: Some(tail), .. } => json!({ "stderr_tail": tail }),
            Cause::UnknownMethod { known } => json!({ "known": known }),
            Cause::User { traceback: Some(traceback), .. } => json!({ "traceback": traceback }),
            Cause::BreakerOpen { until, wait } => {
                json!({ "until_mono_ns": until, "wait_ms": as_ms(*wait) })
            }
            Cause::TooLarge { limit, got, key, .. } => {
                json!({ "limit": limit, "got": got, "key": key })
            }
            _ => Value::Null,
        }
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin `{}`", self.plugin)?;
        if let Some(method) = &self.method {
            write!(f, ", method `{method}`")?;
        }
        write!(f, ": {}", self.cause)
    }
}

impl Error for PluginError {
    /// The cause's own source: the cause's text is part of this one's.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}
