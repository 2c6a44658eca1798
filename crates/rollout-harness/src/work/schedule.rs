//! What is done to the fleet while it works, drawn from a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// The share of the undisturbed run's time in which everything is begun and over: the disturbed run
/// has lost capacity by then, and goes on.
const SHARE: f64 = 0.9;
/// Nothing is done before this.
const FIRST: Duration = Duration::from_millis(300);

/// Which faults there are, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// A worker is killed so often.
    pub kill_every: Duration,
    /// At most so many are.
    pub most_kills: usize,
    /// The sidecar of a worker is killed so often; never, if there is nothing.
    pub sidecar_every: Option<Duration>,
    /// How often the coordinator is killed.
    pub coordinator_kills: usize,
    /// For how long one worker is frozen, once; not at all, if there is nothing.
    pub freeze: Option<Duration>,
}

impl Faults {
    /// Everything: a worker killed every second, a sidecar every two, two deaths of the coordinator,
    /// one worker frozen for ten seconds.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            kill_every: Duration::from_secs(1),
            most_kills: usize::MAX,
            sidecar_every: Some(Duration::from_secs(2)),
            coordinator_kills: 2,
            freeze: Some(Duration::from_secs(10)),
        }
    }

    /// Workers alone are killed, each long after the one before, so that what each kill costs can be
    /// told.
    #[must_use]
    pub const fn kills() -> Self {
        Self {
            kill_every: Duration::from_secs(3),
            most_kills: usize::MAX,
            sidecar_every: None,
            coordinator_kills: 0,
            freeze: None,
        }
    }

    /// One worker is killed, once.
    #[must_use]
    pub const fn one_kill() -> Self {
        Self { most_kills: 1, ..Self::kills() }
    }
}

/// What a schedule is drawn from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The same seed, the same schedule.
    pub seed: u64,
    /// How many workers there are at a time.
    pub workers: usize,
    /// How long the undisturbed run took from its first grant to its last commit.
    pub length: Duration,
    /// What is to be done.
    pub faults: Faults,
}

/// Something that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// SIGKILL to a worker, which is replaced after a while.
    KillWorker {
        /// By a new process of the same id, or of a new one.
        fresh: bool,
        /// After this.
        #[serde(with = "rollout_core::duration")]
        absence: Duration,
    },
    /// SIGKILL to the sidecar of a worker.
    KillSidecar,
    /// SIGSTOP to a worker, and SIGCONT.
    Freeze {
        /// After this.
        #[serde(with = "rollout_core::duration")]
        length: Duration,
    },
    /// SIGKILL to the coordinator, which is started again on the same files and port.
    KillCoordinator {
        /// After this.
        #[serde(with = "rollout_core::duration")]
        absence: Duration,
    },
}

/// One thing, done once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When, counted from the first grant.
    #[serde(with = "rollout_core::duration")]
    pub at: Duration,
    /// The worker's place, from 0. One to which it cannot be done just then is passed over for the
    /// next; to none at all, and it is put off.
    pub place: usize,
    /// What.
    pub act: Act,
}

/// Everything that is done in a run, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// What it was drawn from.
    pub seed: u64,
    /// How many workers there are at a time.
    pub workers: usize,
    /// What is done.
    pub steps: Vec<Step>,
}

/// How often what is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Workers killed.
    pub kills: usize,
    /// Sidecars killed.
    pub sidecar_kills: usize,
    /// Workers frozen.
    pub freezes: usize,
    /// Coordinators killed.
    pub coordinator_kills: usize,
}

/// Why there is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Who is frozen or dead cannot be all there are.
    #[error(
        "{0} workers are too few: a frozen and a killed one leave nobody to work; take 3 or more"
    )]
    Workers(usize),
    /// The faults do not fit into the run.
    #[error(
        "undisturbed, the run lasted {length:?}, in which {what} does not fit; give it more items"
    )]
    Short {
        /// How long it lasted.
        length: Duration,
        /// What is to be done.
        what: &'static str,
    },
}

impl Plan {
    /// Draws the schedule.
    ///
    /// # Errors
    /// When there are too few workers, or the faults do not fit into the run.
    pub fn draw(&self) -> Result<Schedule, PlanError> {
        self.check()?;
        let mut steps = self.every(1, self.faults.kill_every, self.faults.most_kills, |random| {
            Act::KillWorker { fresh: random.random(), absence: between(random, 0, 700) }
        });
        if steps.is_empty() {
            return self.short("a kill");
        }
        if let Some(period) = self.faults.sidecar_every {
            let killed = self.every(2, period, usize::MAX, |_| Act::KillSidecar);
            if killed.is_empty() {
                return self.short("a sidecar's kill");
            }
            steps.extend(killed);
        }
        self.coordinator(&mut steps)?;
        self.freeze(&mut steps)?;
        steps.sort_by_key(|step| step.at);
        Ok(Schedule { seed: self.seed, workers: self.workers, steps })
    }

    /// Checks what can be checked before the run's length is known.
    ///
    /// # Errors
    /// When there are too few workers.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.workers < 3 { Err(PlanError::Workers(self.workers)) } else { Ok(()) }
    }

    fn short<T>(&self, what: &'static str) -> Result<T, PlanError> {
        Err(PlanError::Short { length: self.length, what })
    }

    /// Up to when everything is over.
    fn until(&self) -> Duration {
        self.length.mul_f64(SHARE)
    }

    /// The random numbers of one kind of fault, its own, so that none depends on another.
    fn random(&self, kind: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(kind))
    }

    /// The same at regular times, give or take a fifth, and `most` times at the most: then around
    /// the middle.
    fn every(
        &self,
        kind: u64,
        period: Duration,
        most: usize,
        mut act: impl FnMut(&mut StdRng) -> Act,
    ) -> Vec<Step> {
        let mut random = self.random(kind);
        let fitting = self.until().as_nanos() / period.as_nanos().max(1);
        let fitting = usize::try_from(fitting).unwrap_or(usize::MAX);
        let count = fitting.min(most);
        let period = if count < fitting { self.until() / (spread(count) + 1) } else { period };
        let steps = (1..=count).map(|number| {
            let early = period.mul_f64(random.random_range(0.0..0.2));
            let at = (period * spread(number)).saturating_sub(early).max(FIRST);
            Step { at, place: random.random_range(0..self.workers), act: act(&mut random) }
        });
        steps.collect()
    }

    /// The deaths of the coordinator, each somewhere in its share of the time.
    fn coordinator(&self, steps: &mut Vec<Step>) -> Result<(), PlanError> {
        const ROOM: Duration = Duration::from_millis(1_500);
        let mut random = self.random(3);
        let count = self.faults.coordinator_kills;
        let share = self.until() / spread(count.max(1));
        if count > 0 && share < ROOM {
            return self.short("the coordinator's death and return");
        }
        steps.extend((0..count).map(|number| {
            let within = (share - ROOM).mul_f64(random.random_range(0.0..1.0));
            let at = (share * spread(number) + within).max(FIRST);
            let absence = between(&mut random, 50, 500);
            Step { at, place: 0, act: Act::KillCoordinator { absence } }
        }));
        Ok(())
    }

    fn freeze(&self, steps: &mut Vec<Step>) -> Result<(), PlanError> {
        let Some(length) = self.faults.freeze else { return Ok(()) };
        let mut random = self.random(4);
        let Some(room) = self.until().checked_sub(length + FIRST) else {
            return self.short("a worker's freezing");
        };
        let at = FIRST + room.mul_f64(random.random_range(0.0..1.0));
        let place = random.random_range(0..self.workers);
        steps.push(Step { at, place, act: Act::Freeze { length } });
        Ok(())
    }
}

impl Schedule {
    /// How often what is to be done.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for step in &self.steps {
            match step.act {
                Act::KillWorker { .. } => counts.kills += 1,
                Act::KillSidecar => counts.sidecar_kills += 1,
                Act::Freeze { .. } => counts.freezes += 1,
                Act::KillCoordinator { .. } => counts.coordinator_kills += 1,
            }
        }
        counts
    }

    /// The text that is kept of it.
    #[must_use]
    pub fn text(&self) -> String {
        // A value of numbers, names and durations always has a text.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

impl Step {
    /// When it is over.
    #[must_use]
    pub fn over(&self) -> Duration {
        self.at
            + match self.act {
                Act::KillWorker { absence, .. } | Act::KillCoordinator { absence } => absence,
                Act::Freeze { length } => length,
                Act::KillSidecar => Duration::ZERO,
            }
    }
}

fn between(random: &mut StdRng, least_ms: u64, most_ms: u64) -> Duration {
    Duration::from_millis(random.random_range(least_ms..=most_ms))
}

/// A small number as a factor of a duration.
fn spread(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(seed: u64, length_ms: u64, faults: Faults) -> Plan {
        Plan { seed, workers: 4, length: Duration::from_millis(length_ms), faults }
    }

    #[test]
    fn a_run_of_25_seconds_has_every_fault_as_often_as_it_is_promised() {
        let counts = plan(1, 25_000, Faults::all()).draw().unwrap().counts();
        let due = Counts { kills: 22, sidecar_kills: 11, freezes: 1, coordinator_kills: 2 };
        assert_eq!(counts, due);
        let counts = plan(1, 60_000, Faults::one_kill()).draw().unwrap();
        assert_eq!(counts.counts(), Counts { kills: 1, ..Counts::default() });
        let at = counts.steps[0].at.as_secs_f64();
        assert!((20.0..30.0).contains(&at), "in the middle, not {at}");
    }

    #[test]
    fn what_does_not_fit_into_a_run_is_refused_by_name() {
        let refused = |length, faults| plan(1, length, faults).draw().unwrap_err().to_string();
        assert!(refused(900, Faults::all()).contains("a kill"));
        assert!(refused(10_000, Faults::all()).contains("a worker's freezing"));
        let often = Faults { coordinator_kills: 9, ..Faults::all() };
        assert!(refused(14_000, often).contains("the coordinator's death"));
        let two = Plan { workers: 2, ..plan(1, 30_000, Faults::all()) };
        assert_eq!(two.draw(), Err(PlanError::Workers(2)));
    }

    proptest! {
        #[test]
        fn the_same_seed_gives_the_same_and_all_of_it_is_over_before_the_undisturbed_end(
            seed: u64, length in 12_500u64..60_000,
        ) {
            let schedule = plan(seed, length, Faults::all()).draw().unwrap();
            prop_assert_eq!(&schedule, &plan(seed, length, Faults::all()).draw().unwrap());
            prop_assert!(schedule.steps.is_sorted_by_key(|step| step.at));
            for step in &schedule.steps {
                prop_assert!(step.at >= FIRST && step.place < 4);
                prop_assert!(step.over() <= Duration::from_millis(length), "{step:?}");
            }
            let counts = schedule.counts();
            prop_assert_eq!(counts.coordinator_kills, 2);
            prop_assert_eq!(counts.freezes, 1);
            prop_assert_eq!(counts.kills, usize::try_from(length * 9 / 10_000).unwrap());
        }

        #[test]
        fn another_seed_gives_another(seed in 0u64..1_000) {
            let of = |seed| plan(seed, 30_000, Faults::all()).draw().unwrap().steps;
            prop_assert_ne!(of(seed), of(seed + 1));
        }
    }
}
