//! What there is to say of a chaos run, while it goes on and after it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use rollout_core::duration::as_ms;
use serde_json::json;

use super::repeat::Spread;
use super::{Look, WIDTH, cut, mark, wrap};
use crate::chaos::{Judgement, Progress, Watch};
use crate::judge::Outcome;
use crate::record::{Record, What};

/// Shows how a run goes, in one line that is painted over; without a terminal, what begins.
#[derive(Debug)]
pub struct Pulse<W: Write> {
    out: W,
    look: Look,
}

impl<W: Write> Pulse<W> {
    /// A line on `out`.
    pub fn new(out: W, look: Look) -> Self {
        Self { out, look }
    }

    fn paint(&mut self, text: &str) {
        let line = self.look.dim(&cut(text, WIDTH));
        // What cannot be shown is not shown; the run goes on.
        let _ = write!(self.out, "\r\x1b[K{line}").and_then(|()| self.out.flush());
    }
}

impl<W: Write> Watch for Pulse<W> {
    fn says(&mut self, what: &str) {
        if self.look.live {
            return self.paint(&format!("  {what}"));
        }
        let _ = writeln!(self.out, "  {what}").and_then(|()| self.out.flush());
    }

    fn goes(&mut self, progress: &Progress) {
        if self.look.live {
            let Progress { elapsed, length, faults, of, verdicts, terms } = progress;
            let (elapsed, length) = (elapsed.as_secs_f64(), length.as_secs());
            self.paint(&format!(
                "  {elapsed:>6.1} of {length} s   {faults:>3} of {of} faults   {verdicts:>3} \
                 verdicts   {terms} terms"
            ));
        }
    }
}

/// The report below.
#[must_use]
pub fn chaos(record: &Record, judgement: &Judgement, look: Look) -> String {
    let start = if look.live { "\r\x1b[K" } else { "" };
    let mut text = format!("{start}  {}\n\n", look.bold(&record.title));
    let _ = writeln!(text, "  {:<10}{}\n", "done", wrap(&done(record), 12).trim_start());
    for check in &judgement.checks {
        let sign = look.outcome(check.outcome, mark(check.outcome));
        let name = format!("{:<18}", check.name);
        if check.outcome == Outcome::Pass {
            let detail = look.dim(&cut(&check.detail, WIDTH - 23));
            let _ = writeln!(text, "  {sign} {name} {detail}");
        } else {
            let _ = writeln!(text, "  {sign} {}", look.outcome(check.outcome, name.trim_end()));
            let _ = writeln!(text, "{}", wrap(&check.detail, 6));
        }
    }
    text += &figures(judgement, look);
    let word = judgement.outcome.word().to_uppercase();
    let _ = writeln!(text, "\n  {}", look.outcome(judgement.outcome, &word));
    text
}

/// How often what was done.
fn counts(record: &Record) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for fault in record.faults.iter().filter(|fault| fault.what != What::Restart) {
        *counts.entry(fault.what.word()).or_default() += 1;
    }
    counts
}

fn done(record: &Record) -> String {
    let counts = counts(record).into_iter().map(|(what, times)| format!("{times} {what}"));
    let lives: usize = record.processes.iter().map(|process| process.lives.len()).sum();
    let done = counts.collect::<Vec<_>>().join(", ");
    format!("{done}; {} processes, {lives} lives", record.processes.len())
}

fn figures(judgement: &Judgement, look: Look) -> String {
    let figures = &judgement.figures;
    let heading = format!("  {:<12}{:>12}{:>14}{:>14}{:>14}", "", "min", "median", "p99", "max");
    let mut text = format!("\n{}\n", look.dim(&heading));
    for (name, values) in
        [("overshoot", &figures.overshoot_ms), ("suspicion", &figures.suspicion_ms)]
    {
        if let Some(spread) = Spread::of(values.clone()) {
            let _ = write!(text, "  {name:<12}");
            for value in spread.values() {
                let _ = write!(text, "{value:>11.3} ms");
            }
            text.push('\n');
        }
    }
    text
}

/// Everything about a run as JSON, but the record itself.
#[must_use]
pub fn chaos_json(record: &Record, judgement: &Judgement) -> String {
    let report = json!({
        "title": record.title,
        "run_id": record.run,
        "outcome": judgement.outcome,
        "wall_ms": as_ms(record.ended.since(record.began)),
        "harness_late_ms": as_ms(record.harness_late),
        "done": counts(record),
        "checks": judgement.checks,
        "figures": judgement.figures,
    });
    format!("{report:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_one_line_within_the_width_and_without_a_terminal_none() {
        let progress = Progress { faults: 123, of: 456, verdicts: 789, ..Progress::default() };
        for (live, lines) in [(true, 1), (false, 0)] {
            let mut out = Vec::new();
            Pulse::new(&mut out, Look { live, color: false }).goes(&progress);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.lines().count(), lines);
            assert!(text.trim_start_matches("\r\x1b[K").chars().count() <= WIDTH, "{text}");
            assert_eq!(text.contains("123 of 456 faults"), live, "{text}");
        }
    }
}
