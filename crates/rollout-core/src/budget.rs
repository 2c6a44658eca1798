//! The time budget: four durations, one deadline formula, and the rules that keep them sound.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Mono;

/// The shortest accepted `heartbeat_interval`: below it the scan tick is finer than timers are.
pub const MIN_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(10);
/// The longest accepted value of any field: a day.
pub const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
/// Beats a worker may miss in a row before it is suspected.
pub const MISSED_BEATS_TO_SUSPECT: u32 = 3;

/// The durations of the `[timing]` table, the same in the coordinator's and the workers' files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TimeBudget {
    /// A worker beats this often; `10ms` or more, and `clock_skew_budget` is less than twice as long.
    #[serde(with = "crate::duration::AsText")]
    pub heartbeat_interval: Duration,
    /// A worker not acknowledged this long fences itself; less than `coordinator_failure_timeout`, and
    /// `heartbeat_interval` twice or more.
    #[serde(with = "crate::duration::AsText")]
    pub worker_self_fence_timeout: Duration,
    /// How overdue a worker may be; `heartbeat_interval` twice, and `clock_skew_budget` added, or more.
    #[serde(with = "crate::duration::AsText")]
    pub coordinator_failure_timeout: Duration,
    /// Added to `coordinator_failure_timeout`; also the skew of wall clocks above which
    /// `clock_skew_exceeded` is said.
    #[serde(with = "crate::duration::AsText")]
    pub clock_skew_budget: Duration,
}

impl Default for TimeBudget {
    /// The D-TIME-01 defaults.
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(500),
            worker_self_fence_timeout: Duration::from_secs(4),
            coordinator_failure_timeout: Duration::from_secs(5),
            clock_skew_budget: Duration::from_millis(250),
        }
    }
}

/// A broken rule between the durations of a [`TimeBudget`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{left} ({}) must be {must} {right} ({})", text(*.left_value), text(*.right_value))]
pub struct BudgetError {
    /// The first field, or expression over fields.
    pub left: &'static str,
    /// Its value.
    pub left_value: Duration,
    /// The relation that does not hold.
    pub must: &'static str,
    /// The second field, or expression over fields.
    pub right: &'static str,
    /// Its value.
    pub right_value: Duration,
}

fn text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// How a worker's link behaves when it is not answered, derived from the fence so that a lost
/// connection is noticed and replaced before the fence falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    /// A beat not acknowledged this long means that the link is dead.
    pub ack_timeout: Duration,
    /// TCP may take this long, and so may a whole first attempt, TLS and HTTP/2 included.
    pub connect_timeout: Duration,
    /// The longest that a later attempt may take, with a coordinator that is reached and has its
    /// hands full.
    pub patience_max: Duration,
    /// The first pause between two attempts, before jitter.
    pub backoff_initial: Duration,
    /// The longest pause between two attempts.
    pub backoff_max: Duration,
}

impl TimeBudget {
    /// When the next beat is due, if one was accepted at `accepted`.
    #[must_use]
    pub fn due(&self, accepted: Mono) -> Mono {
        accepted + self.heartbeat_interval
    }

    /// How overdue a worker may be before it has failed: the sum of time-out and skew budget.
    #[must_use]
    pub fn tolerance(&self) -> Duration {
        self.coordinator_failure_timeout.saturating_add(self.clock_skew_budget)
    }

    /// The instant after which a worker has failed, if its last beat was accepted at `accepted`.
    /// Every verdict, judge and document takes the deadline from here.
    #[must_use]
    pub fn deadline(&self, accepted: Mono) -> Mono {
        self.due(accepted) + self.tolerance()
    }

    /// The instant from which a worker is suspected, if its last beat was accepted at `accepted`.
    #[must_use]
    pub fn suspicion(&self, accepted: Mono) -> Mono {
        accepted + self.heartbeat_interval * MISSED_BEATS_TO_SUSPECT
    }

    /// The longest pause between two looks at the deadlines.
    #[must_use]
    pub fn scan_tick(&self) -> Duration {
        self.heartbeat_interval / 2
    }

    /// How a worker's link notices and replaces a dead connection: noticing, one pause and one
    /// attempt end within three quarters of the fence.
    #[must_use]
    pub fn reconnect(&self) -> Reconnect {
        let share = self.worker_self_fence_timeout / 4;
        let backoff_max = share.min(Duration::from_millis(500));
        Reconnect {
            ack_timeout: share,
            connect_timeout: share,
            patience_max: self.worker_self_fence_timeout,
            backoff_initial: backoff_max.min(Duration::from_millis(50)),
            backoff_max,
        }
    }

    /// Checks the rules between the fields.
    ///
    /// # Errors
    /// The first broken rule, with both fields and both values.
    pub fn validate_cross_fields(&self) -> Result<(), BudgetError> {
        let interval = ("heartbeat_interval", self.heartbeat_interval);
        let fence = ("worker_self_fence_timeout", self.worker_self_fence_timeout);
        let failure = ("coordinator_failure_timeout", self.coordinator_failure_timeout);
        let skew = ("clock_skew_budget", self.clock_skew_budget);
        let zero = ("zero", Duration::ZERO);
        let day = ("the upper limit", MAX_DURATION);
        for field in [interval, fence, failure, skew] {
            rule(field, "greater than", zero, |a, b| a > b)?;
            rule(field, "at most", day, |a, b| a <= b)?;
        }
        let finest = ("the lower limit", MIN_HEARTBEAT_INTERVAL);
        rule(interval, "at least", finest, |a, b| a >= b)?;
        let two_beats = ("2 * heartbeat_interval", self.heartbeat_interval * 2);
        let floor = (
            "2 * heartbeat_interval + clock_skew_budget",
            self.heartbeat_interval * 2 + self.clock_skew_budget,
        );
        rule(fence, "less than", failure, |a, b| a < b)?;
        rule(skew, "less than", two_beats, |a, b| a < b)?;
        rule(failure, "at least", floor, |a, b| a >= b)?;
        rule(fence, "at least", two_beats, |a, b| a >= b)
    }
}

type Field = (&'static str, Duration);

fn rule(
    (left, left_value): Field,
    must: &'static str,
    (right, right_value): Field,
    holds: impl Fn(Duration, Duration) -> bool,
) -> Result<(), BudgetError> {
    if holds(left_value, right_value) {
        return Ok(());
    }
    Err(BudgetError { left, left_value, must, right, right_value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn with_the_defaults_the_verdict_falls_5750_ms_after_the_last_beat() {
        let budget = TimeBudget::default();
        assert_eq!(budget.validate_cross_fields(), Ok(()));
        let beat = Mono(7);
        assert_eq!(budget.deadline(beat), beat + ms(5750));
        assert_eq!(budget.deadline(beat), budget.due(beat) + ms(5250));
        assert_eq!(budget.suspicion(beat), beat + ms(1500));
        assert_eq!(budget.scan_tick(), ms(250));
    }

    #[test]
    fn each_broken_rule_names_both_fields_and_both_values() {
        let good = TimeBudget::default();
        let cases = [
            (
                TimeBudget { worker_self_fence_timeout: ms(5000), ..good },
                "worker_self_fence_timeout (5s) must be less than coordinator_failure_timeout (5s)",
            ),
            (
                TimeBudget { clock_skew_budget: ms(1000), ..good },
                "clock_skew_budget (1s) must be less than 2 * heartbeat_interval (1s)",
            ),
            (
                TimeBudget {
                    coordinator_failure_timeout: ms(1249),
                    worker_self_fence_timeout: ms(1248),
                    ..good
                },
                "coordinator_failure_timeout (1s 249ms) must be at least \
                 2 * heartbeat_interval + clock_skew_budget (1s 250ms)",
            ),
            (
                TimeBudget { worker_self_fence_timeout: ms(999), ..good },
                "worker_self_fence_timeout (999ms) must be at least 2 * heartbeat_interval (1s)",
            ),
            (
                TimeBudget { clock_skew_budget: ms(0), ..good },
                "clock_skew_budget (0s) must be greater than zero (0s)",
            ),
            (
                TimeBudget { heartbeat_interval: ms(1), ..good },
                "heartbeat_interval (1ms) must be at least the lower limit (10ms)",
            ),
            (
                TimeBudget { coordinator_failure_timeout: MAX_DURATION + ms(1), ..good },
                "coordinator_failure_timeout (1day 1ms) must be at most the upper limit (1day)",
            ),
        ];
        for (budget, message) in cases {
            assert_eq!(budget.validate_cross_fields().unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn what_validates_leaves_room_to_reconnect_before_the_fence_and_to_fence_before_the_verdict(
            interval in 10u64..5_000, skew in 1u64..10_000, fence in 0u64..20_000, failure in 1u64..20_000,
        ) {
            let skew = skew.min(2 * interval - 1);
            let fence = 2 * interval + fence;
            let budget = TimeBudget {
                heartbeat_interval: ms(interval),
                worker_self_fence_timeout: ms(fence),
                coordinator_failure_timeout: ms((fence + failure).max(2 * interval + skew)),
                clock_skew_budget: ms(skew),
            };
            prop_assert_eq!(budget.validate_cross_fields(), Ok(()));
            let link = budget.reconnect();
            prop_assert!(link.ack_timeout + link.backoff_max + link.connect_timeout < ms(fence));
            prop_assert!(link.ack_timeout <= ms(fence) / 4 && !link.ack_timeout.is_zero());
            prop_assert!(!link.backoff_initial.is_zero());
            prop_assert!(Mono(0) + ms(fence) < budget.deadline(Mono(0)));
            prop_assert!(budget.suspicion(Mono(0)) < budget.deadline(Mono(0)));
        }
    }
}
