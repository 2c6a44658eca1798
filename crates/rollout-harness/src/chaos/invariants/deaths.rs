//! Every death of a worker that held an epoch comes to something.

use rollout_core::{Body, Mono, WorkerId};

use super::{Case, Finding, SLACK, none_of};
use crate::chaos::story::{Next, Wait};
use crate::record::{Life, Process, What};

/// What became of the epochs of killed workers.
#[derive(Debug, Default)]
struct Tally {
    deaths: usize,
    failed: usize,
    replaced: usize,
    /// Its own last words came first: it had failed or left, or never registered.
    over: usize,
    /// Neither, and there was no time for it.
    open: usize,
}

/// Every worker that was killed with an epoch was failed, or replaced before its deadline; only at
/// the very end of the record, or of a term, may it be neither.
pub(super) fn deaths(case: &Case<'_>) -> Finding {
    let (mut wrong, mut tally) = (Vec::new(), Tally::default());
    for (process, worker) in case.record.workers() {
        for life in &process.lives {
            if let Some(killed) = case.truth.killed(process, life) {
                tally.deaths += 1;
                wrong.extend(fate(case, (process, worker), life, killed, &mut tally));
            }
        }
    }
    if tally.deaths == 0 {
        let killed = case.done_to_workers(|_, fault| fault.what == What::Kill);
        return killed.then(|| Err("workers were killed, and none is seen to have died".into()));
    }
    if tally.over + tally.open == tally.deaths && tally.deaths >= 2 {
        wrong.push(format!("none of {} deaths came to anything: {tally:?}", tally.deaths));
    }
    none_of(wrong, || {
        let Tally { deaths, failed, replaced, over, open } = tally;
        format!(
            "{deaths} deaths: {failed} failed, {replaced} replaced, {over} with no epoch, {open} open"
        )
    })
}

fn fate(
    case: &Case<'_>,
    (process, worker): (&Process, WorkerId),
    life: &Life,
    killed: Mono,
    tally: &mut Tally,
) -> Option<String> {
    let Some(epoch) = held(case, process, life) else {
        tally.over += 1;
        return None;
    };
    let about = |wait: &&Wait| wait.worker == worker && wait.epoch == epoch;
    let ended = case
        .story
        .waits
        .iter()
        .filter(about)
        .rfind(|wait| matches!(wait.next, Next::Failed(_) | Next::Replaced | Next::Left));
    match ended.map(|wait| (&wait.next, wait.at)) {
        Some((_, at)) if at < killed => tally.over += 1,
        Some((Next::Failed(_), _)) => tally.failed += 1,
        Some((Next::Left, _)) => tally.over += 1,
        Some((_, _)) => tally.replaced += 1,
        None => {
            // A term that served for the whole of the deadline has no excuse.
            let had_time = case.story.terms.iter().any(|term| {
                let from = term.started.max(killed + SLACK);
                let long = case.deadline() + case.coordinator_stopped(from, term.until) + SLACK * 4;
                from + long < term.until
            });
            if had_time {
                let (name, at) = (&process.name, case.at(killed));
                return Some(format!("{name} died at {at} and was never failed"));
            }
            tally.open += 1;
        }
    }
    None
}

/// The last epoch that a life was told.
fn held(case: &Case<'_>, process: &Process, life: &Life) -> Option<u64> {
    let (_, _, streams) =
        case.story.workers.iter().find(|(other, _, _)| std::ptr::eq(*other, process))?;
    let stream = streams.iter().find(|stream| stream.life == Some(life))?;
    stream.events.iter().rev().find_map(|event| match &event.body {
        Body::WorkerRegistered(body) => Some(body.epoch),
        _ => None,
    })
}
