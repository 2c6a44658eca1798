//! What stands above and below the chart: the figures, the checks, the events, what was said.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use rollout_core::duration::as_ms;

use super::scale::Scale;
use super::story::{Kind, Lane};
use super::text::{DETAIL, cut, escape, time};
use crate::judge::{Check, Outcome};
use crate::record::{Process, Record};
use crate::report::mark;

/// The last lines shown of what a process wrote to standard error.
const SAID: usize = 20;
/// The most leftovers shown.
const LEFT: usize = 50;

/// The run in figures.
pub(super) fn facts(record: &Record, lanes: &[Lane]) -> String {
    let count = |wanted: Kind| -> usize {
        let marks = lanes.iter().flat_map(|lane| &lane.marks);
        marks.filter(|mark| mark.kind == wanted).map(|mark| mark.times).sum()
    };
    let beats: usize = lanes.iter().map(|lane| lane.beats.len()).sum();
    let facts = [
        ("length", time(record.ended.since(record.began))),
        ("processes", record.processes.len().to_string()),
        ("beats accepted", beats.to_string()),
        ("faults", record.faults.len().to_string()),
        ("suspected", count(Kind::Suspected).to_string()),
        ("failed", count(Kind::Failed).to_string()),
        ("harness late", time(record.harness_late)),
        ("left behind", record.leftovers.len().to_string()),
    ];
    let item =
        |(name, value): &(&str, String)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>");
    facts.iter().map(item).collect()
}

/// The checks, those that did not pass first.
pub(super) fn checks(checks: &[Check]) -> String {
    let mut sorted: Vec<_> = checks.iter().collect();
    sorted.sort_by_key(|check| std::cmp::Reverse(check.outcome));
    let mut rows = String::new();
    for check in sorted {
        let _ = writeln!(
            rows,
            "<tr class=\"{class}\"><td class=\"sign\">{sign}</td><td class=\"outcome\">{word}</td>\
             <th scope=\"row\">{name}</th><td>{detail}</td></tr>",
            class = check.outcome.word(),
            sign = mark(check.outcome),
            word = check.outcome.word(),
            name = escape(&check.name),
            detail = escape(&cut(&check.detail, 5 * DETAIL)),
        );
    }
    rows
}

/// The outcome of all checks; of none, that nothing was shown.
pub(super) fn worst(checks: &[Check]) -> Outcome {
    checks.iter().map(|check| check.outcome).max().unwrap_or(Outcome::Inconclusive)
}

/// How the checks came out, in a line.
pub(super) fn tally(checks: &[Check]) -> String {
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for check in checks {
        *counts.entry(std::cmp::Reverse(check.outcome)).or_default() += 1;
    }
    let said = |(outcome, count): (&std::cmp::Reverse<Outcome>, &usize)| {
        format!("{count} {}", outcome.0.word())
    };
    if counts.is_empty() {
        "nothing was judged".into()
    } else {
        counts.iter().map(said).collect::<Vec<_>>().join(", ")
    }
}

/// Each mark's number on the page: the order of time over all lanes.
pub(super) fn numbers(lanes: &[Lane]) -> Vec<Vec<usize>> {
    let mut numbers: Vec<_> = lanes.iter().map(|lane| vec![0; lane.marks.len()]).collect();
    for (number, (lane, mark)) in (1..).zip(in_time(lanes)) {
        numbers[lane][mark] = number;
    }
    numbers
}

/// The marks of all lanes in the order of time, each by its lane's place and its own in it.
fn in_time(lanes: &[Lane]) -> Vec<(usize, usize)> {
    let of_lane =
        |(n, lane): (usize, &Lane)| (0..lane.marks.len()).map(move |m| (n, m)).collect::<Vec<_>>();
    let mut order: Vec<_> = lanes.iter().enumerate().flat_map(of_lane).collect();
    order.sort_by_key(|(lane, mark)| lanes[*lane].marks[*mark].at);
    order
}

/// What happened, in the order of time, each linked to its place in the chart.
pub(super) fn events(lanes: &[Lane], scale: Scale) -> String {
    let mut rows = String::new();
    for (number, (lane, n)) in (1..).zip(in_time(lanes)) {
        let (lane, mark) = (&lanes[lane], &lanes[lane].marks[n]);
        let times = if mark.times == 1 { String::new() } else { format!(" ×{}", mark.times) };
        let _ = writeln!(
            rows,
            "<tr id=\"e{number}\" class=\"{class}\"><td class=\"time\"><a href=\"#m{number}\">\
             {seconds:.3}</a></td><td>{name}</td><td class=\"word\"><svg class=\"sign\"><use \
             href=\"#s-{class}\" x=\"8\" y=\"8\"/></svg>{word}{times}</td><td class=\"detail\">\
             {detail}</td></tr>",
            class = mark.kind.class(),
            seconds = scale.seconds(mark.at),
            name = escape(&lane.name),
            word = escape(&mark.word),
            detail = escape(&cut(&mark.detail, DETAIL)),
        );
    }
    rows
}

/// What was left behind, and what the processes wrote that is no event; empty if there is nothing.
pub(super) fn said(record: &Record) -> String {
    let mut html = String::new();
    if !record.leftovers.is_empty() {
        let shown = record.leftovers.iter().take(LEFT);
        let lines: Vec<_> = shown.map(|line| escape(&cut(line, DETAIL))).collect();
        let _ = write!(html, "<h3>left behind</h3><pre>{}</pre>", lines.join("\n"));
    }
    for process in &record.processes {
        let stderr: Vec<_> = process.stderr.lines().collect();
        html += &block(process, "standard error", &stderr);
        let junk = process.log.lines().iter().filter(|line| line.event.is_err());
        let junk: Vec<_> = junk.map(|line| line.raw.as_str()).collect();
        html += &block(process, "lines that are no events", &junk);
    }
    if html.is_empty() {
        html
    } else {
        format!("<section><h2>What else was said</h2>{html}</section>")
    }
}

fn block(process: &Process, what: &str, lines: &[&str]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let hidden = lines.len().saturating_sub(SAID);
    let shown: Vec<_> = lines[hidden..].iter().map(|line| escape(&cut(line, DETAIL))).collect();
    let more =
        if hidden > 0 { format!(", the last {SAID} of {}", lines.len()) } else { String::new() };
    let name = escape(&process.name);
    format!("<h3>{name}: {what}{more}</h3><pre>{}</pre>", shown.join("\n"))
}

/// How late a verdict was at worst, if there was one; for the line below the title.
pub(super) fn worst_overshoot(lanes: &[Lane]) -> Option<Duration> {
    let verdicts = lanes.iter().flat_map(|lane| &lane.countdowns).filter(|it| it.verdict);
    verdicts.map(|it| it.ended.since(it.deadline)).max().filter(|late| as_ms(*late) < 1e9)
}
