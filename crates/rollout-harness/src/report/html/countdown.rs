//! The times in which a worker's deadline came near: from the last beat, over the budget and what
//! was credited, to the verdict or to the beat that came after all.

use std::time::Duration;

use rollout_core::{Body, Event, Mono, WorkerId};

use crate::record::Record;

/// A deadline that came near.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Countdown {
    /// The last beat; or what else sets a deadline: a registration, a new term.
    pub(super) from: Mono,
    /// The instant after which the worker has failed.
    pub(super) deadline: Mono,
    /// What stalls have added to it.
    pub(super) credited: Duration,
    /// When it ended, and how.
    pub(super) ended: Mono,
    /// Whether with a verdict.
    pub(super) verdict: bool,
}

/// The instants at which beats of a worker were accepted.
pub(super) fn beats(record: &Record, worker: WorkerId) -> Vec<Mono> {
    let beats = record.about(worker).filter(|e| matches!(e.body, Body::WorkerHeartbeat(_)));
    beats.map(|event| event.mono).collect()
}

/// What an event does to a deadline.
enum Step {
    Arm,
    Credit(Duration),
    Verdict(Duration),
    Leave,
}

fn step(event: &Event) -> Option<Step> {
    let duration = |ms: f64| Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default();
    match &event.body {
        Body::WorkerHeartbeat(_) | Body::WorkerRegistered(_) | Body::CoordinatorStarted(_) => {
            Some(Step::Arm)
        }
        Body::CoordinatorStalled(stall) => Some(Step::Credit(duration(stall.ms))),
        Body::WorkerFailed(failed) => Some(Step::Verdict(duration(failed.credited_ms))),
        Body::WorkerDeregistered(_) => Some(Step::Leave),
        _ => None,
    }
}

/// The deadlines of a worker that came near: three beats were missed before anything reset them.
pub(super) fn of(record: &Record, worker: WorkerId) -> Vec<Countdown> {
    let Some(coordinator) = record.coordinator() else { return Vec::new() };
    let mut found = Vec::new();
    let mut armed: Option<(Mono, Duration)> = None;
    let mut known = false;
    let near = |(from, credited): (Mono, Duration), at: Mono, verdict: bool| {
        let dead = coordinator.lives.iter().filter_map(|life| Some(life.ended.as_ref()?.at));
        let ended = dead.filter(|dead| *dead > from && !verdict).fold(at, Mono::min);
        let deadline = record.timing.deadline(from) + credited;
        let near = verdict || ended >= record.timing.suspicion(from) + credited;
        near.then_some(Countdown { from, deadline, credited, ended, verdict })
    };
    for event in coordinator.log.events() {
        if event.worker_id.is_some_and(|id| id != worker) {
            continue;
        }
        let Some(step) = step(event) else { continue };
        let started = matches!(event.body, Body::CoordinatorStarted(_));
        match step {
            Step::Credit(credit) => {
                armed = armed.map(|(from, credited)| (from, credited + credit));
            }
            Step::Verdict(credited) => {
                let from = armed.take().map(|(from, _)| (from, credited));
                found.extend(from.and_then(|from| near(from, event.mono, true)));
                known = false;
            }
            Step::Arm | Step::Leave => {
                found.extend(armed.take().and_then(|armed| near(armed, event.mono, false)));
                let arms = matches!(step, Step::Arm) && (known || !started);
                known = arms;
                armed = arms.then_some((event.mono, Duration::ZERO));
            }
        }
    }
    found.extend(armed.and_then(|armed| near(armed, record.ended, false)));
    found
}
