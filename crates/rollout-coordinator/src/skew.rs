//! How far workers' wall clocks are from this coordinator's: measured for people. Nothing is decided
//! on it.
//!
//! A message takes its time, and waits in a socket while either side stands still, so that a sample
//! is too low by the delay and never too high. A single one proves little; what is reported has
//! lasted over some intervals, and is the highest of them.

use std::collections::HashMap;
use std::time::Duration;

use rollout_core::{Mono, TimeBudget, WorkerId};

use crate::liveness::fold::Fold;

/// Intervals over which every sample has to be beyond the budget, on one side.
const INTERVALS: u32 = 3;

/// The skew of every worker that says what time it has.
#[derive(Debug)]
pub(crate) struct Skews {
    budget_ms: i64,
    lasting: Duration,
    workers: HashMap<WorkerId, Skew, Fold>,
}

/// One worker's, in one epoch.
#[derive(Debug)]
struct Skew {
    epoch: u64,
    /// The unbroken row of samples beyond the budget.
    row: Option<Row>,
    /// The side on which the budget is exceeded, and said to be; until a sample lies within half of
    /// it, so that one that wavers about the budget is no news.
    reported: Option<Side>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    side: Side,
    since: Mono,
    highest: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Behind,
    Ahead,
}

impl Skews {
    pub(crate) fn new(budget: &TimeBudget) -> Self {
        Self {
            budget_ms: i64::try_from(budget.clock_skew_budget.as_millis()).unwrap_or(i64::MAX),
            lasting: budget.heartbeat_interval * INTERVALS,
            workers: HashMap::default(),
        }
    }

    /// The worker says in its `epoch` that its clock shows `theirs`, and `ours` shows this, both in
    /// milliseconds. How far it is ahead, if that is to be reported: once for each time that the
    /// budget is exceeded.
    pub(crate) fn sample(
        &mut self,
        now: Mono,
        worker: WorkerId,
        epoch: u64,
        theirs: u64,
        ours: u64,
    ) -> Option<i64> {
        let fresh = || Skew { epoch, row: None, reported: None };
        let skew = self.workers.entry(worker).or_insert_with(fresh);
        if skew.epoch != epoch {
            *skew = fresh();
        }
        let ahead = i128::from(theirs) - i128::from(ours);
        let ahead = i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX });
        skew.sample(now, ahead, self.budget_ms, self.lasting)
    }

    /// The worker's epoch is over.
    pub(crate) fn forget(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
    }
}

impl Skew {
    fn sample(&mut self, now: Mono, ahead: i64, budget: i64, lasting: Duration) -> Option<i64> {
        let budget = budget.unsigned_abs();
        if ahead.unsigned_abs() <= budget {
            self.row = None;
            if ahead.unsigned_abs() <= budget / 2 {
                self.reported = None;
            }
            return None;
        }
        let side = if ahead < 0 { Side::Behind } else { Side::Ahead };
        let before = self.row.filter(|row| row.side == side);
        let mut row = before.unwrap_or(Row { side, since: now, highest: ahead });
        row.highest = row.highest.max(ahead);
        self.row = Some(row);
        if self.reported == Some(side) || now.since(row.since) < lasting {
            return None;
        }
        self.reported = Some(side);
        Some(row.highest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: u64 = 43_200_000;

    fn at(ms: u64) -> Mono {
        Mono(0) + Duration::from_millis(ms)
    }

    /// The reports of one worker that sends such samples, (milliseconds, skew), in one epoch.
    fn reports(samples: &[(u64, i64)]) -> Vec<(u64, i64)> {
        let mut skews = Skews::new(&TimeBudget::default());
        let worker = WorkerId::generate();
        let report = |&(ms, skew): &(u64, i64)| {
            let theirs = NOON.saturating_add_signed(skew);
            Some((ms, skews.sample(at(ms), worker, 1, theirs, NOON)?))
        };
        samples.iter().filter_map(report).collect()
    }

    /// A beat every interval.
    fn beats(skews: &[i64]) -> Vec<(u64, i64)> {
        skews.iter().enumerate().map(|(n, skew)| (n as u64 * 500, *skew)).collect()
    }

    #[test]
    fn an_hour_either_way_is_reported_once() {
        for hour in [3_600_000, -3_600_000] {
            let delayed = [hour - 3, hour - 1, hour - 2, hour - 9];
            assert_eq!(reports(&beats(&delayed.repeat(10))), [(1_500, hour - 1)]);
        }
    }

    #[test]
    fn within_the_budget_nothing_is_reported_and_beyond_it_only_what_lasts() {
        assert_eq!(reports(&beats(&[250, -250].repeat(10))), []);
        assert_eq!(reports(&beats(&[251, 251, 251, 0].repeat(10))), []);
        assert_eq!(reports(&beats(&[251, -251].repeat(10))), []);
    }

    #[test]
    fn what_waited_in_the_socket_while_the_coordinator_stood_still_is_no_skew() {
        let waited: Vec<(u64, i64)> = (0..20).map(|n| (0, -10_000 + n * 500)).collect();
        let after = [(500, 0), (1_000, 0), (2_000, -1), (2_500, 0)];
        assert_eq!(reports(&[&waited[..], &after].concat()), []);
    }

    #[test]
    fn a_clock_set_right_and_wrong_again_or_wrong_the_other_way_is_reported_anew() {
        let again = [[900; 8], [0; 8], [900; 8]].concat();
        assert_eq!(reports(&beats(&again)), [(1_500, 900), (9_500, 900)]);
        let other = [[900; 8], [-900; 8]].concat();
        assert_eq!(reports(&beats(&other)), [(1_500, 900), (5_500, -900)]);
        let wavers = [[260; 8], [240; 8], [260; 8]].concat();
        assert_eq!(reports(&beats(&wavers)), [(1_500, 260)]);
    }

    #[test]
    fn each_epoch_is_told_of_its_own_and_no_number_on_the_wire_is_too_large() {
        let mut skews = Skews::new(&TimeBudget::default());
        let worker = WorkerId::generate();
        for epoch in [1, 2] {
            assert_eq!(skews.sample(at(epoch * 10_000), worker, epoch, u64::MAX, 0), None);
            let reported = skews.sample(at(epoch * 10_000 + 1_500), worker, epoch, u64::MAX, 0);
            assert_eq!(reported, Some(i64::MAX));
        }
        skews.forget(worker);
        assert!(skews.workers.is_empty());
        assert_eq!(skews.sample(at(0), worker, 3, 0, u64::MAX), None);
        assert_eq!(skews.sample(at(9_000), worker, 3, 0, u64::MAX), Some(i64::MIN));
    }

    proptest! {
        /// Against the definition, looked up in all the samples each time.
        #[test]
        fn a_report_has_lasted_on_one_side_and_is_not_repeated(
            steps in prop::collection::vec((1u64..900, -600i64..600), 1..80)
        ) {
            let mut now = 0;
            let samples: Vec<_> = steps
                .iter()
                .map(|(pause, skew)| {
                    now += pause;
                    (now, *skew)
                })
                .collect();
            let found = reports(&samples);
            let mut expected: Vec<(u64, i64)> = Vec::new();
            for (n, &(ms, skew)) in samples.iter().enumerate() {
                let beyond = |s: i64| s.abs() > 250 && s.signum() == skew.signum();
                let row = samples[..=n].iter().rev().take_while(|(_, s)| beyond(*s));
                let row: Vec<_> = row.copied().collect();
                let lasts = row.last().is_some_and(|(since, _)| ms - since >= 1_500);
                let news = expected.last().is_none_or(|&(said, was)| {
                    was.signum() != skew.signum()
                        || samples[..n].iter().any(|(at, s)| *at > said && s.abs() <= 125)
                });
                if lasts && news {
                    expected.push((ms, row.iter().map(|(_, s)| *s).max().unwrap()));
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
