//! Liveness: who is alive, who is suspected, who has failed.
//!
//! A pure state machine, `(now, input) -> effects` and [`next_wake`](Liveness::next_wake): no
//! clock, no I/O. Each worker has one valid entry among the wakes, for the instant at which it next
//! has to be looked at. A beat only moves the worker's own record; the entry is re-armed when it
//! comes up (lazily), so a beat costs one look-up.

pub(crate) mod fold;
mod wakes;
mod words;

use std::collections::HashMap;
use std::time::Duration;

use rollout_core::{Incarnation, Mono, TimeBudget, WorkerId};

pub use words::{Effect, Registration, Stale, State, Suspicion};

use fold::Fold;
use wakes::Wakes;

/// How long a worker that failed or left is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// When one is looked at again of whom a beat is on its way.
const SPARED: Duration = Duration::from_millis(1);

/// What this coordinator has heard of a worker's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
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
struct Worker {
    incarnation: Incarnation,
    epoch: u64,
    /// The last accepted beat, or the answer to the registration, or the coordinator's start; the
    /// end, for one that failed or left.
    beat: Mono,
    /// The total credit at `beat`, in nanoseconds: what came later is added to the deadline.
    credit: u64,
    /// The instant of its one valid wake.
    wake: Mono,
    state: State,
    contact: Contact,
}

/// The state machine.
#[derive(Debug)]
pub struct Liveness {
    budget: TimeBudget,
    capacity: usize,
    workers: HashMap<WorkerId, Worker, Fold>,
    wakes: Wakes,
    live: usize,
    /// The highest epoch of whoever was forgotten: what was recorded of it may be there still, so
    /// that a worker that is not known begins above.
    floor: u64,
    /// All the stalls of this coordinator so far, in nanoseconds.
    credit: u64,
}

impl Liveness {
    /// A fleet of at most `capacity` live workers, empty.
    #[must_use]
    pub fn new(budget: TimeBudget, capacity: usize) -> Self {
        let (workers, wakes) = (HashMap::default(), Wakes::default());
        Self { budget, capacity, workers, wakes, live: 0, floor: 0, credit: 0 }
    }

    /// Takes over a worker from before the coordinator's restart. A live one has a full deadline
    /// from `now`, when the coordinator listens, and is not suspected for its silence until the
    /// fence time has passed: the coordinator's own death cut its connection.
    pub fn restore(
        &mut self,
        now: Mono,
        id: WorkerId,
        epoch: u64,
        incarnation: Incarnation,
        state: State,
    ) {
        self.live += usize::from(state.is_live());
        self.put(now, id, epoch, incarnation, (state, Contact::Restored));
    }

    /// Takes over the highest epoch of whoever was forgotten before the coordinator's restart.
    pub fn restore_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
    }

    /// A process asks to be a worker, or to stay one: then it names its epoch, unless it never
    /// heard the answer that gave it one. The deadline of a new one runs from
    /// [`answered`](Self::answered).
    pub fn register(
        &mut self,
        now: Mono,
        id: WorkerId,
        incarnation: Incarnation,
        known_epoch: Option<u64>,
    ) -> Registration {
        let before = self.workers.get(&id).copied();
        if let Some(worker) = before {
            match (worker.incarnation == incarnation, worker.state.is_live()) {
                (true, true) => return Registration::Resumed { epoch: worker.epoch },
                (true, false) => return Registration::Failed,
                (false, _) if known_epoch.is_some() => return Registration::Superseded,
                (false, _) => {}
            }
        }
        let was_live = before.is_some_and(|w| w.state.is_live());
        if !was_live && self.live >= self.capacity {
            return Registration::Full;
        }
        self.live += usize::from(!was_live);
        let epoch = before.map_or(self.floor, |w| w.epoch).max(known_epoch.unwrap_or(0)) + 1;
        self.put(now, id, epoch, incarnation, (State::Registered, Contact::Unanswered));
        Registration::New { epoch }
    }

    fn put(
        &mut self,
        now: Mono,
        id: WorkerId,
        epoch: u64,
        incarnation: Incarnation,
        (state, contact): (State, Contact),
    ) {
        let (beat, wake, credit) = (now, now, self.credit);
        let mut worker = Worker { incarnation, epoch, beat, credit, wake, state, contact };
        worker.wake = self.wanted(&worker);
        self.wakes.push(worker.wake, id);
        self.workers.insert(id, worker);
    }

    /// The registration of the worker's `epoch` is on disk and answered: from now on its deadline
    /// runs.
    pub fn answered(&mut self, now: Mono, id: WorkerId, epoch: u64) {
        let credit = self.credit;
        if let Some(worker) = self.of_epoch(id, epoch)
            && worker.contact == Contact::Unanswered
        {
            (worker.contact, worker.beat, worker.credit) = (Contact::Answered, now, credit);
        }
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
        let first = matches!(worker.contact, Contact::Unanswered | Contact::Answered);
        let effect = match worker.state {
            State::Registered | State::Suspected if first => Some(Effect::Ready),
            State::Suspected => Some(Effect::Recovered { gap: now.since(worker.beat) }),
            _ => None,
        };
        if effect.is_some() {
            worker.state = State::Ready;
        }
        // A beat puts everything off, but what ends a suspicion or a grace lets the next begin.
        let sooner = effect.is_some() || worker.contact == Contact::Restored;
        (worker.contact, worker.beat, worker.credit) = (Contact::Heard, now, credit);
        if sooner {
            self.rearm(id);
        }
        Ok(effect)
    }

    /// Undoes whatever has become of the worker's `epoch`: what a coordinator would do that does not
    /// check epochs and incarnations.
    #[cfg(feature = "faults")]
    pub fn revive(&mut self, id: WorkerId, epoch: u64, incarnation: Option<Incarnation>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.epoch = epoch;
        worker.incarnation = incarnation.unwrap_or(worker.incarnation);
        if !worker.state.is_live() {
            worker.state = State::Ready;
            self.live += 1;
        }
        self.rearm(id);
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
        self.credit += u64::try_from(stall.as_nanos()).unwrap_or(u64::MAX);
    }

    /// The next instant at which [`expire`](Self::expire) may have something to do.
    #[must_use]
    pub fn next_wake(&self) -> Option<Mono> {
        self.wakes.next()
    }

    /// Everything that the time until `now` has brought about, deadline by deadline.
    pub fn expire(&mut self, now: Mono, effect: impl FnMut(WorkerId, u64, Effect)) {
        self.expire_unless(now, |_| false, effect);
    }

    /// The same, but nobody fails of whom `beats` says that a beat is on its way here: that is looked
    /// at again.
    pub fn expire_unless(
        &mut self,
        now: Mono,
        mut beats: impl FnMut(WorkerId) -> bool,
        mut effect: impl FnMut(WorkerId, u64, Effect),
    ) {
        loop {
            while let Some((wake, id)) = self.wakes.pop(now) {
                let due = self.workers.get(&id).copied().filter(|w| w.wake == wake);
                let Some(worker) = due else { continue };
                if self.is_over(now, &worker) && beats(id) {
                    self.wake_at(now + SPARED, id);
                    continue;
                }
                if let Some(happened) = self.look(now, id, &worker) {
                    effect(id, worker.epoch, happened);
                }
                self.renew(id, |_| true);
            }
            let Some(opened) = self.wakes.open(now) else { return };
            for &id in &opened.ids {
                self.renew(id, |wake| opened.contains(wake));
            }
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
            self.floor = self.floor.max(worker.epoch);
            return Some(Effect::Forgotten);
        }
        if worker.contact == Contact::Unanswered {
            self.put_off(now, id);
            return None;
        }
        let credited = self.credited(worker);
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

    /// Whether the worker's deadline runs and has passed.
    fn is_over(&self, now: Mono, worker: &Worker) -> bool {
        let runs = worker.state.is_live() && worker.contact != Contact::Unanswered;
        runs && now > self.budget.deadline(worker.beat) + self.credited(worker)
    }

    /// Begins the deadline anew, for as long as the worker is not answered.
    fn put_off(&mut self, now: Mono, id: WorkerId) {
        let credit = self.credit;
        if let Some(worker) = self.workers.get_mut(&id) {
            (worker.beat, worker.credit) = (now, credit);
        }
    }

    const fn credited(&self, worker: &Worker) -> Duration {
        Duration::from_nanos(self.credit.saturating_sub(worker.credit))
    }

    fn suspicion(&self, worker: &Worker) -> Mono {
        let silent = self.budget.suspicion(worker.beat);
        let silent = match worker.contact {
            Contact::Restored => silent.max(worker.beat + self.budget.worker_self_fence_timeout),
            _ => silent,
        };
        silent + self.credited(worker)
    }

    /// When `worker` has to be looked at next. A worker has failed only *after* its deadline,
    /// hence the nanosecond.
    fn wanted(&self, worker: &Worker) -> Mono {
        let deadline = self.budget.deadline(worker.beat) + self.credited(worker);
        let failure = deadline + Duration::from_nanos(1);
        match worker.state {
            State::Registered | State::Ready => self.suspicion(worker).min(failure),
            State::Suspected | State::Draining => failure,
            State::Failed | State::Deregistered => worker.beat + REMEMBERED,
        }
    }

    /// Adds a wake if the worker has to be looked at before the one it has.
    fn rearm(&mut self, id: WorkerId) {
        let Some(wanted) = self.workers.get(&id).map(|w| self.wanted(w)) else { return };
        if self.workers.get(&id).is_some_and(|w| wanted < w.wake) {
            self.wake_at(wanted, id);
        }
    }

    /// Replaces a wake that was taken out, if it was the worker's valid one.
    fn renew(&mut self, id: WorkerId, valid: impl FnOnce(Mono) -> bool) {
        let Some(worker) = self.workers.get(&id).filter(|w| valid(w.wake)) else { return };
        self.wake_at(self.wanted(worker), id);
    }

    /// From now on this is the worker's valid wake.
    fn wake_at(&mut self, wake: Mono, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.wake = wake;
            self.wakes.push(wake, id);
        }
    }
}

#[cfg(test)]
#[path = "liveness_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "liveness_model.rs"]
mod model;
