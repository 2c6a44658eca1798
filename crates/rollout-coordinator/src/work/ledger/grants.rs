//! Who is granted what.
//!
//! A worker's credit ([`Want`](rollout_transport::work::WorkUp::Want)) bounds what it holds, for it alone
//! knows how many items it runs at a time. Items that were granted before go first, of whichever job.
//! One grant is at most a batch, and at most about a second's work as measured, and little before
//! anything is; and a worker holds no more than its share of what is left, so that the end of a
//! job is spread over the fleet.

use std::time::Duration;

use rollout_core::{JobId, Mono, WorkerId};

use super::items::Span;
use super::words::{Effect, Grant, Suspect};
use super::{Job, Ledger, Worker};

/// How much work one grant is at most.
const AHEAD: Duration = Duration::from_secs(1);
/// What an item is taken to cost until one has been measured.
const UNMEASURED: Duration = Duration::from_millis(1);

/// How many items of a job a worker holds at most until it has finished one: how long they take it is
/// not known.
const UNPROVEN: u64 = 64;

impl Ledger {
    /// Grants whatever can be granted; worker by worker, a batch at a time.
    pub fn grant(&mut self, now: Mono, out: &mut Vec<Effect>) {
        while let Some(id) = self.queue.pop_front() {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            worker.queued = false;
            if !worker.available() || worker.want == 0 || worker.exclusive {
                continue;
            }
            if self.reserve(now, id, out) {
                continue;
            }
            let Some((job, max)) = self.choose(id) else { continue };
            if self.hand_out(now, id, job, max, out) {
                self.requeue(id);
            }
        }
    }

    /// Whether the worker is kept for an item that is to be a worker's only lease; it is granted
    /// that item once it has run empty. An idle worker is preferred to one that has to run empty first.
    fn reserve(&mut self, now: Mono, id: WorkerId, out: &mut Vec<Effect>) -> bool {
        let Some(worker) = self.workers.get_mut(&id) else { return false };
        let mut wanting = self.active.iter().filter(|job_id| {
            self.jobs.get(job_id).is_some_and(|job| {
                job.items.singles() > 0
                    && job.may_run_on(worker)
                    && (worker.leased == 0 || job.reserved.is_none_or(|reserved| reserved == id))
            })
        });
        let Some(&job_id) = wanting.next() else { return false };
        let since = self.patient(now);
        let Some(worker) = self.workers.get_mut(&id) else { return false };
        let Some(job) = self.jobs.get_mut(&job_id) else { return false };
        let before = job.reserved.replace(id).filter(|before| *before != id);
        if worker.leased > 0 {
            return true;
        }
        if let Some(span) = job.items.take_single(since, (id, worker.epoch)) {
            worker.exclusive = true;
            out.push(worker.lease(id, job_id, span));
        }
        if job.items.singles() == 0 {
            job.reserved = None;
        }
        self.arm_progress(now, id, job_id);
        if let Some(before) = before {
            self.requeue(before);
        }
        true
    }

    /// The job that the worker is granted next, and how much of it at most.
    fn choose(&self, id: WorkerId) -> Option<(JobId, u32)> {
        let worker = self.workers.get(&id)?;
        let candidates = self.active.iter().filter_map(|job_id| {
            let job = self.jobs.get(job_id)?;
            if !job.may_run_on(worker) {
                return None;
            }
            let workers = self.capable.get(&job.plugin).copied().unwrap_or(1).max(1);
            let max = job.room(*job_id, worker, workers);
            // What was granted before has waited long enough.
            let fresh = !job.items.waits_again();
            (max > 0).then(|| (fresh, job.due(), *job_id, max))
        });
        candidates.min().map(|(_, _, job, max)| (job, max))
    }

    fn hand_out(
        &mut self,
        now: Mono,
        id: WorkerId,
        job_id: JobId,
        max: u32,
        out: &mut Vec<Effect>,
    ) -> bool {
        let since = self.patient(now);
        let (Some(worker), Some(job)) = (self.workers.get_mut(&id), self.jobs.get_mut(&job_id))
        else {
            return false;
        };
        let Some(span) = job.items.take(since, (id, worker.epoch), max) else { return false };
        out.push(worker.lease(id, job_id, span));
        let more = worker.want > 0;
        self.arm_progress(now, id, job_id);
        more
    }

    /// The worker is looked at when the lease that it was just granted may have stalled.
    fn arm_progress(&mut self, now: Mono, id: WorkerId, job_id: JobId) {
        if let Some(job) = self.jobs.get(&job_id) {
            let wake = now + job.patience();
            self.arm(id, wake);
        }
    }
}

impl Job {
    fn may_run_on(&self, worker: &Worker) -> bool {
        !self.paused && worker.plugins.contains(&self.plugin)
    }

    /// How many more items of this job the worker may be granted at once.
    fn room(&self, id: JobId, worker: &Worker, workers: u64) -> u32 {
        let held = worker.leases.get(&id).map_or(0, |items| items.len() as u64);
        let second = match worker.pace.get(&id) {
            None => UNPROVEN.saturating_sub(held),
            Some(pace) => {
                let items = AHEAD.as_nanos() / pace.as_nanos().max(1);
                u64::try_from(items).unwrap_or(u64::MAX).max(1)
            }
        };
        let left = self.items.takeable();
        let share = (left + held).div_ceil(workers).saturating_sub(held);
        let room = share.min(left).min(second).min(u64::from(self.limits.batch));
        u32::try_from(room).unwrap_or(u32::MAX).min(worker.want)
    }

    /// The job with the least of this is granted next: worker time had, and under way.
    fn due(&self) -> Duration {
        let cost = if self.cost.is_zero() { UNMEASURED } else { self.cost };
        self.used + cost.saturating_mul(u32::try_from(self.items.leased).unwrap_or(u32::MAX))
    }
}

impl Worker {
    fn lease(&mut self, id: WorkerId, job: JobId, span: Span) -> Effect {
        let Span { first, count, attempt, suspect } = span;
        if !self.taken.is_empty() {
            (first..first + u64::from(count)).for_each(|item| self.let_go(job, item));
        }
        self.leases.entry(job).or_default().extend(first..first + u64::from(count));
        self.leased += u64::from(count);
        self.want = self.want.saturating_sub(count);
        let alone = suspect != Suspect::No;
        Effect::Granted(Grant { job, worker: id, epoch: self.epoch, attempt, first, count, alone })
    }

    pub(super) fn unlease(&mut self, job: JobId, item: u64) {
        let Some(items) = self.leases.get_mut(&job) else { return };
        if items.remove(&item) {
            self.leased -= 1;
            self.exclusive &= self.leased > 0;
        }
        if items.is_empty() {
            self.leases.remove(&job);
        }
    }
}
