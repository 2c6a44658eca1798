//! The workers, in tables that are swept in turn, and the heap of those to be looked at soon.
//!
//! Each table is swept once an interval, in the order of memory: who has to be looked at before
//! its next sweep goes into the heap. Nobody who beats on time ever does: whatever a worker does
//! puts off the instant at which it has to be looked at beyond every horizon, and moves nothing but
//! its own record. Sweeping everybody costs a small part of what it costs to find each worker again
//! in a queue, because memory is read in its order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use rollout_core::{Mono, WorkerId};

use super::fold::Fold;
use super::record::{NEVER, Rules, Worker};

/// So many tables: sweeping one, or growing it, is the longest that a beat or a verdict waits for.
const TABLES: u64 = 16;

#[derive(Debug)]
pub(super) struct Fleet {
    tables: Vec<Table>,
    /// Sweeps so far; the next is due at as many [`pause`](Self::pause)s on the monotonic clock.
    sweeps: u64,
    /// Between two sweeps, in nanoseconds.
    pause: u64,
    soon: BinaryHeap<Reverse<(Mono, WorkerId)>>,
}

#[derive(Debug)]
struct Table {
    workers: HashMap<WorkerId, Worker, Fold>,
    /// Who has to be looked at by then is in the heap.
    horizon: Mono,
    /// Whether anybody in it was taken over and not heard of since; so it was at its last sweep.
    awaits: bool,
}

/// The table of `id`: its last bits are random.
const fn table(id: WorkerId) -> usize {
    id.to_bytes()[15] as usize % TABLES as usize
}

impl Fleet {
    /// An empty one. Its workers beat every `interval`, and are to be looked at two intervals or
    /// more after a beat was due.
    pub(super) fn new(interval: Duration) -> Self {
        let empty = || Table { workers: HashMap::default(), horizon: Mono(0), awaits: false };
        let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Self {
            tables: (0..TABLES).map(|_| empty()).collect(),
            sweeps: 0,
            pause: (nanos / TABLES).max(1),
            soon: BinaryHeap::new(),
        }
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.tables[table(id)].workers.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.tables[table(id)].workers.get_mut(&id)
    }

    pub(super) fn insert(&mut self, id: WorkerId, worker: Worker) {
        let table = &mut self.tables[table(id)];
        table.awaits |= worker.is_awaited();
        table.workers.insert(id, worker);
    }

    pub(super) fn remove(&mut self, id: WorkerId) {
        self.tables[table(id)].workers.remove(&id);
    }

    /// Puts a worker that was taken out into the heap again, if it has to be looked at before the
    /// next sweep finds it.
    pub(super) fn arm(&mut self, rules: &Rules, id: WorkerId) {
        let Table { workers, horizon, .. } = &mut self.tables[table(id)];
        if let Some(worker) = workers.get_mut(&id) {
            let wanted = rules.wanted(worker);
            put(&mut self.soon, (id, worker), wanted, *horizon);
        }
    }

    /// Puts a worker that was taken out into the heap again, to be looked at then.
    pub(super) fn arm_at(&mut self, wake: Mono, id: WorkerId) {
        if let Some(worker) = self.get_mut(id) {
            worker.wake = wake;
            self.soon.push(Reverse((wake, id)));
        }
    }

    /// Makes up for the sweeps that are due by `now`; each table needs only one.
    ///
    /// A horizon lies one and a half intervals ahead: the next sweep, which is to be made up for
    /// within half an interval. A worker that beats on time is to be looked at two intervals ahead
    /// at the least.
    pub(super) fn sweep(&mut self, rules: &Rules, now: Mono) {
        let until = now.0 / self.pause + 1;
        let ahead = Duration::from_nanos(self.pause.saturating_mul(TABLES * 3 / 2));
        for sweep in self.sweeps.max(until.saturating_sub(TABLES))..until {
            let Table { workers, horizon, awaits } = &mut self.tables[(sweep % TABLES) as usize];
            *horizon = now + ahead;
            *awaits = *awaits && workers.values().any(Worker::is_awaited);
            for (id, worker) in workers {
                let wanted = rules.wanted(worker);
                put(&mut self.soon, (*id, worker), wanted, *horizon);
            }
        }
        self.sweeps = until;
    }

    /// Whether there may be anybody who was taken over and not heard of since.
    pub(super) fn awaits(&self) -> bool {
        self.tables.iter().any(|table| table.awaits)
    }

    /// The first instant in the heap.
    pub(super) fn next(&self) -> Option<Mono> {
        self.soon.peek().map(|Reverse((wake, _))| *wake)
    }

    /// Takes out the first worker that has to be looked at by `now`.
    pub(super) fn pop(&mut self, now: Mono) -> Option<WorkerId> {
        while self.next().is_some_and(|wake| wake <= now) {
            let Reverse((wake, id)) = self.soon.pop()?;
            if let Some(worker) = self.get_mut(id).filter(|w| w.wake == wake) {
                worker.wake = NEVER;
                return Some(id);
            }
        }
        None
    }

    #[cfg(test)]
    pub(super) fn soon(&self) -> usize {
        self.soon.len()
    }
}

fn put(
    soon: &mut BinaryHeap<Reverse<(Mono, WorkerId)>>,
    (id, worker): (WorkerId, &mut Worker),
    wanted: Mono,
    horizon: Mono,
) {
    if wanted <= horizon && wanted < worker.wake {
        worker.wake = wanted;
        soon.push(Reverse((wanted, id)));
    }
}
