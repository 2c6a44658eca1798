//! Liveness: who is alive, who is suspected, who has failed.
//!
//! A pure state machine, `(now, input) -> effects` and [`next_wake`](Liveness::next_wake): no
//! clock, no I/O. A beat only moves the worker's own record, so that it costs one look-up. Who is
//! silent is found by sweeps over the whole fleet, early enough to be in a heap when its instant
//! comes.

mod fleet;
pub(crate) mod fold;
mod record;
mod words;

use std::time::Duration;

use rollout_core::{Incarnation, Mono, TimeBudget, WorkerId};

pub use record::REMEMBERED;
pub use words::{Effect, Registration, Stale, State, Suspicion};

use fleet::Fleet;
use record::{Contact, NEVER, Rules, Worker};

/// When one is looked at again of whom a beat is on its way.
const SPARED: Duration = Duration::from_millis(1);

/// The highest epoch that a worker is believed to have had, so that there is always a next one.
const HIGHEST_NAMED: u64 = u64::MAX / 2;

/// The state machine.
#[derive(Debug)]
pub struct Liveness {
    rules: Rules,
    capacity: usize,
    fleet: Fleet,
    live: usize,
    /// The highest epoch of whoever was forgotten: what was recorded of it may be there still, so
    /// that a worker that is not known begins above.
    floor: u64,
    /// When live workers were taken over.
    restored: Option<Mono>,
}

impl Liveness {
    /// A fleet of at most `capacity` live workers, empty.
    #[must_use]
    pub fn new(budget: TimeBudget, capacity: usize) -> Self {
        let fleet = Fleet::new(budget.heartbeat_interval);
        let rules = Rules { budget, credit: 0, rush: Duration::ZERO };
        Self { rules, capacity, fleet, live: 0, floor: 0, restored: None }
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
        if state.is_live() {
            self.live += 1;
            self.restored = Some(now);
        }
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
        let before = self.fleet.get(id).copied();
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
        let named = known_epoch.unwrap_or(0).min(HIGHEST_NAMED);
        let epoch = before.map_or(self.floor, |w| w.epoch).max(named) + 1;
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
        let (beat, wake, credit) = (now, NEVER, self.rules.credit);
        self.fleet.insert(id, Worker { incarnation, epoch, beat, credit, wake, state, contact });
    }

    /// The registration of the worker's `epoch` is on disk and answered: from now on its deadline
    /// runs. Answered again, because the worker did not hear it, it runs anew: so does its fence.
    pub fn answered(&mut self, now: Mono, id: WorkerId, epoch: u64) {
        let credit = self.rules.credit;
        if let Some(worker) = self.of_epoch(id, epoch)
            && worker.contact != Contact::Heard
        {
            (worker.contact, worker.beat, worker.credit) = (Contact::Answered, now, credit);
        }
    }

    /// Accepts a beat of the worker's `epoch`.
    ///
    /// # Errors
    /// When that epoch has ended; the beat then counts for nothing.
    pub fn beat(&mut self, now: Mono, id: WorkerId, epoch: u64) -> Result<Option<Effect>, Stale> {
        let credit = self.rules.credit;
        let worker = self.fleet.get_mut(id).ok_or(Stale::Failed)?;
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
        (worker.contact, worker.beat, worker.credit) = (Contact::Heard, now, credit);
        Ok(effect)
    }

    /// Undoes whatever has become of the worker's `epoch`: what a coordinator would do that does not
    /// check epochs and incarnations.
    #[cfg(feature = "faults")]
    pub fn revive(&mut self, id: WorkerId, epoch: u64, incarnation: Option<Incarnation>) {
        let Some(worker) = self.fleet.get_mut(id) else { return };
        worker.epoch = epoch;
        worker.incarnation = incarnation.unwrap_or(worker.incarnation);
        if !worker.state.is_live() {
            worker.state = State::Ready;
            self.live += 1;
        }
        self.fleet.arm(&self.rules, id);
    }

    /// The worker, if a deadline runs for this very epoch.
    fn of_epoch(&mut self, id: WorkerId, epoch: u64) -> Option<&mut Worker> {
        self.fleet.get_mut(id).filter(|w| w.epoch == epoch && w.state.is_live())
    }

    /// The connection of the worker's `epoch` ended.
    pub fn disconnected(&mut self, id: WorkerId, epoch: u64) -> Option<Effect> {
        let worker = self.of_epoch(id, epoch)?;
        if !matches!(worker.state, State::Registered | State::Ready) {
            return None;
        }
        worker.state = State::Suspected;
        Some(Effect::Suspected(Suspicion::ConnectionLost))
    }

    /// The worker's `epoch` was asked to end. Its deadline still runs. Whether that is news.
    pub fn draining(&mut self, id: WorkerId, epoch: u64) -> bool {
        let Some(worker) = self.of_epoch(id, epoch) else { return false };
        let news = worker.state != State::Draining;
        worker.state = State::Draining;
        news
    }

    /// The worker's `epoch` leaves in good order. Whether there was one to leave.
    pub fn deregister(&mut self, now: Mono, id: WorkerId, epoch: u64) -> bool {
        let Some(worker) = self.of_epoch(id, epoch) else { return false };
        worker.state = State::Deregistered;
        worker.beat = now;
        self.live -= 1;
        true
    }

    /// The coordinator itself was stopped for `stall`: that is nobody's fault.
    pub fn credit(&mut self, stall: Duration) {
        let stall = u64::try_from(stall.as_nanos()).unwrap_or(u64::MAX);
        self.rules.credit = self.rules.credit.saturating_add(stall);
    }

    /// Whether there may be live workers that were taken over and have not beaten since. That the last
    /// of them is back is found by the next sweeps.
    #[must_use]
    pub fn awaits_restored(&self, now: Mono) -> bool {
        let Rules { budget, credit, rush } = &self.rules;
        let credited = Duration::from_nanos(*credit).saturating_add(*rush);
        let may = self.restored.is_some_and(|since| now <= budget.deadline(since) + credited);
        may && self.fleet.awaits()
    }

    /// For `rush`, workers that were taken over and have not beaten since had to wait to be let in.
    pub fn credit_restored(&mut self, rush: Duration) {
        self.rules.rush = self.rules.rush.saturating_add(rush);
    }

    /// The next instant at which [`expire`](Self::expire) may have something to do, if it comes
    /// before the next [`scan_tick`](Self::scan_tick), at which it is to be called in any case.
    #[must_use]
    pub fn next_wake(&self) -> Option<Mono> {
        self.fleet.next()
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
        self.fleet.sweep(&self.rules, now);
        while let Some(id) = self.fleet.pop(now) {
            let Some(worker) = self.fleet.get(id).copied() else { continue };
            if self.is_over(now, &worker) && beats(id) {
                self.fleet.arm_at(now + SPARED, id);
                continue;
            }
            if let Some(happened) = self.look(now, id, &worker) {
                effect(id, worker.epoch, happened);
            }
            self.fleet.arm(&self.rules, id);
        }
    }

    /// The longest pause between two looks at the deadlines.
    #[must_use]
    pub fn scan_tick(&self) -> Duration {
        self.rules.budget.scan_tick()
    }

    /// The process that last registered under this id.
    #[must_use]
    pub fn incarnation(&self, id: WorkerId) -> Option<Incarnation> {
        self.fleet.get(id).map(|w| w.incarnation)
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
            self.fleet.remove(id);
            self.floor = self.floor.max(worker.epoch);
            return Some(Effect::Forgotten);
        }
        if worker.contact == Contact::Unanswered {
            self.put_off(now, id);
            return None;
        }
        let (credited, deadline) = (self.rules.credited(worker), self.rules.deadline(worker));
        let (state, beat, effect) = if now > deadline {
            let overdue = now.since(self.rules.budget.due(worker.beat));
            let overshoot = now.since(deadline);
            (State::Failed, now, Effect::Failed { overdue, overshoot, credited })
        } else if now >= self.rules.suspicion(worker) && worker.state != State::Draining {
            if worker.state == State::Suspected {
                return None;
            }
            let effect = Effect::Suspected(Suspicion::MissedBeats);
            (State::Suspected, worker.beat, effect)
        } else {
            return None;
        };
        self.live -= usize::from(!state.is_live());
        if let Some(worker) = self.fleet.get_mut(id) {
            worker.state = state;
            worker.beat = beat;
        }
        Some(effect)
    }

    /// Whether the worker's deadline runs and has passed.
    fn is_over(&self, now: Mono, worker: &Worker) -> bool {
        let runs = worker.state.is_live() && worker.contact != Contact::Unanswered;
        runs && now > self.rules.deadline(worker)
    }

    /// Begins the deadline anew, for as long as the worker is not answered.
    fn put_off(&mut self, now: Mono, id: WorkerId) {
        let credit = self.rules.credit;
        if let Some(worker) = self.fleet.get_mut(id) {
            (worker.beat, worker.credit) = (now, credit);
        }
    }
}

#[cfg(test)]
#[path = "liveness_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "liveness_model.rs"]
mod model;
