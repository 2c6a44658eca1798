//! The judge of a smoke run.

mod rules;
mod timing;

use std::time::Duration;

use rollout_core::{Event, Mono, RunId, TimeBudget, WorkerId};
use rollout_process::Exit;

use crate::judge::{Check, Outcome, worst};
use crate::log::Log;
use crate::record::Life;
use crate::timeline::StepReport;

pub use timing::Measured;

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
