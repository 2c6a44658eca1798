//! The claims about time: the verdict's two bounds, the second worker's beats, and whether the
//! machine let anybody keep time at all.

use rollout_core::event::WorkerFailed;
use rollout_core::{Body, Event, Mono, duration::as_ms};
use serde::Serialize;

use super::{Evidence, Finding};
use crate::judge::{credit, late, lost};
use crate::timeline::DETECTION_BOUND;

/// The figures of a run whose killed worker was reported, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    /// From the kill to the event.
    pub latency_ms: f64,
    /// From the deadline, which is the lower bound, to the event; negative if it came too early.
    pub overshoot_ms: f64,
    /// From the event to the upper bound, eight seconds after the kill; negative if it came late.
    pub spare_ms: f64,
}

impl Measured {
    pub(super) fn of(evidence: &Evidence) -> Option<Self> {
        let kill = evidence.kill?;
        let (event, failed) = failures(evidence).next()?;
        let deadline = deadline(evidence, event.mono, failed)?;
        Some(Self {
            latency_ms: signed_ms(kill, event.mono),
            overshoot_ms: signed_ms(deadline, event.mono),
            spare_ms: signed_ms(event.mono, kill + DETECTION_BOUND),
        })
    }
}

fn signed_ms(from: Mono, to: Mono) -> f64 {
    as_ms(to.since(from)) - as_ms(from.since(to))
}

/// The `worker_failed` events of the killed worker.
pub(super) fn failures(evidence: &Evidence) -> impl Iterator<Item = (&Event, &WorkerFailed)> {
    evidence.about(evidence.w1.id).filter_map(|event| match &event.body {
        Body::WorkerFailed(failed) => Some((event, failed)),
        _ => None,
    })
}

/// The instants at which beats of a worker were accepted.
fn beats<'a>(events: impl Iterator<Item = &'a Event>) -> impl Iterator<Item = Mono> {
    events.filter(|event| matches!(event.body, Body::WorkerHeartbeat(_))).map(|event| event.mono)
}

/// The deadline that a verdict at `at` had to wait for.
fn deadline(evidence: &Evidence, at: Mono, failed: &WorkerFailed) -> Option<Mono> {
    let last = beats(evidence.about(evidence.w1.id)).filter(|beat| *beat <= at).max()?;
    Some(evidence.timing.deadline(last) + credit(failed))
}

pub(super) fn not_early(evidence: &Evidence) -> Finding {
    let mut finding = None;
    for (event, failed) in failures(evidence) {
        let Some(deadline) = deadline(evidence, event.mono, failed) else {
            return Some(Err("worker_failed(w1) came without any beat of w1 before it".into()));
        };
        let (by, sum) = (as_ms(event.mono.since(deadline)), sum(evidence));
        if event.mono < deadline {
            let by = deadline.since(event.mono).as_secs_f64() * 1e3;
            return Some(Err(format!(
                "worker_failed(w1) came {by:.6} ms before its deadline ({sum})"
            )));
        }
        finding = Some(Ok(format!("{by:.3} ms after its deadline ({sum})")));
    }
    finding
}

/// The terms of the deadline, for people.
fn sum(evidence: &Evidence) -> String {
    let timing = &evidence.timing;
    let terms = [
        timing.heartbeat_interval,
        timing.coordinator_failure_timeout,
        timing.clock_skew_budget,
        timing.deadline(Mono(0)).since(Mono(0)),
    ];
    let [beat, timeout, skew, total] = terms.map(|term| term.as_secs_f64());
    format!("last beat + {beat} + {timeout} + {skew} = {total} s")
}

pub(super) fn in_time(evidence: &Evidence) -> Finding {
    let kill = evidence.kill?;
    let bound = kill + DETECTION_BOUND;
    let event = failures(evidence).map(|(event, _)| event.mono).min();
    if let Some(at) = event.filter(|at| *at <= bound) {
        let latency = at.since(kill).as_secs_f64();
        return Some(Ok(format!("{latency:.3} s after the kill, of 8 s")));
    }
    let seen = match event {
        Some(at) => format!("came {:.3} s after the kill", at.since(kill).as_secs_f64()),
        None => "did not come".to_owned(),
    };
    let why = beyond(evidence, bound).map(|why| format!(": {why}")).unwrap_or_default();
    Some(Err(format!("worker_failed(w1) {seen}, the specification's bound is 8 s{why}")))
}

/// Why no coordinator with this configuration can meet the bound, if that is so.
fn beyond(evidence: &Evidence, bound: Mono) -> Option<String> {
    let timing = &evidence.timing;
    let last = beats(evidence.about(evidence.w1.id)).max()?;
    (timing.deadline(last) > bound).then(|| {
        format!(
            "coordinator_failure_timeout = {}s puts the deadline {} s after the last beat, beyond \
             the specification's 8 s",
            timing.coordinator_failure_timeout.as_secs_f64(),
            timing.deadline(last).since(last).as_secs_f64(),
        )
    })
}

/// The second worker beats from its first beat until it is asked to end, with no gap that would
/// make it suspect, and about as often as it should after the kill.
pub(super) fn w2_beats(evidence: &Evidence) -> Finding {
    let (kill, stop) = (evidence.kill?, evidence.w2_stop?);
    let timing = &evidence.timing;
    let mut beats: Vec<_> =
        beats(evidence.about(evidence.w2.id)).filter(|beat| *beat <= stop).collect();
    beats.sort_unstable();
    let after = beats.iter().filter(|beat| **beat > kill).count() as u128;
    let expected = stop.since(kill).as_nanos() / timing.heartbeat_interval.as_nanos().max(1);
    if after + 2 < expected {
        return Some(Err(format!("w2 beat {after} times after the kill, {expected} were due")));
    }
    beats.push(stop);
    let gap = beats.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default();
    let limit = timing.suspicion(Mono(0)).since(Mono(0));
    let seen = format!("{after} beats after the kill, longest gap {:.0} ms", as_ms(gap));
    Some(if gap <= limit {
        Ok(seen)
    } else {
        Err(format!("{seen}: suspicion begins at {:.0} ms", as_ms(limit)))
    })
}

/// What kept the run from showing anything, in words.
pub(super) fn starved(evidence: &Evidence) -> Vec<String> {
    let mut reasons = Vec::from_iter(late(evidence.harness_late));
    for event in evidence.coordinator.log.events() {
        match &event.body {
            Body::CoordinatorStalled(stall) => {
                reasons.push(format!("the coordinator stalled for {:.0} ms", stall.ms));
            }
            Body::WorkerFailed(failed) if failed.credited_ms > 0.0 => {
                reasons
                    .push(format!("the verdict credits a stall of {:.0} ms", failed.credited_ms));
            }
            Body::LinesDropped(lines) => reasons.push(lost(lines)),
            _ => {}
        }
    }
    reasons
}

/// That nothing did.
pub(super) fn calm(evidence: &Evidence) -> String {
    format!("no stall credited, harness at most {:.0} ms late", as_ms(evidence.harness_late))
}
