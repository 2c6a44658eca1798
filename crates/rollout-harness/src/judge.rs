//! What every judge has: outcomes, checks, judgements. A judge is a pure function from what was seen
//! to one of these, with no clock and no file.

use std::borrow::Cow;
use std::time::Duration;

use rollout_core::duration::as_ms;
use rollout_core::event::{LinesDropped, WorkerFailed};
use serde::Serialize;

/// How late the harness itself may be between the kill and the verdict.
pub const LATENESS_LIMIT: Duration = Duration::from_millis(250);

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

/// That the harness itself was too late for a run to show anything, if it was.
pub(crate) fn late(harness: Duration) -> Option<String> {
    let (late, limit) = (as_ms(harness), as_ms(LATENESS_LIMIT));
    (harness > LATENESS_LIMIT)
        .then(|| format!("the harness itself was {late:.0} ms late (limit {limit:.0} ms)"))
}

/// That the coordinator's stream is not whole.
pub(crate) fn lost(lines: &LinesDropped) -> String {
    let LinesDropped { heartbeats, others, .. } = lines;
    format!("the coordinator's stream lost {heartbeats} heartbeat and {others} other lines")
}

/// The credited time, less the microsecond to which the event rounds it.
pub(crate) fn credit(failed: &WorkerFailed) -> Duration {
    Duration::try_from_secs_f64((failed.credited_ms - 0.001) / 1e3).unwrap_or_default()
}
