//! Liveness by example.

use super::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const START: Mono = Mono(1_000_000_000);

fn fleet() -> Liveness {
    Liveness::new(TimeBudget::default(), 8)
}

/// Registers a process and answers it at once.
fn join(fleet: &mut Liveness, at: Mono, id: WorkerId, process: Incarnation) -> Registration {
    let outcome = fleet.register(at, id, process, None);
    if let Registration::New { epoch } = outcome {
        fleet.answered(at, id, epoch);
    }
    outcome
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
    join(&mut fleet, at, worker(1), process(1));
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
fn nobody_fails_of_whom_a_beat_is_on_its_way_until_it_is_not_there_after_all() {
    let (mut fleet, at) = (fleet(), START + ms(10_000));
    for n in [1, 2] {
        join(&mut fleet, at, worker(n), process(n));
        fleet.beat(at, worker(n), 1).unwrap();
    }
    let (late, mut asked) = (at + ms(5751), Vec::new());
    let mut effects = Vec::new();
    let beats = |id| {
        asked.push(id);
        id == worker(1)
    };
    fleet.expire_unless(at + ms(5750), |_| unreachable!(), |_, _, _| ());
    fleet.expire_unless(late, beats, |id, _, effect| effects.push((id, effect)));
    assert_eq!(effects, [(worker(2), failed(ms(1), ms(0)))]);
    asked.sort_unstable();
    assert_eq!(asked, [worker(1), worker(2)], "each is asked once");
    assert_eq!(fleet.next_wake(), Some(late + ms(1)), "it is looked at again at once");
    let gap = Effect::Recovered { gap: late.since(at) };
    assert_eq!(fleet.beat(late, worker(1), 1), Ok(Some(gap)));
    assert_eq!(expire(&mut fleet, late + ms(1)), []);
    let deadline = late + ms(5750);
    let verdict = expire(&mut fleet, deadline + NANO);
    assert_eq!(verdict.last(), Some(&(worker(1), 1, failed(NANO, ms(0)))));
}

#[test]
fn a_beat_moves_the_deadline_and_ends_a_suspicion() {
    let (mut fleet, at) = (fleet(), START + ms(10_000));
    join(&mut fleet, at, worker(1), process(1));
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
    join(&mut fleet, at, worker(1), process(1));
    assert!(fleet.disconnected(worker(1), 1).is_some());
    assert_eq!(fleet.beat(at, worker(1), 1), Ok(Some(Effect::Ready)));
}

#[test]
fn a_stall_is_added_to_deadlines_armed_before_it_and_to_no_later_one() {
    let (mut fleet, at) = (fleet(), START + ms(10_000));
    for n in [1, 2] {
        join(&mut fleet, at, worker(n), process(n));
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
    assert_eq!(join(&mut fleet, at, worker(1), process(1)), Registration::New { epoch: 1 });
    for known in [Some(1), None] {
        // None: it never heard the answer.
        let resumed = fleet.register(at, worker(1), process(1), known);
        assert_eq!(resumed, Registration::Resumed { epoch: 1 });
    }
    assert_eq!(join(&mut fleet, at, worker(1), process(2)), Registration::New { epoch: 2 });
    assert_eq!(fleet.register(at, worker(1), process(1), Some(1)), Registration::Superseded);
    assert_eq!(fleet.beat(at, worker(1), 1), Err(Stale::Superseded));
    assert_eq!(fleet.disconnected(worker(1), 1), None, "the old process's socket says nothing");
    assert_eq!(fleet.live(), 1);
}

#[test]
fn a_worker_that_failed_has_to_register_anew_and_fails_again_like_the_first_time() {
    let (mut fleet, mut at) = (fleet(), START + ms(10_000));
    for epoch in 1..=3u8 {
        let anew = join(&mut fleet, at, worker(1), process(epoch));
        assert_eq!(anew, Registration::New { epoch: epoch.into() });
        let effects = expire(&mut fleet, at + ms(5750) + NANO);
        assert_eq!(effects, [(worker(1), epoch.into(), failed(NANO, ms(0)))]);
        for known in [Some(epoch.into()), None] {
            let again = fleet.register(at, worker(1), process(epoch), known);
            assert_eq!(again, Registration::Failed);
        }
        at += ms(20_000);
    }
}

#[test]
fn a_worker_that_left_is_never_failed_and_is_forgotten_after_a_day() {
    let (mut fleet, at) = (fleet(), START + ms(10_000));
    join(&mut fleet, at, worker(1), process(1));
    assert!(fleet.draining(worker(1), 1));
    assert!(!fleet.draining(worker(1), 1), "asked twice is no news");
    assert!(fleet.deregister(at, worker(1), 1));
    assert!(!fleet.deregister(at, worker(1), 1));
    assert_eq!(fleet.beat(at, worker(1), 1), Err(Stale::Left));
    assert_eq!(fleet.disconnected(worker(1), 1), None);
    assert_eq!(expire(&mut fleet, (at + REMEMBERED).before(NANO)), []);
    assert_eq!(expire(&mut fleet, at + REMEMBERED), [(worker(1), 1, Effect::Forgotten)]);
    assert_eq!(fleet.next_wake(), None);
    // Its epoch may be on record with what it worked on.
    for n in [1, 2] {
        let anew = fleet.register(at + REMEMBERED, worker(n), process(9), None);
        assert_eq!(anew, Registration::New { epoch: 2 });
    }
}

#[test]
fn a_draining_worker_is_not_suspected_but_its_deadline_runs() {
    let (mut fleet, at) = (fleet(), START + ms(10_000));
    join(&mut fleet, at, worker(1), process(1));
    fleet.draining(worker(1), 1);
    assert_eq!(fleet.disconnected(worker(1), 1), None);
    assert_eq!(expire(&mut fleet, at + ms(5750)), []);
    assert_eq!(expire(&mut fleet, at + ms(5751)).len(), 1);
}

#[test]
fn a_full_fleet_takes_no_new_worker_but_a_known_one_may_come_back() {
    let mut fleet = fleet();
    for n in 0..8 {
        join(&mut fleet, START, worker(n), process(n));
    }
    assert_eq!(join(&mut fleet, START, worker(9), process(9)), Registration::Full);
    let again = join(&mut fleet, START, worker(3), process(9));
    assert_eq!(again, Registration::New { epoch: 2 });
    fleet.deregister(START, worker(0), 1);
    assert_eq!(join(&mut fleet, START, worker(9), process(9)), Registration::New { epoch: 1 });
}

#[test]
fn a_worker_that_comes_back_for_ever_leaves_no_trail_in_the_heap() {
    let (mut fleet, mut at) = (fleet(), START + ms(10_000));
    for _ in 0..2_000 {
        join(&mut fleet, at, worker(1), Incarnation::generate());
        at += ms(100);
        expire(&mut fleet, at);
    }
    assert!(fleet.fleet.soon() < 20, "{} entries for one worker", fleet.fleet.soon());
}

#[test]
fn after_a_restart_nobody_is_suspected_before_the_fence_time_nor_failed_before_a_full_deadline() {
    let mut fleet = fleet();
    fleet.restore(START, worker(1), 4, process(1), State::Ready);
    fleet.restore(START, worker(2), 2, process(2), State::Failed);
    assert_eq!(fleet.live(), 1);
    assert_eq!(expire(&mut fleet, START + ms(3_999)), []);
    assert_eq!(expire(&mut fleet, START + ms(4_000)).len(), 1);
    assert_eq!(expire(&mut fleet, START + ms(5_750)), []);
    assert_eq!(expire(&mut fleet, START + ms(5_751)), [(worker(1), 4, failed(ms(1), ms(0)))]);
    assert_eq!(fleet.register(START, worker(2), process(2), Some(2)), Registration::Failed);
}

#[test]
fn a_worker_whose_registration_waits_for_the_disk_is_not_failed_for_it() {
    let (mut fleet, at) = (fleet(), START + ms(10_000));
    fleet.register(at, worker(1), process(1), None);
    assert_eq!(expire(&mut fleet, at + ms(3_600_000)), []);
    let answered = at + ms(3_600_001);
    fleet.answered(answered, worker(1), 1);
    let effects = expire(&mut fleet, answered + ms(1500));
    assert_eq!(effects, [(worker(1), 1, Effect::Suspected(Suspicion::MissedBeats))]);
    assert_eq!(expire(&mut fleet, answered + ms(5750)), []);
    let verdict = expire(&mut fleet, answered + ms(5750) + NANO);
    assert_eq!(verdict, [(worker(1), 1, failed(NANO, ms(0)))]);
}

#[test]
fn after_a_restart_a_worker_that_has_beaten_or_is_new_has_no_longer_grace_than_ever() {
    let mut fleet = fleet();
    fleet.restore(START, worker(1), 4, process(1), State::Ready);
    assert_eq!(fleet.beat(START + ms(100), worker(1), 4), Ok(None), "it was ready before");
    join(&mut fleet, START + ms(100), worker(2), process(2));
    assert_eq!(expire(&mut fleet, START + ms(1_599)), []);
    assert_eq!(expire(&mut fleet, START + ms(1_600)).len(), 2);
}

#[test]
fn a_stall_right_after_a_restart_also_puts_off_the_suspicion_of_who_was_known_before() {
    let mut fleet = fleet();
    fleet.restore(START, worker(1), 4, process(1), State::Ready);
    fleet.credit(ms(10_000));
    assert_eq!(expire(&mut fleet, START + ms(13_999)), []);
    assert_eq!(expire(&mut fleet, START + ms(14_000)).len(), 1);
}

#[test]
fn who_beats_on_time_is_never_queued() {
    let (mut fleet, at) = (fleet(), START);
    join(&mut fleet, at, worker(1), process(1));
    for late in 1..2_000 {
        // The beat, and the looks between, at the pace and with the jitter that there may be.
        fleet.beat(at + ms(500 * late + late % 20), worker(1), 1).unwrap();
        for look in 0..10 {
            assert_eq!(expire(&mut fleet, at + ms(500 * late + 20 + 48 * look)), []);
            assert_eq!(fleet.next_wake(), None);
        }
    }
}

#[test]
fn a_registration_that_is_answered_again_begins_the_deadline_again_like_the_fence() {
    let (at, again) = (START + ms(10_000), START + ms(13_000));
    let mut restored = fleet();
    restored.restore(at, worker(1), 1, process(1), State::Ready);
    let mut registered = fleet();
    join(&mut registered, at, worker(1), process(1));
    for mut fleet in [registered, restored] {
        assert!(fleet.disconnected(worker(1), 1).is_some());
        // It did not hear the answer; it hears this one, and is cut off before it beats.
        let resumed = fleet.register(again, worker(1), process(1), None);
        assert_eq!(resumed, Registration::Resumed { epoch: 1 });
        fleet.answered(again, worker(1), 1);
        assert_eq!(expire(&mut fleet, again + ms(5_750)), [], "its fence may fall at 4 s");
        let verdict = expire(&mut fleet, again + ms(5_750) + NANO);
        assert_eq!(verdict, [(worker(1), 1, failed(NANO, ms(0)))]);
    }
}

#[test]
fn a_worker_that_beats_moves_its_deadline_by_no_registration() {
    let (mut fleet, at) = (fleet(), START + ms(10_000));
    join(&mut fleet, at, worker(1), process(1));
    fleet.beat(at, worker(1), 1).unwrap();
    fleet.register(at + ms(3_000), worker(1), process(1), None);
    fleet.answered(at + ms(3_000), worker(1), 1);
    assert_eq!(expire(&mut fleet, at + ms(5_750) + NANO), [(worker(1), 1, failed(NANO, ms(0)))]);
}

#[test]
fn whatever_epoch_a_worker_names_there_is_a_next_one() {
    let mut fleet = fleet();
    let mut last = 0;
    for n in 1..=3 {
        let named = if n == 1 { Some(u64::MAX) } else { None };
        let outcome = fleet.register(START, worker(1), process(n), named);
        let Registration::New { epoch } = outcome else { panic!("{outcome:?}") };
        assert!(epoch > last, "{epoch} after {last}");
        last = epoch;
    }
}

#[test]
fn a_rush_after_a_restart_puts_off_the_verdict_on_who_is_not_back_and_on_nobody_else() {
    let mut fleet = fleet();
    fleet.restore(START, worker(1), 4, process(1), State::Ready);
    fleet.restore(START, worker(2), 1, process(2), State::Ready);
    assert_eq!(fleet.beat(START, worker(2), 1), Ok(None), "it is back");
    join(&mut fleet, START, worker(3), process(3));
    fleet.credit_restored(ms(3_000));
    let effects = expire(&mut fleet, START + ms(5_751));
    let verdicts: Vec<_> = effects.iter().filter(|(.., it)| *it == failed(ms(1), ms(0))).collect();
    assert_eq!(verdicts.iter().map(|it| it.0).collect::<Vec<_>>(), [worker(2), worker(3)]);
    assert!(fleet.awaits_restored(START + ms(8_750)));
    assert_eq!(expire(&mut fleet, START + ms(8_750)).len(), 1, "it is suspected");
    let effects = expire(&mut fleet, START + ms(8_751));
    assert_eq!(effects, [(worker(1), 4, failed(ms(1), ms(3_000)))]);
    assert!(!fleet.awaits_restored(START + ms(8_751)));
}

#[test]
fn once_all_are_back_who_were_taken_over_nobody_is_awaited() {
    let mut fleet = fleet();
    let everybody = (1..=40).map(worker);
    for id in everybody.clone() {
        fleet.restore(START, id, 1, process(1), State::Ready);
    }
    let (first, interval) = (START + ms(10), TimeBudget::default().heartbeat_interval);
    for id in everybody.clone().skip(1) {
        assert_eq!(fleet.beat(first, id, 1), Ok(None));
    }
    expire(&mut fleet, first + interval);
    assert!(fleet.awaits_restored(first + interval), "one is not back");
    assert_eq!(fleet.beat(first + interval, worker(1), 1), Ok(None));
    expire(&mut fleet, first + interval * 2);
    assert!(!fleet.awaits_restored(first + interval * 2));
}
