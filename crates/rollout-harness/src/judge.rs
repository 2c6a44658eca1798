//! The judge: a pure function from what was seen to a verdict, with no clock and no file.

mod rules;
mod timing;

use std::borrow::Cow;
use std::time::Duration;

use rollout_core::{Event, Mono, RunId, TimeBudget, WorkerId};
use rollout_process::Exit;
use serde::Serialize;

use crate::log::Log;
use crate::record::Life;
use crate::timeline::StepReport;

pub use timing::Measured;
pub(crate) use timing::credit;

/// How late the harness itself may be between the kill and the verdict.
pub const LATENESS_LIMIT: Duration = Duration::from_millis(250);

/// What one process left behind for the judge.
#[derive(Debug, Clone, Default)]
pub struct Witness {
    /// Its standard output.
    pub log: Log,
    /// Its standard error.
    pub stderr: String,
    /// How it ended; `None` if it was never started.
    pub exit: Option<Exit>,
    /// From its start to its end, if it was started.
    pub life: Option<Life>,
}

/// A worker and what it left behind.
#[derive(Debug, Clone)]
pub struct WorkerWitness {
    /// Its id.
    pub id: WorkerId,
    /// What it left behind.
    pub seen: Witness,
}

/// Everything that was seen of a run.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The run.
    pub run: RunId,
    /// The coordinator's time budget.
    pub timing: TimeBudget,
    /// The names of the plugins that both workers were given.
    pub plugins: Vec<String>,
    /// The line by which the coordinator announces a new CA, if its file has it make one.
    pub ca_line: Option<String>,
    /// The steps that were reached.
    pub steps: Vec<StepReport>,
    /// The coordinator.
    pub coordinator: Witness,
    /// The worker that is killed.
    pub w1: WorkerWitness,
    /// The worker that is not.
    pub w2: WorkerWitness,
    /// The instant just before the kill, if it came to that.
    pub kill: Option<Mono>,
    /// The instant just before the second worker was asked to end.
    pub w2_stop: Option<Mono>,
    /// The worst lateness of the harness itself between the kill and the verdict.
    pub harness_late: Duration,
    /// What was still there after the end, in words.
    pub leftovers: Vec<String>,
}

impl Evidence {
    /// The coordinator's events about `worker`.
    fn about(&self, worker: WorkerId) -> impl DoubleEndedIterator<Item = &Event> {
        self.coordinator.log.events().filter(move |event| event.worker_id == Some(worker))
    }

    /// The three processes by name.
    #[must_use]
    pub fn processes(&self) -> [(&'static str, &Witness); 3] {
        [("coord", &self.coordinator), ("w1", &self.w1.seen), ("w2", &self.w2.seen)]
    }
}

/// How a check or a whole run comes out; the greater one prevails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The promise was kept.
    Pass,
    /// The machine did not let the run show it.
    Inconclusive,
    /// The promise was broken.
    Fail,
}

impl Outcome {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "fail",
        }
    }

    /// The exit code of a command with this outcome: 0, 2 or 1.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::Inconclusive => 2,
        }
    }
}

/// One claim, judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The claim's name.
    pub name: Cow<'static, str>,
    /// How it came out.
    pub outcome: Outcome,
    /// What was seen.
    pub detail: String,
}

impl Check {
    /// Whether the machine let a run show anything: what starved it, or that it was calm.
    pub(crate) fn conditions(starved: &[String], calm: impl FnOnce() -> String) -> Self {
        let (outcome, detail) = match starved {
            [] => (Outcome::Pass, calm()),
            starved => (Outcome::Inconclusive, starved.join("; ")),
        };
        Self { name: "conditions".into(), outcome, detail }
    }

    /// What looking at a claim found: that it holds, or what is wrong and is excused or not.
    pub(crate) fn found(
        name: impl Into<Cow<'static, str>>,
        finding: Result<String, String>,
        excused: bool,
    ) -> Self {
        let (outcome, detail) = match finding {
            Ok(detail) => (Outcome::Pass, detail),
            Err(detail) if excused => (Outcome::Inconclusive, detail),
            Err(detail) => (Outcome::Fail, detail),
        };
        Self { name: name.into(), outcome, detail }
    }
}

/// The worst outcome of the checks; that there is none is a failure.
pub(crate) fn worst(checks: &[Check]) -> Outcome {
    checks.iter().map(|check| check.outcome).max().unwrap_or(Outcome::Fail)
}

/// How a run comes out that has the figures `F`.
#[derive(Debug, Clone, Serialize)]
pub struct Judgement<F> {
    /// The worst outcome of all checks.
    pub outcome: Outcome,
    /// The checks; those for which there was nothing to look at, and need not have been, left out.
    pub checks: Vec<Check>,
    /// The figures.
    pub figures: F,
}

impl<F> Judgement<F> {
    pub(crate) fn of(checks: Vec<Check>, figures: F) -> Self {
        Self { outcome: worst(&checks), checks, figures }
    }

    /// The checks that did not pass.
    pub fn complaints(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.outcome != Outcome::Pass)
    }

    /// The check of this name.
    #[must_use]
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }
}

/// The judgement of a run.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The worst outcome of all checks.
    pub outcome: Outcome,
    /// The checks, those that could not be judged (nothing was there to judge) left out.
    pub checks: Vec<Check>,
    /// The figures, if `worker_failed` came for the killed worker.
    pub measured: Option<Measured>,
}

impl Verdict {
    /// The checks that did not pass.
    pub fn complaints(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.outcome != Outcome::Pass)
    }
}

/// What a rule finds: that the claim holds, or not, or (`None`) that there is nothing to judge.
type Finding = Option<Result<String, String>>;

/// A claim about a run.
struct Rule {
    name: &'static str,
    /// Whether a starved machine excuses a failure of it.
    excusable: bool,
    find: fn(&Evidence) -> Finding,
}

/// Judges a run.
///
/// A starved machine (the harness was late, the coordinator credited a stall) makes the run
/// inconclusive, and excuses only what starving can cause: slow steps, late detection, missed
/// beats. An event that is too early, missing, doubled or about the wrong worker fails regardless.
#[must_use]
pub fn judge(evidence: &Evidence) -> Verdict {
    let starved = timing::starved(evidence);
    let mut checks = vec![Check::conditions(&starved, || timing::calm(evidence))];
    checks.extend(rules::ALL.iter().filter_map(|rule| {
        let excused = rule.excusable && !starved.is_empty();
        Some(Check::found(rule.name, (rule.find)(evidence)?, excused))
    }));
    Verdict { outcome: worst(&checks), checks, measured: Measured::of(evidence) }
}
