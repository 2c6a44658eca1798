//! Suspicion: who hangs up is suspected at once.

use rollout_core::duration::as_ms;
use rollout_core::{Body, Event, Mono, WorkerId};

use super::{Case, Finding, SLACK, SUSPECTED_WITHIN, none_of};
use crate::record::{Fault, Process, What};

/// Who hangs up, killed or cut off, is suspected within 100 ms.
pub(super) fn in_time(case: &Case<'_>) -> Finding {
    let limit = SUSPECTED_WITHIN + SLACK / 2;
    let (mut wrong, mut looked) = (Vec::new(), 0);
    for (process, fault, suspected) in hangings_up(case) {
        looked += 1;
        let after = suspected.map(|at| at.since(fault.began));
        if after.is_none_or(|after| after > limit) {
            let seen = after
                .map_or("never".to_owned(), |after| format!("only {:.0} ms later", as_ms(after)));
            let (name, what, at) = (&process.name, fault.what.word(), case.at(fault.began));
            wrong.push(format!("{name} ({what} at {at}) was suspected {seen}"));
        }
    }
    if looked == 0 {
        return None;
    }
    let worst = latencies(case).into_iter().max_by(f64::total_cmp).unwrap_or_default();
    none_of(wrong, || format!("{looked} hung up, each suspected within {worst:.1} ms"))
}

/// From each hanging up to its suspicion, in milliseconds.
pub(super) fn latencies(case: &Case<'_>) -> Vec<f64> {
    let suspected = hangings_up(case);
    suspected.filter_map(|(_, fault, at)| Some(as_ms(at?.since(fault.began)))).collect()
}

/// Every instant at which a worker that was connected hung up, or was cut off, under a coordinator
/// that had nothing else to think of; and when it was suspected.
fn hangings_up<'c>(
    case: &'c Case<'_>,
) -> impl Iterator<Item = (&'c Process, &'c Fault, Option<Mono>)> {
    case.record.workers().flat_map(move |(process, worker)| {
        let faults = case.record.faults_of(&process.name);
        let hang_up = faults.filter(|fault| matches!(fault.what, What::Kill | What::Cut));
        hang_up.filter_map(move |fault| {
            let suspected = after_hanging_up(case, process, worker, fault)?;
            Some((process, fault, suspected))
        })
    })
}

/// Nothing if it was not connected, or this is no time to tell; else when it was suspected.
fn after_hanging_up(
    case: &Case<'_>,
    process: &Process,
    worker: WorkerId,
    fault: &Fault,
) -> Option<Option<Mono>> {
    let timing = &case.record.timing;
    let at = fault.began;
    let before = at.before(timing.heartbeat_interval * 3 / 2);
    let until = at + SUSPECTED_WITHIN + SLACK / 2;
    let settled = at.before(timing.worker_self_fence_timeout);
    let other_faults = case.record.faults_of(&process.name).any(|other| {
        let near = other.began <= until && before <= other.ended.unwrap_or(other.began);
        near && !std::ptr::eq(other, fault) && !matches!(other.what, What::Kill | What::Stop)
    });
    if other_faults || !case.served(settled, until) {
        return None;
    }
    let events: Vec<&Event> = about(case, worker).collect();
    let of = |event: &&&Event| event.mono <= at;
    let last = events.iter().filter(of).rfind(|event| {
        !matches!(event.body, Body::WorkerHeartbeat(_) | Body::WorkerReady(_) | Body::Log(..))
    });
    let connected = last.is_some_and(|event| {
        matches!(
            event.body,
            Body::WorkerRegistered(_) | Body::WorkerResumed(_) | Body::WorkerRecovered(_)
        )
    });
    let beats = events.iter().any(|event| {
        matches!(event.body, Body::WorkerHeartbeat(_)) && before <= event.mono && event.mono <= at
    });
    if !connected || !beats {
        return None;
    }
    let next = events.iter().find(|event| {
        event.mono > at && !matches!(event.body, Body::WorkerHeartbeat(_) | Body::Log(..))
    });
    match next.map(|event| (&event.body, event.mono)) {
        Some((Body::WorkerSuspected(_), at)) => Some(Some(at)),
        // It was asked to leave, or its replacement was quicker.
        Some((Body::WorkerDraining(_) | Body::WorkerRegistered(_), at)) if at <= until => None,
        _ => Some(None),
    }
}

fn about<'c>(case: &'c Case<'_>, worker: WorkerId) -> impl Iterator<Item = &'c Event> {
    let events = case.story.streams.iter().flat_map(|stream| &stream.events);
    events.filter(move |event| event.worker_id == Some(worker))
}
