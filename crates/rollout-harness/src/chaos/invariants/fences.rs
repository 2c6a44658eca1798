//! The fence: who is not acknowledged says so in time, before any verdict, and never without need.

use rollout_core::duration::as_ms;
use rollout_core::event::{FENCE_LIFTED, WorkerFenced};
use rollout_core::{Body, Event, Mono, WorkerId};

use super::{Case, Finding, SLACK, none_of};
use crate::chaos::streams::Stream;
use crate::record::{Life, Process};

/// Whether an event raises (true) or lifts the worker's own fence.
fn turn(event: &Event) -> Option<bool> {
    match &event.body {
        Body::WorkerFenced(_) => Some(true),
        Body::WorkerRegistered(_) => Some(false),
        Body::Log(..) => (event.message.as_deref() == Some(FENCE_LIFTED)).then_some(false),
        _ => None,
    }
}

/// Whether the worker considers itself fenced at `at`.
fn fenced_at(stream: &Stream<'_>, at: Mono) -> bool {
    let events = stream.events.iter().filter(|event| event.mono <= at);
    events.filter_map(turn).next_back().unwrap_or(false)
}

/// A life of a worker, with its stream.
type Told<'c> = (&'c Process, WorkerId, &'c Life, &'c Stream<'c>);

fn lives<'c>(case: &'c Case<'_>) -> impl Iterator<Item = Told<'c>> {
    case.story.workers.iter().flat_map(|(process, id, streams)| {
        streams.iter().filter_map(|stream| Some((*process, *id, stream.life?, stream)))
    })
}

/// Who is still there when it is declared failed has fenced itself before; who is stopped does so
/// before it does anything else.
pub(super) fn fenced_first(case: &Case<'_>) -> Finding {
    let (mut wrong, mut before, mut after, mut dead) = (Vec::new(), 0, 0, 0);
    for (wait, _) in case.story.verdicts() {
        let Some(holder) = case.story.holder(wait.worker, wait.epoch) else { continue };
        let of_holder =
            |told: &Told<'_>| std::ptr::eq(told.0, holder.process) && told.2 == holder.life;
        let Some((_, _, life, stream)) = lives(case).find(of_holder) else { continue };
        let (process, at) = (holder.process, wait.at);
        let mut fail = |what: &str| {
            wrong.push(format!("{} was failed at {} and {what}", process.name, case.at(at)));
        };
        if case.truth.runs(process, life, at.before(SLACK), at) {
            before += 1;
            if !fenced_at(stream, at) {
                fail("had not fenced itself");
            }
            continue;
        }
        let thaw = case.truth.stopped(process).past(at);
        if thaw == at || !case.truth.runs(process, life, thaw + SLACK / 50, thaw + SLACK) {
            dead += 1;
            continue;
        }
        after += 1;
        let mut events = stream.events.iter().filter(|event| event.mono >= at);
        let first = events.find_map(|event| Some((turn(event)?, event.mono)));
        match first {
            _ if fenced_at(stream, at) => {}
            Some((true, fenced)) if fenced <= thaw + SLACK => {}
            Some((true, _)) => fail("fenced itself late when it went on"),
            Some((false, _)) => fail("went on without fencing itself"),
            None => fail("never fenced itself when it went on"),
        }
    }
    (before + after + dead > 0).then_some(())?;
    none_of(wrong, || {
        format!("{before} fenced before their verdict, {after} as they thawed, {dead} were dead")
    })
}

/// Who is not heard for as long as its fence fences itself then; and not before.
pub(super) fn in_time(case: &Case<'_>) -> Finding {
    let (mut wrong, mut looked) = (Vec::new(), 0);
    for told in lives(case) {
        wrong.extend(early(case, told));
        let accepted = acknowledgements(case, told);
        for (place, from) in accepted.iter().enumerate() {
            let next = accepted.get(place + 1).copied();
            match due(case, told, *from, next) {
                None => {}
                Some(limit) if fenced_at(told.3, limit) => looked += 1,
                Some(limit) => wrong.push(format!(
                    "{} was last heard at {} and had not fenced itself at {}",
                    told.0.name,
                    case.at(*from),
                    case.at(limit)
                )),
            }
        }
    }
    if looked == 0 && wrong.is_empty() {
        return None;
    }
    none_of(wrong, || format!("{looked} silences longer than the fence, {looked} fences in time"))
}

/// The instants at which this life can last have been acknowledged: its registrations, and the
/// beats that were accepted. A resumption moves no fence, as it moves no deadline.
fn acknowledgements(case: &Case<'_>, (_, worker, _, stream): Told<'_>) -> Vec<Mono> {
    let told = stream.events.iter().filter_map(|event| match &event.body {
        Body::WorkerRegistered(body) => Some((body.epoch, event.mono)),
        _ => None,
    });
    let mut all: Vec<_> = told
        .flat_map(|(epoch, at)| {
            let beats = case.story.beats.get(&(worker, epoch)).into_iter().flatten();
            [at].into_iter().chain(beats.copied())
        })
        .collect();
    all.sort_unstable();
    all
}

/// When a life that was last acknowledged at `from` must have fenced itself, if it must.
fn due(
    case: &Case<'_>,
    (process, _, life, stream): Told<'_>,
    from: Mono,
    next: Option<Mono>,
) -> Option<Mono> {
    let falls = from + case.record.timing.worker_self_fence_timeout;
    let limit = case.truth.stopped(process).past(falls) + SLACK;
    let left = stream
        .events
        .iter()
        .any(|event| matches!(event.body, Body::WorkerDeregistered(_)) && event.mono <= limit);
    let runs = case.truth.runs(process, life, limit.before(SLACK * 9 / 10), limit);
    let silent = next.is_none_or(|next| next > limit);
    (runs && silent && !left && limit < case.record.ended).then_some(limit)
}

/// The fences of a life that fell too soon, by their own account.
fn early(case: &Case<'_>, (process, _, _, stream): Told<'_>) -> Vec<String> {
    let fence = as_ms(case.record.timing.worker_self_fence_timeout);
    let early = |body: &WorkerFenced| {
        body.reason == "unacknowledged" && body.unacknowledged_ms + 0.001 < fence
    };
    let events = stream
        .events
        .iter()
        .filter(|event| matches!(&event.body, Body::WorkerFenced(body) if early(body)));
    events
        .map(|event| format!("{} fenced itself too soon at {}", process.name, case.at(event.mono)))
        .collect()
}

/// Nobody fences itself who runs and is heard by a coordinator that serves.
pub(super) fn no_false_fence(case: &Case<'_>) -> Finding {
    let (mut wrong, mut looked) = (Vec::new(), 0);
    for (process, _, life, stream) in lives(case) {
        for event in &stream.events {
            let Body::WorkerFenced(_) = event.body else { continue };
            looked += 1;
            let (from, at) = (event.mono.before(case.deadline()), event.mono);
            if case.served(from, at) && case.truth.good(process, life, from, at) {
                wrong.push(format!(
                    "{} fenced itself at {} although it was heard",
                    process.name,
                    case.at(at)
                ));
            }
        }
    }
    (looked > 0).then_some(())?;
    none_of(wrong, || format!("{looked} fences, each with a reason"))
}
