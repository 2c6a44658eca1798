//! The calls: which items go into the next one, what came of them, and which takes too long.
//!
//! Who is to blame when a call makes no progress, runs out of time or fails as a whole? A plugin says
//! of a call that it is not stuck, and gives each item's answer; which of the others it is at work on
//! it does not say, and it may take them in any order or at once. So an item is blamed only if it is
//! the last of its call without an answer. Of several none is: each is run again in a call of its own,
//! where it is seen which of them it was. That costs time and never an innocent item's attempt.

use std::time::Duration;

use rollout_core::job::{MAX_INLINE_RESULT, item_seed};
use rollout_core::{JobId, Mono};
use rollout_transport::work::{End, Failure, Outcome};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{At, Desk, Entry, Held, Large, MAX_UNSENT, Plan};
use crate::work::verdict::{self, Answer, CallEnd};

/// The parameters of one call's items together, in bytes, about.
const MAX_PARAMS: usize = 1 << 20;
/// The first and the longest pause before a plugin that cannot be called, and does not say for how
/// long, is tried again.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// A call under way.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) job: JobId,
    plugin: usize,
    /// Its items, as long as they have no answer.
    entries: Vec<Option<Entry>>,
    open: usize,
    begun: Mono,
    /// The last sign that the plugin is not stuck.
    sign: Mono,
    /// Whether there was one since it was last said.
    pub(super) signed: bool,
    /// Whether another was in the plugin's hands when something crashed.
    shared: bool,
}

/// What a plugin is given for an item.
#[derive(Serialize)]
struct Params<'a> {
    item: u64,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a RawValue>,
}

impl Desk {
    /// The next call to begin, if one can be.
    pub(in crate::work) fn next_call(&mut self, now: Mono) -> Option<Plan> {
        if self.fenced || self.leaving || self.unsent() >= MAX_UNSENT {
            return None;
        }
        (0..self.places.len()).find_map(|plugin| self.call_of(now, plugin))
    }

    fn call_of(&mut self, now: Mono, plugin: usize) -> Option<Plan> {
        let place = self.places.get(plugin)?;
        if place.settling || place.alone || now < place.retry {
            return None;
        }
        self.drop_stale(plugin);
        let place = self.places.get_mut(plugin)?;
        place.down = false;
        let first = place.queue.first()?;
        let (job_id, alone, single) = (first.job, first.alone, first.single);
        let job = self.jobs.get(&job_id)?;
        let most = job.pace.calls(place.bench.places, self.cores);
        if place.running >= if alone { 1 } else { most } {
            return None;
        }
        let free = most - place.running;
        let size = match alone || single {
            true => 1,
            false => job.pace.size(place.queue.len(), free, job.limits.batch),
        };
        Some(self.begin(now, plugin, job_id, size, alone))
    }

    /// Takes what is over from the head of a queue.
    fn drop_stale(&mut self, plugin: usize) {
        loop {
            let Some(first) = self.places.get(plugin).and_then(|place| place.queue.first()) else {
                return;
            };
            if self.is_queued(first) {
                return;
            }
            if let Some(place) = self.places.get_mut(plugin) {
                place.queue.pop();
            }
        }
    }

    fn begin(&mut self, now: Mono, plugin: usize, job_id: JobId, size: usize, alone: bool) -> Plan {
        let id = self.next_call;
        self.next_call += 1;
        let (mut entries, mut params, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut method = "".into();
        let mut timeout = Duration::ZERO;
        while entries.len() < size {
            self.drop_stale(plugin);
            let (Some(place), Some(job)) =
                (self.places.get_mut(plugin), self.jobs.get_mut(&job_id))
            else {
                break;
            };
            let fits = |next: &&Entry| {
                let kind = next.job == job_id && next.alone == alone;
                let more = params.is_empty() || (!next.single && bytes < MAX_PARAMS);
                kind && more
            };
            if place.queue.first().filter(fits).is_none() {
                break;
            }
            let Some(entry) = place.queue.pop() else { break };
            let raw = to_params(job.seed, &entry);
            bytes += raw.get().len();
            params.push(raw);
            let held = Held { attempt: entry.lease.attempt, at: At::Running(id) };
            job.held.insert(entry.lease.item, held);
            entries.push(Some(entry));
            method = std::sync::Arc::clone(&job.method);
            timeout = job.limits.item_timeout;
        }
        if let Some(place) = self.places.get_mut(plugin) {
            place.running += 1;
            place.alone = alone;
        }
        let open = entries.len();
        let (begun, sign, signed, shared) = (now, now, true, false);
        let call = Call { job: job_id, plugin, entries, open, begun, sign, signed, shared };
        self.calls.insert(id, call);
        Plan { call: id, plugin, method, params, timeout }
    }

    /// The plugin says that it is not stuck in a call.
    pub(in crate::work) fn progress(&mut self, now: Mono, call: u64) {
        if let Some(call) = self.calls.get_mut(&call) {
            call.sign = now;
            call.signed = true;
        }
    }

    /// An item of a call has its answer.
    pub(in crate::work) fn answered(&mut self, now: Mono, id: u64, n: usize, answer: Answer) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(entry) = call.entries.get_mut(n).and_then(Option::take) else { return };
        call.open -= 1;
        call.sign = now;
        call.signed = true;
        let plugin = call.plugin;
        match answer {
            Answer::Result(result) => self.result(id, &entry, result),
            Answer::Failed(failure) => self.outcome(id, &entry, End::Failed(failure)),
            Answer::NotRun => {
                self.again(id, entry, false);
                self.pause(now, plugin, None);
            }
        }
    }

    /// A call has ended. If its plugin cannot be called any more, and says so first now: its name, and
    /// for how long.
    pub(in crate::work) fn ended(
        &mut self,
        now: Mono,
        id: u64,
        end: CallEnd,
    ) -> Option<(&str, Duration)> {
        let call = self.remove(id)?;
        let took = now.since(call.begun);
        let items = call.entries.len();
        let left: Vec<Entry> = call.entries.into_iter().flatten().collect();
        match end {
            CallEnd::Answered => {
                if let Some(job) = self.jobs.get_mut(&call.job) {
                    job.pace.measure(items, took);
                }
                if let Some(place) = self.places.get_mut(call.plugin) {
                    place.pause = Duration::ZERO;
                }
            }
            CallEnd::Suspect(failure) => self.suspect(id, left, failure),
            CallEnd::Hopeless(failure) => {
                for entry in left {
                    self.outcome(id, &entry, End::Failed(failure.clone()));
                }
            }
            CallEnd::Crashed(failure) => {
                let mut others = false;
                for call in self.calls.values_mut().filter(|other| other.plugin == call.plugin) {
                    call.shared = true;
                    others |= call.open > 0;
                }
                let alone = left.len() == 1 && !others && !call.shared;
                for entry in left {
                    let failure = failure.clone();
                    self.outcome(id, &entry, End::Lost { failure, alone });
                }
            }
            CallEnd::Killed => {
                left.into_iter().rev().for_each(|entry| self.again(id, entry, false))
            }
            CallEnd::NotRun(wait) => {
                left.into_iter().rev().for_each(|entry| self.again(id, entry, false));
                return self.pause(now, call.plugin, wait);
            }
        }
        None
    }

    /// Blames the one item that is left, or finds out which of several it was.
    fn suspect(&mut self, id: u64, left: Vec<Entry>, failure: Failure) {
        match <[Entry; 1]>::try_from(left) {
            Ok([entry]) => self.outcome(id, &entry, End::Failed(failure)),
            Err(several) => several.into_iter().rev().for_each(|entry| self.again(id, entry, true)),
        }
    }

    /// The plugin is being started again. Nothing is begun until it has [settled](Self::settled), and
    /// a call that is still under way waits to be sent: its time has not begun.
    pub(in crate::work) fn restarting(&mut self, now: Mono, plugin: usize) {
        if let Some(place) = self.places.get_mut(plugin) {
            place.settling = true;
        }
        for call in self.calls.values_mut().filter(|call| call.plugin == plugin) {
            (call.begun, call.sign, call.signed) = (now, now, true);
        }
    }

    /// The worker itself stood still for so long: what it would have heard of its calls waits to be
    /// heard, and their time stood still with it.
    pub(in crate::work) fn stalled(&mut self, now: Mono, stall: Duration) {
        for call in self.calls.values_mut() {
            call.begun = now.min(call.begun + stall);
            call.sign = now.min(call.sign + stall);
        }
    }

    /// Ends the calls that have gone on too long.
    pub(in crate::work) fn expire(&mut self, now: Mono) {
        let late = |(id, call): (&u64, &Call)| {
            let job = self.jobs.get(&call.job)?;
            let [progress, item] = call.limits(&job.limits);
            let failure = if now >= progress {
                let limit = job.limits.progress_timeout;
                let what = "the plugin showed no progress with it";
                verdict::overdue("no_progress", what, limit, call.sign, now)
            } else if now >= item {
                let limit = job.limits.item_timeout;
                verdict::overdue("item_timeout", "it was not done in time", limit, call.begun, now)
            } else {
                return None;
            };
            Some((*id, failure))
        };
        let late: Vec<(u64, Failure)> = self.calls.iter().filter_map(late).collect();
        for (id, failure) in late {
            let left = self.cut(id);
            self.suspect(id, left, failure);
        }
    }

    /// When [`expire`](Self::expire) or [`next_call`](Self::next_call) may have something to do that
    /// they have not now.
    pub(super) fn calls_wake(&self, now: Mono) -> Option<Mono> {
        let limits = self.calls.values().filter_map(|call| {
            let [progress, item] = call.limits(&self.jobs.get(&call.job)?.limits);
            Some(progress.min(item))
        });
        let waits = self.places.iter().filter(|place| place.retry > now);
        limits.chain(waits.map(|place| place.retry)).min()
    }

    /// Gives a call up; its items that had no answer.
    pub(super) fn cut(&mut self, id: u64) -> Vec<Entry> {
        let Some(call) = self.remove(id) else { return Vec::new() };
        self.cut.push(id);
        if let Some(place) = self.places.get_mut(call.plugin) {
            place.settling = true;
        }
        call.entries.into_iter().flatten().collect()
    }

    /// The lease is over: whatever comes of it counts for nothing. A call all of whose items are
    /// over is given up.
    pub(super) fn over(&mut self, id: u64, item: u64) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let is = |entry: &&mut Option<Entry>| {
            entry.as_ref().is_some_and(|entry| entry.lease.item == item)
        };
        if call.entries.iter_mut().find(is).and_then(Option::take).is_some() {
            call.open -= 1;
            if call.open == 0 {
                self.cut(id);
            }
        }
    }

    fn remove(&mut self, id: u64) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        if let Some(place) = self.places.get_mut(call.plugin) {
            place.running -= 1;
            place.alone = false;
        }
        Some(call)
    }

    fn result(&mut self, id: u64, entry: &Entry, result: Box<RawValue>) {
        let bytes = result.get().len();
        if bytes <= MAX_INLINE_RESULT {
            self.outcome(id, entry, End::Result(result));
        } else if self.end_lease(id, entry) {
            self.large_bytes += bytes;
            self.large.push_back(Large { job: entry.job, lease: entry.lease, result });
        }
    }

    fn outcome(&mut self, id: u64, entry: &Entry, end: End) {
        if self.end_lease(id, entry) {
            self.outbox.push(entry.job, Outcome { lease: entry.lease, end });
        }
    }

    /// Whether the lease is still held, and was run in this call.
    fn end_lease(&mut self, id: u64, entry: &Entry) -> bool {
        let held =
            self.jobs.get_mut(&entry.job).and_then(|job| job.held.get_mut(&entry.lease.item));
        match held {
            Some(held) if held.attempt == entry.lease.attempt && held.at == At::Running(id) => {
                held.at = At::Ended;
                true
            }
            _ => false,
        }
    }

    /// The item is run again, if it is still held; given back if nothing is begun any more.
    fn again(&mut self, id: u64, mut entry: Entry, single: bool) {
        let Some(job) = self.jobs.get_mut(&entry.job) else { return };
        let plugin = job.plugin;
        match job.held.get_mut(&entry.lease.item) {
            Some(held) if held.attempt == entry.lease.attempt && held.at == At::Running(id) => {
                held.at = At::Queued;
            }
            _ => return,
        }
        if self.leaving {
            return self.give_back(entry.job, entry.lease);
        }
        entry.single |= single;
        if let Some(place) = self.places.get_mut(plugin) {
            place.queue.put_back(entry);
        }
    }

    /// The plugin cannot be called now. If it says for how long, others may have its items all that
    /// time. What is new of it, for [`ended`](Self::ended).
    fn pause(
        &mut self,
        now: Mono,
        plugin: usize,
        wait: Option<Duration>,
    ) -> Option<(&str, Duration)> {
        let place = self.places.get_mut(plugin)?;
        let [first, longest] = PAUSES;
        place.pause = (place.pause * 2).clamp(first, longest);
        place.retry = now + wait.map_or(place.pause, |wait| wait.max(place.pause));
        let wait = wait.filter(|wait| !wait.is_zero())?;
        let new = !std::mem::replace(&mut place.down, true);
        self.give_back_queue(plugin);
        let place = self.places.get(plugin).filter(|_| new)?;
        Some((&place.bench.name, wait))
    }
}

impl Call {
    /// When it has gone on too long: without a sign, and in all.
    fn limits(&self, limits: &rollout_core::job::JobLimits) -> [Mono; 2] {
        [self.sign + limits.progress_timeout, self.begun + limits.item_timeout]
    }
}

fn to_params(seed: u64, entry: &Entry) -> Box<RawValue> {
    let item = entry.lease.item;
    let params = Params { item, seed: item_seed(seed, item), params: entry.params.as_deref() };
    // A struct of numbers and JSON always is JSON.
    to_raw_value(&params).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
