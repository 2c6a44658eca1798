//! What the coordinator says of items, read from its event log.

use std::collections::{BTreeMap, HashMap};

use rollout_core::{Body, Event, Mono, WorkerId};

use crate::record::Record;

/// Something that has happened to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It was given to a worker, under this epoch.
    Leased(WorkerId, u64),
    /// It waits again.
    Released,
    /// It has come to its end.
    Committed,
}

/// What the coordinator's log says, of all its terms.
///
/// A coordinator that is killed may have granted and committed without having said so: what is here
/// has happened, and a little more may have.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The first grant.
    pub first: Option<Mono>,
    /// The last commit.
    pub last: Option<Mono>,
    /// How many items were granted, each as often as it was.
    pub granted: u64,
    /// How many outcomes were refused as stale.
    pub stale: u64,
    /// How many items were taken from a worker, by cause.
    pub redispatched: BTreeMap<String, u64>,
    /// Items that came to their end more than once.
    pub(super) twice: Vec<u64>,
    /// How many came to their end.
    pub(super) ended: u64,
    /// Dead letters.
    pub(super) dead: u64,
    /// What happened to each item, in order.
    pub(super) items: HashMap<u64, Vec<(Mono, Change)>>,
}

impl Ledger {
    /// Reads a record.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let mut ledger = Self::default();
        for event in record.coordinator().into_iter().flat_map(|it| it.log.events()) {
            ledger.take(event);
        }
        ledger
    }

    fn take(&mut self, event: &Event) {
        let at = event.mono;
        match (&event.body, event.worker_id) {
            (Body::ItemsLeased(body), Some(worker)) => {
                self.first.get_or_insert(at);
                for item in items(&body.ranges) {
                    self.lease(at, item, Change::Leased(worker, body.epoch));
                }
            }
            (Body::ItemsRedispatched(body), _) => {
                *self.redispatched.entry(body.cause.to_string()).or_default() += body.items;
                for item in items(&body.ranges) {
                    self.items.entry(item).or_default().push((at, Change::Released));
                }
            }
            (Body::ItemsCommitted(body), _) => {
                self.last = Some(at);
                self.dead += body.dead;
                for item in items(&body.ranges) {
                    let changes = self.items.entry(item).or_default();
                    if changes.iter().any(|(_, change)| *change == Change::Committed) {
                        self.twice.push(item);
                    } else {
                        self.ended += 1;
                    }
                    changes.push((at, Change::Committed));
                }
            }
            (Body::CommitRejected(body), _) => self.stale += body.items,
            _ => {}
        }
    }

    /// On a new stream a worker is told again what it has: that is no grant.
    fn lease(&mut self, at: Mono, item: u64, lease: Change) {
        let changes = self.items.entry(item).or_default();
        let said = |(_, change): &(Mono, Change)| *change == lease || *change == Change::Committed;
        if !changes.last().is_some_and(said) {
            self.granted += 1;
            changes.push((at, lease));
        }
    }

    /// The items that a worker had at this instant, in their order.
    pub(super) fn held(&self, worker: WorkerId, at: Mono) -> Vec<u64> {
        let holds = |changes: &[(Mono, Change)]| {
            let before = changes.iter().take_while(|(when, _)| *when <= at);
            let last = before.last().map(|(_, change)| *change);
            matches!(last, Some(Change::Leased(holder, _)) if holder == worker)
        };
        let mut held: Vec<_> = self
            .items
            .iter()
            .filter(|(_, changes)| holds(changes.as_slice()))
            .map(|(item, _)| *item)
            .collect();
        held.sort_unstable();
        held
    }
}

fn items(ranges: &[(u64, u64)]) -> impl Iterator<Item = u64> {
    ranges.iter().flat_map(|(first, last)| *first..=*last)
}
