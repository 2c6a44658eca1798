//! What a plugin sends to one caller before its answer: parts, a batch's items, progress. The
//! plugin's side puts in, the caller takes out; neither waits for a lock longer than that takes.
//!
//! It is bounded whatever the plugin does: parts by the window, items by their number, and progress
//! is a flag.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rollout_core::{Clock, Mono, SystemClock};
use tokio::sync::Notify;

use crate::call::{Failed, Reply};

/// How many parts a call may be ahead of its caller.
pub(crate) const WINDOW: usize = 16;

/// One caller's inbox.
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Told when there is something to take.
    told: Notify,
    /// Told when credit is due.
    credit: Notify,
    /// Told when there is room for a part, or never will be.
    room: Condvar,
}

struct State {
    /// Whether the caller takes parts; if not they are dropped as they come.
    parts_wanted: bool,
    progress_wanted: bool,
    /// Whether nobody waits any more.
    closed: bool,
    arrived: VecDeque<Arrived>,
    progressed: bool,
    /// How many of those that arrived are parts.
    parts: usize,
    /// How many parts were taken since credit was last given.
    taken: usize,
    /// Which items of a batch have had no answer yet.
    open: Vec<bool>,
    missing: usize,
}

/// What can be taken.
pub(crate) enum Arrived {
    Progress,
    Part(Reply),
    Item(usize, Result<Reply, Failed>),
}

impl Inbox {
    /// For a caller that wants the answer and nothing else.
    pub(crate) fn answer_only() -> Self {
        Self::new(false, false, 0)
    }

    /// For a caller that takes parts.
    pub(crate) fn parts() -> Self {
        Self::new(true, true, 0)
    }

    /// For a batch of so many items, which have whole answers only.
    pub(crate) fn batch(items: usize) -> Self {
        Self::new(false, true, items)
    }

    fn new(parts_wanted: bool, progress_wanted: bool, items: usize) -> Self {
        let state = State {
            parts_wanted,
            progress_wanted,
            closed: false,
            arrived: VecDeque::new(),
            progressed: false,
            parts: 0,
            taken: 0,
            open: vec![true; items],
            missing: items,
        };
        let (told, credit, room) = (Notify::new(), Notify::new(), Condvar::new());
        Self { state: Mutex::new(state), told, credit, room }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a part in. The window has been seen to by whoever calls this.
    pub(crate) fn part(&self, part: Reply) {
        let mut state = self.state();
        self.put(&mut state, part);
    }

    fn put(&self, state: &mut State, part: Reply) {
        if state.closed {
            return;
        }
        if state.parts_wanted {
            state.parts += 1;
            state.arrived.push_back(Arrived::Part(part));
            self.told.notify_one();
        } else {
            self.took(state);
        }
    }

    fn took(&self, state: &mut State) {
        state.taken += 1;
        if state.taken >= WINDOW / 2 {
            self.credit.notify_one();
        }
    }

    /// Puts a part in as soon as there is room; false when nobody waits for it, or not before the
    /// deadline. Blocks: for a library's own thread.
    pub(crate) fn part_when_room(&self, part: Reply, deadline: Mono) -> bool {
        let mut state = self.state();
        while !state.closed && state.parts >= WINDOW {
            let left = deadline.since(SystemClock.now());
            if left == Duration::ZERO {
                return false;
            }
            let waited = self.room.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let open = !state.closed;
        self.put(&mut state, part);
        open
    }

    /// Puts an item's result in; false if there is no such item, or it has had one.
    pub(crate) fn item(&self, n: usize, result: Result<Reply, Failed>) -> bool {
        let mut state = self.state();
        match state.open.get_mut(n) {
            Some(open) if *open => *open = false,
            _ => return false,
        }
        state.missing -= 1;
        if !state.closed {
            state.arrived.push_back(Arrived::Item(n, result));
            self.told.notify_one();
        }
        true
    }

    /// Notes that the plugin is not stuck.
    pub(crate) fn progress(&self) {
        let mut state = self.state();
        if state.progress_wanted && !state.closed && !std::mem::replace(&mut state.progressed, true)
        {
            self.told.notify_one();
        }
    }

    /// How many items have had no result yet.
    pub(crate) fn missing(&self) -> usize {
        self.state().missing
    }

    /// What has arrived, in its order; progress when there is nothing else.
    pub(crate) fn take(&self) -> Option<Arrived> {
        let mut state = self.state();
        let Some(arrived) = state.arrived.pop_front() else {
            return std::mem::take(&mut state.progressed).then_some(Arrived::Progress);
        };
        if let Arrived::Part(_) = arrived {
            state.parts -= 1;
            self.took(&mut state);
            self.room.notify_one();
        }
        Some(arrived)
    }

    /// Waits until there may be something to take.
    pub(crate) async fn told(&self) {
        self.told.notified().await;
    }

    /// Waits until the caller has taken half a window; how many parts it has taken since the last
    /// time.
    pub(crate) async fn credit_due(&self) -> usize {
        loop {
            if let Some(parts) = self.due() {
                return parts;
            }
            self.credit.notified().await;
        }
    }

    fn due(&self) -> Option<usize> {
        let mut state = self.state();
        (state.taken >= WINDOW / 2).then(|| std::mem::take(&mut state.taken))
    }

    /// Nobody waits any more: what arrived is dropped, and a part that waits for room is given up.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.arrived.clear();
        drop(state);
        self.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use bytes::Bytes;
    use serde_json::value::to_raw_value;

    use super::*;

    fn part(n: usize) -> Reply {
        Reply { result: to_raw_value(&n).unwrap(), payload: Bytes::new() }
    }

    fn far() -> Mono {
        SystemClock.now() + Duration::from_secs(60)
    }

    #[test]
    fn what_arrives_is_taken_in_order_and_progress_counts_once() {
        let inbox = Inbox::batch(2);
        inbox.progress();
        inbox.progress();
        // Of no use to a batch.
        inbox.part(part(5));
        assert!(inbox.item(1, Ok(part(1))));
        assert!(inbox.item(0, Ok(part(0))));
        assert!(matches!(inbox.take(), Some(Arrived::Item(1, Ok(_)))));
        assert!(matches!(inbox.take(), Some(Arrived::Item(0, Ok(_)))));
        assert!(matches!(inbox.take(), Some(Arrived::Progress)));
        assert!(inbox.take().is_none());
    }

    #[test]
    fn an_item_has_one_result() {
        let inbox = Inbox::batch(2);
        assert!(inbox.item(0, Ok(part(0))));
        assert!(!inbox.item(0, Ok(part(0))));
        assert!(!inbox.item(2, Ok(part(0))));
        assert_eq!(inbox.missing(), 1);
    }

    #[test]
    fn a_part_waits_for_room_until_the_caller_takes_one_or_leaves() {
        let inbox = Arc::new(Inbox::parts());
        for n in 0..WINDOW {
            assert!(inbox.part_when_room(part(n), far()));
        }
        assert!(!inbox.part_when_room(part(0), SystemClock.now()), "full until its deadline");
        let waiting = Arc::clone(&inbox);
        let waiting = thread::spawn(move || {
            (waiting.part_when_room(part(100), far()), waiting.part_when_room(part(101), far()))
        });
        assert!(inbox.take().is_some());
        while inbox.state().parts < WINDOW {
            thread::yield_now();
        }
        inbox.close();
        assert_eq!(waiting.join().unwrap(), (true, false));
        assert!(inbox.take().is_none());
    }

    #[tokio::test]
    async fn credit_is_due_after_half_a_window_also_for_parts_that_nobody_wants() {
        for inbox in [Inbox::parts(), Inbox::answer_only()] {
            for n in 0..WINDOW / 2 {
                inbox.part(part(n));
                let _ = inbox.take();
            }
            assert_eq!(inbox.credit_due().await, WINDOW / 2);
            let none = tokio::time::timeout(Duration::from_millis(1), inbox.credit_due()).await;
            assert!(none.is_err());
        }
    }
}
