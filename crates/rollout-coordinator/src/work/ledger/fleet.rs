//! The workers, as liveness and their work streams tell of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rollout_core::job::{MAX_BATCH, Redispatch};
use rollout_core::{JobId, Mono, WorkerId};

use super::words::{Cause, Effect, Grant, HOLD, Standing, Suspect};
use super::{Ledger, Worker};

/// The item that a worker has had longest without a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    /// The job.
    pub job: JobId,
    /// The item.
    pub item: u64,
    /// Since its grant, or the last sign of life.
    pub since: Mono,
}

impl Ledger {
    /// What liveness says of a worker: the epoch and standing that it has now.
    pub fn worker(
        &mut self,
        now: Mono,
        id: WorkerId,
        epoch: u64,
        standing: Standing,
        out: &mut Vec<Effect>,
    ) {
        let known = self.workers.get(&id).map(|worker| worker.epoch);
        if known.is_some_and(|known| known > epoch) {
            return;
        }
        if known.is_some_and(|known| known < epoch) {
            self.end_epoch(id, Cause::Superseded, out);
            self.stream_down(id);
        }
        let was_suspected = self.workers.get(&id).is_some_and(|w| w.suspected.is_some());
        self.change(id, |worker| {
            worker.epoch = epoch;
            worker.standing = standing;
            let since = worker.suspected.unwrap_or(now);
            worker.suspected = (standing == Standing::Suspected).then_some(since);
        });
        match standing {
            Standing::Failed => self.end_epoch(id, Cause::Failed, out),
            Standing::Left => self.end_epoch(id, Cause::Returned, out),
            Standing::Suspected => self.arm(id, now + HOLD),
            Standing::Ready if was_suspected => self.recovered(id),
            Standing::Registered | Standing::Ready | Standing::Draining => {}
        }
        if matches!(standing, Standing::Failed | Standing::Left) {
            self.stream_down(id);
        }
    }

    /// The worker is forgotten by liveness, long after its end.
    pub fn forget(&mut self, id: WorkerId, out: &mut Vec<Effect>) {
        self.end_epoch(id, Cause::Failed, out);
        self.stream_down(id);
        self.workers.remove(&id);
    }

    /// The work stream of the worker's `epoch` is open; its credit starts from nothing. The leases
    /// that it still has are to be said again, for a stream that was cut may have lost their grants.
    ///
    /// # Errors
    /// The epoch that is current, if another one is.
    pub fn stream_up(
        &mut self,
        id: WorkerId,
        epoch: u64,
        plugins: impl IntoIterator<Item = String>,
    ) -> Result<Vec<Grant>, u64> {
        match self.workers.get(&id) {
            Some(worker) if worker.epoch != epoch => return Err(worker.epoch),
            Some(worker) if !matches!(worker.standing, Standing::Failed | Standing::Left) => {}
            _ => return Err(0),
        }
        self.change(id, |worker| {
            worker.connected = true;
            worker.plugins = plugins.into_iter().collect();
            worker.want = 0;
        });
        Ok(self.leases_of(id))
    }

    /// The worker's work stream has ended. Its leases stay.
    pub fn stream_down(&mut self, id: WorkerId) {
        if self.workers.contains_key(&id) {
            self.change(id, |worker| {
                worker.connected = false;
                worker.want = 0;
            });
        }
    }

    /// The worker has room for so many more items.
    pub fn want(&mut self, id: WorkerId, epoch: u64, items: u32) {
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.epoch == epoch) else {
            return;
        };
        worker.want = worker.want.saturating_add(items);
        self.requeue(id);
    }

    /// What the worker has, as grants of neighbouring items, none longer than a grant may be.
    fn leases_of(&self, id: WorkerId) -> Vec<Grant> {
        let mut grants: Vec<Grant> = Vec::new();
        let Some(worker) = self.workers.get(&id) else { return grants };
        for (&job_id, items) in &worker.leases {
            let Some(job) = self.jobs.get(&job_id) else { continue };
            for &item in items {
                let Some(attempt) = job.items.attempt(item) else { continue };
                let alone = job.items.suspect(item) != Suspect::No;
                match grants.last_mut() {
                    Some(last)
                        if last.count < MAX_BATCH
                            && last.job == job_id
                            && last.first + u64::from(last.count) == item
                            && (last.attempt, last.alone) == (attempt, alone) =>
                    {
                        last.count += 1;
                    }
                    _ => grants.push(Grant {
                        job: job_id,
                        worker: id,
                        epoch: worker.epoch,
                        attempt,
                        first: item,
                        count: 1,
                        alone,
                    }),
                }
            }
        }
        grants
    }

    /// Every worker with its epoch and standing.
    pub fn fleet(&self) -> impl Iterator<Item = (WorkerId, u64, Standing)> {
        self.workers.iter().map(|(id, worker)| (*id, worker.epoch, worker.standing))
    }

    /// Whether the worker's `epoch` is current and has an open stream.
    #[must_use]
    pub fn speaks(&self, id: WorkerId, epoch: u64) -> bool {
        self.workers.get(&id).is_some_and(|worker| worker.connected && worker.epoch == epoch)
    }

    /// How many items the worker has.
    #[must_use]
    pub fn leased(&self, id: WorkerId) -> u64 {
        self.workers.get(&id).map_or(0, |worker| worker.leased)
    }

    /// The plugins of the worker's open work stream.
    pub fn plugins(&self, id: WorkerId) -> impl Iterator<Item = &str> {
        self.workers
            .get(&id)
            .into_iter()
            .flat_map(|worker| worker.plugins.iter())
            .map(String::as_str)
    }

    /// The item that the worker has had longest without a sign of life.
    #[must_use]
    pub fn oldest(&self, id: WorkerId) -> Option<Oldest> {
        let worker = self.workers.get(&id)?;
        let leases = worker.leases.iter().flat_map(|(&job, items)| {
            let of = self.jobs.get(&job);
            items.iter().filter_map(move |&item| {
                let since = of?.items.since(item)?;
                Some(Oldest { job, item, since: since + self.credited })
            })
        });
        leases.min_by_key(|oldest| oldest.since)
    }

    /// Changes a worker, which comes into being if need be, and keeps what depends on whether it is
    /// available.
    fn change(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker)) {
        let worker = self.workers.entry(id).or_insert_with(Worker::unknown);
        let before = worker.available().then(|| worker.plugins.clone());
        change(worker);
        let after = worker.available().then(|| worker.plugins.clone());
        if before == after {
            return;
        }
        for plugin in before.iter().flatten() {
            if let Some(count) = self.capable.get_mut(plugin) {
                *count -= 1;
                if *count == 0 {
                    self.capable.remove(plugin);
                }
            }
        }
        for plugin in after.iter().flatten() {
            *self.capable.entry(plugin.clone()).or_default() += 1;
        }
        if after.is_none() {
            for job in self.jobs.values_mut().filter(|job| job.reserved == Some(id)) {
                job.reserved = None;
            }
        }
        self.requeue_everybody();
    }

    /// The worker is looked at with the next grants.
    pub(super) fn requeue(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !worker.queued && worker.want > 0 && worker.available() {
            worker.queued = true;
            self.queue.push_back(id);
        }
    }

    /// So is everybody: there is more to grant, or fewer to share it.
    pub(super) fn requeue_everybody(&mut self) {
        for (id, worker) in &mut self.workers {
            if !worker.queued && worker.want > 0 && worker.available() {
                worker.queued = true;
                self.queue.push_back(*id);
            }
        }
    }

    /// The worker's epoch is over. All that it has goes to others; if it crashed, what may have been
    /// running on it then is looked at as the reason, that which was taken from it before included.
    pub(super) fn end_epoch(&mut self, id: WorkerId, cause: Cause, out: &mut Vec<Effect>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (only, epoch) = (worker.in_hand() == 1, worker.epoch);
        let taken = std::mem::take(&mut worker.taken);
        let leases = worker.leases.clone();
        self.release_where(id, cause, |_| true, out);
        if cause.is_crash() {
            self.blame(id, &leases, cause, only, out);
            self.blame(id, &taken, cause, only, out);
        }
        out.extend(taken.into_keys().map(|job| Effect::Settled { job, worker: id, epoch }));
    }

    /// The worker is heard of again. What was taken from it and is open may be running on it still.
    fn recovered(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        for (job, items) in &mut worker.taken {
            let job = self.jobs.get(job);
            items.retain(|item| job.is_some_and(|job| job.items.attempt(*item).is_some()));
        }
    }

    fn release_where(
        &mut self,
        id: WorkerId,
        cause: Cause,
        wanted: impl Fn(Redispatch) -> bool,
        out: &mut Vec<Effect>,
    ) {
        let Some(worker) = self.workers.get(&id) else { return };
        let leases: Vec<(JobId, BTreeSet<u64>)> = worker
            .leases
            .iter()
            .filter(|(job, _)| self.jobs.get(job).is_some_and(|job| wanted(job.limits.redispatch)))
            .map(|(job, items)| (*job, items.clone()))
            .collect();
        for (job, items) in leases {
            self.release(id, job, items, cause, out);
        }
    }

    /// What a worker that was suspected for [`HOLD`] has goes to others, where the job allows it.
    pub(super) fn expire_hold(&mut self, now: Mono, id: WorkerId, out: &mut Vec<Effect>) {
        let suspected = self.workers.get(&id).and_then(|worker| worker.suspected);
        if suspected.is_some_and(|since| now >= since + HOLD) {
            let early = |redispatch| redispatch == Redispatch::Suspected;
            self.release_where(id, Cause::Suspected, early, out);
        }
    }

    /// The worker is looked at by `wake` at the latest.
    pub(super) fn arm(&mut self, id: WorkerId, wake: Mono) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.wake.is_none_or(|current| wake < current) {
            worker.wake = Some(wake);
            self.wakes.push(Reverse((wake, id)));
        }
    }

    /// The worker is looked at again when the lease that was silent longest may have stalled.
    pub(super) fn rearm(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let stalls = worker.leases.iter().filter_map(|(job, items)| {
            let job = self.jobs.get(job)?;
            let since = items.iter().filter_map(|item| job.items.since(*item)).min()?;
            Some(since + job.patience() + self.credited)
        });
        if let Some(wake) = stalls.min() {
            self.arm(id, wake);
        }
        if let Some(hold) = self.held_until(id) {
            self.arm(id, hold);
        }
    }

    /// When the hold of a suspected worker ends, if it has something to lose by it.
    fn held_until(&self, id: WorkerId) -> Option<Mono> {
        let worker = self.workers.get(&id)?;
        let suspected = worker.suspected?;
        let early = |job| {
            self.jobs.get(job).is_some_and(|job| job.limits.redispatch == Redispatch::Suspected)
        };
        worker.leases.keys().any(early).then(|| suspected + HOLD)
    }
}

impl Worker {
    pub(super) fn unknown() -> Self {
        Self {
            epoch: 0,
            standing: Standing::Registered,
            suspected: None,
            connected: false,
            plugins: BTreeSet::new(),
            want: 0,
            leases: BTreeMap::new(),
            leased: 0,
            taken: BTreeMap::new(),
            exclusive: false,
            pace: BTreeMap::new(),
            queued: false,
            wake: None,
        }
    }
}
