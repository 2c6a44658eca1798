//! Liveness against a model that looks at every worker at every instant, through every transition:
//! registrations of old and new processes, lost answers, restarts, stalls, and days of silence.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const START: Mono = Mono(1_000_000_000);
const NANO: Duration = Duration::from_nanos(1);
/// Fewer than there are ids, so that the fleet is full at times.
const CAPACITY: usize = 3;

fn worker(n: u8) -> WorkerId {
    WorkerId::from_bytes([n; 16])
}

fn process(n: u64) -> Incarnation {
    Incarnation::from_bytes(u128::from(n).to_be_bytes())
}

/// One worker as the model sees it: every deadline is worked out anew at every look.
#[derive(Debug, Clone, Copy)]
struct Modelled {
    process: u64,
    epoch: u64,
    state: State,
    contact: Contact,
    /// The instant its deadline or its being remembered counts from.
    since: Mono,
    credit: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Who {
    /// The process that registered last.
    Same,
    /// One that registered before it.
    Older,
    New,
}

#[derive(Debug, Clone)]
enum Step {
    Register(u8, Who, bool),
    Answer(u8),
    Beat(u8),
    StaleBeat(u8),
    Disconnect(u8),
    Drain(u8),
    Leave(u8),
    Stall(u64),
    /// Workers from before a restart had to wait to be let in.
    Rush(u64),
    Advance(u64),
    /// A day or so. Nobody waits for an answer all that time.
    Days(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0u8..5;
    let who = prop_oneof![2 => Just(Who::Same), 1 => Just(Who::Older), 3 => Just(Who::New)];
    prop_oneof![
        4 => (id.clone(), who, any::<bool>()).prop_map(|(n, who, knows)| Step::Register(n, who, knows)),
        4 => id.clone().prop_map(Step::Answer),
        8 => id.clone().prop_map(Step::Beat),
        1 => id.clone().prop_map(Step::StaleBeat),
        2 => id.clone().prop_map(Step::Disconnect),
        1 => id.clone().prop_map(Step::Drain),
        1 => id.prop_map(Step::Leave),
        1 => (250u64..9_000).prop_map(Step::Stall),
        1 => (250u64..9_000).prop_map(Step::Rush),
        12 => (1u64..2_500).prop_map(Step::Advance),
        1 => (80_000_000u64..90_000_000).prop_map(Step::Days),
        1 => Just(Step::Restart),
    ]
}

#[derive(Debug, Default)]
struct Model {
    floor: u64,
    workers: BTreeMap<u8, Modelled>,
    credit: Duration,
    /// What is credited besides to whoever has not been heard of since the restart.
    rush: Duration,
    /// The last process drawn.
    processes: u64,
}

impl Model {
    fn live(&self) -> usize {
        self.workers.values().filter(|w| w.state.is_live()).count()
    }

    fn of(&mut self, n: u8) -> Option<&mut Modelled> {
        self.workers.get_mut(&n).filter(|w| w.state.is_live())
    }

    fn epoch(&self, n: u8) -> u64 {
        self.workers.get(&n).map_or(1, |w| w.epoch)
    }

    /// Looks at every worker; the rules, written down as the design states them.
    fn expire(&mut self, now: Mono) -> Vec<(WorkerId, u64, Effect)> {
        let (mut effects, total, rush) = (Vec::new(), self.credit, self.rush);
        for (n, w) in &mut self.workers {
            if let Some(effect) = w.pass(now, total, rush) {
                effects.push((worker(*n), w.epoch, effect));
            }
        }
        let forgotten = |effect: &(WorkerId, u64, Effect)| effect.2 == Effect::Forgotten;
        for (id, epoch, _) in effects.iter().filter(|effect| forgotten(effect)) {
            self.floor = self.floor.max(*epoch);
            self.workers.remove(&id.to_bytes()[0]);
        }
        effects
    }

    fn register(&mut self, now: Mono, n: u8, process: u64, known: Option<u64>) -> Registration {
        let before = self.workers.get(&n).copied();
        match before {
            Some(w) if w.process == process && w.state.is_live() => {
                return Registration::Resumed { epoch: w.epoch };
            }
            Some(w) if w.process == process => return Registration::Failed,
            Some(_) if known.is_some() => return Registration::Superseded,
            _ => {}
        }
        if !before.is_some_and(|w| w.state.is_live()) && self.live() == CAPACITY {
            return Registration::Full;
        }
        let epoch = before.map_or(self.floor, |w| w.epoch).max(known.unwrap_or(0)) + 1;
        let (state, contact) = (State::Registered, Contact::Unanswered);
        let credit = self.credit;
        self.workers.insert(n, Modelled { process, epoch, state, contact, since: now, credit });
        Registration::New { epoch }
    }

    fn beat(&mut self, now: Mono, n: u8) -> Result<Option<Effect>, Stale> {
        let credit = self.credit;
        let w = self.workers.get_mut(&n).ok_or(Stale::Failed)?;
        let first = matches!(w.contact, Contact::Unanswered | Contact::Answered);
        let (state, effect) = match w.state {
            State::Failed => return Err(Stale::Failed),
            State::Deregistered => return Err(Stale::Left),
            State::Draining => (State::Draining, None),
            State::Ready => (State::Ready, None),
            State::Registered => (State::Ready, Some(Effect::Ready)),
            State::Suspected if first => (State::Ready, Some(Effect::Ready)),
            State::Suspected => (State::Ready, Some(Effect::Recovered { gap: now.since(w.since) })),
        };
        (w.state, w.contact, w.since, w.credit) = (state, Contact::Heard, now, credit);
        Ok(effect)
    }

    fn restart(&mut self, now: Mono) -> Liveness {
        let mut fleet = Liveness::new(TimeBudget::default(), CAPACITY);
        fleet.restore_floor(self.floor);
        (self.credit, self.rush) = (Duration::ZERO, Duration::ZERO);
        for (n, w) in &mut self.workers {
            w.state = if w.state.is_live() { State::Ready } else { w.state };
            (w.contact, w.since, w.credit) = (Contact::Restored, now, Duration::ZERO);
            fleet.restore(now, worker(*n), w.epoch, process(w.process), w.state);
        }
        fleet
    }
}

impl Modelled {
    fn is_awaited(&self) -> bool {
        self.state.is_live() && self.contact == Contact::Restored
    }

    fn pass(&mut self, now: Mono, total: Duration, rush: Duration) -> Option<Effect> {
        let silent = now.since(self.since);
        if !self.state.is_live() {
            return (silent >= Duration::from_secs(86_400)).then_some(Effect::Forgotten);
        }
        if self.contact == Contact::Unanswered {
            return None;
        }
        let restored = self.contact == Contact::Restored;
        let credited = total - self.credit + if restored { rush } else { Duration::ZERO };
        let overdue = now.since(self.since + ms(500));
        let patience = if restored { ms(4_000) } else { ms(1_500) };
        if overdue > ms(5_250) + credited {
            (self.state, self.since) = (State::Failed, now);
            let overshoot = overdue - ms(5_250) - credited;
            return Some(Effect::Failed { overdue, overshoot, credited });
        }
        let trusted = matches!(self.state, State::Registered | State::Ready);
        if !trusted || silent < patience + credited {
            return None;
        }
        self.state = State::Suspected;
        Some(Effect::Suspected(Suspicion::MissedBeats))
    }
}

fn answer(fleet: &mut Liveness, model: &mut Model, now: Mono, n: u8) {
    let (epoch, credit) = (model.epoch(n), model.credit);
    if let Some(w) = model.of(n).filter(|w| w.contact != Contact::Heard) {
        (w.contact, w.since, w.credit) = (Contact::Answered, now, credit);
    }
    fleet.answered(now, worker(n), epoch);
    fleet.answered(now, worker(n), epoch + 1);
}

fn apply(fleet: &mut Liveness, model: &mut Model, now: Mono, step: &Step) {
    match *step {
        Step::Register(n, who, knows) => {
            let last = model.workers.get(&n).map(|w| w.process);
            let process_number = match (who, last) {
                (Who::Same, Some(last)) => last,
                (Who::Older, Some(_)) => 0,
                _ => {
                    model.processes += 1;
                    model.processes
                }
            };
            let known = knows.then(|| model.epoch(n));
            let expected = model.register(now, n, process_number, known);
            let found = fleet.register(now, worker(n), process(process_number), known);
            assert_eq!(found, expected);
        }
        Step::Answer(n) => answer(fleet, model, now, n),
        Step::Days(_) => (0..5).for_each(|n| answer(fleet, model, now, n)),
        Step::Beat(n) => {
            let epoch = model.epoch(n);
            assert_eq!(fleet.beat(now, worker(n), epoch), model.beat(now, n));
        }
        Step::StaleBeat(n) => {
            let known = model.workers.contains_key(&n);
            let expected = if known { Stale::Superseded } else { Stale::Failed };
            let stale = model.epoch(n).wrapping_sub(1);
            assert_eq!(fleet.beat(now, worker(n), stale), Err(expected));
        }
        Step::Disconnect(n) => {
            let epoch = model.epoch(n);
            let up = |w: &&mut Modelled| matches!(w.state, State::Registered | State::Ready);
            let expected = model.of(n).filter(up).map(|w| {
                w.state = State::Suspected;
                Effect::Suspected(Suspicion::ConnectionLost)
            });
            assert_eq!(fleet.disconnected(worker(n), epoch + 1), None);
            assert_eq!(fleet.disconnected(worker(n), epoch), expected);
        }
        Step::Drain(n) => {
            let epoch = model.epoch(n);
            let news = model.of(n).is_some_and(|w| {
                std::mem::replace(&mut w.state, State::Draining) != State::Draining
            });
            assert_eq!(fleet.draining(worker(n), epoch), news);
        }
        Step::Leave(n) => {
            let epoch = model.epoch(n);
            let left = model.of(n).is_some_and(|w| {
                (w.state, w.since) = (State::Deregistered, now);
                true
            });
            assert_eq!(fleet.deregister(now, worker(n), epoch), left);
        }
        Step::Stall(stall) => {
            model.credit += ms(stall);
            fleet.credit(ms(stall));
        }
        Step::Rush(rush) if model.workers.values().any(Modelled::is_awaited) => {
            model.rush += ms(rush);
            fleet.credit_restored(ms(rush));
        }
        Step::Rush(_) => {}
        Step::Restart => *fleet = model.restart(now),
        Step::Advance(_) => {}
    }
}

fn look_at_everybody(
    fleet: &mut Liveness,
    model: &mut Model,
    now: Mono,
) -> Result<(), TestCaseError> {
    let mut found = Vec::new();
    fleet.expire(now, |id, epoch, effect| found.push((id, epoch, effect)));
    found.sort_by_key(|(id, ..)| *id);
    prop_assert_eq!(found, model.expire(now));
    Ok(())
}

proptest! {
    #[test]
    fn the_wakes_find_what_looking_at_every_worker_at_every_instant_finds(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let mut model = Model::default();
        let mut fleet = model.restart(START);
        let (mut now, mut looked) = (START, START);
        for step in &steps {
            apply(&mut fleet, &mut model, now, step);
            let target = match step {
                Step::Advance(by) | Step::Days(by) | Step::Stall(by) | Step::Rush(by) => now + ms(*by),
                _ => now,
            };
            let began = now;
            // The real loop sleeps until the next wake, or a tick: nothing may happen before it.
            // Within days it is late.
            while now.since(began) < ms(20_000) {
                let tick = looked + fleet.scan_tick();
                let look = fleet.next_wake().map_or(tick, |wake| wake.min(tick));
                if look > target {
                    break;
                }
                prop_assert_eq!(model.expire(look.before(NANO).max(now)), []);
                (now, looked) = (look.max(now), look.max(now));
                look_at_everybody(&mut fleet, &mut model, now)?;
            }
            now = target;
            if let Step::Days(_) = step {
                looked = now;
                look_at_everybody(&mut fleet, &mut model, now)?;
            }
            prop_assert_eq!(model.expire(now), []);
            prop_assert_eq!(fleet.live(), model.live());
            prop_assert!(fleet.fleet.soon() <= 3 * steps.len());
            let awaited = model.workers.values().any(Modelled::is_awaited);
            prop_assert!(!awaited || fleet.awaits_restored(now));
        }
    }
}
