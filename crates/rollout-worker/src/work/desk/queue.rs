//! The items that wait for one plugin. Those that are to have it to themselves come first, then those
//! that were run before, here or elsewhere, then the others in the order of their grants.

use std::collections::VecDeque;

use super::Entry;

#[derive(Debug, Default)]
pub(super) struct Queue {
    alone: VecDeque<Entry>,
    again: VecDeque<Entry>,
    fresh: VecDeque<Entry>,
}

impl Queue {
    /// A new lease.
    pub(super) fn push(&mut self, entry: Entry) {
        self.lane(&entry).push_back(entry);
    }

    /// One that was begun, or was about to be.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.lane(&entry).push_front(entry);
    }

    fn lane(&mut self, entry: &Entry) -> &mut VecDeque<Entry> {
        if entry.alone {
            &mut self.alone
        } else if entry.single || entry.lease.attempt > 1 {
            &mut self.again
        } else {
            &mut self.fresh
        }
    }

    /// The next one.
    pub(super) fn first(&self) -> Option<&Entry> {
        self.alone.front().or_else(|| self.again.front()).or_else(|| self.fresh.front())
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let lanes = [&mut self.alone, &mut self.again, &mut self.fresh];
        lanes.into_iter().find_map(VecDeque::pop_front)
    }

    /// How many there are, some of which may be over.
    pub(super) fn len(&self) -> usize {
        self.alone.len() + self.again.len() + self.fresh.len()
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.alone.into_iter().chain(self.again).chain(self.fresh)
    }
}
