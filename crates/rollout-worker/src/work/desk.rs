//! The worker's desk: the leases that it holds, which of them go into the next call, and what is to be
//! said of them.
//!
//! Pure: no clock, no I/O, no runtime. What the coordinator and the plugins say goes in, calls to begin
//! and lines to send come out. An item is held by its number and its attempt; whatever refers to
//! another attempt is about a lease that is over, and is passed over.

mod calls;
mod lines;
mod queue;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rollout_core::job::JobLimits;
use rollout_core::{JobId, Mono};
use rollout_transport::work::{Blob, End, Lease, Outcome};
use serde_json::value::RawValue;

use self::calls::Call;
use self::queue::Queue;
use super::outbox::Outbox;
use super::pace::{self, Pace};

/// What waits for the coordinator to be taken in; with more, no call is begun.
const MAX_UNSENT: usize = 16 << 20;

/// A plugin, as far as the desk is concerned.
#[derive(Debug, Clone)]
pub(super) struct Bench {
    pub(super) name: String,
    /// How many calls it works on at the same time.
    pub(super) places: usize,
}

/// A call to be begun.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) call: u64,
    /// The plugin, by its place.
    pub(super) plugin: usize,
    pub(super) method: Arc<str>,
    /// The parameters of its items, as the plugin is given them.
    pub(super) params: Vec<Box<RawValue>>,
    /// How long it may take.
    pub(super) timeout: Duration,
}

/// A result that is to be uploaded.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) job: JobId,
    pub(super) lease: Lease,
    pub(super) result: Box<RawValue>,
}

/// A job of which something was granted.
#[derive(Debug)]
struct Job {
    plugin: usize,
    method: Arc<str>,
    seed: u64,
    limits: JobLimits,
    held: HashMap<u64, Held>,
    pace: Pace,
    /// When it was last said that its items are not stuck.
    told: Mono,
}

/// A lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    attempt: u32,
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Queued,
    /// In this call.
    Running(u64),
    /// It has its outcome, which is not acknowledged.
    Ended,
}

/// An item that waits for its turn, or is run.
#[derive(Debug)]
struct Entry {
    job: JobId,
    lease: Lease,
    params: Option<Box<RawValue>>,
    /// Whether it is to be the only item of its call, because one that it was in went wrong.
    single: bool,
    /// Whether nothing else may be in the plugin's hands.
    alone: bool,
}

/// A plugin's place.
#[derive(Debug)]
struct Place {
    bench: Bench,
    queue: Queue,
    /// Calls under way.
    running: usize,
    /// Whether the one under way has the plugin to itself.
    alone: bool,
    /// Whether it may still be at work on a call that was given up, or is being started again.
    settling: bool,
    /// Not to be called before.
    retry: Mono,
    /// The last pause, while it cannot be called.
    pause: Duration,
    /// Whether it has said that it cannot be called for a while.
    down: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Desk {
    cores: usize,
    places: Vec<Place>,
    jobs: BTreeMap<JobId, Job>,
    calls: BTreeMap<u64, Call>,
    next_call: u64,
    outbox: Outbox,
    large: VecDeque<Large>,
    large_bytes: usize,
    returns: BTreeMap<JobId, Vec<Lease>>,
    /// What the coordinator may still grant on this stream.
    credit: u64,
    /// Nothing is begun or said.
    fenced: bool,
    /// Nothing is taken any more, and nothing begun.
    leaving: bool,
    /// Calls that are to be given up.
    cut: Vec<u64>,
}

impl Desk {
    pub(super) fn new(benches: Vec<Bench>, cores: usize) -> Self {
        Self {
            cores,
            places: benches.into_iter().map(Place::new).collect(),
            jobs: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 1,
            outbox: Outbox::default(),
            large: VecDeque::new(),
            large_bytes: 0,
            returns: BTreeMap::new(),
            credit: 0,
            fenced: false,
            leaving: false,
            cut: Vec::new(),
        }
    }

    /// The worker has another epoch, or none: all that it had is over.
    pub(super) fn epoch(&mut self) {
        let calls: Vec<u64> = self.calls.keys().copied().collect();
        for call in calls {
            self.cut(call);
        }
        for place in &mut self.places {
            place.queue = Queue::default();
        }
        self.jobs.clear();
        self.outbox = Outbox::default();
        self.large.clear();
        self.large_bytes = 0;
        self.returns.clear();
        self.credit = 0;
    }

    pub(super) fn fence(&mut self, fenced: bool) {
        self.fenced = fenced;
    }

    /// A new stream of the same epoch: what is held will be said again, and so are outcomes.
    pub(super) fn stream(&mut self, now: Mono) {
        self.credit = 0;
        self.outbox.stream();
        // What was given back and not heard of is granted again.
        self.returns.clear();
        self.jobs.retain(|_, job| !job.held.is_empty());
        for job in self.jobs.values_mut() {
            // The first line says how all of them are.
            job.told = now.before(lines::pace(&job.limits));
        }
    }

    /// Nothing more is taken or begun: what has not been begun is given back.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
        for place in 0..self.places.len() {
            self.give_back_queue(place);
        }
    }

    /// What runs is given up and given back, too.
    pub(super) fn abandon(&mut self) {
        self.leave();
        let calls: Vec<u64> = self.calls.keys().copied().collect();
        for call in calls {
            for entry in self.cut(call) {
                self.give_back(entry.job, entry.lease);
            }
        }
    }

    /// Whether there is nothing left to run, to send or to wait for.
    pub(super) fn is_clear(&self) -> bool {
        self.calls.is_empty()
            && self.outbox.is_empty()
            && self.returns.is_empty()
            && self.jobs.values().all(|job| job.held.is_empty())
    }

    /// The calls that are to be given up now.
    pub(super) fn take_cut(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.cut)
    }

    /// The plugins that may still be at work on calls that were given up or are not there, and how many calls they
    /// have beside those.
    pub(super) fn settling(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let places = self.places.iter().enumerate();
        places.filter(|(_, place)| place.settling).map(|(at, place)| (at, place.running))
    }

    /// The plugin is there, and at work on no call that was given up.
    pub(super) fn settled(&mut self, plugin: usize, places: usize) {
        if let Some(place) = self.places.get_mut(plugin) {
            place.settling = false;
            place.bench.places = places.max(1);
        }
    }

    /// The next result to upload.
    pub(super) fn next_large(&mut self) -> Option<Large> {
        if self.fenced {
            return None;
        }
        self.large.pop_front()
    }

    /// The upload came to nothing; it is tried again.
    pub(super) fn not_uploaded(&mut self, large: Large) {
        if self.is_held(large.job, large.lease) {
            self.large.push_front(large);
        } else {
            self.large_bytes = self.large_bytes.saturating_sub(large.result.get().len());
        }
    }

    /// A large result is where it belongs, or can't be.
    pub(super) fn uploaded(&mut self, job: JobId, lease: Lease, bytes: usize, end: End) {
        self.large_bytes = self.large_bytes.saturating_sub(bytes);
        if self.is_held(job, lease) {
            self.outbox.push(job, Outcome { lease, end });
        }
    }

    /// The large result's outcome, for [`uploaded`](Self::uploaded).
    pub(super) const fn blob(sha256: String, bytes: usize) -> End {
        End::Blob(Blob { sha256, bytes: bytes as u64 })
    }

    fn is_held(&self, job: JobId, lease: Lease) -> bool {
        let held = self.jobs.get(&job).and_then(|job| job.held.get(&lease.item));
        held.is_some_and(|held| held.attempt == lease.attempt)
    }

    fn is_queued(&self, entry: &Entry) -> bool {
        let held = self.jobs.get(&entry.job).and_then(|job| job.held.get(&entry.lease.item));
        held == Some(&Held { attempt: entry.lease.attempt, at: At::Queued })
    }

    /// A lease goes back to the coordinator.
    fn give_back(&mut self, job_id: JobId, lease: Lease) {
        let Some(job) = self.jobs.get_mut(&job_id) else { return };
        let held = job.held.get(&lease.item);
        if held.is_some_and(|held| held.attempt == lease.attempt && held.at != At::Ended) {
            job.held.remove(&lease.item);
            self.returns.entry(job_id).or_default().push(lease);
        }
    }

    fn give_back_queue(&mut self, place: usize) {
        let Some(place) = self.places.get_mut(place) else { return };
        for entry in std::mem::take(&mut place.queue).into_entries() {
            if self.is_queued(&entry) {
                self.give_back(entry.job, entry.lease);
            }
        }
    }

    /// How many items the worker wants to hold in all.
    fn target(&self) -> usize {
        let of = |(at, place): (usize, &Place)| {
            if place.down {
                return 0;
            }
            let jobs = self.jobs.values().filter(|job| job.plugin == at && !job.held.is_empty());
            let target = jobs.map(|job| job.pace.target(place.bench.places, self.cores)).max();
            target.unwrap_or_else(|| pace::floor(place.bench.places))
        };
        self.places.iter().enumerate().map(of).sum()
    }

    fn held(&self) -> usize {
        self.jobs.values().map(|job| job.held.len()).sum()
    }

    fn unsent(&self) -> usize {
        self.outbox.bytes() + self.large_bytes
    }
}

impl Place {
    fn new(bench: Bench) -> Self {
        Self {
            bench,
            queue: Queue::default(),
            running: 0,
            alone: false,
            settling: false,
            retry: Mono::default(),
            pause: Duration::ZERO,
            down: false,
        }
    }
}

#[cfg(test)]
mod tests;
