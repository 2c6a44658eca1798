//! What the coordinator remembers across its own death: the run and term, the worker registry and
//! the newest beat of every worker.
//!
//! Nothing here decides. Registrations and verdicts go ahead of beats; beats that arrive while a
//! commit syncs are written together by the next one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rollout_core::{Incarnation, Mono, RunId, WorkerId};
use rollout_storage::{Priority, StorageError, Store, Table};
use serde::{Deserialize, Serialize};

use crate::liveness::fold::Fold;

/// From one commit of beats to the next. A commit costs the same work for a few rows as for many of
/// the same pages, and nobody waits for a beat's record: the first is written at once.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) const META: Table<(), Meta> = Table::new("coordinator");
const WORKERS: Table<WorkerId, WorkerRecord> = Table::new("workers");
/// The highest epoch of whoever was forgotten: none is ever used again.
const FLOOR: Table<(), u64> = Table::new("epoch_floor");
const BEATS: Table<WorkerId, BeatRecord> = Table::new("heartbeats");

/// The coordinator's own row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// The run this database belongs to.
    pub(crate) run_id: RunId,
    /// Grows by one with each start.
    pub(crate) term: u64,
}

/// How a worker stands in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    Live,
    Failed,
    Deregistered,
}

/// A row of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerRecord {
    pub(crate) epoch: u64,
    pub(crate) incarnation: Incarnation,
    pub(crate) standing: Standing,
}

/// A row of the heartbeat ledger: the newest beat of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BeatRecord {
    pub(crate) epoch: u64,
    pub(crate) beat: u64,
    /// The coordinator's wall clock, for people.
    pub(crate) unix_ms: u64,
}

/// The database, and the beats that wait for the next commit.
pub(crate) struct Ledger {
    store: Arc<Store>,
    waiting: HashMap<WorkerId, BeatRecord, Fold>,
    syncing: bool,
    /// No beats are written before this.
    resting: Mono,
}

/// The newest beats that have become durable with one commit.
pub(crate) type Durable = Vec<(WorkerId, BeatRecord)>;

impl Ledger {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, waiting: HashMap::default(), syncing: false, resting: Mono::default() }
    }

    /// Opens a new term, durably, and says which run the database belongs to.
    pub(crate) fn begin_term(&self, wanted: Option<RunId>) -> Result<Meta, Arc<StorageError>> {
        let before = self.store.get(META, &()).map_err(Arc::new)?;
        let meta = before.map_or_else(
            || Meta { run_id: wanted.unwrap_or_else(RunId::generate), term: 1 },
            |meta| Meta { term: meta.term + 1, ..meta },
        );
        if wanted.is_none_or(|run| run == meta.run_id) {
            self.store.write(move |batch| batch.put(META, &(), &meta))?;
        }
        Ok(meta)
    }

    /// Every worker of the registry.
    pub(crate) fn workers(&self) -> Result<Vec<(WorkerId, WorkerRecord)>, StorageError> {
        self.store.scan(WORKERS)
    }

    /// The highest epoch of whoever was forgotten.
    pub(crate) fn floor(&self) -> Result<u64, StorageError> {
        Ok(self.store.get(FLOOR, &())?.unwrap_or(0))
    }

    /// Writes a registry row; `done` is told when it is on disk.
    pub(crate) fn record(
        &self,
        id: WorkerId,
        record: WorkerRecord,
        done: impl FnOnce(Result<(), Arc<StorageError>>) + Send + 'static,
    ) {
        let write = move |batch: &mut rollout_storage::Batch<'_>| batch.put(WORKERS, &id, &record);
        self.store.submit(Priority::Control, write, done);
    }

    /// Removes a worker from registry and heartbeat ledger.
    pub(crate) fn forget(
        &self,
        id: WorkerId,
        epoch: u64,
        done: impl FnOnce(Result<(), Arc<StorageError>>) + Send + 'static,
    ) {
        let write = move |batch: &mut rollout_storage::Batch<'_>| {
            let floor = batch.get(FLOOR, &())?.unwrap_or(0);
            batch.put(FLOOR, &(), &floor.max(epoch))?;
            batch.remove(WORKERS, &id)?;
            batch.remove(BEATS, &id)
        };
        self.store.submit(Priority::Control, write, done);
    }

    /// Takes a beat to be written with the next commit.
    pub(crate) fn beat(&mut self, id: WorkerId, record: BeatRecord) {
        self.waiting.insert(id, record);
    }

    /// When [`sync_beats`](Self::sync_beats) has something to write.
    pub(crate) fn next_sync(&self) -> Option<Mono> {
        (!self.syncing && !self.waiting.is_empty()).then_some(self.resting)
    }

    /// Writes the waiting beats, unless the last ones are still on their way or went only just now;
    /// `done` is told which they were. Called after every batch of beats and after every commit of
    /// some.
    pub(crate) fn sync_beats(
        &mut self,
        now: Mono,
        done: impl FnOnce(Result<Durable, Arc<StorageError>>) + Send + 'static,
    ) {
        if self.next_sync().is_none_or(|next| now < next) {
            return;
        }
        (self.syncing, self.resting) = (true, now + PAUSE);
        let mut beats: Durable = self.waiting.drain().collect();
        // In the order of the table each of its pages is looked for once.
        beats.sort_unstable_by_key(|(id, _)| *id);
        let beats = Arc::new(beats);
        let written = Arc::clone(&beats);
        self.store.submit(
            Priority::Background,
            move |batch| batch.put_all(BEATS, written.iter().map(|(id, beat)| (id, beat))),
            move |outcome| done(outcome.map(|()| Arc::unwrap_or_clone(beats))),
        );
    }

    /// The beats handed to [`sync_beats`](Self::sync_beats) are on disk: more may go.
    pub(crate) fn synced(&mut self) {
        self.syncing = false;
    }
}
