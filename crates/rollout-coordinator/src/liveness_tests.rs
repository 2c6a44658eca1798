//! Liveness by example, and against a model that looks at every worker at every instant.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const START: Mono = Mono(1_000_000_000);

fn fleet() -> Liveness {
    // As if it listened long ago, so that its own start suppresses no suspicion.
    Liveness::new(TimeBudget::default(), 8, Mono(0).before(ms(0)))
}

fn worker(n: u8) -> WorkerId {
    WorkerId::from_bytes([n; 16])
}

fn process(n: u8) -> Incarnation {
    Incarnation::from_bytes([n; 16])
}

fn expire(fleet: &mut Liveness, now: Mono) -> Vec<(WorkerId, u64, Effect)> {
    let mut effects = Vec::new();
    fleet.expire(now, |id, epoch, effect| effects.push((id, epoch, effect)));
    effects
}

fn failed(overshoot: Duration, credited: Duration) -> Effect {
    Effect::Failed { overdue: ms(5250) + credited + overshoot, overshoot, credited }
}

const NANO: Duration = Duration::from_nanos(1);

#[test]
fn a_silent_worker_is_suspected_then_failed_once_each_and_neither_too_early() {
    let (mut fleet, at) = (fleet(), START + ms(10_000));
    fleet.register(at, worker(1), process(1), None);
    assert_eq!(fleet.beat(at, worker(1), 1), Ok(Some(Effect::Ready)));
    let missed = at + ms(1500);
    assert_eq!(expire(&mut fleet, missed.before(NANO)), []);
    let suspected = Effect::Suspected(Suspicion::MissedBeats);
    assert_eq!(expire(&mut fleet, missed), [(worker(1), 1, suspected)]);
    let deadline = at + ms(5750);
    assert_eq!(expire(&mut fleet, deadline), [], "a worker has failed only after its deadline");
    assert_eq!(fleet.next_wake(), Some(deadline + NANO));
    let verdict = expire(&mut fleet, deadline + ms(3));
    assert_eq!(verdict, [(worker(1), 1, failed(ms(3), ms(0)))]);
    assert_eq!(expire(&mut fleet, deadline + ms(60_000)), []);
    assert_eq!(fleet.live(), 0);
    assert_eq!(fleet.beat(deadline + ms(60_001), worker(1), 1), Err(Stale::Failed));
}

#[test]
fn a_beat_moves_the_deadline_and_ends_a_suspicion() {
    let (mut fleet, at) = (fleet(), START + ms(10_000));
    fleet.register(at, worker(1), process(1), None);
    fleet.beat(at, worker(1), 1).unwrap();
    let lost = Some(Effect::Suspected(Suspicion::ConnectionLost));
    assert_eq!(fleet.disconnected(worker(1), 1), lost);
    assert_eq!(fleet.disconnected(worker(1), 1), None);
    let back = fleet.beat(at + ms(700), worker(1), 1);
    assert_eq!(back, Ok(Some(Effect::Recovered { gap: ms(700) })));
    assert_eq!(expire(&mut fleet, at + ms(2199)), []);
    assert_eq!(expire(&mut fleet, at + ms(2200)).len(), 1);
    assert_eq!(expire(&mut fleet, at + ms(6450)), []);
    assert_eq!(expire(&mut fleet, at + ms(6451)), [(worker(1), 1, failed(ms(1), ms(0)))]);
}

#[test]
fn a_worker_suspected_before_its_first_beat_is_ready_with_it() {
    let (mut fleet, at) = (fleet(), START + ms(10_000));
    fleet.register(at, worker(1), process(1), None);
    assert!(fleet.disconnected(worker(1), 1).is_some());
    assert_eq!(fleet.beat(at, worker(1), 1), Ok(Some(Effect::Ready)));
}

#[test]
fn a_stall_is_added_to_deadlines_armed_before_it_and_to_no_later_one() {
    let (mut fleet, at) = (fleet(), START + ms(10_000));
    for n in [1, 2] {
        fleet.register(at, worker(n), process(n), None);
    }
    fleet.credit(ms(7_000));
    fleet.beat(at + ms(7_001), worker(2), 1).unwrap();
    assert_eq!(expire(&mut fleet, at + ms(8_499)), []);
    assert_eq!(expire(&mut fleet, at + ms(8_501)).len(), 2, "both are suspected");
    let verdict = expire(&mut fleet, at + ms(12_750) + NANO);
    assert_eq!(verdict, [(worker(1), 1, failed(NANO, ms(7_000)))]);
    let verdict = expire(&mut fleet, at + ms(12_751) + NANO);
    assert_eq!(verdict, [(worker(2), 1, failed(NANO, ms(0)))]);
}

#[test]
fn the_same_process_resumes_a_new_one_registers_and_an_old_one_is_superseded() {
    let (mut fleet, at) = (fleet(), START);
    assert_eq!(fleet.register(at, worker(1), process(1), None), Registration::New { epoch: 1 });
    let resumed = fleet.register(at, worker(1), process(1), Some(1));
    assert_eq!(resumed, Registration::Resumed { epoch: 1 });
    assert_eq!(fleet.register(at, worker(1), process(2), None), Registration::New { epoch: 2 });
    assert_eq!(fleet.register(at, worker(1), process(1), Some(1)), Registration::Superseded);
    assert_eq!(fleet.beat(at, worker(1), 1), Err(Stale::Superseded));
    assert_eq!(fleet.disconnected(worker(1), 1), None, "the old process's socket says nothing");
    assert_eq!(fleet.live(), 1);
}

#[test]
fn a_worker_that_failed_has_to_register_anew_and_fails_again_like_the_first_time() {
    let (mut fleet, mut at) = (fleet(), START + ms(10_000));
    for epoch in 1..=3u8 {
        let anew = fleet.register(at, worker(1), process(epoch), None);
        assert_eq!(anew, Registration::New { epoch: epoch.into() });
        let effects = expire(&mut fleet, at + ms(5750) + NANO);
        assert_eq!(effects, [(worker(1), epoch.into(), failed(NANO, ms(0)))]);
        let again = fleet.register(at, worker(1), process(epoch), Some(epoch.into()));
        assert_eq!(again, Registration::Failed);
        at += ms(20_000);
    }
}

#[test]
fn a_worker_that_left_is_never_failed_and_is_forgotten_after_a_day() {
    let (mut fleet, at) = (fleet(), START + ms(10_000));
    fleet.register(at, worker(1), process(1), None);
    assert!(fleet.draining(worker(1), 1));
    assert!(!fleet.draining(worker(1), 1), "asked twice is no news");
    assert!(fleet.deregister(at, worker(1), 1));
    assert!(!fleet.deregister(at, worker(1), 1));
    assert_eq!(fleet.beat(at, worker(1), 1), Err(Stale::Left));
    assert_eq!(fleet.disconnected(worker(1), 1), None);
    assert_eq!(expire(&mut fleet, (at + REMEMBERED).before(NANO)), []);
    assert_eq!(expire(&mut fleet, at + REMEMBERED), [(worker(1), 1, Effect::Forgotten)]);
    assert_eq!(fleet.next_wake(), None);
}

#[test]
fn a_draining_worker_is_not_suspected_but_its_deadline_runs() {
    let (mut fleet, at) = (fleet(), START + ms(10_000));
    fleet.register(at, worker(1), process(1), None);
    fleet.draining(worker(1), 1);
    assert_eq!(fleet.disconnected(worker(1), 1), None);
    assert_eq!(expire(&mut fleet, at + ms(5750)), []);
    assert_eq!(expire(&mut fleet, at + ms(5751)).len(), 1);
}

#[test]
fn a_full_fleet_takes_no_new_worker_but_a_known_one_may_come_back() {
    let mut fleet = fleet();
    for n in 0..8 {
        fleet.register(START, worker(n), process(n), None);
    }
    assert_eq!(fleet.register(START, worker(9), process(9), None), Registration::Full);
    let again = fleet.register(START, worker(3), process(9), None);
    assert_eq!(again, Registration::New { epoch: 2 });
    fleet.deregister(START, worker(0), 1);
    assert_eq!(fleet.register(START, worker(9), process(9), None), Registration::New { epoch: 1 });
}

#[test]
fn a_worker_that_comes_back_for_ever_leaves_no_trail_in_the_heap() {
    let (mut fleet, mut at) = (fleet(), START + ms(10_000));
    for _ in 0..2_000 {
        fleet.register(at, worker(1), process(1), None);
        at += ms(100);
        expire(&mut fleet, at);
    }
    assert!(fleet.wakes.len() < 20, "{} entries for one worker", fleet.wakes.len());
}

#[test]
fn after_a_restart_nobody_is_suspected_before_the_fence_time_nor_failed_before_a_full_deadline() {
    let mut fleet = Liveness::new(TimeBudget::default(), 8, START);
    fleet.restore(START, worker(1), 4, process(1), State::Ready);
    fleet.restore(START, worker(2), 2, process(2), State::Failed);
    assert_eq!(fleet.live(), 1);
    assert_eq!(expire(&mut fleet, START + ms(3_999)), []);
    assert_eq!(expire(&mut fleet, START + ms(4_000)).len(), 1);
    assert_eq!(expire(&mut fleet, START + ms(5_750)), []);
    assert_eq!(expire(&mut fleet, START + ms(5_751)), [(worker(1), 4, failed(ms(1), ms(0)))]);
    assert_eq!(fleet.register(START, worker(2), process(2), Some(2)), Registration::Failed);
}

/// One worker as the model sees it: every deadline is worked out anew at every look.
#[derive(Debug, Clone, Copy)]
struct Modelled {
    epoch: u64,
    state: State,
    beaten: bool,
    beat: Mono,
    credit: Duration,
}

#[derive(Debug, Clone)]
enum Step {
    Register(u8),
    Beat(u8),
    Disconnect(u8),
    Drain(u8),
    Leave(u8),
    Stall(u64),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0u8..4;
    prop_oneof![
        2 => id.clone().prop_map(Step::Register),
        8 => id.clone().prop_map(Step::Beat),
        2 => id.clone().prop_map(Step::Disconnect),
        1 => id.clone().prop_map(Step::Drain),
        1 => id.prop_map(Step::Leave),
        1 => (250u64..9_000).prop_map(Step::Stall),
        12 => (1u64..2_500).prop_map(Step::Advance),
    ]
}

struct Model {
    workers: BTreeMap<u8, Modelled>,
    credit: Duration,
    listens: Mono,
}

impl Model {
    /// Looks at every worker; the rules, written down as the design states them.
    fn expire(&mut self, now: Mono) -> Vec<(WorkerId, u64, Effect)> {
        let mut effects = Vec::new();
        for (n, w) in &mut self.workers {
            let credited = self.credit - w.credit;
            let due = w.beat + ms(500);
            let silent_for = now.since(w.beat);
            if !w.state.is_live() {
                continue;
            }
            if now.since(due) > ms(5_250) + credited {
                let overdue = now.since(due);
                let overshoot = overdue - ms(5_250) - credited;
                w.state = State::Failed;
                effects.push((
                    worker(*n),
                    w.epoch,
                    Effect::Failed { overdue, overshoot, credited },
                ));
            } else if matches!(w.state, State::Registered | State::Ready)
                && silent_for >= ms(1_500) + credited
                && now.since(self.listens) >= ms(4_000)
            {
                w.state = State::Suspected;
                let why = Effect::Suspected(Suspicion::MissedBeats);
                effects.push((worker(*n), w.epoch, why));
            }
        }
        effects
    }

    fn live(&mut self, n: u8) -> Option<&mut Modelled> {
        self.workers.get_mut(&n).filter(|w| w.state.is_live())
    }
}

fn apply(fleet: &mut Liveness, model: &mut Model, now: Mono, step: &Step) {
    match *step {
        Step::Register(n) => {
            let before = model.workers.get(&n).map_or(0, |w| w.epoch);
            let epoch = before + 1;
            let incarnation = process(u8::try_from(epoch % 250).unwrap());
            let outcome = fleet.register(now, worker(n), incarnation, None);
            assert_eq!(outcome, Registration::New { epoch });
            let state = State::Registered;
            model.workers.insert(
                n,
                Modelled { epoch, state, beaten: false, beat: now, credit: model.credit },
            );
        }
        Step::Beat(n) => {
            let credit = model.credit;
            let epoch = model.workers.get(&n).map_or(1, |w| w.epoch);
            let expected = model.live(n).map(|w| {
                let effect = match w.state {
                    State::Registered => Some(Effect::Ready),
                    State::Suspected if !w.beaten => Some(Effect::Ready),
                    State::Suspected => Some(Effect::Recovered { gap: now.since(w.beat) }),
                    _ => None,
                };
                w.state = if w.state == State::Draining { w.state } else { State::Ready };
                (w.beaten, w.beat, w.credit) = (true, now, credit);
                effect
            });
            assert_eq!(fleet.beat(now, worker(n), epoch).ok(), expected);
            assert!(fleet.beat(now, worker(n), epoch + 1).is_err());
        }
        Step::Disconnect(n) => {
            let epoch = model.workers.get(&n).map_or(1, |w| w.epoch);
            let up = |w: &&mut Modelled| matches!(w.state, State::Registered | State::Ready);
            let expected = model.live(n).filter(up).map(|w| {
                w.state = State::Suspected;
                Effect::Suspected(Suspicion::ConnectionLost)
            });
            assert_eq!(fleet.disconnected(worker(n), epoch), expected);
        }
        Step::Drain(n) => {
            let epoch = model.workers.get(&n).map_or(1, |w| w.epoch);
            let news = model.live(n).is_some_and(|w| {
                std::mem::replace(&mut w.state, State::Draining) != State::Draining
            });
            assert_eq!(fleet.draining(worker(n), epoch), news);
        }
        Step::Leave(n) => {
            let epoch = model.workers.get(&n).map_or(1, |w| w.epoch);
            let left = model.live(n).is_some_and(|w| {
                w.state = State::Deregistered;
                true
            });
            assert_eq!(fleet.deregister(now, worker(n), epoch), left);
        }
        Step::Stall(stall) => {
            model.credit += ms(stall);
            fleet.credit(ms(stall));
        }
        Step::Advance(_) => {}
    }
}

proptest! {
    #[test]
    fn the_heap_finds_what_looking_at_every_worker_at_every_instant_finds(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let mut fleet = Liveness::new(TimeBudget::default(), 8, START);
        let mut model =
            Model { workers: BTreeMap::new(), credit: Duration::ZERO, listens: START };
        let mut now = START;
        for step in &steps {
            apply(&mut fleet, &mut model, now, step);
            let target = match step {
                Step::Advance(by) => now + ms(*by),
                Step::Stall(by) => now + ms(*by),
                _ => now,
            };
            // The real loop sleeps until the next wake: nothing may happen before it.
            while let Some(wake) = fleet.next_wake().filter(|wake| *wake <= target) {
                prop_assert_eq!(model.expire(wake.before(NANO).max(now)), []);
                now = wake.max(now);
                let mut found = expire(&mut fleet, now);
                found.sort_by_key(|(id, ..)| *id);
                prop_assert_eq!(found, model.expire(now));
            }
            now = target;
            prop_assert_eq!(model.expire(now), []);
            let live = model.workers.values().filter(|w| w.state.is_live()).count();
            prop_assert_eq!(fleet.live(), live);
        }
    }
}
