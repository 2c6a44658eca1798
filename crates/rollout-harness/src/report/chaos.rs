//! What there is to say of a chaos run.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rollout_core::duration::as_ms;
use serde_json::json;

use super::repeat::Spread;
use super::{Look, checks, conclusion, wrap};
use crate::chaos::Judgement;
use crate::record::{Record, What};

/// The report below.
#[must_use]
pub fn chaos(record: &Record, judgement: &Judgement, look: Look) -> String {
    let start = if look.live { "\r\x1b[K" } else { "" };
    let mut text = format!("{start}  {}\n\n", look.bold(&record.title));
    let _ = writeln!(text, "  {:<10}{}\n", "done", wrap(&done(record), 12).trim_start());
    text += &checks(&judgement.checks, 18, look);
    text += &figures(judgement, look);
    text + &conclusion(judgement.outcome, look)
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
