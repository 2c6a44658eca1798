//! What lasted: lives, faults, fences and stalls, and what the coordinator took a worker for.

use std::time::Duration;

use rollout_core::event::FENCE_LIFTED;
use rollout_core::{Body, Event, Mono, WorkerId};

use super::story::{Row, Span};
use super::text::{DETAIL, cut, time};
use crate::record::{Process, Record, Role, What};

/// All of a process.
pub(super) fn of(record: &Record, process: &Process) -> Vec<Span> {
    let mut spans = faults(record, process);
    spans.extend(process.lives.iter().map(|life| {
        let to = life.ended.as_ref().map_or(record.ended, |ended| ended.at);
        span(Row::Process, "life", (life.began, to), format!("pid {}", life.pid))
    }));
    spans.extend(spans.clone().into_iter().filter(|span| span.class == "stop").map(|stop| Span {
        row: Row::Process,
        class: "stopped",
        ..stop
    }));
    match process.role {
        Role::Coordinator => spans.extend(process.log.events().filter_map(stall)),
        Role::Worker { id } => {
            spans.extend(fences(record, process));
            spans.extend(seen(record, id));
        }
    }
    spans
}

/// A span, with its length added to what it is.
fn span(row: Row, class: &'static str, (from, to): (Mono, Mono), title: String) -> Span {
    let title = format!("{}, {}", cut(&title, DETAIL), time(to.since(from)));
    Span { row, class, from, to, title }
}

/// The end of the process's life in which `instant` lies, or of the record.
fn death(record: &Record, process: &Process, instant: Mono) -> Mono {
    let ends = process.lives.iter().filter_map(|life| Some(life.ended.as_ref()?.at));
    ends.filter(|end| *end >= instant).min().unwrap_or(record.ended)
}

/// The faults that last. One that was not undone lasts to the end of the process it was done to.
fn faults(record: &Record, process: &Process) -> Vec<Span> {
    let lasting = record.faults_of(&process.name).filter_map(|fault| {
        let class = match fault.what {
            What::Kill | What::Terminate | What::Restart | What::KillSidecars => return None,
            What::Stop => "stop",
            What::Cut | What::BlackHole => "cut",
            What::Delay { .. } => "delay",
            What::DiskStall | What::DiskFull | What::DiskError => "disk",
        };
        let to = fault.ended.unwrap_or_else(|| death(record, process, fault.began));
        Some(span(Row::Fault, class, (fault.began, to), fault.what.word().to_owned()))
    });
    lasting.collect()
}

/// The time for which the coordinator says it was stopped.
fn stall(event: &Event) -> Option<Span> {
    let Body::CoordinatorStalled(stall) = &event.body else { return None };
    let lasted = Duration::try_from_secs_f64(stall.ms / 1e3).unwrap_or_default();
    let from = event.mono.before(lasted);
    Some(span(Row::Own, "stalled", (from, event.mono), "coordinator_stalled".to_owned()))
}

/// From each fence until the worker is acknowledged again, or ends.
fn fences(record: &Record, process: &Process) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut fenced: Option<(Mono, String)> = None;
    for event in process.log.events() {
        let lifted = match &event.body {
            Body::WorkerFenced(it) => {
                fenced.get_or_insert_with(|| (event.mono, format!("fenced, {}", it.reason)));
                continue;
            }
            Body::WorkerResumed(_) | Body::WorkerRegistered(_) => true,
            Body::Log(..) => event.message.as_deref() == Some(FENCE_LIFTED),
            _ => false,
        };
        let dead = |since: Mono| death(record, process, since) < event.mono;
        if lifted || fenced.as_ref().is_some_and(|fence| dead(fence.0)) {
            spans.extend(fenced.take().map(|(from, title)| {
                let to = event.mono.min(death(record, process, from));
                span(Row::Own, "fenced", (from, to), title)
            }));
        }
    }
    spans.extend(fenced.map(|(from, title)| {
        span(Row::Own, "fenced", (from, death(record, process, from)), title)
    }));
    spans
}

/// What the coordinator took a worker for, in the order of time. A dead coordinator takes nobody
/// for anything; a new one carries on where the last one stopped.
fn seen(record: &Record, worker: WorkerId) -> Vec<Span> {
    let Some(coordinator) = record.coordinator() else { return Vec::new() };
    let mut spans = Vec::new();
    let mut state: Option<(&'static str, Mono)> = None;
    let mut close = |state: Option<(&'static str, Mono)>, to: Mono| {
        spans.extend(state.map(|(class, from)| {
            let to = to.min(death(record, coordinator, from));
            span(Row::Seen, class, (from, to), format!("the coordinator sees it {class}"))
        }));
    };
    for event in coordinator.log.events() {
        if event.worker_id.is_some_and(|id| id != worker) {
            continue;
        }
        let next = match &event.body {
            Body::CoordinatorStarted(_) => state.map(|(class, _)| class),
            Body::WorkerRegistered(_) => Some("registered"),
            Body::WorkerReady(_) | Body::WorkerRecovered(_) => Some("ready"),
            Body::WorkerSuspected(_) => Some("suspected"),
            Body::WorkerFailed(_) => Some("failed"),
            Body::WorkerDraining(_) => Some("draining"),
            Body::WorkerDeregistered(_) => None,
            _ => continue,
        };
        close(state.take(), event.mono);
        state = next.map(|class| (class, event.mono));
    }
    close(state, record.ended);
    spans
}
