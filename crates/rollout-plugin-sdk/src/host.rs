//! What the worker offers to a plugin.

use std::mem::offset_of;
use std::sync::{Arc, PoisonError, RwLock};

use rollout_plugin_abi as abi;

use crate::buf::give;
use crate::{Error, Reply};

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

    /// Sends a part of a call.
    pub(crate) fn part(&self, call: u64, Reply { result, payload }: Reply) -> Result<(), Error> {
        let (result, payload) = (give(result), give(payload));
        let sent = self.with(|host| {
            // SAFETY: checked to be there; the buffers are given away.
            let part =
                covers(host, offset_of!(abi::Host, part)).then(|| unsafe { (*host).part })??;
            // SAFETY: as above, and the host lives.
            Some(unsafe { part((*host).ctx, call, result, payload) })
        });
        match sent {
            Some(abi::OK) => Ok(()),
            Some(abi::CANCELLED) => Err(Error::cancelled()),
            Some(_) => Err(Error::new("the part is larger than `limits.max_frame`")),
            None => Err(Error::new("this worker is too old to take parts")),
        }
    }

    /// Says that a call is not stuck; a worker that is too old for it is not told.
    pub(crate) fn progress(&self, call: u64) {
        self.with(|host| {
            // SAFETY: checked to be there, and the host lives.
            unsafe {
                let at = offset_of!(abi::Host, progress);
                let progress = covers(host, at).then(|| (*host).progress)??;
                progress((*host).ctx, call);
            }
            Some(())
        });
    }

    /// Uses the host while it is there: held over the call so that `close` waits for it, because the
    /// host is freed right after.
    fn with<T>(&self, work: impl FnOnce(*const abi::Host) -> Option<T>) -> Option<T> {
        let open = self.0.read().unwrap_or_else(PoisonError::into_inner);
        open.and_then(|Raw(host)| work(host))
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
        let (target, message) =
            (abi::Slice::of(target.as_bytes()), abi::Slice::of(message.as_bytes()));
        self.with(|host| {
            // SAFETY: the host lives; version 1.0 has `log`, and no later one lacks it.
            unsafe { ((*host).log?)((*host).ctx, level, target, message) };
            Some(())
        });
    }

    /// Ends the connection; when this returns, nobody is inside the worker's functions.
    pub(crate) fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Whether the host is new enough to have the function at this place.
fn covers(host: *const abi::Host, at: usize) -> bool {
    // SAFETY: the caller's host lives, and every version has its size.
    unsafe { (*host).struct_size as usize >= at + size_of::<usize>() }
}
