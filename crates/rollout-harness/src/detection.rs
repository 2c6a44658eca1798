//! Kills workers of a real fleet at random moments, and measures how soon the coordinator suspects
//! each and fails it.
//!
//! A worker comes back under its id once its failure has been reported, so that its second death
//! has to be noticed like its first. What was seen is judged as it comes, by a pure value: the
//! [`Docket`].

mod docket;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rollout_core::{Clock, RunId, SystemClock, WorkerId};

use crate::Interrupt;
use crate::binaries::Binaries;
use crate::fixtures::{Claim, FixtureError, Fixtures, Layout};
use crate::fleet::{Config, Fleet, FleetError, FleetOptions, POLL, Spec};
use crate::record::Role;

pub use docket::{Docket, Phase, Report};

const PATIENCE: Duration = Duration::from_secs(20);
/// After the last verdict: a second one for the same death would come with the next scan.
const AFTERMATH: Duration = Duration::from_millis(500);
/// The longest that a worker lives, from its first beat on.
const LONGEST: Duration = Duration::from_secs(1);

/// Why the workers could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum DetectionError {
    /// A fixture or a file, a process, or someone who asked to stop.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A worker neither beats nor is reported.
    #[error("{worker} did not get on within {PATIENCE:?}; standard error: {stderr}")]
    Late {
        /// Its name.
        worker: String,
        /// What it complained of.
        stderr: String,
    },
    /// A process ended before it was killed.
    #[error("ended by itself: {0}")]
    Ended(String),
}

impl From<FixtureError> for DetectionError {
    fn from(error: FixtureError) -> Self {
        Self::Fleet(error.into())
    }
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// An empty directory to work in.
    pub root: PathBuf,
    /// The directory with the fixtures.
    pub fixtures: PathBuf,
    /// What to run.
    pub binaries: Binaries,
    /// Workers alive at the same time.
    pub workers: usize,
    /// How often to kill.
    pub kills: usize,
    /// Of the random moments: the same seed, the same moments.
    pub seed: u64,
}

/// A place in the fleet: a worker's id, under which one process follows on another.
struct Slot {
    name: String,
    id: WorkerId,
    /// When something was done to it last.
    since: Instant,
    /// When it is to be killed.
    dies: Option<Instant>,
}

/// The fleet, the coordinator's log as far as it was read, and what is known of each worker.
struct Trial<'a> {
    options: &'a Options,
    layout: &'a Layout,
    fleet: Fleet,
    read: usize,
    slots: Vec<Slot>,
    docket: Docket,
    random: StdRng,
}

/// Kills so many workers and waits for the verdicts; `progress` is told after each.
///
/// # Errors
/// When something cannot be started or read, or does not happen at all.
pub fn run(
    options: &Options,
    interrupt: &Interrupt,
    mut progress: impl FnMut(&Report),
) -> Result<Report, DetectionError> {
    let claim = Claim::take(&options.root)?;
    claim.clear(false)?;
    let fixtures = Fixtures::read(&options.fixtures)?;
    let run = RunId::generate();
    let fleet = FleetOptions {
        title: "detection".to_owned(),
        layout: claim.layout.clone(),
        program: options.binaries.rollout.clone(),
        faulty: None,
        timing: fixtures.timing(),
        run,
        interrupt: interrupt.clone(),
    };
    let mut trial = Trial {
        options,
        layout: &claim.layout,
        fleet: Fleet::serving(fleet, fixtures.coordinator(run, Some(0)))?,
        read: 0,
        slots: Vec::new(),
        docket: Docket::new(fixtures.timing()),
        random: StdRng::seed_from_u64(options.seed),
    };
    for number in 1..=options.workers {
        trial.join(format!("w{number}"), &fixtures, run)?;
    }
    let mut judged = 0;
    while judged < options.kills {
        trial.turn()?;
        if trial.docket.report().overshoot_ms.len() > judged {
            judged = trial.docket.report().overshoot_ms.len();
            progress(trial.docket.report());
        }
        thread::sleep(POLL);
    }
    let until = Instant::now() + AFTERMATH;
    while Instant::now() < until {
        trial.hear()?;
        thread::sleep(POLL);
    }
    Ok(trial.docket.finish())
}

impl Trial<'_> {
    /// Takes a worker into the fleet, and starts it.
    fn join(&mut self, name: String, fixtures: &Fixtures, run: RunId) -> Result<(), FleetError> {
        let id = WorkerId::generate();
        let config = Config::Whole(fixtures.worker(&name, run, None));
        self.fleet.add(Spec { role: Role::Worker { id }, config, ..Spec::worker(&name) })?;
        self.slots.push(Slot { name, id, since: Instant::now(), dies: None });
        self.start(self.slots.len() - 1)
    }

    /// Starts a worker, again if there was one in its place.
    fn start(&mut self, place: usize) -> Result<(), FleetError> {
        let slot = &mut self.slots[place];
        self.docket.awaits(slot.id);
        slot.since = Instant::now();
        self.fleet.start(&slot.name)
    }

    /// Reads on in the coordinator's log.
    fn hear(&mut self) -> Result<(), FleetError> {
        self.fleet.look()?;
        let lines = self.fleet.log("coord")?.lines();
        for line in &lines[self.read..] {
            match &line.event {
                Ok(event) => self.docket.hear(event),
                Err(why) => self.docket.wrong(format!("{why} in: {}", line.raw)),
            }
        }
        self.read = lines.len();
        Ok(())
    }

    /// Kills whose time has come, and replaces whose failure has been reported.
    fn turn(&mut self) -> Result<(), DetectionError> {
        self.hear()?;
        if let Some(exit) = self.fleet.unexpected_exit() {
            return Err(DetectionError::Ended(exit));
        }
        for place in 0..self.slots.len() {
            let Slot { name, id, since, .. } = &self.slots[place];
            let killed = self.docket.report().kills;
            match self.docket.phase(*id) {
                Phase::Living { .. } if killed < self.options.kills => self.age(place)?,
                Phase::Awaited | Phase::Killed { .. } if since.elapsed() > PATIENCE => {
                    let stderr = fs::read_to_string(self.layout.stderr(name)).unwrap_or_default();
                    return Err(DetectionError::Late { worker: name.clone(), stderr });
                }
                Phase::Failed if killed < self.options.kills => self.start(place)?,
                Phase::Living { .. } | Phase::Awaited | Phase::Killed { .. } | Phase::Failed => {}
            }
        }
        Ok(())
    }

    /// Lets a worker live a random while, over two beats, and kills it then.
    fn age(&mut self, place: usize) -> Result<(), FleetError> {
        let random = &mut self.random;
        let slot = &mut self.slots[place];
        let more = || Instant::now() + LONGEST.mul_f64(random.random_range(0.0..1.0));
        if Instant::now() < *slot.dies.get_or_insert_with(more) {
            return Ok(());
        }
        self.fleet.kill(&slot.name)?;
        let at = self.fleet.faults().last().map_or_else(|| SystemClock.now(), |kill| kill.began);
        (slot.since, slot.dies) = (Instant::now(), None);
        self.docket.killed(slot.id, at);
        Ok(())
    }
}
