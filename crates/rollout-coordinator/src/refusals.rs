//! Refusals as events: the first of a reason at once, then at most one an interval, which says how
//! many others there were. So a flood of refused peers costs a line a second and none of them is
//! lost silently.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use rollout_core::event::{Emit, WorkerRejected};
use rollout_core::{Mono, WorkerId};

/// The longest detail of an event: part of it may be what the peer sent.
const MAX_DETAIL: usize = 400;

/// A peer that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The proven one.
    pub(crate) worker: Option<WorkerId>,
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    pub(crate) peer: SocketAddr,
}

type Said = (Option<WorkerId>, WorkerRejected);

/// Which refusals are to be said, and when: no clock in here, and no lock.
#[derive(Debug)]
struct Pending {
    interval: Duration,
    /// One for each reason there has been: there are nine.
    reasons: Vec<Reason>,
}

#[derive(Debug)]
struct Reason {
    /// When the last event was.
    said: Mono,
    /// The newest that has not been said, and how many others have not.
    unsaid: Option<(Refused, u64)>,
    word: &'static str,
}

impl Pending {
    /// What is to be said at once of a refusal at `now`.
    fn refused(&mut self, now: Mono, refused: Refused) -> Option<Said> {
        let Some(reason) = self.reasons.iter_mut().find(|reason| reason.word == refused.reason)
        else {
            self.reasons.push(Reason { said: now, unsaid: None, word: refused.reason });
            return Some(say(refused, 0));
        };
        let others = reason.unsaid.take().map_or(0, |(_, others)| others + 1);
        reason.unsaid = Some((refused, others));
        reason.due(now, self.interval)
    }

    /// What has waited long enough by `now`.
    fn due(&mut self, now: Mono) -> Vec<Said> {
        let interval = self.interval;
        self.reasons.iter_mut().filter_map(|reason| reason.due(now, interval)).collect()
    }

    /// What has not been said.
    fn rest(&mut self) -> Vec<Said> {
        let unsaid = self.reasons.iter_mut().filter_map(|reason| reason.unsaid.take());
        unsaid.map(|(refused, others)| say(refused, others)).collect()
    }
}

impl Reason {
    fn due(&mut self, now: Mono, interval: Duration) -> Option<Said> {
        if now < self.said + interval {
            return None;
        }
        let (refused, others) = self.unsaid.take()?;
        self.said = now;
        Some(say(refused, others))
    }
}

fn say(refused: Refused, suppressed: u64) -> Said {
    let Refused { worker, reason, mut detail, peer } = refused;
    if detail.len() > MAX_DETAIL {
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL));
        detail.push('…');
    }
    let (reason, peer) = (reason.to_owned(), peer.to_string());
    (worker, WorkerRejected { reason, detail, peer, suppressed })
}

/// Where every refusal of a coordinator is reported.
pub(crate) struct Refusals {
    pending: Mutex<Pending>,
    emit: Arc<dyn Emit>,
}

impl Refusals {
    pub(crate) fn new(interval: Duration, emit: Arc<dyn Emit>) -> Self {
        Self { pending: Mutex::new(Pending { interval, reasons: Vec::new() }), emit }
    }

    pub(crate) fn report(&self, now: Mono, refused: Refused) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let said = pending.refused(now, refused);
        drop(pending);
        self.say(now, said);
    }

    /// Says what has waited long enough; to be called now and then. It never waits for the lock.
    pub(crate) fn look(&self, now: Mono) {
        let said = match self.pending.try_lock() {
            Ok(mut pending) => pending.due(now),
            Err(TryLockError::Poisoned(pending)) => pending.into_inner().due(now),
            Err(TryLockError::WouldBlock) => return,
        };
        self.say(now, said);
    }

    /// Says the rest.
    pub(crate) fn end(&self, now: Mono) {
        let said = self.pending.lock().unwrap_or_else(PoisonError::into_inner).rest();
        self.say(now, said);
    }

    fn say(&self, now: Mono, said: impl IntoIterator<Item = Said>) {
        for (worker, body) in said {
            self.emit.emit(now, worker, body.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_nanos(10);

    fn refused(reason: &'static str, number: usize) -> Refused {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        Refused { worker: None, reason, detail: number.to_string(), peer }
    }

    proptest! {
        #[test]
        fn the_first_is_said_at_once_later_ones_once_an_interval_and_all_are_counted(
            steps in prop::collection::vec((0u64..12, prop::option::of(0usize..3)), 0..200),
        ) {
            let mut pending = Pending { interval: INTERVAL, reasons: Vec::new() };
            let (mut now, mut happened) = (Mono(1), HashMap::<&str, u64>::new());
            let (mut counted, mut last) = (HashMap::<String, u64>::new(), HashMap::new());
            let mut said = Vec::new();
            for (number, (pause, what)) in steps.into_iter().enumerate() {
                now += Duration::from_nanos(pause);
                match what {
                    Some(which) => {
                        let reason = ["a", "b", "c"][which];
                        let first = !happened.contains_key(reason);
                        *happened.entry(reason).or_default() += 1;
                        let at_once = pending.refused(now, refused(reason, number));
                        prop_assert!(!first || at_once.is_some());
                        let newest = number.to_string();
                        prop_assert!(at_once.iter().all(|(_, body)| body.detail == newest));
                        said.extend(at_once);
                    }
                    None => said.extend(pending.due(now)),
                }
                for (_, body) in said.drain(..) {
                    *counted.entry(body.reason.clone()).or_default() += 1 + body.suppressed;
                    let before = last.insert(body.reason, now);
                    prop_assert!(before.is_none_or(|before| now.since(before) >= INTERVAL));
                }
            }
            for (_, body) in pending.rest() {
                *counted.entry(body.reason).or_default() += 1 + body.suppressed;
            }
            for (reason, times) in happened {
                prop_assert_eq!(counted.get(reason), Some(&times));
            }
        }
    }

    #[test]
    fn what_has_waited_is_said_without_a_further_refusal_and_a_long_detail_is_cut() {
        let mut pending = Pending { interval: INTERVAL, reasons: Vec::new() };
        let long = Refused { detail: "ä".repeat(10_000), ..refused("a", 0) };
        assert!(pending.refused(Mono(1), refused("a", 1)).is_some());
        assert!(pending.refused(Mono(2), refused("a", 2)).is_none());
        assert!(pending.refused(Mono(3), long).is_none());
        assert!(pending.due(Mono(10)).is_empty());
        let due = pending.due(Mono(11));
        let [(None, body)] = &due[..] else { panic!("{due:?}") };
        assert_eq!(body.suppressed, 1);
        assert!(body.detail.len() < 410 && body.detail.ends_with('…'), "{}", body.detail);
        assert!(pending.due(Mono(1_000)).is_empty() && pending.rest().is_empty());
    }
}
