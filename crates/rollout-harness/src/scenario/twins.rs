//! The judge of the judge: twins of what was seen, each spoilt in one way that some expectation has
//! to notice, and no expectation that is about other things.

use std::time::Duration;

use rollout_core::{Event, Mono, WorkerId};
use serde_json::{Map, Value};

use super::file::{Claim, Count, Expect, Pattern, Want};
use super::judge::{Finding, earliest, findings, matching, span};
use super::{Scenario, Seen, sample, standing};
use crate::judge::{Check, Outcome};
use crate::log::Line;
use crate::record::Process;

/// By how much an event of a twin misses its bound.
const MISS: Duration = Duration::from_millis(1);

/// What was seen, spoilt in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twin {
    /// The check that has to fail.
    pub check: String,
    /// How it was spoilt.
    pub spoilt: String,
    /// What is wrong with the judgement of it; nothing, if it failed as it must.
    pub wrong: Option<String>,
}

/// What a twin touches, so that only checks that are about it may fail.
#[derive(Debug, Clone)]
enum Touched {
    Events { from: String, topic: String },
    Process(String),
    Run,
}

/// A twin before it is judged.
struct Spoilt {
    how: String,
    seen: Seen,
    touched: Touched,
}

/// The twins of what was seen, judged. It has to have passed: what is broken cannot be broken.
#[must_use]
pub fn twins(scenario: &Scenario, seen: &Seen) -> Vec<Twin> {
    let mut twins = Vec::new();
    let mut judged = |check: &str, spoilt: Vec<Spoilt>| {
        if spoilt.is_empty() {
            let wrong = Some("there is no way in which it could fail".to_owned());
            twins.push(Twin { check: check.to_owned(), spoilt: "no twin".to_owned(), wrong });
        }
        twins.extend(spoilt.into_iter().map(|spoilt| Twin {
            check: check.to_owned(),
            wrong: complaint(scenario, check, &spoilt),
            spoilt: spoilt.how,
        }));
    };
    for check in standing::ALL {
        judged(check.name, of_standing(check.name, scenario, seen));
    }
    for expect in &scenario.expect {
        let spoilt = match &expect.claim {
            Claim::Event { .. } => of_events(scenario, seen, expect),
            Claim::None { .. } => of_none(scenario, seen, expect),
            Claim::Exit { process, life, .. } => of_exit(seen, process, *life),
            Claim::Stderr { process, contains } => of_stderr(seen, process, contains),
        };
        judged(&expect.name, spoilt);
    }
    twins
}

/// The check that all twins failed as they must.
pub(super) fn check(twins: &[Twin]) -> Check {
    let wrong: Vec<_> = twins
        .iter()
        .filter_map(|twin| {
            Some(format!("{}, {}: {}", twin.check, twin.spoilt, twin.wrong.as_ref()?))
        })
        .collect();
    let failed = twins.len() - wrong.len();
    let (outcome, detail) = if wrong.is_empty() {
        (Outcome::Pass, format!("{failed} of {failed} failed as they must"))
    } else {
        (Outcome::Fail, wrong.join("; "))
    };
    Check { name: "twins".into(), outcome, detail }
}

/// What is wrong with how a twin is judged.
fn complaint(scenario: &Scenario, check: &str, spoilt: &Spoilt) -> Option<String> {
    let mut noticed = false;
    for (name, finding) in findings(scenario, &spoilt.seen) {
        let broken = matches!(finding, Finding::Broken { .. });
        if name == check {
            noticed = broken;
        } else if broken && !concerns(scenario, &name, check, &spoilt.touched) {
            return Some(format!("`{name}` failed as well"));
        }
    }
    (!noticed).then(|| "it passed all the same".to_owned())
}

/// Whether a check may notice what was touched.
fn concerns(scenario: &Scenario, name: &str, check: &str, touched: &Touched) -> bool {
    let Some(expect) = scenario.expect.iter().find(|expect| expect.name == name) else {
        return match touched {
            Touched::Events { topic, .. } => {
                name == "exits" && topic == "plugin_exited" || name == "clean" && topic == "log"
            }
            Touched::Process(_) => matches!(name, "exits" | "clean" | "logs"),
            Touched::Run => false,
        };
    };
    match (&expect.claim, touched) {
        (Claim::Exit { process, .. } | Claim::Stderr { process, .. }, Touched::Process(other)) => {
            process == other
        }
        (claim, Touched::Events { from, topic }) => {
            claim.events().is_some_and(|(pattern, window)| {
                // A window that hangs on the spoilt events moves with them; so does a deadline on beats.
                let hangs =
                    [&window.since, &window.until].iter().any(|at| at.as_deref() == Some(check));
                let deadline = matches!(claim, Claim::Event { not_before: Some(_), .. })
                    && matches!(topic.as_str(), "worker_heartbeat" | "coordinator_started");
                hangs || deadline || (&pattern.from, &pattern.topic) == (from, topic)
            })
        }
        _ => false,
    }
}

fn of_standing(check: &str, scenario: &Scenario, seen: &Seen) -> Vec<Spoilt> {
    let mut twin = seen.clone();
    let (how, touched) = match check {
        "steps" => {
            let Some(step) = twin.steps.last_mut() else { return Vec::new() };
            step.result = Err("made up".to_owned());
            ("a step fails".to_owned(), Touched::Run)
        }
        "exits" => return of_exits(scenario, seen),
        "clean" => {
            let Some(process) = twin.record.processes.first_mut() else { return Vec::new() };
            process.stderr += "thread 'main' panicked at src/main.rs:1:1:\n";
            (format!("{} panics", process.name), Touched::Process(process.name.clone()))
        }
        "logs" => return of_logs(seen),
        _ => {
            twin.record.leftovers.push("process 1 (made up) runs on".to_owned());
            ("a process is left".to_owned(), Touched::Run)
        }
    };
    vec![Spoilt { how, seen: twin, touched }]
}

/// Each end that no expectation is about becomes another.
fn of_exits(scenario: &Scenario, seen: &Seen) -> Vec<Spoilt> {
    let names = seen.record.processes.iter().map(|process| process.name.clone());
    let free = names.filter(|name| !scenario.may_exit(name));
    free.flat_map(|name| of_exit(seen, &name, None)).collect()
}

/// A line that is no event, and one that is missing.
fn of_logs(seen: &Seen) -> Vec<Spoilt> {
    let Some(name) = seen.record.coordinator().map(|process| process.name.clone()) else {
        return Vec::new();
    };
    let touched = Touched::Process(name.clone());
    let junk = spoil(seen, &name, |lines| {
        let event = Err("made up".to_owned());
        // As many as even a process that was killed may leave, and one more.
        let line = Line { raw: "made up".to_owned(), event };
        lines.splice(0..0, std::iter::repeat_n(line, 1 + seen.record.faults.len()));
    });
    let lost = spoil(seen, &name, |lines| {
        if let Some(Line { event: Ok(event), .. }) = lines.get_mut(1) {
            event.seq += 1;
        }
    });
    let junk = Spoilt { how: "a line is no event".into(), seen: junk, touched: touched.clone() };
    vec![junk, Spoilt { how: "a line is missing".into(), seen: lost, touched }]
}

fn of_exit(seen: &Seen, process: &str, life: Option<usize>) -> Vec<Spoilt> {
    let mut twin = seen.clone();
    let found = twin.record.processes.iter_mut().find(|it| it.name == process);
    let life = found.and_then(|it| match life {
        Some(number) => it.lives.get_mut(number - 1),
        None => it.lives.last_mut(),
    });
    let Some(ended) = life.and_then(|life| life.ended.as_mut()) else { return Vec::new() };
    let before = ended.exit();
    ended.code = before.code.map_or(Some(0), |code| Some(code + 1));
    ended.signal = None;
    let how = format!("{process} {}", ended.exit());
    vec![Spoilt { how, seen: twin, touched: Touched::Process(process.to_owned()) }]
}

fn of_stderr(seen: &Seen, process: &str, contains: &str) -> Vec<Spoilt> {
    let mut twin = seen.clone();
    let found = twin.record.processes.iter_mut().find(|it| it.name == process);
    let Some(found) = found else { return Vec::new() };
    found.stderr = found.stderr.replace(contains, "");
    let how = format!("{process} does not say it");
    vec![Spoilt { how, seen: twin, touched: Touched::Process(process.to_owned()) }]
}

/// One event of the kind that must not come comes.
fn of_none(scenario: &Scenario, seen: &Seen, expect: &Expect) -> Vec<Spoilt> {
    let Some((pattern, window)) = expect.claim.events() else { return Vec::new() };
    let Some((since, until)) = span(scenario, seen, window) else { return Vec::new() };
    let at = since.max(seen.record.began).min(until);
    let worker = pattern.worker.as_ref().and_then(|name| seen.worker(name));
    let attrs = wanted(pattern);
    let Some(event) = sample::event(&pattern.topic, at, seen.record.run, worker, &attrs) else {
        return Vec::new();
    };
    let seen = spoil(seen, &pattern.from, |lines| insert(lines, event));
    vec![Spoilt { how: "one comes".to_owned(), seen, touched: touched(pattern) }]
}

/// Attributes as a pattern wants them.
fn wanted(pattern: &Pattern) -> Map<String, Value> {
    let value = |want: &Want| match want {
        Want::Is(value) => value.clone(),
        Want::Between(least, most) => Value::from(least.or(*most).unwrap_or_default()),
    };
    pattern.attrs.iter().map(|(key, want)| (key.clone(), value(want))).collect()
}

/// The events are spoilt in every way in which the expectation could be broken.
fn of_events(scenario: &Scenario, seen: &Seen, expect: &Expect) -> Vec<Spoilt> {
    let Claim::Event { pattern, count, window, not_before, not_after } = &expect.claim else {
        return Vec::new();
    };
    let events = matching(scenario, seen, &expect.claim);
    let Some((since, until)) = span(scenario, seen, window) else { return Vec::new() };
    let Some(first) = events.first().copied() else { return Vec::new() };
    let mut twins = Twins { seen, pattern, events: &events, twins: Vec::new() };
    // So many that too few are left.
    let (most, exact) = match count {
        Count::Exactly(_) => (1, true),
        Count::AtLeast(due) => (events.len() + 1 - due, false),
    };
    twins.each("too few come", most, |_| None);
    if exact {
        let twin = first.clone();
        let seen = spoil(seen, &pattern.from, |lines| insert(lines, twin));
        twins.add("one too many comes", seen);
    }
    if let Some(bound) = not_before
        && let Some(earliest) = earliest(seen, first, since, *bound)
    {
        twins.each("one comes too early", 1, |event| at(event, earliest.before(MISS)));
    }
    if let Some(bound) = not_after {
        twins.each("one comes too late", 1, |event| at(event, since + *bound + MISS));
    }
    if window.until.is_some() {
        twins.each("too few come in time", most, |event| at(event, until + MISS));
    }
    if window.since.is_some() && not_before.is_none() {
        twins.each("too few come after its beginning", most, |event| at(event, since.before(MISS)));
    }
    if pattern.worker.is_some() {
        let other = Some(WorkerId::generate());
        twins.each("it is about another worker", most, |event| {
            Some(Event { worker_id: other, ..event.clone() })
        });
    }
    for (key, want) in &pattern.attrs {
        twins.each(&format!("its {key} is another"), most, |event| other(event, key, want));
    }
    twins.twins
}

/// The twins of an expectation on events, as they are made.
struct Twins<'a> {
    seen: &'a Seen,
    pattern: &'a Pattern,
    events: &'a [&'a Event],
    twins: Vec<Spoilt>,
}

impl Twins<'_> {
    /// The first `most` of the events become what `edit` makes of them, or vanish.
    fn each(&mut self, how: &str, most: usize, edit: impl Fn(&Event) -> Option<Event>) {
        let chosen: Vec<_> =
            self.events.iter().take(most).map(|event| (event.seq, event.mono)).collect();
        let seen = spoil(self.seen, &self.pattern.from, |lines| {
            lines.retain_mut(|line| {
                let Ok(event) = &mut line.event else { return true };
                if !chosen.contains(&(event.seq, event.mono)) {
                    return true;
                }
                let edited = edit(event);
                let stays = edited.is_some();
                *event = edited.unwrap_or_else(|| event.clone());
                stays
            });
        });
        self.add(how, seen);
    }

    fn add(&mut self, how: &str, seen: Seen) {
        self.twins.push(Spoilt { how: how.to_owned(), seen, touched: touched(self.pattern) });
    }
}

fn touched(pattern: &Pattern) -> Touched {
    Touched::Events { from: pattern.from.clone(), topic: pattern.topic.clone() }
}

fn at(event: &Event, mono: Mono) -> Option<Event> {
    Some(Event { mono, ..event.clone() })
}

/// The event with an attribute that is not the wanted one.
fn other(event: &Event, key: &str, want: &Want) -> Option<Event> {
    let mut attrs = sample::of(event);
    let value = match (want, attrs.get(key)) {
        (Want::Between(Some(least), _), _) => Value::from(least - 1.0),
        (Want::Between(None, most), _) => Value::from(most.unwrap_or_default() + 1.0),
        (Want::Is(_), Some(Value::Bool(value))) => Value::from(!value),
        (Want::Is(_), Some(Value::String(value))) => Value::from(format!("{value}x")),
        (Want::Is(_), Some(Value::Number(value))) => match value.as_i64() {
            Some(value) => Value::from(value + 1),
            None => Value::from(value.as_f64().unwrap_or_default() + 1.0),
        },
        _ => Value::Null,
    };
    attrs.insert(key.to_owned(), value);
    // What cannot be such an event at all is not one.
    sample::with(event, attrs)
}

/// Puts an event where its time is.
fn insert(lines: &mut Vec<Line>, event: Event) {
    let later = |line: &Line| line.event.as_ref().is_ok_and(|it| it.mono > event.mono);
    let place = lines.iter().position(later).unwrap_or(lines.len());
    let raw = serde_json::to_string(&event).unwrap_or_default();
    lines.insert(place, Line { raw, event: Ok(event) });
}

/// What was seen with another log of one process. Its lines are numbered again, unless that is what
/// was spoilt: what is missing in a twin was never written.
fn spoil(seen: &Seen, process: &str, edit: impl FnOnce(&mut Vec<Line>)) -> Seen {
    let mut twin = seen.clone();
    let found = twin.record.processes.iter_mut().find(|it| it.name == process);
    if let Some(Process { log, .. }) = found {
        let before = log.lines().len();
        log.edit(|lines| {
            edit(lines);
            if lines.len() != before {
                renumber(lines);
            }
        });
    }
    twin
}

fn renumber(lines: &mut [Line]) {
    let mut due = 1;
    for event in lines.iter_mut().filter_map(|line| line.event.as_mut().ok()) {
        if event.seq == 1 {
            due = 1;
        }
        event.seq = due;
        due += 1;
    }
}
