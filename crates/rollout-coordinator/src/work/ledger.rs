//! The work ledger: which items wait, who has which, and what an outcome counts for.
//!
//! A pure state machine, `(now, input) -> effects`: no clock, no I/O. Whoever drives it records its
//! effects before anybody is told of them. An item that was never granted is part of a cursor, one
//! that has ended is a bit; only those between have a record, so that a job of a million items costs
//! what is in flight. A grant looks at one worker and the few jobs there are, never at the items.

mod ended;
mod fleet;
mod grants;
mod items;
mod restore;
pub mod words;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use rollout_core::job::JobLimits;
use rollout_core::{JobId, JobSpec, Mono, WorkerId};
use rollout_transport::work::{Lease, Token};

use self::items::Items;
use self::words::{Accepted, Cause, Effect, PROGRESS_GRACE, Standing, Tally, Trouble, What};

/// A job, as far as grants go.
#[derive(Debug)]
struct Job {
    plugin: String,
    limits: JobLimits,
    paused: bool,
    items: Items,
    /// Worker time that it has had, so that jobs share the fleet evenly.
    used: Duration,
    /// Worker time of one item, a moving average.
    cost: Duration,
    /// The worker that is let run empty, for an item that is to be its only lease.
    reserved: Option<WorkerId>,
    tally: Tally,
}

/// A worker, as far as grants go.
#[derive(Debug)]
struct Worker {
    epoch: u64,
    standing: Standing,
    /// Since when it is suspected.
    suspected: Option<Mono>,
    /// Whether its work stream is open.
    connected: bool,
    plugins: BTreeSet<String>,
    /// How many more items it has room for.
    want: u32,
    leases: BTreeMap<JobId, BTreeSet<u64>>,
    leased: u64,
    /// What was taken from it in this epoch because it was suspected. It may run them still, and if
    /// the epoch ends with a crash, one of them may be the reason. A job stays here when none of its
    /// items does: its log has to learn of the epoch's end.
    taken: BTreeMap<JobId, BTreeSet<u64>>,
    /// Whether its one lease is to stay the only one.
    exclusive: bool,
    /// Its time for one item of a job, a moving average.
    pace: BTreeMap<JobId, Duration>,
    queued: bool,
    /// The instant of its one valid entry among the wakes.
    wake: Option<Mono>,
}

impl Worker {
    /// Whether what `epoch` says still counts.
    fn is_current(&self, epoch: u64) -> bool {
        self.epoch == epoch && !matches!(self.standing, Standing::Failed | Standing::Left)
    }

    fn available(&self) -> bool {
        self.standing == Standing::Ready && self.connected
    }

    /// How many items may be running on it.
    fn in_hand(&self) -> u64 {
        self.leased + self.taken.values().map(|items| items.len() as u64).sum::<u64>()
    }

    /// It has said itself that it runs the item no more.
    fn let_go(&mut self, job: JobId, item: u64) {
        if let Some(items) = self.taken.get_mut(&job) {
            items.remove(&item);
        }
    }
}

/// How the items of a job stand, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items that wait.
    pub pending: u64,
    /// Items in the hands of workers.
    pub leased: u64,
    /// Items with a result.
    pub done: u64,
    /// Dead letters.
    pub dead: u64,
    /// Typed errors and leases without progress.
    pub failures: u64,
    /// Crashes that counted against an item.
    pub losses: u64,
    /// Leases that were taken from workers that were lost, or seemed to be.
    pub redispatched: u64,
    /// Outcomes that were refused.
    pub stale: u64,
    /// Workers that can run it now.
    pub workers: u64,
    /// Whether nothing of it is granted.
    pub paused: bool,
}

impl Counts {
    /// Whether every item has come to its end.
    #[must_use]
    pub const fn finished(&self) -> bool {
        self.pending == 0 && self.leased == 0
    }
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Ledger {
    jobs: BTreeMap<JobId, Job>,
    /// The jobs that have items left.
    active: BTreeSet<JobId>,
    workers: BTreeMap<WorkerId, Worker>,
    /// Available workers by plugin.
    capable: HashMap<String, u64>,
    /// Workers to look at for the next grants.
    queue: VecDeque<WorkerId>,
    wakes: BinaryHeap<Reverse<(Mono, WorkerId)>>,
    /// Time that does not count as silence of an item.
    credited: Duration,
}

impl Ledger {
    /// A ledger without jobs or workers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For so long nothing could be told to workers, or heard of them, because the disk was slow:
    /// no item is to blame for its silence. Suspicions take their course all the same.
    pub fn credit(&mut self, time: Duration) {
        self.credited += time;
    }

    /// The instant by which the silence of items is measured.
    fn patient(&self, now: Mono) -> Mono {
        now.before(self.credited)
    }

    /// Adds a job; one that is there stays as it is.
    pub fn add_job(&mut self, id: JobId, spec: &JobSpec) {
        if self.jobs.contains_key(&id) {
            return;
        }
        // It starts level with whoever has had least, not ahead by all that they have had.
        let used = self.active.iter().filter_map(|id| self.jobs.get(id)).map(|job| job.used).min();
        let job = Job {
            plugin: spec.plugin.clone(),
            limits: spec.limits.clone(),
            paused: false,
            items: Items::new(spec.items),
            used: used.unwrap_or_default(),
            cost: Duration::ZERO,
            reserved: None,
            tally: Tally::default(),
        };
        self.jobs.insert(id, job);
        self.active.insert(id);
        self.requeue_everybody();
    }

    /// Grants nothing more of the job, or does so again. Whether it is there.
    pub fn pause(&mut self, id: JobId, paused: bool) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else { return false };
        job.paused = paused;
        job.reserved = None;
        self.requeue_everybody();
        true
    }

    /// Takes a job's new limits; those of items that have ended stay as they were judged.
    pub fn set_limits(&mut self, id: JobId, limits: JobLimits) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.limits = limits;
        let holds =
            |(worker, of): (&WorkerId, &Worker)| of.leases.contains_key(&id).then_some(*worker);
        let holders: Vec<WorkerId> = self.workers.iter().filter_map(holds).collect();
        holders.into_iter().for_each(|worker| self.rearm(worker));
    }

    /// Forgets the job. The leases that are over with it, by worker.
    pub fn remove_job(&mut self, id: JobId) -> Vec<(WorkerId, Vec<Lease>)> {
        let Some(job) = self.jobs.remove(&id) else { return Vec::new() };
        self.active.remove(&id);
        let mut over = Vec::new();
        for (worker_id, worker) in &mut self.workers {
            worker.pace.remove(&id);
            worker.taken.remove(&id);
            let Some(items) = worker.leases.remove(&id) else { continue };
            worker.leased -= items.len() as u64;
            worker.exclusive &= worker.leased > 0;
            let lease = |item| job.items.attempt(item).map(|attempt| Lease { item, attempt });
            over.push((*worker_id, items.into_iter().filter_map(lease).collect()));
        }
        self.requeue_everybody();
        over
    }

    /// How the job stands.
    #[must_use]
    pub fn counts(&self, id: JobId) -> Option<Counts> {
        let job = self.jobs.get(&id)?;
        let Tally { failures, losses, redispatched, stale } = job.tally;
        Some(Counts {
            pending: job.items.pending(),
            leased: job.items.leased,
            done: job.items.done,
            dead: job.items.dead,
            failures,
            losses,
            redispatched,
            stale,
            workers: self.capable.get(&job.plugin).copied().unwrap_or(0),
            paused: job.paused,
        })
    }

    /// What the job has been through.
    #[must_use]
    pub fn tally(&self, id: JobId) -> Option<Tally> {
        self.jobs.get(&id).map(|job| job.tally)
    }

    /// Counts what the epoch `epoch` of `worker` says has become of an item.
    ///
    /// # Errors
    /// The token that is not current; the outcome then counts for nothing.
    pub fn outcome(
        &mut self,
        now: Mono,
        id: WorkerId,
        epoch: u64,
        job_id: JobId,
        lease: Lease,
        what: What,
    ) -> Result<Accepted, Token> {
        let now = self.patient(now);
        let Some(job) = self.jobs.get_mut(&job_id) else { return Err(Token::Job) };
        let Some(worker) = self.workers.get_mut(&id).filter(|w| w.is_current(epoch)) else {
            job.tally.stale += 1;
            return Err(Token::Epoch);
        };
        worker.let_go(job_id, lease.item);
        let counted = match job.items.outcome(id, epoch, lease, what, &job.limits) {
            Ok(counted) => counted,
            Err(token) => {
                job.tally.stale += 1;
                return Err(token);
            }
        };
        if let Some(since) = counted.since {
            job.charge(job_id, worker, now.since(since));
            worker.unlease(job_id, lease.item);
        }
        job.tally.failures += u64::from(what == What::Failed);
        job.tally.losses += u64::from(what == What::Lost { alone: true });
        self.settle(job_id, id, matches!(counted.accepted, Accepted::Again(_)));
        Ok(counted.accepted)
    }

    /// After a lease of `worker` has ended: whether the job is over, and who may be granted more.
    fn settle(&mut self, job_id: JobId, worker: WorkerId, waits_again: bool) {
        if self.jobs.get(&job_id).is_some_and(|job| job.items.finished()) {
            self.active.remove(&job_id);
        }
        if waits_again {
            self.requeue_everybody();
        } else {
            self.requeue(worker);
        }
    }

    /// The items are alive.
    pub fn progress(&mut self, now: Mono, worker: WorkerId, epoch: u64, job: JobId, items: &[u64]) {
        if self.workers.get(&worker).is_none_or(|w| w.epoch != epoch) {
            return;
        }
        let now = self.patient(now);
        if let Some(job) = self.jobs.get_mut(&job) {
            for item in items {
                job.items.progress(now, worker, *item);
            }
        }
    }

    /// The worker gives leases back that are still its own.
    pub fn give_back(
        &mut self,
        id: WorkerId,
        epoch: u64,
        job_id: JobId,
        leases: &[Lease],
        out: &mut Vec<Effect>,
    ) {
        let (Some(worker), Some(job)) = (self.workers.get_mut(&id), self.jobs.get(&job_id)) else {
            return;
        };
        if worker.epoch != epoch {
            return;
        }
        leases.iter().for_each(|lease| worker.let_go(job_id, lease.item));
        let held = worker.leases.get(&job_id);
        let own = |lease: &&Lease| {
            held.is_some_and(|held| held.contains(&lease.item))
                && job.items.attempt(lease.item) == Some(lease.attempt)
        };
        let items: BTreeSet<u64> = leases.iter().filter(own).map(|lease| lease.item).collect();
        self.release(id, job_id, items, Cause::Returned, out);
    }

    /// The next instant at which [`expire`](Self::expire) may have something to do.
    #[must_use]
    pub fn next_wake(&self) -> Option<Mono> {
        self.wakes.peek().map(|Reverse((wake, _))| *wake)
    }

    /// Everything that the time until `now` has brought about.
    pub fn expire(&mut self, now: Mono, out: &mut Vec<Effect>) {
        while let Some(&Reverse((wake, id))) = self.wakes.peek() {
            if wake > now {
                break;
            }
            self.wakes.pop();
            match self.workers.get_mut(&id) {
                Some(worker) if worker.wake == Some(wake) => worker.wake = None,
                _ => continue,
            }
            self.expire_hold(now, id, out);
            self.expire_progress(now, id, out);
            self.rearm(id);
        }
    }

    /// Ends the leases of a worker on items that nothing was heard of for too long.
    fn expire_progress(&mut self, now: Mono, id: WorkerId, out: &mut Vec<Effect>) {
        let now = self.patient(now);
        let Some(worker) = self.workers.get(&id) else { return };
        let mut expired: Vec<(JobId, BTreeSet<u64>)> = Vec::new();
        for (job_id, items) in &worker.leases {
            let Some(job) = self.jobs.get(job_id) else { continue };
            let patience = job.patience();
            let late =
                |item: &&u64| job.items.since(**item).is_some_and(|since| now >= since + patience);
            let items: BTreeSet<u64> = items.iter().filter(late).copied().collect();
            if !items.is_empty() {
                expired.push((*job_id, items));
            }
        }
        for (job, items) in expired {
            self.release(id, job, items, Cause::NoProgress, out);
        }
    }

    /// Ends leases of a worker that have no outcome. Whether that was a crash, and so counts against
    /// the items, is for [`end_epoch`](Self::end_epoch) to say.
    fn release(
        &mut self,
        id: WorkerId,
        job_id: JobId,
        items: BTreeSet<u64>,
        cause: Cause,
        out: &mut Vec<Effect>,
    ) {
        let (Some(worker), Some(job)) = (self.workers.get_mut(&id), self.jobs.get_mut(&job_id))
        else {
            return;
        };
        let mut leases = Vec::with_capacity(items.len());
        for item in items {
            let Some(attempt) = job.items.attempt(item) else { continue };
            let before = job.items.trouble(item);
            let failed = cause == Cause::NoProgress;
            let Some(accepted) = job.items.release(item, failed, &job.limits) else { continue };
            worker.unlease(job_id, item);
            if cause == Cause::Suspected {
                worker.taken.entry(job_id).or_default().insert(item);
            }
            job.tally.failures += u64::from(failed);
            leases.push((item, attempt));
            out.extend(told((job_id, item), id, cause, before, accepted));
        }
        if !leases.is_empty() {
            // What was given back cost nothing, and what made no progress has failed.
            if !matches!(cause, Cause::Returned | Cause::NoProgress) {
                job.tally.redispatched += leases.len() as u64;
            }
            out.push(Effect::Released { job: job_id, worker: id, leases, cause });
            self.settle(job_id, id, true);
        }
    }

    /// Counts the crash of a worker against what was in its hands: if that was one item, it is the
    /// reason; if there were several, each is suspected, and is tried again in a way that will tell.
    fn blame(
        &mut self,
        id: WorkerId,
        in_hand: &BTreeMap<JobId, BTreeSet<u64>>,
        cause: Cause,
        only: bool,
        out: &mut Vec<Effect>,
    ) {
        for (&job_id, items) in in_hand {
            let Some(job) = self.jobs.get_mut(&job_id) else { continue };
            for &item in items {
                let before = job.items.trouble(item);
                let Some(accepted) = job.items.blame(item, only, &job.limits) else { continue };
                job.tally.losses += u64::from(only);
                out.extend(told((job_id, item), id, cause, before, accepted));
            }
            self.settle(job_id, id, true);
        }
    }
}

/// What is to be recorded of an item whose lease was over without an outcome.
fn told(
    (job, item): (JobId, u64),
    worker: WorkerId,
    cause: Cause,
    before: Option<Trouble>,
    accepted: Accepted,
) -> Option<Effect> {
    match accepted {
        Accepted::Dead(trouble) => Some(Effect::Dead { job, item, worker, cause, trouble }),
        Accepted::Again(trouble) if before != Some(trouble) => {
            Some(Effect::Troubled { job, item, trouble })
        }
        Accepted::Again(_) | Accepted::Done => None,
    }
}

impl Job {
    /// How long a lease may go without a sign of life.
    fn patience(&self) -> Duration {
        self.limits.progress_timeout + PROGRESS_GRACE
    }

    /// Charges the job with its part of the worker's time: of `k` leases that run together each
    /// has a `k`th of it.
    fn charge(&mut self, id: JobId, worker: &mut Worker, took: Duration) {
        let share = took / u32::try_from(worker.leased.max(1)).unwrap_or(u32::MAX);
        self.used += share;
        average(&mut self.cost, share);
        average(worker.pace.entry(id).or_default(), share);
    }
}

/// A moving average over about the last sixteen.
fn average(mean: &mut Duration, new: Duration) {
    *mean = if mean.is_zero() { new } else { *mean - *mean / 16 + new / 16 };
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod crash_tests;
