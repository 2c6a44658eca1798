//! The judge of a scenario: a pure function from what was seen to checks, with no clock and no file.

use std::collections::BTreeMap;
use std::time::Duration;

use rollout_core::duration::as_ms;
use rollout_core::{Body, Event, Mono, WorkerId};
use rollout_process::Exit;
use serde::Serialize;
use serde_json::Value;

use super::file::{Bound, Claim, Count, Due, Expect, Pattern, Want, Window};
use super::{Scenario, Seen, sample, standing};
use crate::judge::{Check, Outcome, credit};
use crate::record::Life;

/// Topics that a starved machine may cause.
const HINTS: [&str; 4] =
    ["worker_suspected", "worker_recovered", "worker_resumed", "worker_fenced"];

/// What a check finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// The claim holds.
    Holds(String),
    /// It does not.
    Broken {
        /// Whether a starved machine can be the reason.
        excusable: bool,
        /// What was seen.
        detail: String,
    },
    /// There is nothing to judge: the run did not come that far, and says so elsewhere.
    Unreached,
}

impl Finding {
    pub(super) fn broken(detail: impl Into<String>) -> Self {
        Self::Broken { excusable: false, detail: detail.into() }
    }

    pub(super) fn late(detail: impl Into<String>) -> Self {
        Self::Broken { excusable: true, detail: detail.into() }
    }

    /// All that is wrong, or what to say if nothing is.
    pub(super) fn none_of(wrong: Vec<String>, fine: impl FnOnce() -> String) -> Self {
        if wrong.is_empty() { Self::Holds(fine()) } else { Self::broken(wrong.join("; ")) }
    }
}

/// The figures of an expectation, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measure {
    /// From the beginning of its window to its first event.
    pub latency_ms: Option<f64>,
    /// From what that event had to wait for to the event.
    pub overshoot_ms: Option<f64>,
}

/// Judges a scenario: its checks, and the figures of its expectations.
///
/// A starved machine (the harness was late, the coordinator credited a stall that nobody caused)
/// excuses what starving can cause: slow steps, late events, missed beats. An event that is too
/// early, missing, doubled or about the wrong worker fails regardless.
#[must_use]
pub fn judge(scenario: &Scenario, seen: &Seen) -> (Vec<Check>, BTreeMap<String, Measure>) {
    let starved = standing::starved(seen);
    let detail = if starved.is_empty() { standing::calm(seen) } else { starved.join("; ") };
    let mut checks = vec![Check { name: "conditions".into(), outcome: Outcome::Pass, detail }];
    for (name, finding) in findings(scenario, seen) {
        let (outcome, detail) = match finding {
            Finding::Holds(detail) => (Outcome::Pass, detail),
            Finding::Broken { excusable: true, detail } if !starved.is_empty() => {
                (Outcome::Inconclusive, detail)
            }
            Finding::Broken { detail, .. } => (Outcome::Fail, detail),
            Finding::Unreached => continue,
        };
        checks.push(Check { name: name.into(), outcome, detail });
    }
    let figures = scenario
        .expect
        .iter()
        .filter_map(|expect| Some((expect.name.clone(), measure(scenario, seen, expect)?)));
    (checks, figures.collect())
}

/// What each check finds, by name: the standing ones, then the expectations.
pub(super) fn findings(scenario: &Scenario, seen: &Seen) -> Vec<(String, Finding)> {
    let standing =
        standing::ALL.iter().map(|check| (check.name.to_owned(), (check.find)(scenario, seen)));
    let expected =
        scenario.expect.iter().map(|expect| (expect.name.clone(), find(scenario, seen, expect)));
    standing.chain(expected).collect()
}

fn find(scenario: &Scenario, seen: &Seen, expect: &Expect) -> Finding {
    match &expect.claim {
        Claim::Event { count, window, not_before, not_after, .. } => {
            let Some(span) = span(scenario, seen, window) else { return Finding::Unreached };
            let events = matching(scenario, seen, &expect.claim);
            let counted = counted(seen, &events, *count);
            let Finding::Holds(_) = counted else { return counted };
            bounded(seen, &events, span.0, *not_before, *not_after).unwrap_or(counted)
        }
        Claim::None { pattern, window } => {
            if span(scenario, seen, window).is_none() {
                return Finding::Unreached;
            }
            let events = matching(scenario, seen, &expect.claim);
            let Some(first) = events.first() else { return Finding::Holds("none".to_owned()) };
            let detail = format!("{} came, the first: {}", events.len(), line(first));
            let excusable = HINTS.contains(&pattern.topic.as_str());
            Finding::Broken { excusable, detail }
        }
        Claim::Exit { process, life, due } => exit(seen, process, *life, *due),
        Claim::Stderr { process, contains } => {
            let said = seen.record.process(process).map(|process| process.stderr.as_str());
            let said = said.unwrap_or_default();
            if said.contains(contains.as_str()) {
                return Finding::Holds(format!("says `{contains}`"));
            }
            Finding::broken(format!("does not say `{contains}`, but: {said}"))
        }
    }
}

/// Whether there are as many as expected.
fn counted(seen: &Seen, events: &[&Event], count: Count) -> Finding {
    let (found, fine, due) = match count {
        Count::Exactly(due) => (events.len(), events.len() == due, due.to_string()),
        Count::AtLeast(due) => (events.len(), events.len() >= due, format!("{due} or more")),
    };
    if fine {
        let s = if found == 1 { "" } else { "s" };
        return Finding::Holds(format!("{found} event{s}"));
    }
    let detail = match events.first() {
        Some(first) => format!("{found} came, {due} due; the first: {}", line(first)),
        None => format!("no such event, {due} due"),
    };
    // What a step waited for in vain may be missing because the machine was too slow for it.
    let missing = matches!(count, Count::AtLeast(_)) || found == 0;
    let excusable = missing && seen.steps.iter().any(|step| step.result.is_err());
    Finding::Broken { excusable, detail }
}

/// What is wrong with the instants of the events, or where they lie.
fn bounded(
    seen: &Seen,
    events: &[&Event],
    since: Mono,
    not_before: Option<Bound>,
    not_after: Option<Duration>,
) -> Option<Finding> {
    let mut said = None;
    for event in events {
        if let Some(bound) = not_before {
            let Some(earliest) = earliest(seen, event, since, bound) else {
                return Some(Finding::broken(format!("no beat came before it: {}", line(event))));
            };
            if event.mono < earliest {
                let by = as_ms(earliest.since(event.mono));
                return Some(Finding::broken(format!(
                    "came {by:.3} ms too early: {}",
                    line(event)
                )));
            }
            let after = as_ms(event.mono.since(earliest));
            said = said.or_else(|| Some(format!("{after:.3} ms after its lower bound")));
        }
        if let Some(bound) = not_after {
            let took = event.mono.since(since);
            if took > bound {
                let (took, bound) = (took.as_secs_f64(), bound.as_secs_f64());
                let why = format!("came after {took:.3} s, {bound} s are allowed");
                return Some(Finding::late(format!("{why}: {}", line(event))));
            }
            let text = format!("after {:.3} s of {} s", took.as_secs_f64(), bound.as_secs_f64());
            let lower = said.take().map(|lower| format!(", {lower}")).unwrap_or_default();
            said = Some(text + &lower);
        }
    }
    said.map(Finding::Holds)
}

/// The instant before which an event must not come.
pub(super) fn earliest(seen: &Seen, event: &Event, since: Mono, bound: Bound) -> Option<Mono> {
    let Bound::Deadline = bound else {
        let Bound::After(time) = bound else { return None };
        return Some(since + time);
    };
    let worker = event.worker_id?;
    let accepted = |event: &&Event| matches!(event.body, Body::WorkerHeartbeat(_));
    let beats = seen.record.about(worker).filter(accepted).map(|event| event.mono);
    let last = beats.filter(|beat| *beat <= event.mono).max()?;
    // A coordinator that starts gives everybody a full deadline from then on.
    let events = seen.record.coordinator()?.log.events();
    let starts = events.filter(|event| matches!(event.body, Body::CoordinatorStarted(_)));
    let start = starts.map(|event| event.mono).filter(|start| *start <= event.mono).max();
    let credited = match &event.body {
        Body::WorkerFailed(failed) => credit(failed),
        _ => Duration::ZERO,
    };
    Some(seen.record.timing.deadline(last.max(start.unwrap_or_default())) + credited)
}

fn exit(seen: &Seen, process: &str, life: Option<usize>, due: Due) -> Finding {
    let lives = seen.record.process(process).map(|process| process.lives.as_slice());
    let lives = lives.unwrap_or_default();
    let life = life.map_or(lives.last(), |life| lives.get(life - 1));
    let Some(ended) = life.and_then(|life: &Life| life.ended.as_ref()) else {
        return Finding::broken(format!("{process} did not end"));
    };
    let due = match due {
        Due::Code(code) => Exit { code: Some(code), signal: None },
        Due::Signal(signal) => Exit { code: None, signal: Some(signal) },
    };
    if ended.exit() == due {
        return Finding::Holds(due.to_string());
    }
    let said = seen.record.process(process).map(|process| process.stderr.as_str());
    Finding::broken(format!("{process} {}, not {due}: {}", ended.exit(), said.unwrap_or_default()))
}

/// The events of a claim about events, inside its window.
pub(super) fn matching<'a>(scenario: &Scenario, seen: &'a Seen, claim: &Claim) -> Vec<&'a Event> {
    let Some((pattern, window)) = claim.events() else { return Vec::new() };
    let Some((from, to)) = span(scenario, seen, window) else { return Vec::new() };
    let worker = pattern.worker.as_ref().and_then(|name| seen.worker(name));
    let log = seen.record.process(&pattern.from).map(|process| &process.log);
    let events = log.into_iter().flat_map(|log| log.events());
    let inside = events.filter(|event| from <= event.mono && event.mono <= to);
    inside.filter(|event| fits(event, pattern, worker)).collect()
}

/// Whether an event is one of those that a pattern means, whose worker has this id.
pub(super) fn fits(event: &Event, pattern: &Pattern, worker: Option<WorkerId>) -> bool {
    if event.body.topic() != pattern.topic || (worker.is_some() && event.worker_id != worker) {
        return false;
    }
    if pattern.attrs.is_empty() {
        return true;
    }
    let attrs = sample::of(event);
    pattern.attrs.iter().all(|(key, want)| attrs.get(key).is_some_and(|value| is(value, want)))
}

fn is(value: &Value, want: &Want) -> bool {
    match want {
        Want::Is(due) => match (value.as_f64(), due.as_f64()) {
            (Some(value), Some(due)) => value == due,
            _ => value == due,
        },
        Want::Between(least, most) => value.as_f64().is_some_and(|value| {
            least.is_none_or(|least| value >= least) && most.is_none_or(|most| value <= most)
        }),
    }
}

/// The beginning and the end of a window; none if the run did not come so far.
pub(super) fn span(scenario: &Scenario, seen: &Seen, window: &Window) -> Option<(Mono, Mono)> {
    let instant = |name: &Option<String>, open| match name {
        Some(name) => instant(scenario, seen, name),
        None => Some(open),
    };
    Some((instant(&window.since, Mono(0))?, instant(&window.until, Mono(u64::MAX))?))
}

/// The instant of a step, or of the first event of an expectation. An expectation can refer only to
/// those before it, so this ends.
fn instant(scenario: &Scenario, seen: &Seen, name: &str) -> Option<Mono> {
    seen.instant(name).or_else(|| {
        let expect = scenario.expect.iter().find(|expect| expect.name == name)?;
        Some(matching(scenario, seen, &expect.claim).first()?.mono)
    })
}

/// An event as it was written.
fn line(event: &Event) -> String {
    serde_json::to_string(event).unwrap_or_default()
}

fn measure(scenario: &Scenario, seen: &Seen, expect: &Expect) -> Option<Measure> {
    let Claim::Event { window, not_before, .. } = &expect.claim else { return None };
    let (since, _) = span(scenario, seen, window)?;
    let first = *matching(scenario, seen, &expect.claim).first()?;
    let latency_ms = window.since.as_ref().map(|_| as_ms(first.mono.since(since)));
    let earliest = not_before.and_then(|bound| earliest(seen, first, since, bound));
    let overshoot_ms = earliest.map(|at| as_ms(first.mono.since(at)));
    (latency_ms.is_some() || overshoot_ms.is_some()).then_some(Measure { latency_ms, overshoot_ms })
}
