//! The calls of one sidecar: who waits for which id. A value that is asked and told; it sends nothing
//! and knows no time.
//!
//! A call that is given up after it was sent leaves a tombstone, whose late answer is dropped. It
//! keeps its place in the limit until then, because the plugin is still at work on it; one that is
//! given up in the queue keeps it until it comes up. A plugin that goes on too long with a call that
//! was given up can be told by its oldest tombstone. And the queue never holds more than two messages
//! a place: a call and its cancellation.

use std::collections::{HashMap, VecDeque};

use rollout_core::Mono;

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
    Queued(W),
    /// The plugin has it.
    Sent(W),
    /// Still in the queue, and nobody waits.
    Unwanted,
    /// The plugin has it, and nobody waits.
    Tombstone,
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

    /// Whether the plugin is at work on none, and none is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// A new call under a new id, in the queue. False when the plugin has as many as it takes.
    pub(super) fn open(&mut self, id: u64, waiter: W) -> bool {
        let room = self.open.len() < self.limit;
        if room {
            self.open.insert(id, Call::Queued(waiter));
        }
        room
    }

    /// The call is about to be sent; whether it still should be.
    pub(super) fn send(&mut self, id: u64) -> bool {
        match self.open.remove(&id) {
            Some(Call::Queued(waiter)) => self.open.insert(id, Call::Sent(waiter)).is_none(),
            Some(Call::Unwanted) | None => false,
            // Sent already; not reached, as a call is queued once.
            Some(sent) => self.open.insert(id, sent).is_some(),
        }
    }

    /// The caller leaves.
    pub(super) fn give_up(&mut self, id: u64, now: Mono) -> GivenUp {
        match self.open.remove(&id) {
            Some(Call::Queued(_) | Call::Unwanted) => {
                self.open.insert(id, Call::Unwanted);
                GivenUp::Unsent
            }
            Some(Call::Sent(_)) => {
                self.given_up.push_back((now, id));
                self.open.insert(id, Call::Tombstone);
                GivenUp::Sent
            }
            Some(Call::Tombstone) => {
                self.open.insert(id, Call::Tombstone);
                GivenUp::Sent
            }
            None => GivenUp::Answered,
        }
    }

    /// When the oldest call was given up that the plugin still goes on with.
    pub(super) fn oldest_tombstone(&mut self) -> Option<Mono> {
        while let Some((since, id)) = self.given_up.front() {
            if let Some(Call::Tombstone) = self.open.get(id) {
                return Some(*since);
            }
            self.given_up.pop_front();
        }
        None
    }

    /// The plugin has answered.
    pub(super) fn answer(&mut self, id: u64) -> Answer<W> {
        match self.open.remove(&id) {
            Some(Call::Sent(waiter)) => Answer::To(waiter),
            Some(Call::Tombstone) => Answer::Late,
            Some(unsent) => {
                self.open.insert(id, unsent);
                Answer::Unknown
            }
            None => Answer::Unknown,
        }
    }

    /// Ends all calls: who waits, and whether the plugin had the call.
    pub(super) fn end(&mut self) -> Vec<(W, bool)> {
        let waiting = |call| match call {
            Call::Queued(waiter) => Some((waiter, false)),
            Call::Sent(waiter) => Some((waiter, true)),
            Call::Unwanted | Call::Tombstone => None,
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
        Open,
        Send(u64),
        GiveUp(u64),
        Answer(u64),
        End,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let id = || 1u64..12;
        let step = prop_oneof![
            4 => Just(Step::Open),
            4 => id().prop_map(Step::Send),
            3 => id().prop_map(Step::GiveUp),
            4 => id().prop_map(Step::Answer),
            1 => Just(Step::End),
        ];
        prop::collection::vec(step, 0..60)
    }

    /// What the naive model knows of an id: on the socket or not, awaited or not.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Known {
        sent: bool,
        awaited: bool,
    }

    proptest! {
        #[test]
        fn every_caller_is_woken_at_most_once_and_only_by_its_own_answer(steps in steps()) {
            let mut calls = Calls::new(4);
            let mut model: BTreeMap<u64, Known> = BTreeMap::new();
            let mut opened = 0;
            let (mut now, mut tombstones) = (0, Vec::new());
            for step in steps {
                match step {
                    Step::Open => {
                        opened += 1;
                        let room = model.len() < 4;
                        prop_assert_eq!(calls.open(opened, opened), room);
                        if room {
                            model.insert(opened, Known { sent: false, awaited: true });
                        }
                    }
                    Step::Send(id) => {
                        let known = model.get(&id).copied();
                        let wanted = known == Some(Known { sent: false, awaited: true });
                        prop_assert_eq!(calls.send(id), wanted);
                        if wanted {
                            model.insert(id, Known { sent: true, awaited: true });
                        } else if known.is_some_and(|it| !it.sent) {
                            model.remove(&id);
                        }
                    }
                    Step::GiveUp(id) => {
                        let known = model.get_mut(&id);
                        let want = match &known {
                            Some(Known { sent: true, .. }) => GivenUp::Sent,
                            Some(Known { sent: false, .. }) => GivenUp::Unsent,
                            None => GivenUp::Answered,
                        };
                        now += 1;
                        prop_assert_eq!(calls.give_up(id, Mono(now)), want);
                        if let Some(known) = known {
                            if known.sent && known.awaited {
                                tombstones.push((now, id));
                            }
                            known.awaited = false;
                        }
                    }
                    Step::Answer(id) => {
                        let want = match model.get(&id) {
                            Some(Known { sent: true, awaited: true }) => Answer::To(id),
                            Some(Known { sent: true, awaited: false }) => Answer::Late,
                            _ => Answer::Unknown,
                        };
                        if want != Answer::Unknown {
                            model.remove(&id);
                        }
                        prop_assert_eq!(calls.answer(id), want);
                    }
                    Step::End => {
                        let mut woken = calls.end();
                        woken.sort_unstable();
                        let awaited = model.iter().filter(|(_, known)| known.awaited);
                        let want: Vec<_> = awaited.map(|(id, known)| (*id, known.sent)).collect();
                        prop_assert_eq!(woken, want);
                        model.clear();
                    }
                }
                tombstones.retain(|(_, id)| model.contains_key(id));
                let oldest = tombstones.first().map(|(since, _)| Mono(*since));
                prop_assert_eq!(calls.oldest_tombstone(), oldest);
            }
        }
    }
}
