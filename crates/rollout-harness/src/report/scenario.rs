//! What there is to see and to say of a scenario: the steps as they go, the checks, the figures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::time::{Duration, Instant};

use rollout_core::duration::as_ms;
use serde_json::{Value, json};

use super::repeat::Spread;
use super::{Look, WIDTH, checks, cut, mark, wrap};
use crate::judge::Outcome;
use crate::scenario::{Measure, Played, Progress, Run};

const REPAINT: Duration = Duration::from_millis(80);
/// The width of a step's or a check's name.
const NAME: usize = 33;
/// The width of what is said beside it.
const SAID: usize = WIDTH - NAME - 6;
/// How many lines of each log are shown on failure.
const TAIL: usize = 8;

/// Shows a scenario's steps while it goes on: a row each, or only those that fail.
#[derive(Debug)]
pub struct Steps<W: Write> {
    out: W,
    look: Look,
    quiet: bool,
    current: String,
    since: Instant,
    painted: Option<Instant>,
}

impl<W: Write> Steps<W> {
    /// Rows on `out`.
    pub fn new(out: W, look: Look, quiet: bool) -> Self {
        Self { out, look, quiet, current: String::new(), since: Instant::now(), painted: None }
    }

    fn paint(&mut self, status: &str) {
        let took = format!("{:.1} s", self.since.elapsed().as_secs_f64());
        let line = row(&self.current, &took, " ", &cut(status, SAID - 12));
        let _ = write!(self.out, "\r\x1b[K{}", self.look.dim(&line));
        let _ = self.out.flush();
        self.painted = Some(Instant::now());
    }
}

fn row(name: &str, took: &str, mark: &str, said: &str) -> String {
    let name = cut(name, NAME);
    format!("  {name:<NAME$}{took:>9}  {mark}  {said}").trim_end().to_owned()
}

impl<W: Write> Progress for Steps<W> {
    fn started(&mut self, title: &str) {
        title.clone_into(&mut self.current);
        self.since = Instant::now();
        self.painted = None;
        if self.look.live {
            self.paint("");
        }
    }

    fn status(&mut self, text: &str) {
        let due = self.painted.is_none_or(|painted| painted.elapsed() >= REPAINT);
        if self.look.live && due {
            self.paint(text.trim());
        }
    }

    fn ended(&mut self, step: &Played) {
        let start = if self.look.live { "\r\x1b[K" } else { "" };
        let outcome = if step.result.is_ok() { Outcome::Pass } else { Outcome::Fail };
        let text = match &step.result {
            Ok(_) if self.quiet => start.to_owned(),
            result => {
                let took = format!("{:.3} s", step.took.as_secs_f64());
                let said = result.as_deref().map(|said| cut(said, SAID - 12)).unwrap_or_default();
                let sign = self.look.outcome(outcome, mark(outcome));
                let line = row(&step.title, &took, &sign, &self.look.dim(&said));
                let why = result.as_ref().err().map(|why| format!("{}\n", wrap(why, 4)));
                let why = self.look.outcome(Outcome::Fail, &why.unwrap_or_default());
                format!("{start}{}\n{why}", line.trim_end())
            }
        };
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }
}

/// The report below the steps: every check with what was seen, and on failure where to look.
#[must_use]
pub fn scenario(run: &Run, again: &str, look: Look) -> String {
    let mut text = format!("\n{}", checks(&run.verdict.checks, NAME, look));
    if run.verdict.outcome != Outcome::Pass {
        text += &tails(run, look);
        let record = run.layout.root.join(run.layout.relative("record"));
        let _ = writeln!(text, "\n  {}", look.bold("more"));
        let _ = writeln!(text, "    tail -n 100 {}/*", record.display());
        let _ = writeln!(text, "    {again}");
    }
    let word = run.verdict.outcome.word().to_uppercase();
    let word = look.outcome(run.verdict.outcome, &word);
    let artifacts = look.dim(&format!("artifacts in {}", run.layout.dir.display()));
    let _ = writeln!(text, "\n  {word}  {artifacts}");
    text
}

/// The end of every log and of every standard error that says something.
fn tails(run: &Run, look: Look) -> String {
    let mut text = String::new();
    for process in &run.seen.record.processes {
        let lines = process.log.lines();
        let said: Vec<_> = process.stderr.lines().collect();
        let _ = writeln!(
            text,
            "\n  {}",
            look.bold(&format!("{}.log, {} lines", process.name, lines.len()))
        );
        let began = run.seen.record.began;
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            let shown = match &line.event {
                Ok(event) => {
                    let at = event.mono.since(began).as_secs_f64();
                    let attrs = attributes(event);
                    format!("{at:>7.3} {:<20}{attrs}", event.body.topic())
                }
                Err(_) => line.raw.clone(),
            };
            let _ = writeln!(text, "    {}", cut(&shown, WIDTH - 4));
        }
        if !said.is_empty() {
            let _ = writeln!(text, "  {}", look.bold(&format!("{}.stderr", process.name)));
            for line in &said[said.len().saturating_sub(TAIL)..] {
                let _ = writeln!(text, "    {}", cut(line, WIDTH - 4));
            }
        }
    }
    text
}

fn attributes(event: &rollout_core::Event) -> String {
    let value = serde_json::to_value(event).unwrap_or_default();
    let Some(Value::Object(attrs)) = value.get("attrs") else { return String::new() };
    attrs.iter().map(|(key, value)| format!(" {key}={value}")).collect()
}

/// The row of a scenario among many.
#[must_use]
pub fn scenario_row(run: &Run, look: Look) -> String {
    let outcome = run.verdict.outcome;
    let record = &run.seen.record;
    let wall = record.ended.since(record.began).as_secs_f64();
    let failed = run.verdict.twins.iter().filter(|twin| twin.wrong.is_none()).count();
    let checks = run.verdict.checks.len();
    let sign = look.outcome(outcome, &format!("{} {:<12}", mark(outcome), outcome.word()));
    let name = cut(&run.scenario.name, 26);
    format!("  {sign} {name:<26}{wall:>8.3} s {checks:>3} checks {failed:>4} twins\n")
}

/// How the figures of runs of one scenario are distributed, and how many came out how.
#[must_use]
pub fn scenario_distribution(runs: &[Run], look: Look) -> String {
    let mut text = String::from("\n");
    let heading = format!("  {:<28}{:>11}{:>13}{:>13}{:>13}", "", "min", "median", "p99", "max");
    let _ = writeln!(text, "{}", look.dim(&heading));
    for ((name, what), spread) in spreads(runs) {
        let name = if what.is_empty() { name } else { format!("  {what}") };
        let _ = write!(text, "  {:<28}", cut(&name, 27));
        for (value, width) in spread.values().into_iter().zip([8, 10, 10, 10]) {
            let _ = write!(text, "{value:>width$.1} ms");
        }
        text.push('\n');
    }
    let counts = [Outcome::Pass, Outcome::Inconclusive, Outcome::Fail]
        .map(|outcome| (outcome, runs.iter().filter(|run| run.verdict.outcome == outcome).count()));
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts
        .map(|(outcome, count)| look.outcome(outcome, &format!("{count} {}", outcome.word())))
        .collect();
    let _ = writeln!(text, "\n  {} runs: {}", runs.len(), counts.join(", "));
    text
}

/// What is measured beside the time from the beginning of a window.
const OVERSHOOT: &str = "past its lower bound";

/// A figure: the expectation it is of, and what it is.
type Figure = (String, &'static str);

/// The distribution of each figure.
fn spreads(runs: &[Run]) -> Vec<(Figure, Spread)> {
    let mut values: BTreeMap<Figure, Vec<f64>> = BTreeMap::new();
    for (name, measure) in runs.iter().flat_map(|run| &run.verdict.measured) {
        let Measure { latency_ms, overshoot_ms } = measure;
        for (what, value) in [("", latency_ms), (OVERSHOOT, overshoot_ms)] {
            if let Some(value) = value {
                values.entry((name.clone(), what)).or_default().push(*value);
            }
        }
    }
    values.into_iter().filter_map(|(figure, values)| Some((figure, Spread::of(values)?))).collect()
}

/// Everything about runs of scenarios as JSON.
#[must_use]
pub fn scenario_json(runs: &[Run]) -> String {
    let worst = runs.iter().map(|run| run.verdict.outcome).max();
    let mut names: Vec<_> = runs.iter().map(|run| run.scenario.name.clone()).collect();
    names.dedup();
    let distribution = if names.len() == 1 { spreads(runs) } else { Vec::new() };
    let named = distribution
        .into_iter()
        .map(|((name, what), spread)| (format!("{name} {what}").trim_end().to_owned(), spread));
    let report = json!({
        "outcome": worst.unwrap_or(Outcome::Inconclusive),
        "runs": runs.iter().map(one).collect::<Vec<_>>(),
        "distribution_ms": named.collect::<BTreeMap<_, _>>(),
    });
    format!("{report:#}\n")
}

fn one(run: &Run) -> Value {
    let record = &run.seen.record;
    let twins = run
        .verdict
        .twins
        .iter()
        .map(|twin| json!({ "check": twin.check, "spoilt": twin.spoilt, "wrong": twin.wrong }));
    let steps = run.seen.steps.iter().map(|step| {
        let (Ok(detail) | Err(detail)) = &step.result;
        json!({
            "title": step.title, "label": step.label, "took_ms": as_ms(step.took),
            "ok": step.result.is_ok(), "detail": detail,
        })
    });
    json!({
        "scenario": run.scenario.name,
        "about": run.scenario.about,
        "outcome": run.verdict.outcome,
        "run_id": record.run,
        "wall_ms": as_ms(record.ended.since(record.began)),
        "harness_late_ms": as_ms(record.harness_late),
        "checks": run.verdict.checks,
        "measured": run.verdict.measured,
        "steps": steps.collect::<Vec<_>>(),
        "twins": twins.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use rollout_core::Mono;

    use super::*;

    #[test]
    fn a_step_is_a_row_that_fits_and_a_failed_one_says_all_of_why() {
        for (result, quiet, lines) in
            [(Ok("fine ".repeat(30)), false, 1), (Ok(String::new()), true, 0)]
        {
            let step = Played {
                title: "kill the sidecars of a worker with a name".into(),
                label: None,
                at: Mono(1),
                took: Duration::from_millis(1234),
                result,
            };
            let mut out = Vec::new();
            let mut steps = Steps::new(&mut out, Look::default(), quiet);
            steps.started("x");
            steps.status("y");
            steps.ended(&step);
            let failed = Played { result: Err("why ".repeat(40) + "end"), ..step };
            steps.ended(&failed);
            let text = String::from_utf8(out).unwrap();
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            assert!(text.contains('✗') && text.ends_with("end\n"), "{text}");
            assert_eq!(text.matches('✓').count(), lines, "{text}");
        }
    }
}
