//! Whom an item's end is held against: those that were stuck or crashed alone, and nobody else.

use super::*;

#[test]
fn of_several_items_without_an_answer_none_is_blamed_each_is_run_alone_and_the_stuck_one_fails() {
    let mut world = with_call_of(4);
    let call = world.nth_call(0).unwrap();
    world.answer(call, || Answer::Result(raw("1")));
    let left: Vec<u64> = world.calls[&call].values().copied().collect();
    world.step(Step::Wait(1_999));
    world.pump().unwrap();
    assert!(world.calls.contains_key(&call));
    world.step(Step::Wait(1));
    world.pump().unwrap();
    assert!(!world.calls.contains_key(&call), "it was given up");
    assert_eq!(bad(&world), []);
    world.settle();
    for item in left {
        world.pump().unwrap();
        let call = world.nth_call(0).unwrap();
        assert_eq!(world.calls[&call].values().copied().collect::<Vec<_>>(), [item]);
        if item % 2 == 0 {
            world.step(Step::Wait(2_000));
            world.pump().unwrap();
            world.settle();
            let bad = bad(&world);
            assert!(bad.last().is_some_and(|(of, end)| *of == item && end.contains("no_progress")));
        } else {
            world.step(Step::End(0, 7));
        }
    }
}

#[test]
fn a_sign_of_progress_moves_the_one_time_out_and_not_the_other() {
    let mut world = with_call_of(1);
    for _ in 0..9 {
        world.step(Step::Wait(1_100));
        world.step(Step::Progress(0));
    }
    world.pump().unwrap();
    assert_eq!(bad(&world), []);
    world.step(Step::Wait(100));
    world.pump().unwrap();
    assert!(bad(&world)[0].1.contains("item_timeout"), "{:?}", bad(&world));
}

#[test]
fn no_item_is_blamed_for_the_time_that_its_plugin_takes_to_start_again() {
    let mut world = with_call_of(1);
    for _ in 0..20 {
        world.now += Duration::from_millis(1_500);
        world.desk.restarting(world.now, 0);
        world.desk.expire(world.now);
    }
    world.pump().unwrap();
    assert_eq!((bad(&world), world.calls.len()), (vec![], 1), "its time has not begun");
    world.step(Step::End(0, 7));
    world.grant_some(1, false);
    world.desk.restarting(world.now, 0);
    world.pump().unwrap();
    assert!(world.calls.is_empty(), "nothing is begun");
    world.settle();
    world.pump().unwrap();
    assert_eq!(world.calls.len(), 1);
}

#[test]
fn no_item_is_blamed_for_the_time_in_which_the_worker_stood_still() {
    let mut world = with_call_of(1);
    world.step(Step::Wait(500));
    world.now += Duration::from_secs(60);
    world.desk.stalled(world.now, Duration::from_secs(60));
    world.step(Step::Wait(1_499));
    world.pump().unwrap();
    assert_eq!((bad(&world), world.calls.len()), (vec![], 1));
    world.step(Step::Wait(1));
    world.pump().unwrap();
    assert!(bad(&world)[0].1.contains("no_progress"), "what it had before the stall still counts");
}

#[test]
fn a_crash_is_held_against_an_item_only_if_nothing_else_was_in_the_plugins_hands() {
    for (places, alone) in [(1, true), (2, false)] {
        let mut world = World::new(places);
        world.pump().unwrap();
        world.grant_some(places as u64, false);
        world.pump().unwrap();
        assert_eq!(world.calls.len(), places);
        for _ in 0..places {
            world.step(Step::End(0, 0));
        }
        world.pump().unwrap();
        let bad = bad(&world);
        assert_eq!(bad.len(), places);
        let said = format!("alone: {alone}");
        assert!(bad.iter().all(|(_, end)| end.contains(&said)), "{bad:?}");
    }
}

#[test]
fn whoever_is_killed_for_another_or_was_never_run_is_run_again_and_not_blamed() {
    for kind in [1, 4] {
        let mut world = with_call_of(2);
        let items: BTreeSet<u64> =
            world.calls.values().flat_map(BTreeMap::values).copied().collect();
        world.step(Step::End(0, kind));
        world.step(Step::Wait(1_000));
        world.pump().unwrap();
        assert_eq!(bad(&world), []);
        let again: BTreeSet<u64> =
            world.calls.values().flat_map(BTreeMap::values).copied().collect();
        assert_eq!(again, items);
    }
}
