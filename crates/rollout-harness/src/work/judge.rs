//! The judge over both runs: a pure function of what was seen.

mod rules;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use rollout_core::percentile;
use rollout_core::{Mono, duration::as_ms};
use serde::Serialize;

use super::executions::Execution;
use super::kills::{Kill, kills};
use super::ledger::Ledger;
use super::results::Job;
use super::schedule::{Counts, Schedule};
use crate::judge::Check;
use crate::record::{Ended, Record};

/// What was seen of one run.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The fleet.
    pub record: Record,
    /// The instant before the client was started.
    pub began: Mono,
    /// How it ended; nothing, if it had to be killed.
    pub ended: Option<Ended>,
    /// What it wrote to its standard error.
    pub stderr: String,
    /// Why the run was broken off, if it was.
    pub trouble: Option<String>,
    /// `results.jsonl`, if it is there.
    pub results: Option<Vec<u8>>,
    /// `dead.jsonl`; empty, if it is not there.
    pub dead: Vec<u8>,
    /// What the plugin noted; or a line that is no note.
    pub executions: Result<Vec<Execution>, String>,
}

/// Both runs.
#[derive(Debug, Clone)]
pub struct Case {
    /// What was done in both.
    pub job: Job,
    /// The run that was left alone.
    pub undisturbed: Seen,
    /// The run that was not, and what was to be done to it.
    pub disturbed: Option<(Schedule, Seen)>,
    /// What is asked of the figures.
    pub bounds: Bounds,
}

/// What is asked of the figures; nothing by default: a busy machine is not a broken promise.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bounds {
    /// The 99th percentile of the time from a kill until the items run elsewhere.
    pub ran_p99: Option<Duration>,
    /// By how many percent the disturbed run may take longer.
    pub cost_percent: Option<f64>,
}

/// How both runs come out.
pub type Judgement = crate::judge::Judgement<Figures>;

/// What was counted and measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// How long the client of the undisturbed run took, in seconds.
    pub undisturbed_s: f64,
    /// How long that of the disturbed run took.
    pub disturbed_s: f64,
    /// How much longer that is, in percent.
    pub cost_percent: f64,
    /// What was done.
    pub done: Counts,
    /// How many executions there were, and of how many items.
    pub executions: usize,
    /// How many items there are.
    pub items: u64,
    /// Outcomes that were refused as stale.
    pub stale: u64,
    /// Items taken from workers, by cause.
    pub redispatched: BTreeMap<String, u64>,
    /// The kills of workers.
    pub kills: Vec<Kill>,
}

impl Figures {
    /// From a kill until each item ran elsewhere, in milliseconds, in order of size; of kills around
    /// which the coordinator ran, or of the others.
    #[must_use]
    pub fn ran_ms(&self, served: bool) -> Vec<f64> {
        sorted(self.kills.iter().filter(|kill| kill.served == served).flat_map(|k| &k.ran_ms))
    }

    /// The same until each item was given to another process.
    #[must_use]
    pub fn leased_ms(&self, served: bool) -> Vec<f64> {
        sorted(self.kills.iter().filter(|kill| kill.served == served).flat_map(|k| &k.leased_ms))
    }
}

fn sorted<'a>(values: impl Iterator<Item = &'a f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.copied().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Judges both runs.
#[must_use]
pub fn judge(case: &Case) -> Judgement {
    let undisturbed = View::of(&case.undisturbed);
    let mut checks = rules::of_run("undisturbed", case.job, &undisturbed);
    checks.push(rules::calm(case.job, &undisturbed));
    let mut figures = Figures {
        undisturbed_s: undisturbed.took().as_secs_f64(),
        items: case.job.items,
        executions: undisturbed.executions().len(),
        ..Figures::default()
    };
    if let Some((schedule, seen)) = &case.disturbed {
        let view = View::of(seen);
        figures = disturbed_figures(figures, &view);
        checks.extend(rules::of_run("disturbed", case.job, &view));
        checks.push(rules::identical(&case.undisturbed, seen));
        checks.push(rules::faults(schedule, &view));
        checks.push(rules::outlasted(&view));
        checks.push(rules::took_along(&figures));
        checks.extend(bounds(&case.bounds, &figures));
    }
    Judgement::of(checks, figures)
}

fn disturbed_figures(figures: Figures, view: &View<'_>) -> Figures {
    let disturbed_s = view.took().as_secs_f64();
    let longer = disturbed_s - figures.undisturbed_s;
    Figures {
        disturbed_s,
        cost_percent: 100.0 * longer / figures.undisturbed_s.max(f64::EPSILON),
        done: rules::done(view),
        executions: view.executions().len(),
        stale: view.ledger.stale,
        redispatched: view.ledger.redispatched.clone(),
        kills: kills(&view.seen.record, &view.ledger, view.executions()),
        ..figures
    }
}

/// One run, and what its coordinator says of items.
struct View<'a> {
    seen: &'a Seen,
    ledger: Ledger,
}

impl<'a> View<'a> {
    fn of(seen: &'a Seen) -> Self {
        Self { seen, ledger: Ledger::of(&seen.record) }
    }

    fn executions(&self) -> &'a [Execution] {
        self.seen.executions.as_deref().unwrap_or_default()
    }

    /// The end of the client, or of the run if it did not end.
    fn end(&self) -> Mono {
        self.seen.ended.as_ref().map_or(self.seen.record.ended, |ended| ended.at)
    }

    fn took(&self) -> Duration {
        self.end().since(self.seen.began)
    }
}

fn check(name: impl Into<Cow<'static, str>>, result: Result<String, String>) -> Check {
    Check::found(name, result, false)
}

/// The figures against what is asked of them.
fn bounds(bounds: &Bounds, figures: &Figures) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(bound) = bounds.ran_p99 {
        let bound = as_ms(bound);
        checks.push(check(
            "run-elsewhere",
            match percentile(&figures.ran_ms(true), 99) {
                None => Err("no killed worker had items".into()),
                Some(p99) if p99 > bound => {
                    Err(format!("p99 {p99:.0} ms of at most {bound:.0} ms"))
                }
                Some(p99) => Ok(format!("p99 {p99:.0} ms of at most {bound:.0} ms")),
            },
        ));
    }
    if let Some(bound) = bounds.cost_percent {
        let detail = format!("{:.1} % of at most {bound:.1} %", figures.cost_percent);
        let held = figures.cost_percent <= bound;
        checks.push(check("cost", if held { Ok(detail) } else { Err(detail) }));
    }
    checks
}

#[cfg(test)]
mod tests;
