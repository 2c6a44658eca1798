//! What there is to say of one job done twice.

use std::fmt::Write as _;
use std::io::Write;

use serde_json::json;

use super::repeat::Spread;
use super::{Look, WIDTH, cut, mark, wrap};
use crate::judge::Outcome;
use crate::work::{Case, Figures, Judgement, Progress, Watch};

/// Shows how a run goes, in one line that is painted over; without a terminal, what begins.
#[derive(Debug)]
pub struct Work<W: Write> {
    out: W,
    look: Look,
}

impl<W: Write> Work<W> {
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

impl<W: Write> Watch for Work<W> {
    fn says(&mut self, what: &str) {
        if self.look.live {
            return self.paint(&format!("  {what}"));
        }
        let _ = writeln!(self.out, "  {what}").and_then(|()| self.out.flush());
    }

    fn goes(&mut self, progress: &Progress) {
        if self.look.live {
            let Progress { elapsed, done, items, faults, of } = progress;
            let elapsed = elapsed.as_secs_f64();
            self.paint(&format!(
                "  {elapsed:>6.1} s   {done:>6} of {items} items   {faults:>3} of {of} faults"
            ));
        }
    }
}

/// The report below.
#[must_use]
pub fn work(case: &Case, judgement: &Judgement, look: Look) -> String {
    let start = if look.live { "\r\x1b[K" } else { "" };
    let last = case.disturbed.as_ref().map_or(&case.undisturbed, |(_, seen)| seen);
    let mut text = format!("{start}  {}\n\n", look.bold(&last.record.title));
    for check in &judgement.checks {
        let sign = look.outcome(check.outcome, mark(check.outcome));
        let name = format!("{:<20}", check.name);
        if check.outcome == Outcome::Pass {
            let detail = look.dim(&cut(&check.detail, WIDTH - 25));
            let _ = writeln!(text, "  {sign} {name} {detail}");
        } else {
            let _ = writeln!(text, "  {sign} {}", look.outcome(check.outcome, name.trim_end()));
            let _ = writeln!(text, "{}", wrap(&check.detail, 6));
        }
    }
    if case.disturbed.is_some() {
        text += &figures(&judgement.figures, look);
    }
    let word = judgement.outcome.word().to_uppercase();
    let _ = writeln!(text, "\n  {}", look.outcome(judgement.outcome, &word));
    text
}

fn figures(figures: &Figures, look: Look) -> String {
    let Figures { undisturbed_s, disturbed_s, cost_percent, executions, items, stale, .. } =
        figures;
    let mut text = format!(
        "\n  {undisturbed_s:.2} s undisturbed, {disturbed_s:.2} s disturbed ({cost_percent:+.1} %); \
         {executions} executions\n  of {items} items, {stale} results refused as stale"
    );
    for (cause, items) in &figures.redispatched {
        let _ = write!(text, ", {items} {cause}");
    }
    let head = format!("  {:<30}{:>6}{:>11}{:>11}{:>11}", "", "items", "median", "p99", "max");
    let _ = write!(text, "\n\n{}\n", look.dim(&head));
    for (name, values) in [
        ("SIGKILL to given elsewhere", figures.leased_ms(true)),
        ("SIGKILL to running elsewhere", figures.ran_ms(true)),
        ("the same, coordinator killed", figures.ran_ms(false)),
    ] {
        let count = values.len();
        if let Some(Spread { median, p99, max, .. }) = Spread::of(values) {
            let cells = [median, p99, max].map(|value| format!("{value:>8.0} ms")).concat();
            let _ = writeln!(text, "  {name:<30}{count:>6}{cells}");
        }
    }
    let again: usize = figures.kills.iter().map(|kill| kill.lost_again).sum();
    if again > 0 {
        let _ = writeln!(text, "  left out: {again} items that the next worker lost as well");
    }
    text
}

/// Everything about both runs as JSON, but the records themselves.
#[must_use]
pub fn work_json(case: &Case, judgement: &Judgement) -> String {
    let report = json!({
        "run_ids": [Some(case.undisturbed.record.run),
            case.disturbed.as_ref().map(|(_, seen)| seen.record.run)],
        "seed": case.job.seed,
        "outcome": judgement.outcome,
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
        let progress =
            Progress { done: 123_456, items: 234_567, faults: 99, ..Progress::default() };
        for (live, lines) in [(true, 1), (false, 0)] {
            let mut out = Vec::new();
            Work::new(&mut out, Look { live, color: false }).goes(&progress);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.lines().count(), lines);
            assert!(text.trim_start_matches("\r\x1b[K").chars().count() <= WIDTH, "{text}");
        }
    }

    #[test]
    fn the_table_of_figures_fits() {
        let kill = crate::work::Kill {
            worker: "w1".into(),
            at: rollout_core::Mono(0),
            held: 2,
            served: true,
            leased_ms: vec![1_234.0, 5.0],
            lost_again: 1,
            ran_ms: vec![1_250.0, 12_345.0],
        };
        let some = Figures { kills: vec![kill], undisturbed_s: 25.0, ..Figures::default() };
        let text = figures(&some, Look::default());
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("SIGKILL to running elsewhere       2"), "{text}");
        assert!(!text.contains("coordinator killed"), "{text}");
    }
}
