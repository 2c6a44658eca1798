//! The transaction that is being gathered while the last one syncs, and what is to be said once it is
//! on disk.

use std::collections::BTreeMap;

use rollout_core::event::Body;
use rollout_core::{JobId, WorkerId};
use rollout_transport::work::{Committed, Lease, Stale};

use super::handle::StreamId;
use super::ledger::words::Grant;
use super::store::{LeaseRecord, Next, Rows, weight};

/// The most items of one row of commits, and about the most bytes: a row is one line for whoever
/// follows, and no longer than a line may be even if every byte of a text takes six in JSON.
const ROW_ITEMS: usize = 4_096;
const ROW_BYTES: usize = 256 << 10;

/// A log of leases that has so many rows begins anew.
const LONG_LOG: u64 = 4_096;

/// What follows once a transaction is on disk.
pub(crate) enum After {
    /// The worker is granted items, on the stream that it had when they were.
    Grant(Option<StreamId>, Grant),
    /// The worker's outcomes up to `seq` are durable or refused.
    Ack { worker: WorkerId, stream: StreamId, seq: u64, stale: Vec<Stale> },
    /// Leases are over.
    Revoke { worker: WorkerId, job: JobId, leases: Vec<Lease> },
    /// The job's limits have changed: the workers that know of it are told.
    Limits(JobId),
    /// Something has happened.
    Event(Option<WorkerId>, Body),
    /// Somebody waits for it.
    Reply(Box<dyn FnOnce() + Send>),
}

/// A transaction that is being gathered.
#[derive(Default)]
pub(crate) struct Tx {
    pub(crate) rows: Rows,
    pub(crate) after: Vec<After>,
    /// Items that have ended, by job.
    ends: BTreeMap<JobId, Vec<Committed>>,
    /// About how many bytes of results it holds.
    pub(crate) bytes: usize,
}

impl Tx {
    /// The item has ended.
    pub(crate) fn end(&mut self, job: JobId, committed: Committed) {
        self.bytes += weight(&committed);
        self.ends.entry(job).or_default().push(committed);
    }

    /// Whether items of the job end with it.
    pub(crate) fn ends_some(&self, job: JobId) -> bool {
        self.ends.contains_key(&job)
    }

    /// The job is removed: nothing of it is written any more.
    pub(crate) fn remove(&mut self, job: JobId) {
        self.ends.remove(&job);
        self.rows.jobs.retain(|(of, _)| *of != job);
        self.rows.leases.retain(|(of, ..)| *of != job);
        self.rows.pruned.retain(|(of, _)| *of != job);
        self.rows.troubles.retain(|(of, _), _| *of != job);
        self.rows.removed.push(job);
    }

    /// The job's log of leases begins anew with `rows`: whatever it has come to is in them.
    pub(crate) fn begin_log(&mut self, job: JobId, next: &mut Next, rows: Vec<LeaseRecord>) {
        self.rows.leases.retain(|(of, ..)| *of != job);
        self.rows.pruned.push((job, next.first..next.lease));
        (next.first, next.begun) = (next.lease, rows.len() as u64);
        for row in rows {
            self.rows.leases.push((job, next.take_lease(), row));
        }
    }

    /// Gives the ended items their rows, numbered on from what `next` says of their job.
    pub(crate) fn seal(&mut self, mut next: impl FnMut(JobId) -> Option<u64>) {
        for (job, items) in std::mem::take(&mut self.ends) {
            let (mut row, mut bytes) = (Vec::new(), 0);
            for committed in items {
                bytes += weight(&committed);
                row.push(committed);
                if row.len() >= ROW_ITEMS || bytes >= ROW_BYTES {
                    bytes = 0;
                    self.commit(job, next(job), std::mem::take(&mut row));
                }
            }
            if !row.is_empty() {
                self.commit(job, next(job), row);
            }
        }
    }

    fn commit(&mut self, job: JobId, seq: Option<u64>, items: Vec<Committed>) {
        // A job that was removed has no next row.
        if let Some(seq) = seq {
            self.after.push(After::Event(None, super::report::committed(job, seq, &items)));
            self.rows.commits.push((job, seq, items));
        }
    }
}

impl Next {
    /// Whether the log of leases is much longer than it would be if it began anew.
    pub(crate) fn is_long(&self) -> bool {
        self.lease - self.first >= LONG_LOG.max(4 * self.begun)
    }

    /// The next row of the log of leases.
    pub(crate) fn take_lease(&mut self) -> u64 {
        self.lease += 1;
        self.lease - 1
    }
}
