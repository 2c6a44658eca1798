//! Watches the harness itself: a judge that was not running cannot say that an event came late.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rollout_core::{Clock, SystemClock};

/// How often the watchdog looks.
const TICK: Duration = Duration::from_millis(20);

/// A thread that measures how late it is woken.
#[derive(Debug)]
pub struct Watchdog {
    stop: SyncSender<()>,
    thread: JoinHandle<Duration>,
}

impl Watchdog {
    /// Starts to measure.
    #[must_use]
    pub fn start() -> Self {
        let (stop, stopped) = sync_channel(1);
        let thread = thread::spawn(move || {
            let mut worst = Duration::ZERO;
            loop {
                let asleep = SystemClock.now();
                let woken = stopped.recv_timeout(TICK);
                worst = worst.max(SystemClock.now().since(asleep).saturating_sub(TICK));
                if woken != Err(RecvTimeoutError::Timeout) {
                    return worst;
                }
            }
        });
        Self { stop, thread }
    }

    /// Ends the measurement: the worst lateness seen.
    #[must_use]
    pub fn stop(self) -> Duration {
        drop(self.stop);
        self.thread.join().unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopping_does_not_wait_for_the_tick_and_a_quiet_machine_is_not_late() {
        let dog = Watchdog::start();
        thread::sleep(TICK * 3);
        assert!(dog.stop() < Duration::from_secs(1));
    }
}
