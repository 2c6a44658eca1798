//! How far workers' wall clocks are from this coordinator's: measured for people. Nothing is decided
//! on it.
//!
//! A sample is an interval, as in NTP (RFC 5905, section 8). A worker read its clock before its
//! message was read here; and since it says the time only when all its beats are acknowledged, after
//! the last answer to it was given. Whatever a message waits for, a network, the door, a queue, makes
//! the interval wider and never wrong. From an answer to the next beat it is a heartbeat interval, by
//! which a clock may be behind unseen.
//!
//! What is reported is certain, the whole interval being beyond the budget, and has lasted.

use std::collections::HashMap;
use std::time::Duration;

use rollout_core::{Clock, Mono, TimeBudget, WorkerId};

use crate::liveness::fold::Fold;

/// Intervals over which every sample has to be beyond the budget, on one side.
const INTERVALS: u32 = 3;

/// What this coordinator's wall clock shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wall {
    /// At this instant.
    pub(crate) at: Mono,
    /// Milliseconds since 1970.
    pub(crate) unix_ms: u64,
}

impl Wall {
    pub(crate) fn read(clock: &dyn Clock) -> Self {
        Self { at: clock.now(), unix_ms: clock.unix_ms() }
    }

    /// How far a clock is ahead that showed `theirs` at `instant`, which is not after this one; in
    /// milliseconds.
    fn ahead(self, theirs: u64, instant: Mono) -> i64 {
        let ago = self.at.since(instant).as_millis().cast_signed();
        let ahead = i128::from(theirs) - (i128::from(self.unix_ms) - ago);
        i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX })
    }
}

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
    /// The last answer to it was given after this. None until its session's first.
    answered: Option<Mono>,
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

    /// The worker begins a session of its `epoch`, and says that its clock shows `theirs`, in
    /// milliseconds. Nobody knows how long that waited at the door. As [`beat`](Self::beat).
    pub(crate) fn register(
        &mut self,
        now: Mono,
        worker: WorkerId,
        epoch: u64,
        theirs: Option<u64>,
        wall: Wall,
    ) -> Option<i64> {
        if let Some(skew) = self.workers.get_mut(&worker) {
            skew.answered = None;
        }
        self.sample(now, worker, epoch, theirs?, wall)
    }

    /// A beat of the worker's `epoch`, read at `read` and acknowledged after that, perhaps says that
    /// its clock shows `theirs`, in milliseconds. How far it is ahead, if that is to be reported:
    /// once for each time that the budget is exceeded.
    pub(crate) fn beat(
        &mut self,
        read: Mono,
        worker: WorkerId,
        epoch: u64,
        theirs: Option<u64>,
        wall: Wall,
    ) -> Option<i64> {
        if let Some(theirs) = theirs {
            return self.sample(read, worker, epoch, theirs, wall);
        }
        if let Some(skew) = self.workers.get_mut(&worker) {
            skew.answered = Some(read);
        }
        None
    }

    /// A sample that was read at `read`; the answer to it is given after that.
    fn sample(
        &mut self,
        read: Mono,
        worker: WorkerId,
        epoch: u64,
        theirs: u64,
        wall: Wall,
    ) -> Option<i64> {
        let fresh = || Skew { epoch, answered: None, row: None, reported: None };
        let skew = self.workers.entry(worker).or_insert_with(fresh);
        if skew.epoch != epoch {
            *skew = fresh();
        }
        let most = skew.answered.replace(read).map(|answered| wall.ahead(theirs, answered));
        skew.sample(read, wall.ahead(theirs, read), most, self.budget_ms, self.lasting)
    }

    /// The worker's epoch is over.
    pub(crate) fn forget(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
    }
}

impl Skew {
    /// The clock is `least` ahead, and not further than `most`, if that is known.
    fn sample(
        &mut self,
        now: Mono,
        least: i64,
        most: Option<i64>,
        budget: i64,
        lasting: Duration,
    ) -> Option<i64> {
        let side = if least > budget {
            Side::Ahead
        } else if most.is_some_and(|most| most < -budget) {
            Side::Behind
        } else {
            self.row = None;
            if least.unsigned_abs() <= budget.unsigned_abs() / 2 {
                self.reported = None;
            }
            return None;
        };
        let before = self.row.filter(|row| row.side == side);
        let mut row = before.unwrap_or(Row { side, since: now, highest: least });
        row.highest = row.highest.max(least);
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

    fn shows(at: Mono, unix_ms: u64) -> Wall {
        Wall { at, unix_ms }
    }

    /// The reports of one worker that sends such samples, (milliseconds, skew), in one epoch, each
    /// in answer to something that was said in the same millisecond.
    fn reports(samples: &[(u64, i64)]) -> Vec<(u64, i64)> {
        let mut skews = Skews::new(&TimeBudget::default());
        let worker = WorkerId::generate();
        skews.register(at(0), worker, 1, Some(NOON), shows(at(0), NOON));
        let report = |&(ms, skew): &(u64, i64)| {
            let (now, theirs) = (at(ms), NOON.saturating_add_signed(skew));
            skews.beat(now, worker, 1, None, shows(now, NOON));
            Some((ms, skews.beat(now, worker, 1, Some(theirs), shows(now, NOON))?))
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
            let [first, second] = [0, 1_500].map(|ms| at(epoch * 10_000 + ms));
            let says = Some(u64::MAX);
            assert_eq!(skews.register(first, worker, epoch, says, shows(first, 0)), None);
            let reported = skews.beat(second, worker, epoch, says, shows(second, 0));
            assert_eq!(reported, Some(i64::MAX));
        }
        skews.forget(worker);
        assert!(skews.workers.is_empty());
        let last = shows(at(9_000), u64::MAX);
        assert_eq!(skews.register(at(0), worker, 3, Some(0), last), None);
        assert_eq!(skews.beat(at(500), worker, 3, Some(0), last), None);
        assert_eq!(skews.beat(at(9_000), worker, 3, Some(0), last), Some(i64::MIN));
    }

    /// What is reported of a worker whose clock is so far ahead, and whose messages are so many
    /// milliseconds on their way, and the answers to them: a registration, then a beat every
    /// interval.
    fn course(skew: i64, ways: &[(u64, u64)]) -> Vec<i64> {
        let mut skews = Skews::new(&TimeBudget::default());
        let worker = WorkerId::generate();
        let (mut sent, mut read, mut answered) = (0, 0, 0);
        let mut found = Vec::new();
        for (n, (there, back)) in ways.iter().enumerate() {
            read = read.max(sent + there);
            let (now, wall) = (at(read), shows(at(read), NOON + read));
            let says = (NOON + sent).saturating_add_signed(skew);
            found.extend(if n == 0 {
                skews.register(now, worker, 1, Some(says), wall)
            } else {
                let says = (answered <= sent).then_some(says);
                skews.beat(now, worker, 1, says, wall)
            });
            answered = answered.max(read + back);
            sent = if n == 0 { answered } else { sent + 500 };
        }
        found
    }

    #[test]
    fn what_waits_at_the_door_or_in_a_queue_is_no_skew_and_a_clock_that_is_wrong_is_still_found() {
        for waits in [300, 499, 3_000, 20_000] {
            for ways in [(waits, 0), (waits, waits)] {
                assert_eq!(course(0, &[ways; 60]), [0; 0], "{ways:?}");
            }
            let calm_after = [vec![(waits, 0); 30], vec![(1, 1); 120]].concat();
            assert_eq!(course(0, &calm_after), [0; 0]);
            assert_eq!(course(-900, &calm_after).len(), 1, "{waits}");
        }
        assert_eq!(course(-900, &[(3, 3); 60]), [-903]);
        assert_eq!(course(900, &[(3, 3); 60]), [897]);
    }

    proptest! {
        /// Whatever the messages wait for.
        #[test]
        fn what_is_reported_is_true(
            skew in -2_000i64..2_000,
            ways in prop::collection::vec((0u64..4_000, 0u64..700), 1..80),
            slow in prop_oneof![250u64..450, 0u64..5_000],
        ) {
            let slow = |(n, (there, back)): (usize, (u64, u64))| match n / 20 % 2 {
                0 => (there % 50, back % 50),
                _ => (slow + there % 50, back % 50),
            };
            let ways: Vec<_> = ways.into_iter().enumerate().map(slow).collect();
            for said in course(skew, &ways) {
                prop_assert!(skew.abs() > 250 && said.signum() == skew.signum() && said <= skew);
            }
        }

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
