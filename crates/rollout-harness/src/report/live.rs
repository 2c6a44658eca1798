//! A run's steps as a table that grows while the run goes on.

use std::io::Write;
use std::time::{Duration, Instant};

use super::{Look, WIDTH, cut, mark, wrap};
use crate::judge::Outcome;
use crate::timeline::{Progress, Step, StepReport};

/// How often the current row is painted.
const REPAINT: Duration = Duration::from_millis(80);
/// Without a terminal, a build that takes longer than this shows what cargo says.
const PATIENCE: Duration = Duration::from_secs(2);
const SPINNER: [&str; 8] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧"];
/// What is left of a row beside step, time, budget and mark.
const DETAIL: usize = WIDTH - 50;

/// Shows each step in a row of its own. What cannot be written is not shown; the run goes on.
#[derive(Debug)]
pub struct Table<W: Write> {
    out: W,
    look: Look,
    current: Option<(Step, Instant)>,
    painted: Option<Instant>,
    paints: usize,
}

impl<W: Write> Table<W> {
    /// A table on `out`, with its heading.
    pub fn new(mut out: W, look: Look) -> Self {
        let heading = row("step", "took", "budget", " ", "");
        let _ = writeln!(out, "{}", look.dim(&heading));
        Self { out, look, current: None, painted: None, paints: 0 }
    }

    fn paint(&mut self, step: Step, since: Instant, text: &str) {
        let spinner = SPINNER[self.paints % SPINNER.len()];
        self.paints += 1;
        let took = format!("{:.1} s  ", since.elapsed().as_secs_f64());
        let budget = step.budget().to_string();
        let row = row(step.title(), &took, &budget, spinner, &cut(text, DETAIL));
        let _ = write!(self.out, "\r\x1b[K{}", self.look.dim(&row));
        let _ = self.out.flush();
        self.painted = Some(Instant::now());
    }
}

fn row(title: &str, took: &str, budget: &str, mark: &str, detail: &str) -> String {
    let row = format!("  {title:<25}{took:>9}{budget:>9}  {mark}  {detail}");
    row.trim_end().to_owned()
}

/// The finished row of a step: what is wrong with it stands below.
pub(super) fn finished(report: &StepReport, look: Look) -> String {
    let took = format!("{:.3} s", report.took.as_secs_f64());
    let budget = report.step.budget().to_string();
    let complaint = report.complaint();
    let outcome = if complaint.is_some() { Outcome::Fail } else { Outcome::Pass };
    let detail = match (&complaint, &report.result) {
        (None, Ok(said)) => look.dim(&cut(said, DETAIL)),
        _ => String::new(),
    };
    let mark = look.outcome(outcome, mark(outcome));
    let mut text = row(report.step.title(), &took, &budget, &mark, &detail);
    if let Some(complaint) = complaint {
        text = text + "\n" + &look.outcome(Outcome::Fail, &wrap(&complaint, 4));
    }
    text
}

impl<W: Write> Progress for Table<W> {
    fn started(&mut self, step: Step) {
        let now = Instant::now();
        self.current = Some((step, now));
        self.painted = None;
        if self.look.live {
            self.paint(step, now, "");
        }
    }

    fn status(&mut self, text: &str) {
        let Some((step, since)) = self.current else { return };
        if self.look.live {
            if self.painted.is_none_or(|painted| painted.elapsed() >= REPAINT) {
                self.paint(step, since, text.trim());
            }
        } else if step == Step::Build && since.elapsed() > PATIENCE {
            let _ = writeln!(self.out, "    {}", cut(text.trim(), WIDTH - 4));
        }
    }

    fn ended(&mut self, report: &StepReport) {
        let start = if self.look.live { "\r\x1b[K" } else { "" };
        let _ = writeln!(self.out, "{start}{}", finished(report, self.look));
        let _ = self.out.flush();
        self.current = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(look: Look, result: Result<String, String>) -> String {
        let mut out = Vec::new();
        let mut table = Table::new(&mut out, look);
        table.started(Step::Detect);
        table.status(&"status ".repeat(20));
        let took = Duration::from_millis(5731);
        table.ended(&StepReport { step: Step::Detect, took, result });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn without_a_terminal_a_step_is_one_plain_line() {
        let text = shown(Look::default(), Ok("fine ".repeat(20)));
        assert!(!text.contains('\x1b') && !text.contains("status"), "{text}");
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("Detect worker_failed(w1)   5.731 s    < 8 s  ✓  fine"), "{text}");
    }

    #[test]
    fn a_failed_step_says_all_of_why_within_the_width() {
        let text = shown(Look::default(), Err("why ".repeat(40) + "end"));
        assert!(text.contains('✗') && text.ends_with("end\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn on_a_terminal_the_current_row_is_painted_over() {
        let text = shown(Look { live: true, color: true }, Ok("fine".into()));
        assert!(text.contains('\r') && text.contains("\x1b[K"), "{text:?}");
        assert_eq!(text.lines().count(), 2);
    }
}
