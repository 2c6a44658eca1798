//! What clients ask for.

use std::collections::hash_map::Entry;

use rollout_core::duration::as_ms;
use rollout_core::{JobId, JobSpec};
use rollout_transport::work::{JobStatus, Oldest, Standing, Submitted, WorkerStatus};
use tokio::sync::{oneshot, watch};

use super::{Engine, JobState};
use crate::work::handle::{Begun, Claim, Control, Input, View};
use crate::work::ledger::words::Tally;
use crate::work::store::{JobRecord, Next};
use crate::work::tx::After;

impl Engine {
    pub(super) fn take_request(&mut self, input: Input) {
        match input {
            Input::Begin(job, spec, reply) => self.begin(job, *spec, reply),
            Input::Create(claim, job, spec, reply) => {
                self.create(job, *spec, reply);
                drop(claim);
            }
            Input::Control(job, control, reply) => self.control(job, control, reply),
            Input::Watch(job, reply) => {
                let _ = reply.send(self.jobs.get(&job).map(|state| state.view.subscribe()));
            }
            Input::Status(reply) => {
                let _ = reply.send((self.worker_statuses(), self.job_statuses()));
            }
            // Taken before.
            Input::Hello(..) | Input::Up(..) | Input::Closed(..) | Input::Stop => {}
        }
    }

    fn begin(&mut self, job: JobId, spec: JobSpec, reply: oneshot::Sender<Begun>) {
        let Some(state) = self.jobs.get_mut(&job) else {
            self.coming.retain(|_, claim| claim.strong_count() > 0);
            let begun = match self.coming.entry(job) {
                Entry::Occupied(_) => {
                    let detail = format!("job {job} is being submitted by somebody else");
                    Begun::Answer(Submitted::Invalid { detail })
                }
                Entry::Vacant(free) => {
                    let (claim, seen) = Claim::new();
                    free.insert(seen);
                    Begun::New(claim)
                }
            };
            // Once a removal of the same id is on disk: it would take the parameters along.
            return self.reply(reply, begun);
        };
        let differences = state.record.spec.differences(&spec);
        if !differences.is_empty() {
            let differences = differences.into_iter().map(str::to_owned).collect();
            let _ = reply.send(Begun::Answer(Submitted::Changed { differences }));
            return;
        }
        if state.record.spec.limits != spec.limits {
            self.tx.after.push(After::Limits(job));
        }
        state.record = JobRecord { spec: spec.clone(), paused: false };
        self.tx.rows.jobs.push((job, state.record.clone()));
        self.ledger.set_limits(job, spec.limits);
        self.ledger.pause(job, false);
        let standing = self.standing(job);
        self.reply(reply, Begun::Answer(Submitted::Accepted { resumed: true, standing }));
    }

    fn create(&mut self, job: JobId, spec: JobSpec, reply: oneshot::Sender<Submitted>) {
        self.ledger.add_job(job, &spec);
        let record = JobRecord { spec, paused: false };
        self.tx.rows.jobs.push((job, record.clone()));
        let view = watch::Sender::new(View::default());
        let (next, tally) = (Next::default(), Tally::default());
        let state = JobState { record, next, durable: 0, tally, view };
        self.jobs.insert(job, state);
        self.tell_standings();
        let standing = self.standing(job);
        self.reply(reply, Submitted::Accepted { resumed: false, standing });
    }

    fn control(&mut self, job: JobId, control: Control, reply: oneshot::Sender<Option<Standing>>) {
        let Some(state) = self.jobs.get_mut(&job) else {
            let _ = reply.send(None);
            return;
        };
        if control == Control::Cancel {
            return self.cancel(job, reply);
        }
        let paused = control == Control::Pause;
        state.record.paused = paused;
        self.tx.rows.jobs.push((job, state.record.clone()));
        self.ledger.pause(job, paused);
        let standing = self.standing(job);
        self.reply(reply, Some(standing));
    }

    fn cancel(&mut self, job: JobId, reply: oneshot::Sender<Option<Standing>>) {
        let standing = self.standing(job);
        for (worker, leases) in self.ledger.remove_job(job) {
            self.tx.after.push(After::Revoke { worker, job, leases });
        }
        if let Some(state) = self.jobs.remove(&job) {
            state.view.send_modify(|view| view.removed = true);
        }
        self.params.remove(job);
        for stream in self.streams.values_mut() {
            stream.told.remove(&job);
        }
        self.tx.remove(job);
        // Its large results stay until the next start: a commit of another job that refers to one
        // of them may be on its way.
        self.reply(reply, Some(standing));
    }

    /// Answers once what was gathered is on disk.
    fn reply<T: Send + 'static>(&mut self, to: oneshot::Sender<T>, answer: T) {
        self.tx.after.push(After::Reply(Box::new(move || {
            // A caller that has gone needs no answer.
            let _ = to.send(answer);
        })));
    }

    /// How the job stands, its commits as far as they are on disk.
    pub(super) fn standing(&self, job: JobId) -> Standing {
        let counts = self.ledger.counts(job).unwrap_or_default();
        Standing {
            pending: counts.pending,
            leased: counts.leased,
            done: counts.done,
            dead: counts.dead,
            failures: counts.failures,
            losses: counts.losses,
            redispatched: counts.redispatched,
            stale: counts.stale,
            workers: counts.workers,
            paused: counts.paused,
            seq: self.jobs.get(&job).map_or(0, |state| state.durable),
        }
    }

    /// Tells followers how their jobs stand, where that has changed.
    pub(super) fn tell_standings(&mut self) {
        self.told = self.looked;
        for (job, state) in &self.jobs {
            let standing = self.standing(*job);
            let written = state.durable == state.next.seq && !self.tx.ends_some(*job);
            let finished = written && standing.pending == 0 && standing.leased == 0;
            let view = View { standing, finished, removed: false };
            state.view.send_if_modified(|current| {
                let changed = *current != view;
                *current = view;
                changed
            });
        }
    }

    fn worker_statuses(&self) -> Vec<WorkerStatus> {
        let now = self.looked.before(self.stalled);
        let of = |(worker_id, epoch, standing): (_, _, crate::work::ledger::words::Standing)| {
            let beat = self.board.last_beat(worker_id).unwrap_or(self.looked);
            WorkerStatus {
                worker_id,
                epoch,
                state: standing.word().to_owned(),
                last_beat_ms: as_ms(self.looked.since(beat)),
                plugins: self.ledger.plugins(worker_id).map(str::to_owned).collect(),
                leased: self.ledger.leased(worker_id),
                oldest: self.ledger.oldest(worker_id).map(|oldest| Oldest {
                    job: oldest.job,
                    item: oldest.item,
                    since_ms: as_ms(now.since(oldest.since)),
                }),
            }
        };
        self.ledger.fleet().map(of).collect()
    }

    fn job_statuses(&self) -> Vec<JobStatus> {
        let of = |(job, state): (&JobId, &JobState)| JobStatus {
            job: *job,
            spec: state.record.spec.clone(),
            standing: self.standing(*job),
        };
        self.jobs.iter().map(of).collect()
    }
}
