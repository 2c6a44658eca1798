//! Ctrl-C and SIGTERM of the harness as a value that its loops look at.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// The exit code of a command that `signal` ended, as shells count it.
#[must_use]
pub const fn exit_code(signal: Signal) -> u8 {
    // Signals are less than 128.
    128 | signal as u8
}

/// Whether someone asked the harness to stop. The default is never asked.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicI32>);

impl Interrupt {
    /// Takes SIGINT, SIGTERM and SIGHUP over for the whole process: the first one asks, the second
    /// one exits at once (the guards of what was started see to the rest). To be called before any
    /// other thread is started, because it is from this thread that they inherit the mask; the
    /// thread it starts lives as long as the process.
    ///
    /// # Errors
    /// When the signals cannot be blocked.
    pub fn on_signals() -> nix::Result<Self> {
        let signals: SigSet =
            [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        signals.thread_block()?;
        let interrupt = Self::default();
        let asked = interrupt.clone();
        thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                if asked.0.swap(signal as i32, Ordering::Relaxed) != 0 {
                    process::exit(exit_code(signal).into());
                }
            }
        });
        Ok(interrupt)
    }

    /// One that this signal has asked.
    #[cfg(test)]
    pub(crate) fn asked(signal: Signal) -> Self {
        Self(Arc::new(AtomicI32::new(signal as i32)))
    }

    /// The signal that asked, if one did.
    #[must_use]
    pub fn requested(&self) -> Option<Signal> {
        Signal::try_from(self.0.load(Ordering::Relaxed)).ok()
    }
}
