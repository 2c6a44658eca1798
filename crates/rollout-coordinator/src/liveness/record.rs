//! What is known of a worker, and when it has to be looked at.

use std::time::Duration;

use rollout_core::{Incarnation, Mono, TimeBudget};

use super::words::State;

/// How long a worker that failed or left is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// No instant at all.
pub(super) const NEVER: Mono = Mono(u64::MAX);

/// What this coordinator has heard of a worker's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contact {
    /// Its registration is not on disk and so not answered: it does not beat yet, and no deadline
    /// runs.
    Unanswered,
    /// Its registration is answered, and its first beat awaited.
    Answered,
    /// It is known from before the coordinator's start, which cut its connection.
    Restored,
    /// It has beaten.
    Heard,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Worker {
    pub(super) incarnation: Incarnation,
    pub(super) epoch: u64,
    /// The last accepted beat, or the answer to the registration, or the coordinator's start; the
    /// end, for one that failed or left.
    pub(super) beat: Mono,
    /// The total credit at `beat`, in nanoseconds: what came later is added to the deadline.
    pub(super) credit: u64,
    /// The instant of its one valid entry in the heap, or [`NEVER`].
    pub(super) wake: Mono,
    pub(super) state: State,
    pub(super) contact: Contact,
}

impl Worker {
    /// Whether it was taken over, with a deadline, and has not been heard of since.
    pub(super) fn is_awaited(&self) -> bool {
        self.contact == Contact::Restored && self.state.is_live()
    }
}

/// What deadlines are worked out from.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) budget: TimeBudget,
    /// All the stalls of this coordinator so far, in nanoseconds.
    pub(super) credit: u64,
    /// For how long workers that were taken over and have not beaten since had to wait to be let in.
    pub(super) rush: Duration,
}

impl Rules {
    pub(super) const fn credited(&self, worker: &Worker) -> Duration {
        let stalls = Duration::from_nanos(self.credit.saturating_sub(worker.credit));
        match worker.contact {
            Contact::Restored => stalls.saturating_add(self.rush),
            _ => stalls,
        }
    }

    pub(super) fn deadline(&self, worker: &Worker) -> Mono {
        self.budget.deadline(worker.beat) + self.credited(worker)
    }

    pub(super) fn suspicion(&self, worker: &Worker) -> Mono {
        let silent = self.budget.suspicion(worker.beat);
        let silent = match worker.contact {
            Contact::Restored => silent.max(worker.beat + self.budget.worker_self_fence_timeout),
            _ => silent,
        };
        silent + self.credited(worker)
    }

    /// When `worker` has to be looked at next. A worker has failed only *after* its deadline,
    /// hence the nanosecond.
    pub(super) fn wanted(&self, worker: &Worker) -> Mono {
        let failure = || self.deadline(worker) + Duration::from_nanos(1);
        match worker.state {
            State::Registered | State::Ready => self.suspicion(worker).min(failure()),
            State::Suspected | State::Draining => failure(),
            State::Failed | State::Deregistered => worker.beat + REMEMBERED,
        }
    }
}
