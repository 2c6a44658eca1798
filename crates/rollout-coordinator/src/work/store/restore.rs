//! The ledger of an earlier term, out of its records.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rollout_core::{JobId, Mono, WorkerId};
use rollout_storage::{StorageError, Store};

use super::{
    ACKS, AckRecord, ENDS, EndRecord, JOBS, JobKey, JobRecord, LEASES, LeaseRecord, Next, RowKey,
    TALLIES, TROUBLES,
};
use crate::work::ledger::Ledger;
use crate::work::ledger::words::Tally;

type Jobs = BTreeMap<JobId, (JobRecord, Next)>;

/// What the records hold beside the ledger.
pub(crate) struct Restored {
    pub(crate) jobs: Jobs,
    pub(crate) tallies: BTreeMap<JobId, Tally>,
    pub(crate) acks: BTreeMap<WorkerId, AckRecord>,
}

/// Reads everything but results and parameters back; [`Ledger::restored`] is to follow.
pub(crate) fn restore(
    store: &Store,
    ledger: &mut Ledger,
    now: Mono,
) -> Result<Restored, StorageError> {
    let mut jobs = BTreeMap::new();
    for (JobKey(job), record) in store.scan(JOBS)? {
        ledger.add_job(job, &record.spec);
        ledger.pause(job, record.paused);
        jobs.insert(job, (record, Next::default()));
    }
    ends(store, ledger, &mut jobs)?;
    leases(store, ledger, now, &mut jobs)?;
    store.range(TROUBLES, &RowKey::FIRST, |RowKey(job, item), trouble| {
        ledger.restore_trouble(job, item, trouble);
        ControlFlow::Continue(())
    })?;
    let tallies = store.scan(TALLIES)?.into_iter().map(|(JobKey(job), tally)| (job, tally));
    let tallies: BTreeMap<_, _> = tallies.collect();
    tallies.iter().for_each(|(job, tally)| ledger.restore_tally(*job, *tally));
    Ok(Restored { jobs, tallies, acks: store.scan(ACKS)?.into_iter().collect() })
}

/// The items that have come to their end.
fn ends(store: &Store, ledger: &mut Ledger, jobs: &mut Jobs) -> Result<(), StorageError> {
    store.range(ENDS, &RowKey::FIRST, |RowKey(job, seq), record: EndRecord| {
        for (spans, dead) in [(record.done, false), (record.dead, true)] {
            for (first, count) in spans {
                ledger.restore_end(job, first, count, dead);
            }
        }
        if let Some((_, next)) = jobs.get_mut(&job) {
            next.seq = seq;
        }
        ControlFlow::Continue(())
    })
}

/// Who has which of the others, by the log of leases.
fn leases(
    store: &Store,
    ledger: &mut Ledger,
    now: Mono,
    jobs: &mut Jobs,
) -> Result<(), StorageError> {
    store.range(LEASES, &RowKey::FIRST, |RowKey(job, row), record: LeaseRecord| {
        lease(ledger, now, job, record);
        if let Some((_, next)) = jobs.get_mut(&job) {
            if next.lease == 0 {
                next.first = row;
            }
            next.lease = row + 1;
        }
        ControlFlow::Continue(())
    })
}

fn lease(ledger: &mut Ledger, now: Mono, job: JobId, record: LeaseRecord) {
    match record {
        LeaseRecord::Granted { worker, epoch, attempt, first, count } => {
            ledger.restore_grant(now, job, (worker, epoch), attempt, (first, count));
        }
        LeaseRecord::Released { worker, cause, spans } => {
            spans.into_iter().for_each(|span| ledger.restore_release(job, worker, span, cause));
        }
        LeaseRecord::Settled { worker, .. } => ledger.restore_settled(job, worker),
        LeaseRecord::Begins { fresh } => ledger.restore_fresh(job, fresh),
        LeaseRecord::Waiting { spans } => {
            spans.into_iter().for_each(|span| ledger.restore_waiting(job, span));
        }
        LeaseRecord::Taken { worker, epoch, spans } => {
            spans.into_iter().for_each(|span| ledger.restore_taken(job, (worker, epoch), span));
        }
    }
}
