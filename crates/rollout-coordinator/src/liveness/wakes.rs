//! When which worker has to be looked at next: a heap of those who are due soon, and before it
//! slots of time, in each of which nothing is ordered.
//!
//! A worker that beats is due far in the future again whenever its slot is opened: it goes from
//! slot to slot and never through the heap.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rollout_core::{Mono, WorkerId};

/// A slot is 2^24 ns long, 17 ms.
const SLOT_BITS: u32 = 24;

const fn slot(wake: Mono) -> u64 {
    wake.0 >> SLOT_BITS
}

/// The entries. The owner knows which are stale: those whose instant is no more their worker's.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    near: BinaryHeap<Reverse<(Mono, WorkerId)>>,
    far: BTreeMap<u64, Vec<WorkerId>>,
    /// The first slot that has not been opened.
    unopened: u64,
}

impl Wakes {
    pub(super) fn push(&mut self, wake: Mono, id: WorkerId) {
        if slot(wake) < self.unopened {
            self.near.push(Reverse((wake, id)));
        } else {
            self.far.entry(slot(wake)).or_default().push(id);
        }
    }

    /// The first instant at which there is something to pop or to open.
    pub(super) fn next(&self) -> Option<Mono> {
        let near = self.near.peek().map(|Reverse((wake, _))| *wake);
        let far = self.far.first_key_value().map(|(slot, _)| Mono(slot << SLOT_BITS));
        near.into_iter().chain(far).min()
    }

    /// Takes out the first entry of the heap, if it is due by `now`.
    pub(super) fn pop(&mut self, now: Mono) -> Option<(Mono, WorkerId)> {
        self.near.peek().filter(|Reverse((wake, _))| *wake <= now)?;
        self.near.pop().map(|Reverse(first)| first)
    }

    /// Takes out the first slot, if it has begun by `now`: what is still due in it is to be pushed
    /// again. Whether an instant lies in it is for `contains` to say.
    pub(super) fn open(&mut self, now: Mono) -> Option<Opened> {
        let first = self.far.first_entry().filter(|first| *first.key() <= slot(now))?;
        let (slot, ids) = first.remove_entry();
        self.unopened = slot + 1;
        Some(Opened { slot, ids })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.near.len() + self.far.values().map(Vec::len).sum::<usize>()
    }
}

/// A slot whose time has come.
#[derive(Debug)]
pub(super) struct Opened {
    slot: u64,
    pub(super) ids: Vec<WorkerId>,
}

impl Opened {
    pub(super) const fn contains(&self, wake: Mono) -> bool {
        slot(wake) == self.slot
    }
}
