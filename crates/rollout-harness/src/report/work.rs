//! What there is to say of one job done twice.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

use super::repeat::Spread;
use super::{Look, checks, conclusion, wrap};
use crate::work::{Case, Figures, Judgement};

/// The report below.
#[must_use]
pub fn work(case: &Case, judgement: &Judgement, look: Look) -> String {
    let start = if look.live { "\r\x1b[K" } else { "" };
    let last = case.disturbed.as_ref().map_or(&case.undisturbed, |(_, seen)| seen);
    let mut text = format!("{start}  {}\n\n", look.bold(&last.record.title));
    text += &checks(&judgement.checks, 20, look);
    if case.disturbed.is_some() {
        text += &figures(&judgement.figures, look);
    }
    text + &conclusion(judgement.outcome, look)
}

fn figures(figures: &Figures, look: Look) -> String {
    let Figures { undisturbed_s, disturbed_s, cost_percent, executions, items, stale, .. } =
        figures;
    let mut text = format!(
        "\n  {undisturbed_s:.2} s undisturbed, {disturbed_s:.2} s disturbed ({cost_percent:+.1} %); \
         {executions} executions\n  of {items} items, {stale} results refused as stale\n"
    );
    text += &given_again(&figures.redispatched);
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

/// How many items were given again, and how many of them for which cause.
fn given_again(causes: &BTreeMap<String, u64>) -> String {
    let all: u64 = causes.values().sum();
    let each: Vec<_> = causes.iter().map(|(cause, items)| format!("{items} {cause}")).collect();
    let text = format!("{all} items given again{}", if all > 0 { ": " } else { "" });
    wrap(&(text + &each.join(", ")), 2)
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
    use super::super::WIDTH;
    use super::*;

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

    #[test]
    fn items_given_again_are_counted_and_told_by_their_causes() {
        let again = |causes: &[(&str, u64)]| {
            let redispatched = causes.iter().map(|&(cause, items)| (cause.into(), items)).collect();
            figures(&Figures { redispatched, ..Figures::default() }, Look::default())
        };
        let text = again(&[("worker_superseded", 324), ("worker_suspected", 341)]);
        let said = "  665 items given again: 324 worker_superseded, 341 worker_suspected\n";
        assert!(text.contains("0 results refused as stale\n"), "{text}");
        assert!(text.contains(said), "{text}");
        assert!(again(&[]).contains("  0 items given again\n"), "{}", again(&[]));

        let causes =
            ["no_progress", "returned", "worker_failed", "worker_superseded", "worker_suspected"];
        let text = again(&causes.map(|cause| (cause, 20_000)));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }
}
