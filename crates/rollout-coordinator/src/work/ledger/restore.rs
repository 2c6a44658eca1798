//! The ledger out of its records, after the coordinator's own death.
//!
//! The order is: the jobs, what has ended, the log of leases from its beginning, the troubles and
//! tallies; then [`Ledger::restored`] with what the registry knows of the workers.

use rollout_core::{JobId, Mono, WorkerId};

use super::items::Span;
use super::words::{Cause, Effect, Grant, Snapshot, Standing, Suspect, Tally, Trouble};
use super::{Ledger, Worker};

impl Ledger {
    /// Items of the job that have ended.
    pub fn restore_end(&mut self, job: JobId, first: u64, count: u64, dead: bool) {
        if let Some(job) = self.jobs.get_mut(&job) {
            for item in first..first.saturating_add(count) {
                job.items.restore_end(item, dead);
            }
        }
    }

    /// A grant.
    pub fn restore_grant(
        &mut self,
        now: Mono,
        job: JobId,
        worker: (WorkerId, u64),
        attempt: u32,
        (first, count): (u64, u32),
    ) {
        let (worker, epoch) = worker;
        let known = self.workers.entry(worker).or_insert_with(Worker::unknown);
        known.epoch = known.epoch.max(epoch);
        (first..first + u64::from(count)).for_each(|item| known.let_go(job, item));
        if let Some(job) = self.jobs.get_mut(&job) {
            let span = Span { first, count, attempt, suspect: Suspect::No };
            job.items.restore_grant(now, (worker, epoch), span);
        }
    }

    /// Leases of `worker` that were over.
    pub fn restore_release(
        &mut self,
        job_id: JobId,
        worker: WorkerId,
        (first, count): (u64, u64),
        cause: Cause,
    ) {
        let Some(job) = self.jobs.get_mut(&job_id) else { return };
        (first..first.saturating_add(count)).for_each(|item| job.items.restore_release(item));
        if cause == Cause::Suspected {
            self.restore_taken(job_id, (worker, 0), (first, count));
        }
    }

    /// What was taken from `worker`, in this epoch, while it was suspected.
    pub fn restore_taken(
        &mut self,
        job: JobId,
        (worker, epoch): (WorkerId, u64),
        (first, count): (u64, u64),
    ) {
        if self.jobs.contains_key(&job) {
            let worker = self.workers.entry(worker).or_insert_with(Worker::unknown);
            worker.epoch = worker.epoch.max(epoch);
            let items = first..first.saturating_add(count);
            worker.taken.entry(job).or_default().extend(items);
        }
    }

    /// All that was taken from `worker` so far has been dealt with.
    pub fn restore_settled(&mut self, job: JobId, worker: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.taken.remove(&job);
        }
    }

    /// What an item has been through.
    pub fn restore_trouble(&mut self, job: JobId, item: u64, trouble: Trouble) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.items.restore_trouble(item, trouble);
        }
    }

    /// What the job has been through.
    pub fn restore_tally(&mut self, job: JobId, tally: Tally) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.tally = tally;
        }
    }

    /// Every item below `fresh` was granted once.
    pub fn restore_fresh(&mut self, job: JobId, fresh: u64) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.items.restore_fresh(fresh);
        }
    }

    /// Items that were granted and wait again.
    pub fn restore_waiting(&mut self, job: JobId, (first, count): (u64, u64)) {
        if let Some(job) = self.jobs.get_mut(&job) {
            (first..first.saturating_add(count)).for_each(|item| job.items.restore_release(item));
        }
    }

    /// All that the log of the job's leases so far has come to.
    #[must_use]
    pub fn snapshot(&self, id: JobId) -> Option<Snapshot> {
        let (fresh, spans, waiting) = self.jobs.get(&id)?.items.snapshot();
        let grant = |(worker, epoch, span): (WorkerId, u64, Span)| {
            let Span { first, count, attempt, .. } = span;
            Grant { job: id, worker, epoch, attempt, first, count, alone: false }
        };
        let grants = spans.into_iter().map(grant).collect();
        let taken = self.workers.iter().filter_map(|(worker, of)| {
            of.taken.get(&id).map(|items| (*worker, of.epoch, items.iter().copied().collect()))
        });
        Some(Snapshot { fresh, grants, waiting, taken: taken.collect() })
    }

    /// Closes the restoration. `registry` says how every known worker stands; what a worker had
    /// that is not among them, or has failed or left, or is of an older epoch, waits again. The
    /// others keep their leases until liveness says more.
    pub fn restored(
        &mut self,
        now: Mono,
        registry: impl IntoIterator<Item = (WorkerId, u64, Standing)>,
        out: &mut Vec<Effect>,
    ) {
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        for job_id in jobs {
            let Some(job) = self.jobs.get_mut(&job_id) else { continue };
            for (worker, item) in job.items.restored() {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.leases.entry(job_id).or_default().insert(item);
                    worker.leased += 1;
                }
            }
            if job.items.finished() {
                self.active.remove(&job_id);
            }
        }
        let mut unknown: Vec<WorkerId> = self.workers.keys().copied().collect();
        for (id, epoch, standing) in registry {
            unknown.retain(|other| *other != id);
            self.worker(now, id, epoch, standing, out);
        }
        for id in unknown {
            self.forget(id, out);
        }
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in ids {
            self.rearm(id);
        }
    }
}
