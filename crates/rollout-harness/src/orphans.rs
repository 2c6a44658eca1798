//! Kills workers at random moments, and looks for what they leave running.
//!
//! The worker must not be a direct child of the harness, whose own guard would clear up after it.
//! So a shell starts it and stays: what the worker leaves behind is adopted by the guard above the
//! shell, lives on there, and is found.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rollout_core::{RunId, WorkerId};
use rollout_process::{Child, Io, Spawn, SpawnError};
use toml::{Table, Value};

use crate::Interrupt;
use crate::binaries::{Binaries, with_python};
use crate::fixtures::{Claim, FixtureError, Fixtures, Layout, on};
use crate::fleet::{Fleet, FleetError, FleetOptions};
use crate::processes::{self, Process, still_running, trees};

/// Everything of a killed worker has to be gone this soon.
pub const GONE_WITHIN: Duration = Duration::from_secs(1);
/// A worker is killed at some moment between its start and this; it is up after a third of it.
const LATEST_KILL: Duration = Duration::from_millis(600);
/// Workers alive at the same time.
const AT_ONCE: usize = 3;
const POLL: Duration = Duration::from_millis(2);

/// Starts the worker, says its pid, and stays when it has gone.
const LAUNCHER: &str = "\"$@\" >\"$LOG\" 2>&1 & echo $!; wait; read -r stay";
/// Makes a sidecar have children: one in its group, one that has left it.
const WITH_CHILDREN: &str = "setsid sleep 600 & sleep 600 & exec \"$@\"";

/// Why the workers could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum OrphansError {
    /// A fixture or a file, the coordinator, or someone who asked to stop.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A worker's shell cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A worker ended before it was killed.
    #[error("worker {worker} ended by itself; what it said:\n{said}")]
    Ended {
        /// Its name.
        worker: String,
        /// Its output.
        said: String,
    },
}

impl From<FixtureError> for OrphansError {
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
    /// How often to kill.
    pub kills: usize,
    /// Of the random moments: the same seed, the same moments.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Workers killed.
    pub kills: usize,
    /// Processes that were below a worker when it was killed, all told.
    pub processes: usize,
    /// The longest time from a kill until nothing was left.
    pub slowest: Duration,
    /// What was still there after [`GONE_WITHIN`], in words.
    pub left: Vec<String>,
}

/// Kills so many workers; `progress` is told after each.
///
/// # Errors
/// When something cannot be started or read, or a worker ends before it is killed.
pub fn run(
    options: &Options,
    interrupt: &Interrupt,
    progress: impl Fn(&Report) + Sync,
) -> Result<Report, OrphansError> {
    let claim = Claim::take(&options.root)?;
    claim.clear(false)?;
    let fixtures = Fixtures::read(&options.fixtures)?;
    let (layout, run) = (&claim.layout, RunId::generate());
    fixtures.write_plugins(layout, &options.binaries.cdylib)?;
    for manifest in fixtures.manifests(layout) {
        give_children(&layout.root.join(manifest))?;
    }
    let fleet = FleetOptions {
        title: "orphans".to_owned(),
        layout: layout.clone(),
        program: options.binaries.rollout.clone(),
        faulty: None,
        timing: fixtures.timing(),
        run,
        interrupt: interrupt.clone(),
    };
    let fleet = Fleet::serving(fleet, fixtures.coordinator(run, Some(0)))?;
    let address = fleet.address().map(|address| address.to_string()).unwrap_or_default();
    let (next, report) = (AtomicUsize::new(0), Mutex::new(Report::default()));
    at_once(|number, stop| {
        let name = format!("w{number}");
        fixtures.write_worker(layout, &name, (run, WorkerId::generate()), Some(&address))?;
        while !stop.load(Ordering::Relaxed) {
            let kill = next.fetch_add(1, Ordering::Relaxed);
            if kill >= options.kills {
                break;
            }
            if let Some(signal) = interrupt.requested() {
                return Err(FleetError::Interrupted(signal).into());
            }
            let after = moment(options.seed, kill);
            let victim = Victim::start(options, layout, &fixtures, &name)?;
            let ended = victim.kill_after(after)?;
            let mut report = report.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            report.add(kill, after, ended);
            progress(&report);
        }
        Ok(())
    })?;
    Ok(report.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

/// Runs `slot` in [`AT_ONCE`] threads, numbered from 1. Where one fails, the others are told to stop.
fn at_once(
    slot: impl Fn(usize, &AtomicBool) -> Result<(), OrphansError> + Sync,
) -> Result<(), OrphansError> {
    let (slot, stop) = (&slot, &AtomicBool::new(false));
    thread::scope(|scope| {
        let start = |number| {
            scope.spawn(move || {
                let outcome = slot(number, stop);
                stop.fetch_or(outcome.is_err(), Ordering::Relaxed);
                outcome
            })
        };
        let slots: Vec<_> = (1..=AT_ONCE).map(start).collect();
        slots.into_iter().try_for_each(|slot| match slot.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

impl Report {
    fn add(&mut self, kill: usize, after: Duration, ended: Ended) {
        self.kills += 1;
        self.processes += ended.processes;
        self.slowest = self.slowest.max(ended.took);
        self.left.extend(ended.left.into_iter().map(|process| {
            format!(
                "kill {kill}, {} ms after the start: process {} ({}) runs on",
                after.as_millis(),
                process.pid,
                process.name
            )
        }));
    }
}

/// When the worker is killed, counted from its start.
fn moment(seed: u64, kill: usize) -> Duration {
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(kill as u64));
    LATEST_KILL.mul_f64(random.random_range(0.0..1.0))
}

/// Wraps a sidecar's command, so that it has children of its own.
fn give_children(manifest: &Path) -> Result<(), FixtureError> {
    let text = fs::read_to_string(manifest).map_err(on("read", manifest))?;
    let syntax = |source| FixtureError::Syntax { path: manifest.into(), source };
    let mut table: Table = text.parse().map_err(syntax)?;
    let sidecar = table.get_mut("entry").and_then(|entry| entry.get_mut("sidecar"));
    let command = sidecar.and_then(|sidecar| sidecar.get_mut("command"));
    if let Some(Value::Array(command)) = command {
        let shell = ["sh", "-c", WITH_CHILDREN, "sh"].map(Value::from);
        command.splice(0..0, shell);
        fs::write(manifest, table.to_string()).map_err(on("write", manifest))?;
    }
    Ok(())
}

/// A worker under a shell that outlives it.
struct Victim {
    name: String,
    log: PathBuf,
    shell: Child,
    worker: i32,
    started: Instant,
}

/// What a killed worker left.
struct Ended {
    processes: usize,
    took: Duration,
    left: Vec<Process>,
}

impl Victim {
    fn start(
        options: &Options,
        layout: &Layout,
        fixtures: &Fixtures,
        name: &str,
    ) -> Result<Self, OrphansError> {
        let log = layout.log(name);
        let mut spawn = with_python(Spawn::new("sh"))
            .current_dir(&layout.root)
            .args(["-c", LAUNCHER, "sh"])
            .arg(&options.binaries.rollout)
            .args(["worker", "run", "--config"])
            .arg(layout.relative(&format!("logs/{name}.toml")))
            .env("LOG", &log)
            .stdin(Io::Pipe)
            .stdout(Io::Pipe);
        for manifest in fixtures.manifests(layout) {
            spawn = spawn.arg("--plugin").arg(manifest);
        }
        let mut shell = spawn.spawn()?;
        let started = Instant::now();
        let worker = pid_of(&mut shell).map_err(on("read the worker's pid from", "the shell"))?;
        Ok(Self { name: name.to_owned(), log, shell, worker, started })
    }

    /// Kills the worker so long after its start, and watches what it leaves.
    fn kill_after(self, after: Duration) -> Result<Ended, OrphansError> {
        thread::sleep(after.saturating_sub(self.started.elapsed()));
        let shell = self.shell.pid();
        let others = |mut tree: BTreeSet<Process>| {
            tree.retain(|process| process.pid != shell);
            tree
        };
        let before = others(trees(&[shell]).map_err(on("read", "/proc"))?);
        if !before.iter().any(|process| process.pid == self.worker) {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            return Err(OrphansError::Ended { worker: self.name, said });
        }
        // Adopted by the guard, where there is such a thing: found although it was born after the
        // look above.
        let guard = processes::parent(shell).map_err(on("read", "/proc"))?;
        // The shell has not reaped it: the pid is still the worker's, even if it has just ended.
        let _ = kill(Pid::from_raw(self.worker), Signal::SIGKILL);
        let killed = Instant::now();
        loop {
            let mut left: BTreeSet<_> =
                still_running(&before).map_err(on("read", "/proc"))?.into_iter().collect();
            if let Some(guard) = guard {
                let below = others(trees(&[guard]).map_err(on("read", "/proc"))?);
                left.extend(below.into_iter().filter(|process| process.pid != guard));
            }
            let took = killed.elapsed();
            if left.is_empty() || took > GONE_WITHIN {
                let left = left.into_iter().collect();
                return Ok(Ended { processes: before.len(), took, left });
            }
            thread::sleep(POLL);
        }
    }
}

/// The first line that the shell writes.
fn pid_of(shell: &mut Child) -> io::Result<i32> {
    let out = shell.take_stdout().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut line = String::new();
    BufReader::new(File::from(out)).read_line(&mut line)?;
    line.trim().parse().map_err(io::Error::other)
}
