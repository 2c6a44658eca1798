//! Who is back: the coordinator serves again, and whoever can be heard is.

use std::time::Duration;

use rollout_core::{Mono, WorkerId};

use super::{Case, Finding, none_of};
use crate::record::{Life, Process};

/// What a start, or coming back, may take on a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// A coordinator that is started, and not stopped again at once, serves.
pub(super) fn serves(case: &Case<'_>) -> Finding {
    let coordinator = case.record.coordinator()?;
    let ran = |life: &&Life| {
        case.truth.runs(coordinator, life, life.began, life.began + BACK_WITHIN)
            && !case.truth.stalled_disk(coordinator).touch(life.began, life.began + BACK_WITHIN)
    };
    let lives: Vec<_> = coordinator.lives.iter().filter(ran).collect();
    let serves = |life: &&&Life| {
        let within = life.began..=life.began + BACK_WITHIN;
        case.story.terms.iter().any(|term| within.contains(&term.started))
    };
    let wrong = lives
        .iter()
        .filter(|life| !serves(life))
        .map(|life| format!("the coordinator started at {} does not serve", case.at(life.began)));
    none_of(wrong.collect(), || format!("{} lives, each serves", lives.len()))
}

/// Whoever runs, is not stopped, and has a link that passes, to a coordinator that serves, is heard
/// again: once a deadline has passed, and what coming back takes.
pub(super) fn comes_back(case: &Case<'_>) -> Finding {
    let within = case.deadline() + BACK_WITHIN;
    let (mut wrong, mut looked) = (Vec::new(), 0);
    for (process, id) in case.record.workers() {
        let beats = beats(case, id);
        for life in &process.lives {
            let moments = moments(case, process, life, &beats);
            for from in
                moments.into_iter().filter(|from| can_be_heard(case, process, life, *from, within))
            {
                looked += 1;
                let heard = beats.iter().any(|beat| *beat > from && *beat <= from + within);
                if !heard {
                    let (name, at) = (&process.name, case.at(from));
                    wrong.push(format!(
                        "{name} ran and could be reached since {at}, and was not heard"
                    ));
                }
            }
        }
    }
    (looked > 0).then_some(())?;
    none_of(wrong, || format!("{looked} times on its own again, each time heard"))
}

/// When beats of a worker were accepted, under whatever epoch.
fn beats(case: &Case<'_>, id: WorkerId) -> Vec<Mono> {
    let its = case.story.beats.iter().filter(|((worker, _), _)| *worker == id);
    its.flat_map(|(_, beats)| beats).copied().collect()
}

/// The moments from which a life may have been on its own: its start, the end of what was done to it
/// or to the coordinator, a new term, and each beat.
fn moments(case: &Case<'_>, process: &Process, life: &Life, beats: &[Mono]) -> Vec<Mono> {
    let coordinator = case.record.coordinator().map(|it| it.name.as_str()).unwrap_or_default();
    let faults = case.record.faults_of(&process.name).chain(case.record.faults_of(coordinator));
    let undone = faults.filter_map(|fault| fault.ended);
    let terms = case.story.terms.iter().map(|term| term.started);
    [life.began].into_iter().chain(undone).chain(terms).chain(beats.iter().copied()).collect()
}

fn can_be_heard(
    case: &Case<'_>,
    process: &Process,
    life: &Life,
    from: Mono,
    within: Duration,
) -> bool {
    let to = from + within;
    let disks = case.record.coordinator().into_iter().chain([process]);
    case.truth.good(process, life, from, to)
        && case.served(from, to)
        && !disks.into_iter().any(|it| case.truth.stalled_disk(it).touch(from, to))
}
