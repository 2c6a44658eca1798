//! What the worker offers to a plugin.

use std::sync::{Arc, PoisonError, RwLock};

use rollout_plugin_abi as abi;

/// How much a log record matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Detail for whoever debugs the plugin.
    Trace,
    /// Detail for whoever debugs a run.
    Debug,
    /// The normal course.
    Info,
    /// Worth a look.
    Warn,
    /// Something failed.
    Error,
}

/// The plugin's way to the worker. It may be kept, cloned and sent to threads; once the plugin has
/// been dropped it does nothing.
#[derive(Debug, Clone)]
pub struct Host(Arc<RwLock<Option<Raw>>>);

#[derive(Debug, Clone, Copy)]
struct Raw(*const abi::Host);

// SAFETY: the ABI allows the host's functions to be called from any thread.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Host {
    /// # Safety
    /// `raw` is null or keeps the ABI's promises until [`close`](Self::close) has returned.
    pub(crate) unsafe fn from_raw(raw: *const abi::Host) -> Self {
        Self(Arc::new(RwLock::new((!raw.is_null()).then_some(Raw(raw)))))
    }

    /// Logs `message`; `target` names the part of the plugin that speaks.
    pub fn log(&self, level: Level, target: &str, message: &str) {
        let level = match level {
            Level::Trace => abi::level::TRACE,
            Level::Debug => abi::level::DEBUG,
            Level::Info => abi::level::INFO,
            Level::Warn => abi::level::WARN,
            Level::Error => abi::level::ERROR,
        };
        // Held over the call so that `close` waits for it: the host is freed right after.
        let open = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(Raw(host)) = *open else { return };
        let (target, message) =
            (abi::Slice::of(target.as_bytes()), abi::Slice::of(message.as_bytes()));
        // SAFETY: not closed, so `host` lives; version 1.0 has `log`, and no later one lacks it.
        unsafe {
            if let Some(log) = (*host).log {
                log((*host).ctx, level, target, message);
            }
        }
    }

    /// Ends the connection; when this returns, nobody is inside the worker's functions.
    pub(crate) fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
