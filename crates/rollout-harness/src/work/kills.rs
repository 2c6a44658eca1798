//! How soon the items of a killed worker run elsewhere.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rollout_core::Mono;
use rollout_core::duration::as_ms;
use serde::Serialize;

use super::executions::Execution;
use super::ledger::{Change, Ledger};
use crate::record::{Record, Role, What};

/// A coordinator that dies so shortly before or after a worker has other things to do first: its
/// workers come back, and none of them is suspected for the connection that its own death cut.
const AROUND: Duration = Duration::from_secs(2);

/// A worker that was killed, and what became of the items that it had.
#[derive(Debug, Clone, Serialize)]
pub struct Kill {
    /// Its name.
    pub worker: String,
    /// When.
    #[serde(skip)]
    pub at: Mono,
    /// How many items it had that had to be run elsewhere.
    pub held: usize,
    /// Whether the coordinator ran around that time.
    pub served: bool,
    /// From the kill until each of them was given to another process, in milliseconds.
    pub leased_ms: Vec<f64>,
    /// How many of them the next process lost as well before they ran.
    pub lost_again: usize,
    /// From the kill until each of the others ran elsewhere, in milliseconds.
    pub ran_ms: Vec<f64>,
}

/// The kills of workers in a record, in their order.
pub(super) fn kills(record: &Record, ledger: &Ledger, executions: &[Execution]) -> Vec<Kill> {
    let mut runs: HashMap<u64, Vec<Execution>> = HashMap::new();
    for execution in executions {
        runs.entry(execution.item).or_default().push(*execution);
    }
    let coordinator = record.coordinator().map(|it| it.name.as_str());
    let deaths = record.faults.iter().filter(|fault| fault.what == What::Kill);
    let (of_coordinator, of_workers): (Vec<_>, Vec<_>) =
        deaths.partition(|fault| Some(fault.target.as_str()) == coordinator);
    let served = |at: Mono| {
        of_coordinator.iter().all(|death| death.began + AROUND < at || at + AROUND < death.began)
    };
    let kills = of_workers.into_iter().filter_map(|fault| {
        let Role::Worker { id } = record.process(&fault.target)?.role else { return None };
        let (at, held) = (fault.began, ledger.held(id, fault.began));
        let none = Kill {
            worker: fault.target.clone(),
            at,
            held: 0,
            served: served(at),
            leased_ms: Vec::new(),
            lost_again: 0,
            ran_ms: Vec::new(),
        };
        let dead: BTreeSet<i32> =
            held.iter().filter_map(|item| last_run(&runs, ledger, *item, at)).collect();
        Some(held.iter().fold(none, |kill, item| {
            follow(kill, ledger, *item, runs.get(item).map_or(&[], Vec::as_slice), &dead)
        }))
    });
    kills.collect()
}

/// The process that ran the item for the worker that had it at this instant, if it had come to that.
fn last_run(
    runs: &HashMap<u64, Vec<Execution>>,
    ledger: &Ledger,
    item: u64,
    at: Mono,
) -> Option<i32> {
    let changes = ledger.items.get(&item)?;
    let leased = changes.iter().rfind(|(when, _)| *when <= at)?.0;
    // The grant is said when it is on its way: the worker may be a moment ahead of that.
    let from = leased.before(Duration::from_millis(5));
    runs.get(&item)?.iter().rfind(|run| from <= run.at && run.at <= at).map(|run| run.pid)
}

/// Adds what became of one item. One whose result was on its way already was not lost.
fn follow(
    mut kill: Kill,
    ledger: &Ledger,
    item: u64,
    runs: &[Execution],
    dead: &BTreeSet<i32>,
) -> Kill {
    let at = kill.at;
    let changes = ledger.items.get(&item).map_or(&[][..], Vec::as_slice);
    let mut after = changes.iter().filter(|(when, _)| *when > at);
    let next = after.find(|(_, change)| *change != Change::Released);
    let Some((when, Change::Leased(..))) = next else { return kill };
    kill.held += 1;
    kill.leased_ms.push(as_ms(when.since(at)));
    let elsewhere = runs.iter().find(|run| run.at > at && !dead.contains(&run.pid));
    let released = after.next().filter(|(_, change)| *change == Change::Released);
    match (elsewhere, released) {
        (Some(run), Some((released, _))) if run.at > *released => kill.lost_again += 1,
        (Some(run), _) => kill.ran_ms.push(as_ms(run.at.since(at))),
        (None, _) => {}
    }
    kill
}
