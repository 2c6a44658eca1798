//! Kills workers of a real fleet at random moments, and measures how soon the coordinator suspects
//! each and fails it.
//!
//! A worker comes back under its id once its failure has been reported, so that its second death
//! has to be noticed like its first. What was seen is judged as it comes, by a pure value: the
//! [`Docket`].

mod docket;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rollout_core::{Body, Clock, RunId, SystemClock, WorkerId};
use rollout_process::{Child, Io, Spawn, SpawnError};

use crate::Interrupt;
use crate::binaries::Binaries;
use crate::fixtures::{Claim, FixtureError, Fixtures, Layout, on};
use crate::log::Tail;

pub use docket::{Docket, Phase, Report};

const POLL: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(20);
/// After the last verdict: a second one for the same death would come with the next scan.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Why the workers could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum DetectionError {
    /// A fixture or a file.
    #[error(transparent)]
    Fixture(#[from] FixtureError),
    /// A process cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Something that has to happen did not.
    #[error("{what} within {PATIENCE:?}; standard error: {stderr}")]
    Late {
        /// What did not happen.
        what: String,
        /// What the process complained of.
        stderr: String,
    },
    /// A worker ended before it was killed.
    #[error("{worker} ended by itself ({exit}); standard error: {stderr}")]
    Ended {
        /// Its name.
        worker: String,
        /// How.
        exit: String,
        /// What it complained of.
        stderr: String,
    },
    /// Someone asked to stop.
    #[error("stopped by {0}")]
    Interrupted(Signal),
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

/// A place in the fleet: a worker's id, and the process that carries it at the moment.
struct Slot {
    name: String,
    id: WorkerId,
    process: Child,
    since: Instant,
    /// How long after its first beat it is to be killed.
    lives: Option<Instant>,
}

/// A coordinator, its log as far as it was read, and the fleet.
struct Fleet<'a> {
    options: &'a Options,
    layout: &'a Layout,
    coordinator: Child,
    tail: Tail,
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
    let (layout, run) = (&claim.layout, RunId::generate());
    fixtures.write_coordinator(layout, run, Some(0))?;
    let mut fleet = Fleet::start(options, layout, Docket::new(fixtures.timing()))?;
    let address = fleet.address()?;
    for number in 0..options.workers {
        let (name, id) = (format!("w{}", number + 1), WorkerId::generate());
        fixtures.write_worker(layout, &name, (run, id), Some(&address))?;
        fleet.join(name, id)?;
    }
    let mut judged = 0;
    while judged < options.kills {
        if let Some(signal) = interrupt.requested() {
            return Err(DetectionError::Interrupted(signal));
        }
        fleet.turn()?;
        if fleet.docket.report().overshoot_ms.len() > judged {
            judged = fleet.docket.report().overshoot_ms.len();
            progress(fleet.docket.report());
        }
        thread::sleep(POLL);
    }
    let until = Instant::now() + AFTERMATH;
    while Instant::now() < until {
        fleet.hear()?;
        thread::sleep(POLL);
    }
    Ok(fleet.docket.finish())
}

impl<'a> Fleet<'a> {
    fn start(
        options: &'a Options,
        layout: &'a Layout,
        docket: Docket,
    ) -> Result<Self, DetectionError> {
        let args = ["coordinator", "run", "--config"];
        let coordinator = spawn(options, layout, "coord", &args)?;
        let log = layout.log("coord");
        let tail = Tail::open(&log).map_err(on("read", &log))?;
        let random = StdRng::seed_from_u64(options.seed);
        Ok(Self { options, layout, coordinator, tail, read: 0, slots: Vec::new(), docket, random })
    }

    /// Where the coordinator listens, once it does.
    fn address(&mut self) -> Result<String, DetectionError> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && self.coordinator.try_wait().is_none() {
            let log = self.layout.log("coord");
            self.tail.poll().map_err(on("read", &log))?;
            let started = self.tail.log().events().find_map(|event| match &event.body {
                Body::CoordinatorStarted(started) => Some(started.listen_addr.clone()),
                _ => None,
            });
            if let Some(address) = started {
                return Ok(address);
            }
            thread::sleep(POLL);
        }
        Err(self.late("the coordinator did not listen", "coord"))
    }

    fn late(&self, what: impl Into<String>, process: &str) -> DetectionError {
        DetectionError::Late { what: what.into(), stderr: self.stderr(process) }
    }

    fn stderr(&self, process: &str) -> String {
        fs::read_to_string(self.layout.stderr(process)).unwrap_or_default()
    }

    fn join(&mut self, name: String, id: WorkerId) -> Result<(), DetectionError> {
        let process = self.worker(&name, id)?;
        self.slots.push(Slot { name, id, process, since: Instant::now(), lives: None });
        Ok(())
    }

    fn worker(&mut self, name: &str, id: WorkerId) -> Result<Child, DetectionError> {
        self.docket.awaits(id);
        let id = id.to_string();
        let args = ["worker", "run", "--worker-id", &id, "--config"];
        spawn(self.options, self.layout, name, &args)
    }

    /// Reads on in the coordinator's log.
    fn hear(&mut self) -> Result<(), DetectionError> {
        let log = self.layout.log("coord");
        self.tail.poll().map_err(on("read", &log))?;
        let lines = self.tail.log().lines();
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
        for place in 0..self.slots.len() {
            let (id, since) = (self.slots[place].id, self.slots[place].since);
            let killed = self.docket.report().kills;
            match self.docket.phase(id) {
                Phase::Living { .. } if killed < self.options.kills => self.age(place)?,
                Phase::Awaited | Phase::Killed { .. } if since.elapsed() > PATIENCE => {
                    let name = self.slots[place].name.clone();
                    return Err(self.late(format!("{name} did not get on"), &name));
                }
                Phase::Failed if killed < self.options.kills => {
                    let name = self.slots[place].name.clone();
                    self.slots[place].process = self.worker(&name, id)?;
                    self.slots[place].since = Instant::now();
                }
                Phase::Living { .. } | Phase::Awaited | Phase::Killed { .. } | Phase::Failed => {}
            }
        }
        Ok(())
    }

    /// Lets a worker live a random while, over two beats, and kills it then.
    fn age(&mut self, place: usize) -> Result<(), DetectionError> {
        let longest = Duration::from_secs(1);
        let random = &mut self.random;
        let slot = &mut self.slots[place];
        let more = || Instant::now() + longest.mul_f64(random.random_range(0.0..1.0));
        if Instant::now() < *slot.lives.get_or_insert_with(more) {
            return Ok(());
        }
        if let Some(exit) = slot.process.try_wait() {
            let (worker, exit) = (slot.name.clone(), exit.to_string());
            let stderr = self.stderr(&worker);
            return Err(DetectionError::Ended { worker, exit, stderr });
        }
        let at = SystemClock.now();
        // Its guard has not reaped it, so the pid is its own; through the guard it would take longer.
        let _ = kill(Pid::from_raw(slot.process.pid()), Signal::SIGKILL);
        (slot.since, slot.lives) = (Instant::now(), None);
        self.docket.killed(slot.id, at);
        Ok(())
    }
}

fn spawn(
    options: &Options,
    layout: &Layout,
    name: &str,
    args: &[&str],
) -> Result<Child, DetectionError> {
    let file = |path: &Path| File::create(path).map(Io::File).map_err(on("create", path));
    let spawn = Spawn::new(&options.binaries.rollout).args(args).arg(layout.config(name));
    let spawn = spawn.current_dir(&layout.root).stdout(file(&layout.log(name))?);
    Ok(spawn.stderr(file(&layout.stderr(name))?).spawn()?)
}
