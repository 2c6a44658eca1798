//! What plugins say and do outside calls, and who is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rollout_core::Level;
use rollout_core::event::{PluginExited, PluginRestarted};
pub use rollout_process::Stream;

use crate::error::PluginError;

/// Told what plugins say and do. Called from any thread; must not block.
pub type OnEvent = Arc<dyn Fn(HostEvent) + Send + Sync>;

/// What the host needs from whoever runs it.
#[derive(Clone)]
pub struct HostConfig {
    /// Where sidecars' sockets are made; created with mode 0700 if it is missing.
    pub sidecar_dir: PathBuf,
    /// Who is told what plugins say and do.
    pub on_event: OnEvent,
}

/// Something a plugin said or did outside a call.
#[derive(Debug, Clone)]
pub enum HostEvent {
    /// A sidecar wrote a line to its standard output or error.
    Output {
        /// The plugin's name.
        plugin: Arc<str>,
        /// Which of the two.
        stream: Stream,
        /// The line, without its end, cut at a limit.
        line: String,
    },
    /// A plugin logged a record.
    Log {
        /// The plugin's name.
        plugin: Arc<str>,
        /// How much it matters.
        level: Level,
        /// The logger's name.
        target: String,
        /// The text.
        message: String,
    },
    /// The process of a sidecar that had been ready ended, and all that it had started. Nothing
    /// comes from that process after this.
    Exited(PluginExited),
    /// A sidecar that had ended unasked is ready again, as a new process.
    Restarted(PluginRestarted),
    /// A sidecar that had ended unasked could not be started again. The next attempt follows.
    NotRestarted {
        /// The plugin's name.
        plugin: Arc<str>,
        /// Why.
        error: Arc<PluginError>,
    },
    /// A plugin failed too often. Its calls fail with `breaker_open`; then it is tried with one.
    BreakerOpened {
        /// The plugin's name.
        plugin: Arc<str>,
        /// How long it is left alone.
        wait: Duration,
    },
    /// A cdylib's call outlived its deadline and occupies its thread; it can't be killed. The plugin
    /// answers `wedged` until the call returns. Reported once a call.
    Wedged {
        /// The plugin's name.
        plugin: Arc<str>,
        /// The method that does not return.
        method: String,
    },
}
