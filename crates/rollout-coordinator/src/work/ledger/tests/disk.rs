//! What the model has on disk, and how a coordinator that died reads it back.

use super::*;

/// What is on disk.
#[derive(Debug, Clone)]
pub(super) enum Record {
    Grant(Grant),
    Release { job: JobId, worker: WorkerId, item: u64, cause: Cause },
    Settled { job: JobId, worker: WorkerId },
    Fresh { job: JobId, fresh: u64 },
    Waiting { job: JobId, item: u64 },
    Taken { job: JobId, worker: (WorkerId, u64), item: u64 },
}

impl Record {
    fn job(&self) -> JobId {
        match self {
            Self::Grant(grant) => grant.job,
            Self::Release { job, .. }
            | Self::Settled { job, .. }
            | Self::Fresh { job, .. }
            | Self::Waiting { job, .. }
            | Self::Taken { job, .. } => *job,
        }
    }
}

impl World {
    /// The coordinator dies and reads back what it had written.
    pub(super) fn restart(&mut self) {
        self.ledger = Ledger::new();
        for (job, spec) in specs() {
            self.ledger.add_job(job, &spec);
        }
        for (job, item, dead) in &self.ended {
            self.ledger.restore_end(*job, *item, 1, *dead);
        }
        for record in &self.log {
            match record {
                Record::Grant(grant) => self.ledger.restore_grant(
                    self.now,
                    grant.job,
                    (grant.worker, grant.epoch),
                    grant.attempt,
                    (grant.first, grant.count),
                ),
                Record::Release { job, worker, item, cause } => {
                    self.ledger.restore_release(*job, *worker, (*item, 1), *cause);
                }
                Record::Settled { job, worker } => self.ledger.restore_settled(*job, *worker),
                Record::Fresh { job, fresh } => self.ledger.restore_fresh(*job, *fresh),
                Record::Waiting { job, item } => self.ledger.restore_waiting(*job, (*item, 1)),
                Record::Taken { job, worker, item } => {
                    self.ledger.restore_taken(*job, *worker, (*item, 1));
                }
            }
        }
        for ((job, item), trouble) in &self.troubles {
            self.ledger.restore_trouble(*job, *item, *trouble);
        }
        for (job, tally) in &self.tallies {
            // Of which the failures and losses are what items have been through.
            self.ledger.restore_tally(*job, self.whole(*job, *tally));
        }
        self.remember_taken();
        self.standing.iter_mut().for_each(|worker| worker.2 = false);
        self.credit = [0; WORKERS];
        let registry: Vec<_> =
            (0..WORKERS).map(|w| (worker_id(w), self.standing[w].0, self.standing[w].1)).collect();
        let mut out = Vec::new();
        self.ledger.restored(self.now, registry, &mut out);
        self.carry_out(out);
    }

    /// The job's log begins anew.
    pub(super) fn shorten(&mut self, job: JobId) {
        self.log.retain(|record| record.job() != job);
        let snapshot = self.ledger.snapshot(job).unwrap();
        self.log.push(Record::Fresh { job, fresh: snapshot.fresh });
        self.log.extend(snapshot.grants.into_iter().map(Record::Grant));
        self.log.extend(snapshot.waiting.into_iter().map(|item| Record::Waiting { job, item }));
        for (worker, epoch, items) in snapshot.taken {
            let worker = (worker, epoch);
            self.log.extend(items.into_iter().map(|item| Record::Taken { job, worker, item }));
        }
    }

    /// What was taken from whom is known from the log alone: that a worker let go is not in it.
    fn remember_taken(&mut self) {
        for (w, taken) in self.taken.iter_mut().enumerate() {
            taken.clear();
            for record in &self.log {
                match record {
                    Record::Grant(grant) if grant.worker == worker_id(w) => taken.retain(|key| {
                        let first = grant.first;
                        !(key.0 == grant.job
                            && (first..first + u64::from(grant.count)).contains(&key.1))
                    }),
                    Record::Release { job, worker, item, cause: Cause::Suspected }
                        if *worker == worker_id(w) =>
                    {
                        taken.insert((*job, *item));
                    }
                    Record::Taken { job, worker, item } if worker.0 == worker_id(w) => {
                        taken.insert((*job, *item));
                    }
                    Record::Settled { job, worker } if *worker == worker_id(w) => {
                        taken.retain(|key| key.0 != *job);
                    }
                    _ => {}
                }
            }
        }
    }
}
