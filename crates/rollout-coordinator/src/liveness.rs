//! Liveness: who is alive, who is suspected, who has failed.
//!
//! A pure state machine, `(now, input) -> effects` and [`next_wake`](Liveness::next_wake): no
//! clock, no I/O. Each worker has one live entry in a heap ordered by the instant at which it next
//! has to be looked at. A beat only moves the worker's own record; the entry is re-armed when it
//! comes up (lazily), so a beat costs no heap operation.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use rollout_core::{Incarnation, Mono, TimeBudget, WorkerId};

/// How long a worker that failed or left is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has registered and not yet beaten.
    Registered,
    /// It beats.
    Ready,
    /// Its connection is lost or it missed beats; it is given no more work.
    Suspected,
    /// It was asked to end.
    Draining,
    /// Its deadline passed.
    Failed,
    /// It left in good order.
    Deregistered,
}

impl State {
    /// Whether a deadline runs.
    #[must_use]
    pub const fn is_live(self) -> bool {
        !matches!(self, Self::Failed | Self::Deregistered)
    }
}

/// Why a worker is suspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// Its connection ended.
    ConnectionLost,
    /// [`MISSED_BEATS_TO_SUSPECT`](rollout_core::budget::MISSED_BEATS_TO_SUSPECT) in a row.
    MissedBeats,
}

/// What the passing of time, or a beat, has brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The first beat of an epoch.
    Ready,
    /// It is given no more work.
    Suspected(Suspicion),
    /// A suspected worker beats again.
    Recovered {
        /// Time since its last accepted beat.
        gap: Duration,
    },
    /// Its deadline has passed.
    Failed {
        /// Time since its next beat was due.
        overdue: Duration,
        /// Time since the credited deadline.
        overshoot: Duration,
        /// Time added to the deadline for stalls of the coordinator.
        credited: Duration,
    },
    /// It failed or left so long ago that it is forgotten.
    Forgotten,
}

/// Why a beat counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// The worker has been declared failed, or is not known.
    Failed,
    /// It has left; the beat was on its way.
    Left,
    /// A newer process has its id.
    Superseded,
}

/// How a registration ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// A new process: a new epoch, older leases are stale.
    New {
        /// The new epoch.
        epoch: u64,
    },
    /// The same process is back: its epoch and leases stay.
    Resumed {
        /// The epoch it keeps.
        epoch: u64,
    },
    /// It has been declared failed meanwhile and has to register anew.
    Failed,
    /// A newer process has its id.
    Superseded,
    /// The fleet is full.
    Full,
}

#[derive(Debug, Clone, Copy)]
struct Worker {
    epoch: u64,
    incarnation: Incarnation,
    state: State,
    /// Whether this epoch has beaten yet.
    beaten: bool,
    /// The last accepted beat, or registration; the end, for one that failed or left.
    beat: Mono,
    /// The total credit when `beat` was accepted: what came later is added to the deadline.
    credit: Duration,
    /// The instant of its one valid heap entry.
    wake: Mono,
}

/// The state machine.
#[derive(Debug)]
pub struct Liveness {
    budget: TimeBudget,
    capacity: usize,
    workers: HashMap<WorkerId, Worker>,
    wakes: BinaryHeap<Reverse<(Mono, WorkerId)>>,
    live: usize,
    /// All the stalls of this coordinator so far.
    credit: Duration,
    /// Until then a missing connection says nothing: the coordinator's own start cut them all.
    no_suspicion_before: Mono,
}

impl Liveness {
    /// A fleet of at most `capacity` live workers, empty, of a coordinator that listens since
    /// `now`.
    #[must_use]
    pub fn new(budget: TimeBudget, capacity: usize, now: Mono) -> Self {
        Self {
            budget,
            capacity,
            workers: HashMap::new(),
            wakes: BinaryHeap::new(),
            live: 0,
            credit: Duration::ZERO,
            no_suspicion_before: now + budget.worker_self_fence_timeout,
        }
    }

    /// Takes over a worker from before the coordinator's restart; a live one has a full deadline
    /// from `now`.
    pub fn restore(
        &mut self,
        now: Mono,
        id: WorkerId,
        epoch: u64,
        incarnation: Incarnation,
        state: State,
    ) {
        self.live += usize::from(state.is_live());
        self.put(now, id, epoch, incarnation, state);
    }

    /// A process asks to be (`known_epoch` is none) or to stay (its epoch) a worker.
    pub fn register(
        &mut self,
        now: Mono,
        id: WorkerId,
        incarnation: Incarnation,
        known_epoch: Option<u64>,
    ) -> Registration {
        let before = self.workers.get(&id).copied();
        if let (Some(worker), Some(_)) = (before, known_epoch) {
            match (worker.incarnation == incarnation, worker.state) {
                (false, _) => return Registration::Superseded,
                (true, State::Failed | State::Deregistered) => return Registration::Failed,
                (true, _) => return Registration::Resumed { epoch: worker.epoch },
            }
        }
        let was_live = before.is_some_and(|w| w.state.is_live());
        if !was_live && self.live >= self.capacity {
            return Registration::Full;
        }
        self.live += usize::from(!was_live);
        let epoch = before.map_or(0, |w| w.epoch).max(known_epoch.unwrap_or(0)) + 1;
        self.put(now, id, epoch, incarnation, State::Registered);
        Registration::New { epoch }
    }

    fn put(&mut self, now: Mono, id: WorkerId, epoch: u64, incarnation: Incarnation, state: State) {
        let (beaten, credit) = (state == State::Ready, self.credit);
        let mut worker = Worker { epoch, incarnation, state, beaten, beat: now, credit, wake: now };
        worker.wake = self.wanted(&worker);
        self.wakes.push(Reverse((worker.wake, id)));
        self.workers.insert(id, worker);
    }

    /// Accepts a beat of the worker's `epoch`.
    ///
    /// # Errors
    /// When that epoch has ended; the beat then counts for nothing.
    pub fn beat(&mut self, now: Mono, id: WorkerId, epoch: u64) -> Result<Option<Effect>, Stale> {
        let credit = self.credit;
        let worker = self.workers.get_mut(&id).ok_or(Stale::Failed)?;
        match worker.state {
            _ if worker.epoch != epoch => return Err(Stale::Superseded),
            State::Failed => return Err(Stale::Failed),
            State::Deregistered => return Err(Stale::Left),
            _ => {}
        }
        let effect = match worker.state {
            State::Registered | State::Suspected if !worker.beaten => Some(Effect::Ready),
            State::Suspected => Some(Effect::Recovered { gap: now.since(worker.beat) }),
            _ => None,
        };
        if effect.is_some() {
            worker.state = State::Ready;
        }
        worker.beaten = true;
        worker.beat = now;
        worker.credit = credit;
        if effect.is_some() {
            self.rearm(id);
        }
        Ok(effect)
    }

    /// The worker, if a deadline runs for this very epoch.
    fn of_epoch(&mut self, id: WorkerId, epoch: u64) -> Option<&mut Worker> {
        self.workers.get_mut(&id).filter(|w| w.epoch == epoch && w.state.is_live())
    }

    /// The connection of the worker's `epoch` ended.
    pub fn disconnected(&mut self, id: WorkerId, epoch: u64) -> Option<Effect> {
        let worker = self.of_epoch(id, epoch)?;
        if !matches!(worker.state, State::Registered | State::Ready) {
            return None;
        }
        worker.state = State::Suspected;
        self.rearm(id);
        Some(Effect::Suspected(Suspicion::ConnectionLost))
    }

    /// The worker's `epoch` was asked to end. Its deadline still runs. Whether that is news.
    pub fn draining(&mut self, id: WorkerId, epoch: u64) -> bool {
        let Some(worker) = self.of_epoch(id, epoch) else { return false };
        let news = worker.state != State::Draining;
        worker.state = State::Draining;
        self.rearm(id);
        news
    }

    /// The worker's `epoch` leaves in good order. Whether there was one to leave.
    pub fn deregister(&mut self, now: Mono, id: WorkerId, epoch: u64) -> bool {
        let Some(worker) = self.of_epoch(id, epoch) else { return false };
        worker.state = State::Deregistered;
        worker.beat = now;
        self.live -= 1;
        self.rearm(id);
        true
    }

    /// The coordinator itself was stopped for `stall`: that is nobody's fault.
    pub fn credit(&mut self, stall: Duration) {
        self.credit += stall;
    }

    /// The next instant at which [`expire`](Self::expire) may have something to do.
    #[must_use]
    pub fn next_wake(&self) -> Option<Mono> {
        self.wakes.peek().map(|Reverse((wake, _))| *wake)
    }

    /// Everything that the time until `now` has brought about, deadline by deadline.
    pub fn expire(&mut self, now: Mono, mut effect: impl FnMut(WorkerId, u64, Effect)) {
        while let Some(&Reverse((wake, id))) = self.wakes.peek() {
            if wake > now {
                break;
            }
            self.wakes.pop();
            let Some(worker) = self.workers.get(&id).copied().filter(|w| w.wake == wake) else {
                continue;
            };
            if let Some(happened) = self.look(now, id, &worker) {
                effect(id, worker.epoch, happened);
            }
            self.rearm_after_pop(id);
        }
    }

    /// The longest pause between two looks at the deadlines.
    #[must_use]
    pub fn scan_tick(&self) -> Duration {
        self.budget.scan_tick()
    }

    /// The process that last registered under this id.
    #[must_use]
    pub fn incarnation(&self, id: WorkerId) -> Option<Incarnation> {
        self.workers.get(&id).map(|w| w.incarnation)
    }

    /// How many workers have a running deadline.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live
    }

    /// What has become of `worker` by `now`; its state is moved on.
    fn look(&mut self, now: Mono, id: WorkerId, worker: &Worker) -> Option<Effect> {
        if !worker.state.is_live() {
            if now < worker.beat + REMEMBERED {
                return None;
            }
            self.workers.remove(&id);
            return Some(Effect::Forgotten);
        }
        let credited = self.credit.saturating_sub(worker.credit);
        let deadline = self.budget.deadline(worker.beat) + credited;
        let (state, beat, effect) = if now > deadline {
            let overdue = now.since(self.budget.due(worker.beat));
            let overshoot = now.since(deadline);
            (State::Failed, now, Effect::Failed { overdue, overshoot, credited })
        } else if now >= self.suspicion(worker) && worker.state != State::Draining {
            if worker.state == State::Suspected {
                return None;
            }
            let effect = Effect::Suspected(Suspicion::MissedBeats);
            (State::Suspected, worker.beat, effect)
        } else {
            return None;
        };
        self.live -= usize::from(!state.is_live());
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.state = state;
            worker.beat = beat;
        }
        Some(effect)
    }

    fn suspicion(&self, worker: &Worker) -> Mono {
        let credited = self.credit.saturating_sub(worker.credit);
        (self.budget.suspicion(worker.beat) + credited).max(self.no_suspicion_before)
    }

    /// When `worker` has to be looked at next. A worker has failed only *after* its deadline,
    /// hence the nanosecond.
    fn wanted(&self, worker: &Worker) -> Mono {
        let credited = self.credit.saturating_sub(worker.credit);
        let failure = self.budget.deadline(worker.beat) + credited + Duration::from_nanos(1);
        match worker.state {
            State::Registered | State::Ready => self.suspicion(worker).min(failure),
            State::Suspected | State::Draining => failure,
            State::Failed | State::Deregistered => worker.beat + REMEMBERED,
        }
    }

    /// Adds a heap entry if the worker has to be looked at before the one it has.
    fn rearm(&mut self, id: WorkerId) {
        let Some(wanted) = self.workers.get(&id).map(|w| self.wanted(w)) else { return };
        if let Some(worker) = self.workers.get_mut(&id).filter(|w| wanted < w.wake) {
            worker.wake = wanted;
            self.wakes.push(Reverse((wanted, id)));
        }
    }

    fn rearm_after_pop(&mut self, id: WorkerId) {
        let Some(wanted) = self.workers.get(&id).map(|w| self.wanted(w)) else { return };
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.wake = wanted;
            self.wakes.push(Reverse((wanted, id)));
        }
    }
}

#[cfg(test)]
#[path = "liveness_tests.rs"]
mod tests;
