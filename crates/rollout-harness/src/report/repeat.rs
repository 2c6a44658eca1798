//! Many runs: a row each, and how their figures are distributed.

use std::fmt::Write as _;
use std::io::Write;
use std::time::{Duration, Instant};

use rollout_core::duration::as_ms;
use rollout_core::percentile;
use serde::Serialize;

use super::live::finished;
use super::{Look, WIDTH, cut, mark};
use crate::judge::Outcome;
use crate::smoke::{Measured, Run};
use crate::timeline::{Progress, Step, StepReport};

const REPAINT: Duration = Duration::from_millis(80);

/// Shows each run in a row of its own, and while it goes on the step it has come to.
#[derive(Debug)]
pub struct Rows<W: Write> {
    out: W,
    look: Look,
    step: Option<Step>,
    painted: Option<Instant>,
}

impl<W: Write> Rows<W> {
    /// Rows on `out`, with their heading.
    pub fn new(mut out: W, look: Look) -> Self {
        let heading = format!(
            "  {:>4}  {:<14}{:>11}{:>13}{:>11}{:>11}{:>12}",
            "run", "", "detection", "overshoot", "to spare", "wall", "harness"
        );
        let _ = writeln!(out, "{}", look.dim(&heading));
        Self { out, look, step: None, painted: None }
    }

    /// The row of a run that is over.
    pub fn finished(&mut self, number: usize, run: &Run) {
        let outcome = run.verdict.outcome;
        let word = format!("{} {:<12}", mark(outcome), outcome.word());
        let figures = run.verdict.measured.map_or_else(
            || format!("{:>11}{:>13}{:>11}", "-", "-", "-"),
            |Measured { latency_ms, overshoot_ms, spare_ms }| {
                let (latency, spare) = (latency_ms / 1e3, spare_ms / 1e3);
                format!("{latency:>9.3} s{overshoot_ms:>10.3} ms{spare:>9.3} s")
            },
        );
        let wall = run.wall.as_secs_f64();
        let late = as_ms(run.evidence.harness_late);
        let start = if self.look.live { "\r\x1b[K" } else { "" };
        let word = self.look.outcome(outcome, &word);
        let _ =
            writeln!(self.out, "{start}  {number:>4}  {word}{figures}{wall:>9.3} s{late:>9.1} ms");
        let _ = self.out.flush();
    }
}

impl<W: Write> Progress for Rows<W> {
    fn started(&mut self, step: Step) {
        self.step = Some(step);
        self.painted = None;
        self.status("");
    }

    fn status(&mut self, text: &str) {
        let due = self.painted.is_none_or(|painted| painted.elapsed() >= REPAINT);
        if let Some(step) = self.step.filter(|_| self.look.live && due) {
            let line = cut(&format!("        {}  {}", step.title(), text.trim()), WIDTH);
            let _ = write!(self.out, "\r\x1b[K{}", self.look.dim(&line));
            let _ = self.out.flush();
            self.painted = Some(Instant::now());
        }
    }

    /// A step is worth a row here only if something is wrong with it.
    fn ended(&mut self, report: &StepReport) {
        if report.complaint().is_some() {
            let start = if self.look.live { "\r\x1b[K" } else { "" };
            let _ = writeln!(self.out, "{start}{}", finished(report, self.look));
        }
    }
}

/// How a figure is distributed over runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// Half of them are not above it.
    pub median: f64,
    /// 99 of 100 are not above it.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// The least, the median, the 99th of a hundred, the greatest.
    pub(super) const fn values(self) -> [f64; 4] {
        [self.min, self.median, self.p99, self.max]
    }

    /// By the nearest rank, so that every number is one that was measured; of none there is none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let rank = |percent| percentile(&values, percent);
        Some(Self { min: rank(0)?, median: rank(50)?, p99: rank(99)?, max: rank(100)? })
    }
}

/// The figures of those runs that have some.
pub(super) fn figures(runs: &[Run], pick: fn(&Measured) -> f64) -> Vec<f64> {
    runs.iter().filter_map(|run| run.verdict.measured.as_ref().map(pick)).collect()
}

/// The distribution of the figures, and how many runs came out how.
#[must_use]
pub fn distribution(runs: &[Run], look: Look) -> String {
    let mut text = String::from("\n");
    let heading = format!("  {:<12}{:>12}{:>14}{:>14}{:>14}", "", "min", "median", "p99", "max");
    let _ = writeln!(text, "{}", look.dim(&heading));
    let wall = runs.iter().map(|run| run.wall.as_secs_f64()).collect();
    for (name, unit, values) in [
        ("detection", "s ", figures(runs, |m| m.latency_ms / 1e3)),
        ("overshoot", "ms", figures(runs, |m| m.overshoot_ms)),
        ("to spare", "s ", figures(runs, |m| m.spare_ms / 1e3)),
        ("wall", "s ", wall),
    ] {
        if let Some(Spread { min, median, p99, max }) = Spread::of(values) {
            let _ = write!(text, "  {name:<12}");
            for value in [min, median, p99, max] {
                let _ = write!(text, "{value:>11.3} {unit}");
            }
            text = text.trim_end().to_owned() + "\n";
        }
    }
    let count = |outcome| runs.iter().filter(|run| run.verdict.outcome == outcome).count();
    let counts = [Outcome::Pass, Outcome::Inconclusive, Outcome::Fail]
        .map(|outcome| (outcome, count(outcome)))
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(outcome, count)| look.outcome(outcome, &format!("{count} {}", outcome.word())));
    let _ = writeln!(text, "\n  {} runs: {}", runs.len(), counts.collect::<Vec<_>>().join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_made_of_values_that_were_measured() {
        assert_eq!(Spread::of(vec![]), None);
        let one = Spread { min: 2.0, median: 2.0, p99: 2.0, max: 2.0 };
        assert_eq!(Spread::of(vec![2.0]), Some(one));
        let many = Spread::of((1..=20).rev().map(f64::from).collect()).unwrap();
        assert_eq!(many, Spread { min: 1.0, median: 10.0, p99: 20.0, max: 20.0 });
    }
}
