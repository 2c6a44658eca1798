//! The calls of one sidecar: who waits for which id. A value that is asked and told; it sends nothing
//! and knows no time.
//!
//! A call that is given up after it was sent leaves a tombstone, whose late answer is dropped. It
//! keeps its place in the limit until then, because the plugin is still at work on it; one that is
//! given up in the queue keeps it until it comes up. A plugin that goes on too long with a call that
//! was given up can be told by its oldest tombstone.
//!
//! The queue to the plugin never holds more than [`QUEUED`] messages a place: a call, its
//! cancellation, and credit, of which a plugin that has not been given the last has no use for more.

use std::collections::{HashMap, VecDeque};

use rollout_core::Mono;

use crate::inbox::WINDOW;

/// The most messages that wait to be sent, for each call under way.
pub(super) const QUEUED: usize = 4;

/// The calls under way; `W` is what wakes a caller.
#[derive(Debug)]
pub(super) struct Calls<W> {
    limit: usize,
    open: HashMap<u64, Call<W>>,
    /// The tombstones' ids by age, and ids of some that have gone.
    given_up: VecDeque<(Mono, u64)>,
}

#[derive(Debug)]
enum Call<W> {
    /// Not yet on the socket.
    Queued(W, Kind),
    /// The plugin has it.
    Sent(W, Kind),
    /// Still in the queue, and nobody waits.
    Unwanted,
    /// The plugin has it, and nobody waits.
    Tombstone(Kind),
}

/// What a call may bring before its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// So many parts.
    One { credit: usize },
    /// A result for each item.
    Batch,
}

impl Kind {
    /// A call that may send a window of parts.
    pub(super) const ONE: Self = Self::One { credit: WINDOW };
}

/// What giving a call up means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// It will not be sent.
    Unsent,
    /// The plugin has it and should be told.
    Sent,
    /// Its answer has come in the meantime.
    Answered,
}

/// Whom an answer is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<W> {
    /// For this caller.
    To(W),
    /// For a caller who has left.
    Late,
    /// For no call that was ever sent, or one that has had its answer.
    Unknown,
}

impl<W> Calls<W> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, open: HashMap::new(), given_up: VecDeque::new() }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// How many the plugin is at work on, or are on their way.
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// Whether the plugin is at work on none, and none is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// A new call under a new id, in the queue. False when the plugin has as many as it takes.
    pub(super) fn open(&mut self, id: u64, waiter: W, kind: Kind) -> bool {
        let room = self.open.len() < self.limit;
        if room {
            self.open.insert(id, Call::Queued(waiter, kind));
        }
        room
    }

    /// The call is about to be sent; whether it still should be.
    pub(super) fn send(&mut self, id: u64) -> bool {
        match self.open.remove(&id) {
            Some(Call::Queued(waiter, kind)) => {
                self.open.insert(id, Call::Sent(waiter, kind)).is_none()
            }
            Some(Call::Unwanted) | None => false,
            // Sent already; not reached, as a call is queued once.
            Some(sent) => self.open.insert(id, sent).is_some(),
        }
    }

    /// The caller leaves.
    pub(super) fn give_up(&mut self, id: u64, now: Mono) -> GivenUp {
        match self.open.remove(&id) {
            Some(Call::Queued(..) | Call::Unwanted) => {
                self.open.insert(id, Call::Unwanted);
                GivenUp::Unsent
            }
            Some(Call::Sent(_, kind)) => {
                self.given_up.push_back((now, id));
                self.open.insert(id, Call::Tombstone(kind));
                GivenUp::Sent
            }
            Some(tombstone @ Call::Tombstone(_)) => {
                self.open.insert(id, tombstone);
                GivenUp::Sent
            }
            None => GivenUp::Answered,
        }
    }

    /// When the oldest call was given up that the plugin still goes on with.
    pub(super) fn oldest_tombstone(&mut self) -> Option<Mono> {
        while let Some((since, id)) = self.given_up.front() {
            if let Some(Call::Tombstone(_)) = self.open.get(id) {
                return Some(*since);
            }
            self.given_up.pop_front();
        }
        None
    }

    /// The plugin has answered.
    pub(super) fn answer(&mut self, id: u64) -> Answer<W> {
        match self.open.remove(&id) {
            Some(Call::Sent(waiter, _)) => Answer::To(waiter),
            Some(Call::Tombstone(_)) => Answer::Late,
            Some(unsent) => {
                self.open.insert(id, unsent);
                Answer::Unknown
            }
            None => Answer::Unknown,
        }
    }

    /// The plugin has sent a part, which takes one of its credits. Unknown also for one that has no
    /// credit.
    pub(super) fn part(&mut self, id: u64) -> Answer<&W> {
        let call = self.open.get_mut(&id);
        if let Some(Call::Sent(_, kind) | Call::Tombstone(kind)) = call
            && let Kind::One { credit: credit @ 1.. } = kind
        {
            *credit -= 1;
            return self.sent(id);
        }
        Answer::Unknown
    }

    /// The plugin has sent an item's result.
    pub(super) fn item(&self, id: u64) -> Answer<&W> {
        match self.open.get(&id) {
            Some(Call::Sent(_, Kind::Batch) | Call::Tombstone(Kind::Batch)) => self.sent(id),
            _ => Answer::Unknown,
        }
    }

    /// Who waits for a call that the plugin has.
    pub(super) fn sent(&self, id: u64) -> Answer<&W> {
        match self.open.get(&id) {
            Some(Call::Sent(waiter, _)) => Answer::To(waiter),
            Some(Call::Tombstone(_)) => Answer::Late,
            _ => Answer::Unknown,
        }
    }

    /// The caller has room for more parts; whether the plugin is to be told.
    pub(super) fn give_credit(&mut self, id: u64, parts: usize) -> bool {
        let Some(Call::Sent(_, Kind::One { credit })) = self.open.get_mut(&id) else {
            return false;
        };
        *credit += parts;
        true
    }

    /// Ends all calls: who waits, and whether the plugin had the call.
    pub(super) fn end(&mut self) -> Vec<(W, bool)> {
        let waiting = |call| match call {
            Call::Queued(waiter, _) => Some((waiter, false)),
            Call::Sent(waiter, _) => Some((waiter, true)),
            Call::Unwanted | Call::Tombstone(_) => None,
        };
        std::mem::take(&mut self.open).into_values().filter_map(waiting).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Open { batch: bool },
        Send(u64),
        GiveUp(u64),
        Answer(u64),
        Part(u64),
        Item(u64),
        Credit(u64, usize),
        End,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let id = || 1u64..12;
        let step = prop_oneof![
            4 => any::<bool>().prop_map(|batch| Step::Open { batch }),
            4 => id().prop_map(Step::Send),
            3 => id().prop_map(Step::GiveUp),
            4 => id().prop_map(Step::Answer),
            8 => id().prop_map(Step::Part),
            3 => id().prop_map(Step::Item),
            2 => (id(), 1usize..3).prop_map(|(id, parts)| Step::Credit(id, parts)),
            1 => Just(Step::End),
        ];
        prop::collection::vec(step, 0..80)
    }

    /// What the naive model knows of an id.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Known {
        sent: bool,
        awaited: bool,
        batch: bool,
        parts: usize,
        allowed: usize,
    }

    impl Known {
        fn whom(self, id: u64) -> Answer<u64> {
            match (self.sent, self.awaited) {
                (true, true) => Answer::To(id),
                (true, false) => Answer::Late,
                (false, _) => Answer::Unknown,
            }
        }
    }

    fn owned(answer: Answer<&u64>) -> Answer<u64> {
        match answer {
            Answer::To(waiter) => Answer::To(*waiter),
            Answer::Late => Answer::Late,
            Answer::Unknown => Answer::Unknown,
        }
    }

    /// Both, and the tombstones that the model has seen come.
    struct Run {
        calls: Calls<u64>,
        model: BTreeMap<u64, Known>,
        opened: u64,
        now: u64,
        tombstones: Vec<(u64, u64)>,
    }

    impl Run {
        fn open(&mut self, batch: bool) -> Result<(), TestCaseError> {
            self.opened += 1;
            let (id, room) = (self.opened, self.model.len() < 4);
            let kind = if batch { Kind::Batch } else { Kind::One { credit: 2 } };
            prop_assert_eq!(self.calls.open(id, id, kind), room);
            if room {
                let known = Known { sent: false, awaited: true, batch, parts: 0, allowed: 2 };
                self.model.insert(id, known);
            }
            Ok(())
        }

        fn send(&mut self, id: u64) -> Result<(), TestCaseError> {
            let known = self.model.get_mut(&id);
            let wanted = known.as_ref().is_some_and(|it| !it.sent && it.awaited);
            prop_assert_eq!(self.calls.send(id), wanted);
            match known {
                Some(known) if wanted => known.sent = true,
                Some(known) if !known.sent => drop(self.model.remove(&id)),
                _ => {}
            }
            Ok(())
        }

        fn give_up(&mut self, id: u64) -> Result<(), TestCaseError> {
            let known = self.model.get_mut(&id);
            let want = match &known {
                Some(Known { sent: true, .. }) => GivenUp::Sent,
                Some(Known { sent: false, .. }) => GivenUp::Unsent,
                None => GivenUp::Answered,
            };
            self.now += 1;
            prop_assert_eq!(self.calls.give_up(id, Mono(self.now)), want);
            if let Some(known) = known {
                if known.sent && known.awaited {
                    self.tombstones.push((self.now, id));
                }
                known.awaited = false;
            }
            Ok(())
        }

        fn answer(&mut self, id: u64) -> Result<(), TestCaseError> {
            let want = self.model.get(&id).map_or(Answer::Unknown, |known| known.whom(id));
            if want != Answer::Unknown {
                self.model.remove(&id);
            }
            prop_assert_eq!(self.calls.answer(id), want);
            Ok(())
        }

        fn part(&mut self, id: u64) -> Result<(), TestCaseError> {
            let mut want = Answer::Unknown;
            if let Some(known) = self.model.get_mut(&id)
                && !known.batch
                && known.sent
                && known.parts < known.allowed
            {
                known.parts += 1;
                want = known.whom(id);
            }
            prop_assert_eq!(owned(self.calls.part(id)), want);
            Ok(())
        }

        fn item(&self, id: u64) -> Result<(), TestCaseError> {
            let batch = self.model.get(&id).filter(|known| known.batch);
            let want = batch.map_or(Answer::Unknown, |known| known.whom(id));
            prop_assert_eq!(owned(self.calls.item(id)), want);
            let known = self.model.get(&id).map_or(Answer::Unknown, |known| known.whom(id));
            prop_assert_eq!(owned(self.calls.sent(id)), known);
            Ok(())
        }

        fn credit(&mut self, id: u64, parts: usize) -> Result<(), TestCaseError> {
            let known = self.model.get_mut(&id);
            let known = known.filter(|known| known.sent && known.awaited && !known.batch);
            prop_assert_eq!(self.calls.give_credit(id, parts), known.is_some());
            if let Some(known) = known {
                known.allowed += parts;
            }
            Ok(())
        }

        fn end(&mut self) -> Result<(), TestCaseError> {
            let mut woken = self.calls.end();
            woken.sort_unstable();
            let awaited = self.model.iter().filter(|(_, known)| known.awaited);
            let want: Vec<_> = awaited.map(|(id, known)| (*id, known.sent)).collect();
            prop_assert_eq!(woken, want);
            self.model.clear();
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn every_caller_is_woken_at_most_once_and_only_by_its_own_answer(steps in steps()) {
            let (calls, model) = (Calls::new(4), BTreeMap::new());
            let mut run = Run { calls, model, opened: 0, now: 0, tombstones: Vec::new() };
            for step in steps {
                match step {
                    Step::Open { batch } => run.open(batch)?,
                    Step::Send(id) => run.send(id)?,
                    Step::GiveUp(id) => run.give_up(id)?,
                    Step::Answer(id) => run.answer(id)?,
                    Step::Part(id) => run.part(id)?,
                    Step::Item(id) => run.item(id)?,
                    Step::Credit(id, parts) => run.credit(id, parts)?,
                    Step::End => run.end()?,
                }
                let model = &run.model;
                run.tombstones.retain(|(_, id)| model.contains_key(id));
                let oldest = run.tombstones.first().map(|(since, _)| Mono(*since));
                prop_assert_eq!(run.calls.oldest_tombstone(), oldest);
            }
        }
    }
}
