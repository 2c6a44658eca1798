//! What there is to say after a run: its figures, what is wrong, and where to look.

use std::fmt::Write;
use std::time::Duration;

use rollout_core::duration::as_ms;
use rollout_core::{Event, Mono};
use serde_json::Value;

use super::{Look, WIDTH, cut, mark, wrap};
use crate::judge::Outcome;
use crate::smoke::{Evidence, Measured, Run, Witness};
use crate::timeline::DETECTION_BOUND;

/// How many lines of each log are shown on failure.
const TAIL: usize = 8;
/// The command that shows more.
const MORE: &str = "tail -n 100 data/smoke/logs/*";
/// The width of the bar from the kill to the bound.
const BAR: usize = 64;

/// The report below the table of steps.
#[must_use]
pub fn summary(run: &Run, look: Look) -> String {
    let verdict = &run.verdict;
    let mut text = String::from("\n");
    if let Some(measured) = &verdict.measured {
        text += &figures(measured, run.evidence.harness_late, look);
    }
    let passed = verdict.checks.len() - verdict.complaints().count();
    let _ = writeln!(
        text,
        "  {:<10}{passed} of {} checks passed; {:.3} s from first spawn to last exit",
        "judged",
        verdict.checks.len(),
        run.wall.as_secs_f64()
    );
    for check in verdict.complaints() {
        let sign = look.outcome(check.outcome, mark(check.outcome));
        let _ = writeln!(text, "\n  {sign} {}", look.outcome(check.outcome, &check.name));
        let _ = writeln!(text, "{}", wrap(&check.detail, 4));
    }
    if verdict.outcome != Outcome::Pass {
        let tails = tails(&run.evidence, look);
        if !tails.is_empty() {
            let more = format!("cd {} && {MORE}", run.layout.root.display());
            let _ = writeln!(
                text,
                "{tails}
  {}
    {more}",
                look.bold("more")
            );
        }
    }
    let word = verdict.outcome.word().to_uppercase();
    let artifacts = look.dim("artifacts in data/smoke");
    let _ = writeln!(text, "\n  {}  {artifacts}", look.outcome(verdict.outcome, &word));
    text
}

fn figures(measured: &Measured, late: Duration, look: Look) -> String {
    let seconds = |ms: f64| format!("{:>9.3} s ", ms / 1e3);
    let millis = |ms: f64| format!("{ms:>9.3} ms");
    let rows = [
        ("detection", seconds(measured.latency_ms), "from the kill to the event"),
        ("overshoot", millis(measured.overshoot_ms), "past the deadline, the lower bound"),
        ("to spare", seconds(measured.spare_ms), "before 8 s from the kill, the upper bound"),
        ("harness", millis(as_ms(late)), "late itself, at most"),
    ];
    let mut text = String::new();
    for (name, value, what) in rows {
        let _ = writeln!(text, "  {name:<10}{}  {what}", look.bold(&value));
    }
    let _ = writeln!(text, "\n  kill {} 8 s\n", look.dim(&bar(measured.latency_ms / 1e3)));
    text
}

/// The way from the kill to the bound, with the event on it.
fn bar(latency: f64) -> String {
    let share = (latency / DETECTION_BOUND.as_secs_f64()).clamp(0.0, 1.0);
    let at = (share * (BAR - 1) as f64).round() as usize;
    format!("├{}●{}┤", "─".repeat(at), "─".repeat(BAR - 1 - at))
}

/// The end of every log and of every standard error that says something.
fn tails(evidence: &Evidence, look: Look) -> String {
    let start = evidence.coordinator.log.events().next().map_or(Mono(0), |event| event.mono);
    let mut text = String::new();
    for (name, seen) in evidence.processes() {
        let lines = seen.log.lines();
        if lines.is_empty() && seen.stderr.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n  {}", look.bold(&format!("{name}.log, {} lines", lines.len())));
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            let shown = match &line.event {
                Ok(event) => compact(event, start, evidence),
                Err(_) => line.raw.clone(),
            };
            let _ = writeln!(text, "    {}", cut(&shown, WIDTH - 4));
        }
        text += &stderr_tail(name, seen, look);
    }
    text
}

fn stderr_tail(name: &str, seen: &Witness, look: Look) -> String {
    let lines: Vec<_> = seen.stderr.lines().collect();
    if lines.is_empty() {
        return String::new();
    }
    let mut text = format!("  {}\n", look.bold(&format!("{name}.stderr")));
    for line in &lines[lines.len().saturating_sub(TAIL)..] {
        let _ = writeln!(text, "    {}", cut(line, WIDTH - 4));
    }
    text
}

/// An event in one short line: seconds since `start`, topic, whom it is about, attributes.
fn compact(event: &Event, start: Mono, evidence: &Evidence) -> String {
    let seconds = event.mono.since(start).as_secs_f64();
    let who = match event.worker_id {
        Some(id) if id == evidence.w1.id => "w1",
        Some(id) if id == evidence.w2.id => "w2",
        Some(_) => "??",
        None => "",
    };
    let message = event.message.as_deref().unwrap_or_default();
    format!("{seconds:>7.3} {:<20} {who:<2} {message}{}", event.body.topic(), attributes(event))
}

fn attributes(event: &Event) -> String {
    let value = serde_json::to_value(event).unwrap_or_default();
    let Some(Value::Object(attrs)) = value.get("attrs") else { return String::new() };
    attrs.iter().map(|(key, value)| format!(" {key}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_long_for_an_early_event_as_for_one_out_of_bounds() {
        for latency in [-1.0, 0.0, 5.7, 8.0, 9.0] {
            let bar = bar(latency);
            assert_eq!(bar.chars().count(), BAR + 2, "{latency}");
            assert_eq!(bar.matches('●').count(), 1);
        }
        assert!(bar(0.0).starts_with("├●") && bar(9.0).ends_with("●┤"));
    }
}
