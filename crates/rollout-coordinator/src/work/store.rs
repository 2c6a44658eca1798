//! The work ledger's records: what is on disk, and (`restore`) how the ledger comes out of it again.
//!
//! Jobs and items' parameters have rows of their own. Leases are a log with one row per grant or
//! release of a batch, which begins anew with what is open whenever it has grown long; commits have
//! one row per batch, and beside it a short one that only says which items ended, so that a restart
//! reads no result.

mod restore;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::ControlFlow;

use rollout_core::{JobId, JobSpec, WorkerId};
use rollout_storage::{Batch, Key, StorageError, Store, Table};
use rollout_transport::work::{Committed, Final, Stale};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub(crate) use self::restore::{Restored, restore};
use super::ledger::words::{Cause, Grant, Snapshot, Tally, Trouble};
use crate::ledger::META;

/// Items whose parameters share a row.
pub(crate) const CHUNK: u64 = 256;

const JOBS: Table<JobKey, JobRecord> = Table::new("jobs");
const PARAMS: Table<RowKey, Vec<Box<RawValue>>> = Table::new("item_params");
const LEASES: Table<RowKey, LeaseRecord> = Table::new("leases");
const COMMITS: Table<RowKey, Vec<Committed>> = Table::new("commits");
const ENDS: Table<RowKey, EndRecord> = Table::new("ends");
const TROUBLES: Table<RowKey, Trouble> = Table::new("troubles");
const TALLIES: Table<JobKey, Tally> = Table::new("tallies");
const ACKS: Table<WorkerId, AckRecord> = Table::new("work_acks");

/// A job's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct JobKey(JobId);

impl Key for JobKey {
    fn encode(&self) -> impl AsRef<[u8]> {
        self.0.to_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(JobId::from_bytes(bytes)))
    }
}

/// The key of a numbered row of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RowKey(JobId, u64);

impl RowKey {
    /// None lies before it.
    const FIRST: Self = Self(JobId::from_bytes([0; 16]), 0);
}

impl Key for RowKey {
    fn encode(&self) -> impl AsRef<[u8]> {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.0.to_bytes());
        bytes[16..].copy_from_slice(&self.1.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (job, row) = bytes.split_at_checked(16)?;
        Some(Self(
            JobId::from_bytes(job.try_into().ok()?),
            u64::from_be_bytes(row.try_into().ok()?),
        ))
    }
}

/// A job's row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    pub(crate) spec: JobSpec,
    pub(crate) paused: bool,
}

/// A row of the log of leases.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LeaseRecord {
    Granted {
        worker: WorkerId,
        epoch: u64,
        attempt: u32,
        first: u64,
        count: u32,
    },
    Released {
        worker: WorkerId,
        cause: Cause,
        spans: Vec<(u64, u64)>,
    },
    /// All that was taken from the worker before is dealt with.
    Settled {
        worker: WorkerId,
        epoch: u64,
    },
    /// The log begins here: every item below was granted once. Grants of the open ones follow.
    Begins {
        fresh: u64,
    },
    /// Of the items granted above these wait.
    Waiting {
        spans: Vec<(u64, u64)>,
    },
    /// These were taken from the worker while it was suspected, and its epoch goes on.
    Taken {
        worker: WorkerId,
        epoch: u64,
        spans: Vec<(u64, u64)>,
    },
}

/// Which items ended with a commit, as first item and count.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct EndRecord {
    done: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dead: Vec<(u64, u64)>,
    /// The names of large results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    blobs: Vec<String>,
}

impl EndRecord {
    fn of(items: &[Committed]) -> Self {
        let (dead, done): (Vec<&Committed>, Vec<&Committed>) =
            items.iter().partition(|item| matches!(item.end, Final::Dead { .. }));
        let of = |items: Vec<&Committed>| spans(items.iter().map(|committed| committed.item));
        let blob = |item: &Committed| match &item.end {
            Final::Blob(blob) => Some(blob.sha256.clone()),
            Final::Result(_) | Final::Dead { .. } => None,
        };
        let blobs = items.iter().filter_map(blob).collect();
        Self { done: of(done), dead: of(dead), blobs }
    }
}

/// The newest outcomes of a worker's epoch that are durable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AckRecord {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    /// What was refused of the last ones of which something was, for those that are sent again.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub(crate) refused: VecDeque<(u64, Vec<Stale>)>,
}

/// Items as first item and count of neighbours.
pub(crate) fn spans(items: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut items: Vec<u64> = items.into_iter().collect();
    items.sort_unstable();
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for item in items {
        match spans.last_mut() {
            Some((first, count)) if item.checked_sub(*first) == Some(*count) => *count += 1,
            _ => spans.push((item, 1)),
        }
    }
    spans
}

/// What one transaction writes.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) jobs: Vec<(JobId, JobRecord)>,
    /// Logs that begin anew: the rows that go.
    pub(crate) pruned: Vec<(JobId, std::ops::Range<u64>)>,
    pub(crate) leases: Vec<(JobId, u64, LeaseRecord)>,
    pub(crate) commits: Vec<(JobId, u64, Vec<Committed>)>,
    pub(crate) troubles: BTreeMap<(JobId, u64), Option<Trouble>>,
    /// Of the jobs that have come to another one with what else is written.
    pub(crate) tallies: Vec<(JobId, Tally)>,
    /// Nothing of a worker that is forgotten.
    pub(crate) acks: BTreeMap<WorkerId, Option<AckRecord>>,
    pub(crate) removed: Vec<JobId>,
}

impl Rows {
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
            && self.leases.is_empty()
            && self.commits.is_empty()
            && self.troubles.is_empty()
            && self.tallies.is_empty()
            && self.acks.is_empty()
            && self.removed.is_empty()
    }

    /// Writes the rows, if `term` is still the newest.
    pub(crate) fn write(&self, batch: &mut Batch<'_>, term: u64) -> Result<(), StorageError> {
        check_term(batch, term)?;
        for job in &self.removed {
            remove(batch, *job)?;
        }
        for (job, record) in &self.jobs {
            batch.put(JOBS, &JobKey(*job), record)?;
        }
        for (job, rows) in &self.pruned {
            batch.remove_range(LEASES, &RowKey(*job, rows.start), &RowKey(*job, rows.end - 1))?;
        }
        let leases: Vec<_> =
            self.leases.iter().map(|(job, row, record)| (RowKey(*job, *row), record)).collect();
        batch.put_all(LEASES, leases.iter().map(|(key, record)| (key, *record)))?;
        for (job, seq, items) in &self.commits {
            batch.put(COMMITS, &RowKey(*job, *seq), items)?;
            batch.put(ENDS, &RowKey(*job, *seq), &EndRecord::of(items))?;
        }
        for ((job, item), trouble) in &self.troubles {
            match trouble {
                Some(trouble) => batch.put(TROUBLES, &RowKey(*job, *item), trouble)?,
                None => batch.remove(TROUBLES, &RowKey(*job, *item))?,
            }
        }
        for (job, tally) in &self.tallies {
            batch.put(TALLIES, &JobKey(*job), tally)?;
        }
        for (worker, ack) in &self.acks {
            match ack {
                Some(ack) => batch.put(ACKS, worker, ack)?,
                None => batch.remove(ACKS, worker)?,
            }
        }
        Ok(())
    }
}

/// A coordinator whose term is over writes nothing more.
fn check_term(batch: &Batch<'_>, term: u64) -> Result<(), StorageError> {
    match batch.get(META, &())? {
        Some(meta) if meta.term == term => Ok(()),
        found => {
            let newest = found.map_or(0, |meta| meta.term);
            Err(batch.fenced(format!("term {term} is over, the newest is {newest}")))
        }
    }
}

fn remove(batch: &mut Batch<'_>, job: JobId) -> Result<(), StorageError> {
    let (first, last) = (RowKey(job, 0), RowKey(job, u64::MAX));
    batch.remove(JOBS, &JobKey(job))?;
    batch.remove(TALLIES, &JobKey(job))?;
    batch.remove_range(PARAMS, &first, &last)?;
    batch.remove_range(LEASES, &first, &last)?;
    batch.remove_range(COMMITS, &first, &last)?;
    batch.remove_range(ENDS, &first, &last)?;
    batch.remove_range(TROUBLES, &first, &last)
}

/// Writes the parameters of a chunk of items of a job that is not there yet.
pub(crate) fn put_params(
    batch: &mut Batch<'_>,
    term: u64,
    job: JobId,
    chunk: u64,
    params: &[Box<RawValue>],
) -> Result<(), StorageError> {
    check_term(batch, term)?;
    batch.put_all(PARAMS, [(&RowKey(job, chunk), &params.to_vec())])
}

/// The parameters of a chunk of items.
pub(crate) fn params(
    store: &Store,
    job: JobId,
    chunk: u64,
) -> Result<Vec<Box<RawValue>>, StorageError> {
    Ok(store.get(PARAMS, &RowKey(job, chunk))?.unwrap_or_default())
}

/// The commits of a job after `after`, in order, until about `bytes` are read.
pub(crate) fn commits(
    store: &Store,
    job: JobId,
    after: u64,
    bytes: usize,
) -> Result<Vec<(u64, Vec<Committed>)>, StorageError> {
    let (mut found, mut read) = (Vec::new(), 0);
    let from = RowKey(job, after.saturating_add(1));
    store.range(COMMITS, &from, |RowKey(of, seq), items: Vec<Committed>| {
        if of != job {
            return ControlFlow::Break(());
        }
        read += items.iter().map(weight).sum::<usize>();
        found.push((seq, items));
        if read < bytes { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
}

/// About how many bytes the item takes.
pub(crate) fn weight(committed: &Committed) -> usize {
    64 + match &committed.end {
        Final::Result(raw) => raw.get().len(),
        Final::Blob(_) => 64,
        Final::Dead { failure, .. } => {
            let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
            failure.code.len()
                + failure.message.len()
                + optional(&failure.traceback)
                + optional(&failure.stderr_tail)
        }
    }
}

/// The large results that commits refer to.
pub(crate) fn referenced(store: &Store) -> Result<HashSet<String>, StorageError> {
    let mut names = HashSet::new();
    store.range(ENDS, &RowKey::FIRST, |_: RowKey, record: EndRecord| {
        names.extend(record.blobs);
        ControlFlow::Continue(())
    })?;
    Ok(names)
}

/// Jobs whose parameters were written and that never came to be.
pub(crate) fn remove_strays(batch: &mut Batch<'_>, strays: &[JobId]) -> Result<(), StorageError> {
    strays.iter().try_for_each(|job| remove(batch, *job))
}

/// The jobs that have rows of parameters; looks at one row of each.
pub(crate) fn with_params(store: &Store) -> Result<Vec<JobId>, StorageError> {
    let mut jobs: Vec<JobId> = Vec::new();
    let mut from = RowKey::FIRST;
    loop {
        let mut found = None;
        store.range(PARAMS, &from, |RowKey(job, _), _| {
            found = Some(job);
            ControlFlow::Break(())
        })?;
        // The last possible row of a job lies before the first one of the next.
        let Some(job) = found.filter(|job| jobs.last() != Some(job)) else { return Ok(jobs) };
        jobs.push(job);
        from = RowKey(job, u64::MAX);
    }
}

/// Where a job's numbered rows go on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Next {
    /// The newest commit.
    pub(crate) seq: u64,
    /// The first row of the log of leases.
    pub(crate) first: u64,
    /// Its next row.
    pub(crate) lease: u64,
    /// How many rows it began with.
    pub(crate) begun: u64,
}

/// The rows with which a log of leases begins that says nothing of the past.
pub(crate) fn beginning(snapshot: Snapshot) -> Vec<LeaseRecord> {
    let Snapshot { fresh, grants, waiting, taken } = snapshot;
    let mut rows = vec![LeaseRecord::Begins { fresh }];
    rows.extend(grants.into_iter().map(|grant| {
        let Grant { worker, epoch, attempt, first, count, .. } = grant;
        LeaseRecord::Granted { worker, epoch, attempt, first, count }
    }));
    rows.push(LeaseRecord::Waiting { spans: spans(waiting) });
    let taken = taken.into_iter();
    rows.extend(taken.map(|(worker, epoch, items)| LeaseRecord::Taken {
        worker,
        epoch,
        spans: spans(items),
    }));
    rows
}

/// How many rows the job's log of leases has.
#[cfg(test)]
pub(crate) fn lease_rows(store: &Store, job: JobId) -> usize {
    let mut rows = 0;
    let count = |RowKey(of, _), _: LeaseRecord| {
        rows += usize::from(of == job);
        ControlFlow::Continue(())
    };
    store.range(LEASES, &RowKey(job, 0), count).unwrap();
    rows
}
