//! Scenarios: a run of real processes, written down as data.
//!
//! A file says which processes there are, what is done to them, and what has to come of it. It is
//! read and checked ([`mod@file`]), played ([`run()`]), and judged by a pure function from what was seen
//! to checks. Each expectation then has to show that it can fail: the judge is given *twins* of the
//! record, each spoilt in one way, and has to fail that expectation and no unrelated one.

pub mod file;
mod judge;
mod play;
mod sample;
mod standing;
mod twins;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rollout_core::{ExitCode, Mono, RunId, TimeBudget, WorkerId};
use serde::{Deserialize, Serialize};

use crate::binaries::Binaries;
use crate::fixtures::{Claim, FixtureError, Fixtures, Layout, on};
use crate::fleet::FleetError;
use crate::judge::{Check, Outcome};
use crate::{Interrupt, Record};

pub use file::{FileError, Scenario};
pub use judge::{Measure, judge};
pub use twins::{Twin, twins};

/// The file beside a record that says what was done when.
const STEPS: &str = "steps.json";

/// How to play a scenario.
#[derive(Debug, Clone)]
pub struct Options {
    /// The working directory of the processes; artifacts lie in `data/scenario/<name>` below it.
    pub root: PathBuf,
    /// The directory with the fixtures, whose plugins the workers can load.
    pub fixtures: PathBuf,
    /// What to run.
    pub binaries: Binaries,
    /// The program built with the feature `faults`.
    pub faulty: Option<PathBuf>,
    /// The time budget of a scenario that has none of its own; by default the specification's.
    pub timing: Option<TimeBudget>,
    /// Whether earlier artifacts are moved aside and not removed.
    pub keep: bool,
}

/// A step that was played.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Played {
    /// What it does, in a few words.
    pub title: String,
    /// The name of its instant.
    pub label: Option<String>,
    /// Its instant: just before something was done, or when what it waited for had come.
    pub at: Mono,
    /// How long it took.
    #[serde(with = "rollout_core::duration")]
    pub took: Duration,
    /// What was seen, or what went wrong.
    pub result: Result<String, String>,
}

/// What was seen of a scenario.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The processes and what was done to them.
    pub record: Record,
    /// The steps that were reached.
    pub steps: Vec<Played>,
}

impl Seen {
    /// The id of a worker.
    pub(crate) fn worker(&self, name: &str) -> Option<WorkerId> {
        self.record.process(name)?.worker()
    }

    /// The instant of this name, if it was reached.
    pub(crate) fn instant(&self, name: &str) -> Option<Mono> {
        self.steps.iter().find(|step| step.label.as_deref() == Some(name)).map(|step| step.at)
    }

    /// Writes the record and the steps below `dir`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path) -> std::io::Result<()> {
        self.record.write(dir)?;
        let steps = serde_json::to_vec_pretty(&self.steps).map_err(std::io::Error::other)?;
        fs::write(dir.join(STEPS), steps)
    }

    /// Reads what [`write`](Self::write) has written.
    ///
    /// # Errors
    /// When a file is missing, or is none.
    pub fn read(dir: &Path) -> std::io::Result<Self> {
        let steps = serde_json::from_slice(&fs::read(dir.join(STEPS))?)?;
        Ok(Self { record: Record::read(dir)?, steps })
    }
}

/// The judgement of a scenario.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The worst outcome of all checks; a twin that passes is a failure.
    pub outcome: Outcome,
    /// The checks, those that could not be judged left out.
    pub checks: Vec<Check>,
    /// The figures of the expectations that have some.
    pub measured: BTreeMap<String, Measure>,
    /// The twins, none if a check did not pass.
    pub twins: Vec<Twin>,
}

impl Verdict {
    /// Judges what was seen, and the judge by its twins.
    #[must_use]
    pub fn of(scenario: &Scenario, seen: &Seen) -> Self {
        let (mut checks, measured) = judge(scenario, seen);
        let worst = |checks: &[Check]| checks.iter().map(|check| check.outcome).max();
        let mut spoilt = Vec::new();
        if worst(&checks) == Some(Outcome::Pass) {
            spoilt = twins(scenario, seen);
            checks.push(twins::check(&spoilt));
        }
        let outcome = worst(&checks).unwrap_or(Outcome::Fail);
        Self { outcome, checks, measured, twins: spoilt }
    }

    /// The checks that did not pass.
    pub fn complaints(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.outcome != Outcome::Pass)
    }
}

/// A scenario that came to its end, however it went.
#[derive(Debug)]
pub struct Run {
    /// What was played.
    pub scenario: Scenario,
    /// What was seen.
    pub seen: Seen,
    /// The judgement.
    pub verdict: Verdict,
    /// Where the artifacts lie.
    pub layout: Layout,
}

/// Hears of the steps as they go.
pub trait Progress {
    /// A step begins.
    fn started(&mut self, title: &str);
    /// The current step is at this point.
    fn status(&mut self, text: &str);
    /// The current step is over.
    fn ended(&mut self, step: &Played);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn started(&mut self, _: &str) {}
    fn status(&mut self, _: &str) {}
    fn ended(&mut self, _: &Played) {}
}

/// Why a scenario could not be carried through; never for what is judged.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is none.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no scenario of this name.
    #[error("there is no scenario `{name}`; there are: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those there are.
        known: String,
    },
    /// A worker is to load a plugin of which there is no manifest.
    #[error("worker {worker} is to load `{plugin}`, and there is no such manifest in {}", dir.display())]
    Plugin {
        /// The worker.
        worker: String,
        /// The plugin.
        plugin: String,
        /// Where manifests are looked for.
        dir: PathBuf,
    },
    /// The fleet it is played on cannot go on.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

impl From<FixtureError> for ScenarioError {
    fn from(error: FixtureError) -> Self {
        Self::Fleet(error.into())
    }
}

impl ScenarioError {
    /// The exit code of a command that ends with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let code = match self {
            Self::Unknown { .. } => ExitCode::Usage,
            Self::File(FileError::Read { .. }) | Self::Plugin { .. } => ExitCode::NoInput,
            Self::File(_) => ExitCode::Config,
            Self::Fleet(error) => return error.exit_code(),
        };
        code.code()
    }
}

/// The scenarios in `dir`, by name: those files that end in `.toml`.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(dir: &Path) -> Result<BTreeMap<String, PathBuf>, ScenarioError> {
    let entries = fs::read_dir(dir).map_err(on("read", dir))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths = paths.collect::<Result<Vec<_>, _>>().map_err(on("read", dir))?;
    let toml = paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let named = toml.filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path)));
    Ok(named.collect())
}

/// Plays a scenario and judges it. When this returns, nothing that it started is left.
///
/// # Errors
/// When its directory is taken or cannot be used, a plugin is missing, or the interrupt comes.
pub fn run(
    scenario: &Scenario,
    options: &Options,
    progress: &mut dyn Progress,
    interrupt: &Interrupt,
) -> Result<Run, ScenarioError> {
    let mut scenario = scenario.clone();
    scenario.timing = scenario.timing.or(options.timing);
    let dir = Path::new("data/scenario").join(&scenario.name);
    let claim = Claim::of(Layout { root: options.root.clone(), dir })?;
    claim.clear(options.keep)?;
    let layout = claim.layout.clone();
    let fixtures = Fixtures::read(&options.fixtures)?;
    fixtures.write_plugins(&layout, &options.binaries.cdylib)?;
    let stage =
        play::Stage { options, layout: &layout, fixtures: &fixtures, run: RunId::generate() };
    let seen = play::play(&scenario, &stage, progress, interrupt)?;
    let record = layout.record();
    seen.write(&record).map_err(on("write", record))?;
    let verdict = Verdict::of(&scenario, &seen);
    Ok(Run { scenario, seen, verdict, layout })
}

#[cfg(test)]
mod tests;
