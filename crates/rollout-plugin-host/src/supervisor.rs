//! What becomes of a sidecar: a value that is told what happened and when, and says what to do next. It
//! starts nothing and knows no clock.

use std::time::Duration;

use rollout_core::Mono;

use crate::breaker::Breaker;
use crate::manifest::Restart;

/// What is to be done, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// A process is to be started, and has not said yet that it is ready.
    Starting,
    /// A process answers calls.
    Ready,
    /// The process ended; the next is started at this instant.
    Backoff { until: Mono },
    /// Too many ended; one is tried at this instant.
    Open { until: Mono },
    /// The worker asked it to end. Nothing is started any more.
    Draining,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Input {
    /// The process is ready.
    Ready,
    /// The process ended unasked, or did not become ready.
    Ended {
        /// Whether it answered a call before.
        answered: bool,
        /// From 0 to 1: where in its range the pause is to be.
        jitter: f64,
    },
    /// Time has passed.
    Due,
    /// The worker asks it to end.
    Stop,
}

/// A sidecar's fate.
#[derive(Debug)]
pub(crate) struct Supervisor {
    state: State,
    breaker: Breaker,
}

impl Supervisor {
    /// For a sidecar that has just become ready.
    pub(crate) fn ready(restart: Restart) -> Self {
        Self { state: State::Ready, breaker: Breaker::new(restart) }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Whether the breaker was open, and the process that is started or ready now decides whether it
    /// is closed.
    pub(crate) fn on_trial(&self) -> bool {
        self.breaker.on_trial()
    }

    /// How many crashes count at present.
    pub(crate) fn crashes(&self) -> usize {
        self.breaker.crashes()
    }

    /// Takes in what happened. What can't happen in a state changes nothing.
    pub(crate) fn on(&mut self, now: Mono, input: Input) {
        self.state = match (self.state, input) {
            (_, Input::Stop) | (State::Draining, _) => State::Draining,
            (State::Starting, Input::Ready) => State::Ready,
            (State::Starting | State::Ready, Input::Ended { answered, jitter }) => {
                if answered {
                    self.breaker.answered();
                }
                match self.breaker.crashed(now) {
                    Some(until) => State::Open { until },
                    None => State::Backoff { until: now + self.pause(jitter) },
                }
            }
            (State::Backoff { until }, Input::Due) if until <= now => State::Starting,
            (State::Open { .. }, Input::Due) if self.breaker.admit(now).is_ok() => State::Starting,
            (state, _) => state,
        };
    }

    /// The pause before the next start: twice as long each time, and at random in its upper half, so
    /// that plugins that died of one cause do not come back as one.
    fn pause(&self, jitter: f64) -> Duration {
        let Restart { backoff_initial, backoff_max, .. } = *self.breaker.restart();
        let doublings = u32::try_from(self.breaker.crashes().saturating_sub(1)).unwrap_or(u32::MAX);
        let whole = 2u32
            .checked_pow(doublings)
            .and_then(|factor| backoff_initial.checked_mul(factor))
            .map_or(backoff_max, |pause| pause.min(backoff_max));
        whole / 2 + (whole / 2).mul_f64(jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RESTART: Restart = Restart {
        backoff_initial: Duration::from_millis(10),
        backoff_max: Duration::from_millis(500),
        max_crashes: 4,
        window: Duration::from_secs(2),
    };

    fn inputs() -> impl Strategy<Value = Vec<(u64, Input)>> {
        let ended = (any::<bool>(), 0.0..=1.0f64)
            .prop_map(|(answered, jitter)| Input::Ended { answered, jitter });
        let input = prop_oneof![
            20 => Just(Input::Ready),
            40 => ended,
            40 => Just(Input::Due),
            1 => Just(Input::Stop),
        ];
        let after = prop_oneof![0u64..50, 0u64..3000];
        prop::collection::vec((after, input), 0..80)
    }

    fn end(supervisor: &mut Supervisor, now: Mono, answered: bool, jitter: f64) {
        supervisor.on(now, Input::Ended { answered, jitter });
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_jitter_takes_at_most_half() {
        let restart = Restart { max_crashes: 100, ..RESTART };
        for (jitter, pauses) in
            [(1.0, [10, 20, 40, 80, 160, 320, 500, 500]), (0.0, [5, 10, 20, 40, 80, 160, 250, 250])]
        {
            let mut supervisor = Supervisor::ready(restart.clone());
            for pause in pauses {
                end(&mut supervisor, Mono(7), false, jitter);
                let until = Mono(7) + Duration::from_millis(pause);
                assert_eq!(supervisor.state(), State::Backoff { until });
                supervisor.on(until, Input::Due);
                assert_eq!(supervisor.state(), State::Starting);
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_is_started_early_nor_after_a_stop_and_the_breaker_opens_exactly_when_due(
            inputs in inputs(),
        ) {
            let mut supervisor = Supervisor::ready(RESTART);
            let mut now = Mono(1 << 40);
            // The model: the crashes that count, and whether the next one decides alone.
            let (mut crashes, mut trial): (Vec<Mono>, bool) = (Vec::new(), false);
            for (after, input) in inputs {
                now += Duration::from_millis(after);
                let before = supervisor.state();
                supervisor.on(now, input);
                let state = supervisor.state();
                if input == Input::Stop || before == State::Draining {
                    prop_assert_eq!(state, State::Draining);
                    continue;
                }
                match (before, input) {
                    (State::Starting, Input::Ready) => prop_assert_eq!(state, State::Ready),
                    (State::Starting | State::Ready, Input::Ended { answered, .. }) => {
                        if trial && answered {
                            (crashes, trial) = (Vec::new(), false);
                        }
                        crashes.push(now);
                        crashes.retain(|at| now.since(*at) <= RESTART.window);
                        let opens = trial || crashes.len() >= RESTART.max_crashes;
                        trial = opens;
                        match state {
                            State::Open { until } => {
                                prop_assert!(opens);
                                prop_assert_eq!(until, now + RESTART.backoff_max);
                            }
                            State::Backoff { until } => {
                                prop_assert!(!opens);
                                prop_assert!(until <= now + RESTART.backoff_max);
                                prop_assert!(until >= now + RESTART.backoff_initial / 2);
                            }
                            other => prop_assert!(false, "{:?}", other),
                        }
                    }
                    (State::Backoff { until } | State::Open { until }, Input::Due) => {
                        let want = if until <= now { State::Starting } else { before };
                        prop_assert_eq!(state, want);
                    }
                    _ => prop_assert_eq!(state, before),
                }
                if state == State::Starting || state == State::Ready {
                    prop_assert_eq!(supervisor.on_trial(), trial);
                }
            }
        }
    }
}
