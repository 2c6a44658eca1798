//! The verdicts: not early, not late, none missing, none false, each once.

use std::time::Duration;

use rollout_core::Mono;
use rollout_core::duration::as_ms;
use rollout_core::event::WorkerFailed;

use super::{Case, Finding, SLACK, none_of};
use crate::chaos::story::{DURABLE_WITHIN, Next, Sign, Wait};

/// What rounding to microseconds may cost.
const ROUNDING: Duration = Duration::from_micros(2);
/// Beyond this, a verdict that has not come is not late any more but missing.
const MISSING: Duration = Duration::from_millis(500);
/// A stop of the coordinator as short as this need not be credited, and of a longer one so much may
/// be missing: it is what the coordinator tolerates of itself, and its tick.
const UNCREDITED: Duration = Duration::from_millis(350);

fn duration(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default()
}

/// One verdict for each epoch in a term.
pub(super) fn once(case: &Case<'_>) -> Finding {
    match case.told("once", "verdicts, each for an epoch that had none") {
        Some(Ok(_)) if !case.story.looked.contains_key("once") => None,
        finding => finding,
    }
}

/// The deadline that a verdict had to wait for, by the log alone.
fn deadline(case: &Case<'_>, wait: &Wait, failed: &WorkerFailed) -> Mono {
    case.record.timing.deadline(wait.from) + duration(failed.credited_ms)
}

/// No verdict before its deadline: the last sign of life, the sum of the budget, and what is
/// credited; and each says of itself what the log shows.
pub(super) fn not_early(case: &Case<'_>) -> Finding {
    let (mut wrong, mut looked) = (Vec::new(), 0);
    for (wait, failed) in case.story.verdicts() {
        looked += 1;
        let (name, deadline) = (case.name(wait.worker), deadline(case, wait, failed));
        if wait.at + ROUNDING < deadline {
            let early = as_ms(deadline.since(wait.at));
            let at = case.at(wait.at);
            wrong.push(format!("{name} failed at {at}, {early:.3} ms before its deadline"));
            continue;
        }
        // The answer to a registration, from which its deadline runs, is not in the log.
        let seen = as_ms(wait.at.since(deadline));
        let says = failed.overshoot_ms;
        let agrees = match wait.sign {
            Sign::Registered => says <= seen + 0.002,
            Sign::Start | Sign::Beat => (says - seen).abs() <= 0.002,
        };
        if !agrees {
            wrong.push(format!(
                "{name}'s verdict at {} says {says:.3} ms past its deadline, it was {seen:.3} ms",
                case.at(wait.at)
            ));
        }
    }
    (looked > 0).then_some(())?;
    none_of(wrong, || format!("{looked} verdicts, none before its deadline"))
}

/// How long a coordinator that ran left a worker unfailed past its deadline.
fn overdue(case: &Case<'_>, wait: &Wait) -> Duration {
    let answer = match wait.sign {
        Sign::Registered => {
            let stall = case.record.coordinator().map_or(Duration::ZERO, |coordinator| {
                let disk = case.truth.stalled_disk(coordinator);
                disk.past(wait.from).since(wait.from)
            });
            DURABLE_WITHIN + stall
        }
        Sign::Start | Sign::Beat => Duration::ZERO,
    };
    let latest = match &wait.next {
        Next::Failed(failed) => wait.at.before(duration(failed.overshoot_ms)),
        _ => case.record.timing.deadline(wait.from) + wait.credit + answer,
    };
    let late = wait.at.since(latest);
    late.saturating_sub(case.coordinator_stopped(latest, wait.at))
}

fn late(case: &Case<'_>, wait: &Wait, late: Duration) -> String {
    let (name, at, late) = (case.name(wait.worker), case.at(wait.at), as_ms(late));
    match wait.next {
        Next::Failed(_) => format!("{name} failed at {at}, {late:.0} ms late"),
        _ => format!("{name} had still not failed at {at}, {late:.0} ms past its deadline"),
    }
}

/// The deadlines that passed without a verdict in time: those that are missing, or the others.
fn passed(case: &Case<'_>, missing: bool) -> Vec<String> {
    let waits = case.story.waits.iter().map(|wait| (wait, overdue(case, wait)));
    let is_missing =
        |wait: &Wait, overdue| !matches!(wait.next, Next::Failed(_)) && overdue > MISSING;
    waits
        .filter(|(wait, overdue)| *overdue > SLACK && is_missing(wait, *overdue) == missing)
        .map(|(wait, overdue)| late(case, wait, overdue))
        .collect()
}

/// No verdict much after its deadline.
pub(super) fn in_time(case: &Case<'_>) -> Finding {
    let worst = case.story.verdicts().map(|(_, failed)| failed.overshoot_ms).max_by(f64::total_cmp);
    let worst = worst.unwrap_or_default();
    let waits = case.story.waits.len();
    none_of(passed(case, false), || {
        format!("{waits} deadlines, the latest verdict {worst:.3} ms late")
    })
}

/// No deadline passes without a verdict.
pub(super) fn none_missing(case: &Case<'_>) -> Finding {
    let verdicts = case.story.verdicts().count();
    none_of(passed(case, true), || format!("{verdicts} deadlines passed, {verdicts} verdicts"))
}

/// Nobody is failed who ran, was not stopped, and whose link passed: not for as long as a deadline
/// while the coordinator served, and not since before its last sign of life.
pub(super) fn no_false_failure(case: &Case<'_>) -> Finding {
    let (mut wrong, mut looked) = (Vec::new(), 0);
    let interval = case.record.timing.heartbeat_interval;
    for (wait, _) in case.story.verdicts() {
        looked += 1;
        let Some(holder) = case.story.holder(wait.worker, wait.epoch) else { continue };
        let good = |from| case.truth.good(holder.process, holder.life, from, wait.at);
        let lately = wait.at.before(case.deadline());
        let since = match wait.sign {
            Sign::Beat => wait.from.before(interval),
            Sign::Start | Sign::Registered => wait.from,
        };
        let reachable = case.served(lately, wait.at) && good(lately);
        if reachable || good(since) {
            wrong.push(format!(
                "{} failed at {} although it ran and could be reached since {}",
                case.name(wait.worker),
                case.at(wait.at),
                case.at(if reachable { lately } else { since })
            ));
        }
    }
    let good = case.record.workers().map(|(process, _)| process.lives.len()).sum::<usize>();
    none_of(wrong, || format!("{looked} verdicts about {good} lives, each deserved"))
}

/// What the coordinator was stopped for is credited, and no more is credited than it reports.
pub(super) fn stall_credit(case: &Case<'_>) -> Finding {
    let (mut wrong, mut looked) = (Vec::new(), 0);
    let coordinator = case.record.coordinator()?;
    for (wait, failed) in case.story.verdicts() {
        let credited = duration(failed.credited_ms);
        // Who gave the verdict ran by then, whenever the harness noted that it did.
        let inside = |span: &(Mono, Mono)| wait.from <= span.0 && span.0 < wait.at;
        let stops = case.truth.stopped(coordinator).iter().filter(inside);
        let credit = |(from, to): (Mono, Mono)| to.min(wait.at).since(from);
        let due: Duration = stops.map(|stop| credit(stop).saturating_sub(UNCREDITED)).sum();
        looked += usize::from(!due.is_zero() || !credited.is_zero());
        let (name, at) = (case.name(wait.worker), case.at(wait.at));
        let (due_ms, credited_ms) = (as_ms(due), as_ms(credited));
        if credited < due {
            wrong.push(format!(
                "{name} failed at {at} with {credited_ms:.0} ms credited; the coordinator had been \
                 stopped for more than {due_ms:.0} ms meanwhile"
            ));
        }
        if credited > wait.credit {
            let reported = as_ms(wait.credit);
            wrong.push(format!(
                "{name} failed at {at} with {credited_ms:.0} ms credited, {reported:.0} ms reported"
            ));
        }
    }
    (looked > 0).then_some(())?;
    none_of(wrong, || format!("{looked} verdicts after a stall, each credited with it"))
}
