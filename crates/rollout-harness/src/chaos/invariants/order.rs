//! What the logs say in themselves: lines, numbers, epochs, terms; and how everything ended.

use std::time::Duration;

use rollout_core::{Body, Mono};
use rollout_process::Exit;

use super::{Case, Finding, none_of};
use crate::chaos::streams::{Stream, was_killed};
use crate::record::{Life, Process, What};

/// How long what was sent may be on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// Every line is an event, numbered from 1 without a gap in each life.
pub(super) fn streams(case: &Case<'_>) -> Finding {
    let coordinator = case.record.coordinator().map(|it| (it, case.story.streams.as_slice()));
    let workers = case.story.workers.iter().map(|(process, _, own)| (*process, own.as_slice()));
    let (mut wrong, mut lines, mut lives) = (Vec::new(), 0, 0);
    for (process, streams) in coordinator.into_iter().chain(workers) {
        for stream in streams {
            lines += stream.events.len();
            lives += 1;
            wrong.extend(stream.wrong.iter().map(|what| format!("{}: {what}", process.name)));
        }
        wrong.extend(strays(process, streams));
    }
    if lines == 0 {
        wrong.push("nobody wrote anything".to_owned());
    }
    none_of(wrong, || format!("{lines} lines of {lives} lives, each an event in its place"))
}

/// Streams that no life can have written, and two of one life.
fn strays(process: &Process, streams: &[Stream<'_>]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (place, stream) in streams.iter().enumerate() {
        let Some(life) = stream.life else {
            wrong.push(format!("{} wrote before it was started", process.name));
            continue;
        };
        let before = place.checked_sub(1).and_then(|place| streams[place].life);
        if before == Some(life) {
            wrong.push(format!("{}: two streams of one life", process.name));
        }
    }
    wrong
}

/// The coordinator's terms grow.
pub(super) fn terms(case: &Case<'_>) -> Finding {
    if case.story.terms.is_empty() {
        return Some(Err("no coordinator came to serve".to_owned()));
    }
    case.told("terms", "terms, each greater than the one before")
}

/// A worker's epochs grow, in the coordinator's log and in its own.
pub(super) fn epochs(case: &Case<'_>) -> Finding {
    let mut wrong = Vec::new();
    for (process, _, streams) in &case.story.workers {
        let mut last = 0;
        for event in streams.iter().flat_map(|stream| &stream.events) {
            if let Body::WorkerRegistered(body) = &event.body {
                if body.epoch <= last {
                    let (name, epoch) = (&process.name, body.epoch);
                    wrong.push(format!("{name} was told epoch {epoch} after epoch {last}"));
                }
                last = body.epoch;
            }
        }
    }
    if case.story.registrations() == 0 {
        wrong.push("nobody registered".to_owned());
    }
    match none_of(wrong, String::new) {
        Some(Ok(_)) => case.told("epochs", "registrations, each with a greater epoch"),
        finding => finding,
    }
}

/// No beat is accepted under an epoch that is over, or that has not begun.
pub(super) fn stale_beats(case: &Case<'_>) -> Finding {
    if !case.story.looked.contains_key("stale") {
        return Some(Err("no beat was accepted at all".to_owned()));
    }
    case.told("stale", "beats, each under its worker's epoch of the time")
}

/// No beat is accepted from who could not send one.
pub(super) fn ghosts(case: &Case<'_>) -> Finding {
    let (mut wrong, mut looked) = (Vec::new(), 0);
    for ((worker, epoch), accepted) in &case.story.accepted {
        let Some(holder) = case.story.holder(*worker, *epoch) else { continue };
        for at in accepted {
            let from = at.before(ON_ITS_WAY);
            looked += 1;
            if case.served(from, *at) && case.truth.silent(holder.process, holder.life, from, *at) {
                wrong.push(format!(
                    "{} was heard under epoch {epoch} at {}, although it could not be",
                    holder.process.name,
                    case.at(*at)
                ));
            }
        }
    }
    wrong.sort();
    none_of(wrong, || format!("{looked} times heard, never from who could not send"))
}

/// What was acknowledged is known after a restart, and a verdict is not forgotten.
pub(super) fn durable(case: &Case<'_>) -> Finding {
    case.told("durable", "restarts and resumptions, nothing forgotten")
}

/// Suspicion and recovery take turns.
pub(super) fn pairs(case: &Case<'_>) -> Finding {
    case.story.looked.get("pairs")?;
    case.told("pairs", "suspicions and recoveries, in turns")
}

/// Everybody ended as they were made to, and nobody of themselves.
pub(super) fn exits(case: &Case<'_>) -> Finding {
    let (mut wrong, mut ends) = (Vec::new(), 0);
    for process in &case.record.processes {
        for life in &process.lives {
            ends += 1;
            if let Some(what) = odd_end(case, process, life) {
                wrong.push(format!("{} (pid {}) {what}", process.name, life.pid));
            }
        }
        if process.stderr.contains("panicked at") {
            wrong.push(format!("{} panicked", process.name));
        }
    }
    if ends == 0 {
        wrong.push("nobody was started".to_owned());
    }
    none_of(wrong, || format!("{ends} lives, each ended as it was made to"))
}

/// What is odd about an end, if anything is.
fn odd_end(case: &Case<'_>, process: &Process, life: &Life) -> Option<String> {
    let Some(ended) = &life.ended else { return Some("never ended".to_owned()) };
    let done = |what: What, at: Mono| {
        let mut faults = case.record.faults_of(&process.name);
        faults.any(|fault| fault.what == what && life.began <= fault.began && fault.began <= at)
    };
    if was_killed(life) {
        if done(What::Terminate, ended.at) {
            return Some("did not end when it was asked to, and had to be killed".to_owned());
        }
        return (!done(What::Kill, ended.at)).then(|| "was killed, and not by the harness".into());
    }
    let exit = Exit { code: ended.code, signal: ended.signal };
    if exit.success() && done(What::Terminate, ended.at) {
        return None;
    }
    Some(format!("{exit} at {}", case.at(ended.at)))
}

/// No process, socket or lock is left.
pub(super) fn nothing_left(case: &Case<'_>) -> Finding {
    none_of(case.record.leftovers.clone(), || "no process, socket or lock".to_owned())
}
