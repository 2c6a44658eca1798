//! What the coordinator says, and what is said to it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::time::Duration;

use rollout_core::job::{JobLimits, MAX_BATCH};
use rollout_core::{JobId, Mono};
use rollout_transport::work::{Lease, WorkDown, WorkUp};
use serde_json::value::RawValue;

use super::{At, Desk, Entry, Held, Job};
use crate::work::pace::Pace;

/// Items of one line of progress or of leases given back; the coordinator takes no more.
const MAX_ITEMS: usize = 100_000;

/// How often it is said that items are not stuck: several times within the time after which the
/// coordinator takes them to be.
pub(super) fn pace(limits: &JobLimits) -> Duration {
    limits.progress_timeout / 4
}

/// Leases, as the coordinator words them.
struct Granted {
    attempt: u32,
    first: u64,
    count: u32,
    alone: bool,
    params: Option<Vec<Box<RawValue>>>,
}

impl Desk {
    /// Takes in what the coordinator says of jobs and leases.
    ///
    /// # Errors
    /// What is wrong with it; the stream is of no use then.
    pub(in crate::work) fn heard(&mut self, now: Mono, line: WorkDown) -> Result<(), String> {
        match line {
            WorkDown::Job { job, plugin, method, seed, limits } => {
                let is = |place: &super::Place| place.bench.name == plugin;
                let Some(plugin) = self.places.iter().position(is) else {
                    return Err(format!("a job for a plugin that is not here: {plugin:?}"));
                };
                match self.jobs.get_mut(&job) {
                    Some(known) => known.limits = limits,
                    None => drop(self.jobs.insert(
                        job,
                        Job {
                            plugin,
                            method: method.into(),
                            seed,
                            limits,
                            held: Default::default(),
                            pace: Pace::default(),
                            told: now,
                        },
                    )),
                }
                Ok(())
            }
            WorkDown::Grant { job, attempt, first, count, alone, params } => {
                self.granted(job, Granted { attempt, first, count, alone, params })
            }
            WorkDown::Ack { seq, .. } => {
                for (job, outcomes) in self.outbox.acknowledged(seq) {
                    let Some(job) = self.jobs.get_mut(&job) else { continue };
                    for outcome in outcomes {
                        let Lease { item, attempt } = outcome.lease;
                        let ended = Held { attempt, at: At::Ended };
                        if job.held.get(&item) == Some(&ended) {
                            job.held.remove(&item);
                        }
                    }
                    if job.held.is_empty() {
                        // A map keeps its room; of jobs that are done there are more and more.
                        job.held = HashMap::new();
                    }
                }
                Ok(())
            }
            WorkDown::Revoke { job, leases } => {
                leases.into_iter().for_each(|lease| self.revoked(job, lease));
                Ok(())
            }
            WorkDown::Refused { .. } | WorkDown::Stopping => Ok(()),
        }
    }

    fn granted(&mut self, job_id: JobId, granted: Granted) -> Result<(), String> {
        let Granted { attempt, first, count, alone, params } = granted;
        let Some(job) = self.jobs.get_mut(&job_id) else {
            return Err(format!("a grant of job {job_id}, of which nothing was said"));
        };
        let fits = params.as_ref().is_none_or(|params| params.len() == count as usize);
        if count > MAX_BATCH || !fits {
            return Err(format!("a grant of {count} items of job {job_id} that does not add up"));
        }
        let mut params = params.map(Vec::into_iter);
        let (mut over, mut new) = (Vec::new(), 0);
        for item in (first..).take(count as usize) {
            let params = params.as_mut().and_then(Iterator::next);
            let held = Held { attempt, at: At::Queued };
            match job.held.entry(item) {
                Slot::Occupied(known) if known.get().attempt >= attempt => continue,
                Slot::Occupied(mut known) => {
                    if let At::Running(call) = known.insert(held).at {
                        over.push((call, item));
                    }
                }
                Slot::Vacant(free) => drop(free.insert(held)),
            }
            new += 1;
            let lease = Lease { item, attempt };
            let entry = Entry { job: job_id, lease, params, single: false, alone };
            if let Some(place) = self.places.get_mut(job.plugin) {
                place.queue.push(entry);
            }
        }
        let plugin = job.plugin;
        self.credit = self.credit.saturating_sub(new);
        for (call, item) in over {
            self.over(call, item);
        }
        if self.leaving {
            self.give_back_queue(plugin);
        }
        Ok(())
    }

    fn revoked(&mut self, job: JobId, lease: Lease) {
        let Some(job) = self.jobs.get_mut(&job) else { return };
        let held = job.held.get(&lease.item);
        match held.filter(|held| held.attempt == lease.attempt).map(|held| held.at) {
            // It is acknowledged, if as stale.
            Some(At::Ended) | None => {}
            Some(At::Queued) => drop(job.held.remove(&lease.item)),
            Some(At::Running(call)) => {
                job.held.remove(&lease.item);
                self.over(call, lease.item);
            }
        }
    }

    /// The next line to send.
    pub(in crate::work) fn next_line(&mut self, now: Mono) -> Option<WorkUp> {
        if self.fenced {
            return None;
        }
        if let Some((job, mut leases)) = self.returns.pop_first() {
            if leases.len() > MAX_ITEMS {
                self.returns.insert(job, leases.split_off(MAX_ITEMS));
            }
            return Some(WorkUp::Return { job, leases });
        }
        let last = self.calls.is_empty();
        self.outbox.line(now, last).or_else(|| self.signs(now)).or_else(|| self.want())
    }

    /// The items of a job that are not stuck, when it is time to say so: all but those in calls of
    /// which nothing was heard since the last time.
    fn signs(&mut self, now: Mono) -> Option<WorkUp> {
        let due = |job: &Job| !job.held.is_empty() && now >= job.told + pace(&job.limits);
        let (id, job) = self.jobs.iter_mut().find(|(_, job)| due(job))?;
        job.told = now;
        let calls = &self.calls;
        let moves = |held: &Held| match held.at {
            At::Queued | At::Ended => true,
            At::Running(call) => calls.get(&call).is_some_and(|call| call.signed),
        };
        let moving = job.held.iter().filter(|(_, held)| moves(held)).map(|(item, _)| *item);
        let items: Vec<u64> = moving.take(MAX_ITEMS).collect();
        let job = *id;
        self.calls.values_mut().filter(|call| call.job == job).for_each(|call| call.signed = false);
        if items.is_empty() { self.signs(now) } else { Some(WorkUp::Progress { job, items }) }
    }

    /// More items, once a good part of what is to be held is missing.
    fn want(&mut self) -> Option<WorkUp> {
        if self.leaving || self.unsent() >= super::MAX_UNSENT {
            return None;
        }
        let target = self.target();
        let has = self.held().saturating_add(usize::try_from(self.credit).unwrap_or(usize::MAX));
        let missing = target.saturating_sub(has);
        if missing == 0 || missing < target / 4 {
            return None;
        }
        self.credit += missing as u64;
        Some(WorkUp::Want { items: u32::try_from(missing).unwrap_or(u32::MAX) })
    }

    /// When there is something to do that there is not now; `speaks` says whether lines can be sent.
    pub(in crate::work) fn wake(&self, now: Mono, speaks: bool) -> Option<Mono> {
        let says = speaks && !self.fenced;
        let due = self.jobs.values().filter(|job| says && !job.held.is_empty());
        let due = due.map(|job| job.told + pace(&job.limits)).min();
        let gathered = self.outbox.due().filter(|_| says);
        self.calls_wake(now).into_iter().chain(due).chain(gathered).min()
    }
}
