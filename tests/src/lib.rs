//! What the acceptance tests share: the built binaries, a stage to run them on, edited fixtures.
//!
//! Every stage is a temporary directory and every coordinator takes a free port, so that the tests
//! run side by side with each other and with anything else. Nothing is left behind. A stage that
//! cannot be set up is a failed test, so these functions panic.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests: a panic fails the test")]

pub mod fleet;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rollout_core::{Event, chain};
use rollout_harness::binaries::{self, Binaries, Profile, workspace_root};
use rollout_harness::log::Tail;
use rollout_harness::report::{Look, summary};
use rollout_harness::smoke::{self, Options, Run};
use rollout_harness::timeline::Silent;
use rollout_harness::{Check, Interrupt, Outcome};
use rollout_process::{Child, Exit, Io, Ladder, Spawn};
use tempfile::TempDir;
use toml::Table;

/// How long a condition is waited for before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The binaries, built once for each test program by the profile it was built with.
pub fn built() -> &'static Binaries {
    static BUILT: OnceLock<Binaries> = OnceLock::new();
    BUILT.get_or_init(|| {
        binaries::build(Profile::own(), &Interrupt::default(), &mut |_| {})
            .unwrap_or_else(|error| panic!("{error}"))
    })
}

/// A run, made again while the machine does not let it show anything; three times at most.
pub fn conclusive<R>(outcome: impl Fn(&R) -> Outcome, run: impl Fn() -> R) -> R {
    const TRIES: usize = 3;
    let mut last = run();
    for _ in 1..TRIES {
        if outcome(&last) != Outcome::Inconclusive {
            break;
        }
        last = run();
    }
    last
}

/// The program with the feature `faults`, built once likewise.
pub fn faulty() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        binaries::build_faulty(Profile::own(), &Interrupt::default(), &mut |_| {})
            .unwrap_or_else(|error| panic!("{error}"))
    })
}

/// The search path, the interpreter itself in front of it. What a version manager puts there is asked
/// for the interpreter at each start of a sidecar, which takes longer than the rest of it.
fn path() -> &'static OsStr {
    static FOUND: OnceLock<OsString> = OnceLock::new();
    FOUND.get_or_init(|| {
        let ask = ["-I", "-S", "-c", "import sys; print(sys.executable)"];
        let told = Spawn::new("python3").args(ask).output(Some(PATIENCE));
        let told = told.unwrap_or_else(|error| panic!("{}", chain(&error)));
        let python = PathBuf::from(String::from_utf8_lossy(&told.stdout).trim());
        let inherited = env::var_os("PATH").unwrap_or_default();
        let own = python.parent().map(Path::to_path_buf);
        let dirs = own.into_iter().chain(env::split_paths(&inherited));
        env::join_paths(dirs).expect("the interpreter's directory has no colon")
    })
}

/// Tests that keep a processor busy and run at the same time. Others run beside them, and expect what
/// is due to come in time.
const BUSY: usize = 3;

static BUSY_NOW: Mutex<usize> = Mutex::new(0);
static LESS_BUSY: Condvar = Condvar::new();

/// The place of a test that keeps a processor busy for seconds; see [`busy`].
#[derive(Debug)]
#[must_use]
pub struct Busy(());

/// Waits until few enough tests are busy for one more to be, which it is while it holds this.
pub fn busy() -> Busy {
    let now = BUSY_NOW.lock().unwrap_or_else(PoisonError::into_inner);
    let now = LESS_BUSY.wait_while(now, |now| *now >= BUSY);
    *now.unwrap_or_else(PoisonError::into_inner) += 1;
    Busy(())
}

impl Drop for Busy {
    fn drop(&mut self) {
        *BUSY_NOW.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LESS_BUSY.notify_one();
    }
}

/// A temporary directory with a copy of the fixtures in it.
#[derive(Debug)]
pub struct Stage {
    dir: TempDir,
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage {
    /// A stage with the committed fixtures.
    #[must_use]
    pub fn new() -> Self {
        let stage = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        let from = workspace_root().join("tests/smoke");
        fs::create_dir_all(stage.root().join("data/smoke")).expect("a new directory");
        fs::create_dir(stage.fixtures()).expect("a new directory");
        for name in ["coordinator.toml", "worker.toml"] {
            fs::copy(from.join(name), stage.fixtures().join(name)).expect("the fixture is there");
        }
        // The manifests stay where they are: their paths are relative to them.
        std::os::unix::fs::symlink(from.join("plugins"), stage.fixtures().join("plugins"))
            .expect("a new link");
        stage
    }

    /// Where the processes are started.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// The copy of the fixtures.
    #[must_use]
    pub fn fixtures(&self) -> PathBuf {
        self.root().join("fixtures")
    }

    /// A path below `data/smoke`.
    #[must_use]
    pub fn artifact(&self, name: &str) -> PathBuf {
        self.root().join("data/smoke").join(name)
    }

    /// Changes one fixture.
    #[must_use]
    pub fn with(self, name: &str, edit: impl FnOnce(&mut Table)) -> Self {
        let path = self.fixtures().join(format!("{name}.toml"));
        edit_toml(&path, edit);
        self
    }

    /// Changes the timing of both fixtures: the four durations in milliseconds.
    #[must_use]
    pub fn with_timing(self, interval: u32, fence: u32, failure: u32, skew: u32) -> Self {
        let timing = |table: &mut Table| {
            for (key, ms) in [
                ("heartbeat_interval", interval),
                ("worker_self_fence_timeout", fence),
                ("coordinator_failure_timeout", failure),
                ("clock_skew_budget", skew),
            ] {
                set(table, &["timing", key], &format!("{ms}ms"));
            }
        };
        self.with("coordinator", timing).with("worker", timing)
    }

    /// The options of a run on this stage.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            root: self.root().to_path_buf(),
            fixtures: self.fixtures(),
            port: Some(0),
            binaries: Some(built().clone()),
            ..Options::default()
        }
    }

    /// Runs the smoke run on this stage.
    #[must_use]
    pub fn smoke(&self, options: &Options) -> Run {
        smoke::run(options, &mut Silent, &Interrupt::default())
            .unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Starts `rollout` here with `args`, its events in `<name>.log`, its complaints in
    /// `<name>.stderr`.
    #[must_use]
    pub fn start(&self, name: &str, args: &[&str]) -> Actor {
        self.run(name, Spawn::new(&built().rollout).args(args))
    }

    /// As [`start`](Self::start), with the faults of a TOML text, by the program that can have some.
    #[must_use]
    pub fn start_faulty(&self, name: &str, faults: &str, args: &[&str]) -> Actor {
        let file = self.root().join(format!("{name}.faults.toml"));
        fs::write(&file, faults).expect("a new file");
        self.run(name, Spawn::new(faulty()).env(binaries::FAULTS, file).args(args))
    }

    /// Starts a program here.
    #[must_use]
    pub fn run(&self, name: &str, spawn: Spawn) -> Actor {
        let [log, stderr] = ["log", "stderr"].map(|ext| self.root().join(format!("{name}.{ext}")));
        let file = |path: &Path| Io::File(File::create(path).expect("a new file"));
        let spawn = spawn.env("PATH", path()).current_dir(self.root());
        let spawn = spawn.stdout(file(&log)).stderr(file(&stderr));
        let child = spawn.spawn().unwrap_or_else(|error| panic!("{}", chain(&error)));
        let tail = Tail::open(&log).expect("the log was just created");
        Actor { child, tail, stderr }
    }

    /// Starts a coordinator with the fixture's file and waits until it listens; its address.
    #[must_use]
    pub fn coordinator(&self) -> (Actor, String) {
        self.coordinator_on("127.0.0.1:0", |args| self.start("coord", args))
    }

    /// A coordinator that listens on `listen`, started by `start` with these arguments; once it
    /// does, its address.
    #[must_use]
    pub fn coordinator_on(
        &self,
        listen: &str,
        start: impl FnOnce(&[&str]) -> Actor,
    ) -> (Actor, String) {
        let file = self.fixtures().join("coordinator.toml");
        edit_toml(&file, |table| set(table, &["listen"], listen));
        let mut actor = start(&["coordinator", "run", "--config", &text(&file)]);
        let started = actor.event("coordinator_started");
        let address = attribute(&started, "listen_addr");
        (actor, address)
    }
}

/// A process of `rollout`.
#[derive(Debug)]
pub struct Actor {
    /// The process.
    pub child: Child,
    tail: Tail,
    stderr: PathBuf,
}

impl Actor {
    /// Waits for the first event with `topic`.
    ///
    /// # Panics
    /// When the process ends before, or it takes too long.
    pub fn event(&mut self, topic: &str) -> Event {
        self.event_where(topic, |_| true)
    }

    /// Waits for the first event with `topic` for which `fits` holds.
    ///
    /// # Panics
    /// When the process ends before, or it takes too long.
    pub fn event_where(&mut self, topic: &str, fits: impl Fn(&Event) -> bool) -> Event {
        let start = Instant::now();
        loop {
            let exit = self.child.try_wait();
            self.tail.poll().expect("the log can be read");
            let mut events = self.tail.log().events();
            if let Some(event) = events.find(|e| e.body.topic() == topic && fits(e)) {
                return event.clone();
            }
            if exit.is_some() || start.elapsed() > PATIENCE {
                let lines: Vec<_> =
                    self.tail.log().lines().iter().map(|l| l.raw.as_str()).collect();
                panic!("no {topic} ({exit:?}):\n{}\n{}", lines.join("\n"), self.stderr());
            }
            thread::sleep(Duration::from_millis(3));
        }
    }

    /// The events with `topic` so far.
    ///
    /// # Panics
    /// When the log cannot be read.
    #[must_use]
    pub fn events(&mut self, topic: &str) -> Vec<Event> {
        self.tail.poll().expect("the log can be read");
        self.tail.log().events().filter(|event| event.body.topic() == topic).cloned().collect()
    }

    /// Asks it to end, with patience, and expects that it does so in good order.
    ///
    /// # Panics
    /// When it has to be killed, or ends with anything but 0.
    pub fn stop(mut self) {
        let exit = self.child.stop(Ladder { grace: PATIENCE });
        self.tail.poll().expect("the log can be read");
        let lines: Vec<_> = self.tail.log().lines().iter().map(|l| l.raw.as_str()).collect();
        assert_eq!(exit.code, Some(0), "{exit}:\n{}\n{}", lines.join("\n"), self.stderr());
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When that takes too long.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let exit = self.child.wait_timeout(PATIENCE);
        exit.unwrap_or_else(|| panic!("still running: {}", self.stderr()))
    }

    /// What it has written to standard error.
    ///
    /// # Panics
    /// When the file cannot be read.
    #[must_use]
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).expect("the file was created at the start")
    }
}

/// A check of a run by its name.
///
/// # Panics
/// When the judge has no such check.
#[must_use]
pub fn check<'a>(run: &'a Run, name: &str) -> &'a Check {
    let check = run.verdict.checks.iter().find(|check| check.name == name);
    check.unwrap_or_else(|| panic!("no check {name}:\n{}", story(run)))
}

/// All there is to say about a run, for the message of a failed assertion.
#[must_use]
pub fn story(run: &Run) -> String {
    let steps = run.evidence.steps.iter();
    let steps = steps.map(|report| format!("  {}: {:?}\n", report.step.title(), report.result));
    steps.collect::<String>() + &summary(run, Look::default())
}

/// An attribute of an event, as text.
#[must_use]
pub fn attribute(event: &Event, name: &str) -> String {
    let event = toml::Value::try_from(event).expect("an event is a table");
    let value = event.get("attrs").and_then(|attrs| attrs.get(name));
    value.and_then(toml::Value::as_str).unwrap_or_else(|| panic!("no {name} in {event}")).to_owned()
}

/// Changes a TOML file.
///
/// # Panics
/// When it is not there or not TOML.
pub fn edit_toml(path: &Path, edit: impl FnOnce(&mut Table)) {
    let mut table: Table =
        fs::read_to_string(path).expect("the file is there").parse().expect("it is TOML");
    edit(&mut table);
    fs::write(path, table.to_string()).expect("it can be written");
}

/// Sets a text, making tables on the way.
///
/// # Panics
/// When a value stands where a table is to be.
pub fn set(table: &mut Table, keys: &[&str], value: &str) {
    let (last, tables) = keys.split_last().expect("a key");
    let mut table = table;
    for key in tables {
        let entry = table.entry(*key).or_insert_with(|| Table::new().into());
        table = entry.as_table_mut().expect("a table");
    }
    table.insert((*last).to_owned(), value.into());
}

/// A path as text.
#[must_use]
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
