//! The coordinator's watch over itself: when it was stopped or starved, that is nobody's fault.
//!
//! Pure. Two things show that it runs: the engine looks, and pulses, which a task among those that
//! serve the connections sends every [`TICK`] by the way that beats take. When either is late, all
//! the time since is a stall. It lasts until a pulse has come through that was sent since: then what
//! waited in the sockets has been read. Until then nothing expires, and the time is credited.
//!
//! What is held while the engine itself runs is bounded by [`LONGEST_HOLD`]: connections that are
//! served too late for ever, or not at all, would otherwise put off every verdict for ever. When
//! that is used up, only what the engine was stopped for counts, until pulses have been coming in
//! time for as long.

use std::time::Duration;

use rollout_core::Mono;

/// The longest the engine sleeps, and the pause between two pulses: how often it proves that it
/// runs.
pub const TICK: Duration = Duration::from_millis(50);
/// Lateness above which the time is credited.
pub const TOLERATED: Duration = Duration::from_millis(250);
/// Later than so, it is a stall.
const LATE: Duration = TICK.saturating_add(TOLERATED);
/// For so long altogether verdicts are held for connections that are not served in time while the
/// engine runs. Each pulse that comes in time gives back the time since the last.
pub const LONGEST_HOLD: Duration = Duration::from_secs(60);
/// A stall that does not end is reported this often.
const UNSAID: Duration = Duration::from_secs(1);

/// Measures how late the engine and the pulses are.
#[derive(Debug)]
pub struct Watchdog {
    looked: Mono,
    pulsed: Mono,
    stall: Option<Stall>,
    /// How much of [`LONGEST_HOLD`] is used.
    held: Duration,
    /// Whether all of it was, and it has not been given back yet.
    spent: bool,
}

#[derive(Debug)]
struct Stall {
    /// What is to be reported of it.
    lasted: Duration,
    /// When the engine ran again, for the last time.
    resumed: Mono,
    /// What of it was not reported when it is reported although it goes on.
    unsaid: Duration,
    /// Whether it is over: what waited in the sockets has been read, or has been waited for long
    /// enough.
    drained: bool,
}

impl Watchdog {
    /// The coordinator runs at `now`.
    #[must_use]
    pub const fn new(now: Mono) -> Self {
        Self { looked: now, pulsed: now, stall: None, held: Duration::ZERO, spent: false }
    }

    /// A pulse came through that was sent at `sent`.
    pub fn pulse(&mut self, now: Mono, sent: Mono) {
        let pause = now.since(self.pulsed);
        self.pulsed = now;
        if let Some(stall) = &mut self.stall {
            stall.drained |= sent >= stall.resumed;
        } else if pause <= LATE {
            self.held = self.held.saturating_sub(pause);
            self.spent &= !self.held.is_zero();
        }
    }

    /// The engine looks at `now`; how much time is to be credited for a stall, nothing when there
    /// is none. A stall is the whole pause, not only what exceeds the tolerance.
    pub fn look(&mut self, now: Mono) -> Duration {
        let known = self.is_stalled() || self.spent;
        let seen = if known { self.looked } else { self.looked.min(self.pulsed) };
        let (stopped, pause) = (now.since(self.looked) > LATE, now.since(seen));
        self.looked = now;
        if !self.is_stalled() && pause <= LATE {
            return Duration::ZERO;
        }
        if !stopped {
            self.held += pause;
            self.spent |= self.held >= LONGEST_HOLD;
        }
        match &mut self.stall {
            None => {
                let (lasted, unsaid) = (pause, Duration::ZERO);
                self.stall = Some(Stall { lasted, resumed: now, unsaid, drained: self.spent });
            }
            Some(stall) => {
                stall.lasted += pause;
                stall.unsaid += pause;
                if stopped {
                    (stall.resumed, stall.drained) = (now, false);
                }
                stall.drained |= self.spent;
            }
        }
        pause
    }

    /// How long a stall lasted that is over, or goes on for so long that it has to be said: all
    /// that was credited, and none of it twice.
    pub fn report(&mut self) -> Option<Duration> {
        let stall = self.stall.as_mut()?;
        if stall.drained {
            self.pulsed = self.looked;
            return self.stall.take().map(|stall| stall.lasted);
        }
        (stall.unsaid >= UNSAID).then(|| {
            stall.unsaid = Duration::ZERO;
            std::mem::take(&mut stall.lasted)
        })
    }

    /// Whether a stall goes on, so that nothing may expire.
    #[must_use]
    pub const fn is_stalled(&self) -> bool {
        self.stall.is_some()
    }
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
