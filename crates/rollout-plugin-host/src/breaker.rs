//! When a plugin that keeps failing is left alone. A value that is told and asked; it knows no clock.
//!
//! Closed, it counts crashes; `max_crashes` within `window` open it for `backoff_max`. What comes next
//! is a trial (half-open): an answer closes it and forgets the crashes, a crash opens it again.

use std::collections::VecDeque;

use rollout_core::Mono;

use crate::manifest::Restart;

/// Whether a plugin is to be called.
#[derive(Debug)]
pub(crate) struct Breaker {
    restart: Restart,
    /// Those that still count at the latest of them.
    crashes: VecDeque<Mono>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Mono },
    Trial,
}

impl Breaker {
    pub(crate) fn new(restart: Restart) -> Self {
        Self { restart, crashes: VecDeque::new(), state: State::Closed }
    }

    pub(crate) fn restart(&self) -> &Restart {
        &self.restart
    }

    /// The plugin failed; until when it is to be left alone, if it is.
    pub(crate) fn crashed(&mut self, now: Mono) -> Option<Mono> {
        self.crashes.push_back(now);
        let oldest = now.before(self.restart.window);
        while self.crashes.front().is_some_and(|at| *at < oldest) {
            self.crashes.pop_front();
        }
        if self.state == State::Closed && self.crashes.len() < self.restart.max_crashes {
            return None;
        }
        // More than open it are of no use, and a trial may fail for ever.
        self.crashes.truncate(self.restart.max_crashes);
        let until = now + self.restart.backoff_max;
        self.state = State::Open { until };
        Some(until)
    }

    /// The plugin gave an answer, which is all that a trial is for.
    pub(crate) fn answered(&mut self) {
        if self.state == State::Trial {
            self.state = State::Closed;
            self.crashes.clear();
        }
    }

    /// Whether the plugin may be tried, which it is from then on. An error is when to ask again.
    pub(crate) fn admit(&mut self, now: Mono) -> Result<(), Mono> {
        match self.state {
            State::Open { until } if now < until => Err(until),
            State::Open { .. } => {
                self.state = State::Trial;
                Ok(())
            }
            State::Closed | State::Trial => Ok(()),
        }
    }

    /// Whether nothing is wrong, so that there is nothing to ask.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    pub(crate) fn on_trial(&self) -> bool {
        self.state == State::Trial
    }

    /// How many crashes counted at the latest of them.
    pub(crate) fn crashes(&self) -> usize {
        self.crashes.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Mono {
        Mono::default() + S * u32::try_from(seconds).unwrap()
    }

    fn breaker() -> Breaker {
        let [window, backoff_max] = [S * 10, S * 3];
        Breaker::new(Restart { window, backoff_max, max_crashes: 3, ..Restart::default() })
    }

    #[test]
    fn it_opens_at_the_last_crash_that_is_too_many_within_the_window_and_not_before() {
        let mut breaker = breaker();
        for second in [0, 6, 11, 17] {
            assert_eq!(breaker.crashed(at(second)), None, "two within any 10 s");
            assert_eq!(breaker.admit(at(second)), Ok(()));
        }
        assert_eq!(breaker.crashed(at(20)), Some(at(23)));
        assert_eq!(breaker.admit(at(22)), Err(at(23)));
        assert!(!breaker.on_trial());
    }

    #[test]
    fn a_trial_that_is_answered_closes_it_and_one_that_fails_opens_it_at_once() {
        let mut breaker = breaker();
        let _ = [0, 1, 2].map(|second| breaker.crashed(at(second)));
        assert_eq!(breaker.admit(at(5)), Ok(()));
        assert!(breaker.on_trial());
        assert_eq!(breaker.crashed(at(100)), Some(at(103)), "however long ago the others were");
        assert_eq!(breaker.admit(at(103)), Ok(()));
        breaker.answered();
        assert!(!breaker.on_trial());
        assert_eq!(breaker.crashed(at(104)), None, "the crashes before count no more");
    }
}
