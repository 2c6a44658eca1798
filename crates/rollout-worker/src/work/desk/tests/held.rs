//! What is held, what is said of it, and what is wanted meanwhile.

use super::*;

#[test]
fn a_job_of_which_nothing_is_held_takes_no_room() {
    let mut world = with_call_of(4);
    assert!(world.desk.jobs.values().all(|job| job.held.capacity() > 0));
    world.desk.leave();
    while !world.calls.is_empty() {
        world.step(Step::End(0, 7));
    }
    world.pump().unwrap();
    world.ack(usize::MAX);
    assert_eq!(world.desk.held(), 0);
    assert!(world.desk.jobs.values().all(|job| job.held.capacity() == 0));
}

#[test]
fn a_plugin_that_says_for_how_long_it_cannot_be_called_wants_nothing_until_then() {
    let mut world = with_call_of(1);
    let call = world.nth_call(0).unwrap();
    world.calls.clear();
    let wait = Duration::from_secs(5);
    let said = world.desk.ended(world.now, call, CallEnd::NotRun(Some(wait)));
    assert_eq!(said, Some(("p", wait)));
    world.stream();
    for _ in 0..4 {
        world.step(Step::Wait(1_200));
        world.pump().unwrap();
        assert_eq!((world.credit, world.calls.len()), (0, 0));
    }
    assert_eq!(world.desk.wake(world.now, false), Some(world.now + Duration::from_millis(200)));
    world.step(Step::Wait(200));
    world.pump().unwrap();
    assert!(world.credit > 0);
}

#[test]
fn progress_is_said_of_what_waits_and_moves_and_not_of_what_is_stuck() {
    let mut world = World::new(1);
    world.pump().unwrap();
    world.grant_some(2, false);
    world.pump().unwrap();
    let running = world.calls.values().flat_map(BTreeMap::values).copied().next().unwrap();
    let mut said = Vec::new();
    for _ in 0..3 {
        world.progressed.clear();
        world.step(Step::Wait(500));
        world.pump().unwrap();
        said.push((world.progressed.contains(&running), world.progressed.len()));
    }
    assert_eq!(said, [(true, 2), (false, 1), (false, 1)], "it was begun, and then nothing");
    world.progressed.clear();
    world.step(Step::Progress(0));
    world.step(Step::Wait(500));
    world.pump().unwrap();
    assert!(world.progressed.contains(&running));
}

#[test]
fn another_epoch_forgets_everything() {
    let mut world = with_call_of(2);
    world.desk.epoch();
    assert!(world.desk.is_clear());
    assert_eq!(world.desk.take_cut().len(), 1);
    world.desk.answered(world.now, 1, 0, Answer::Result(raw("1")));
    world.settle();
    assert!(world.desk.next_call(world.now).is_none());
}

#[test]
fn a_large_result_is_said_once_it_is_uploaded() {
    let mut world = with_call_of(1);
    let call = world.nth_call(0).unwrap();
    let text = format!("\"{}\"", "x".repeat(70_000));
    let before = world.lines.len();
    world.answer(call, || Answer::Result(raw(&text)));
    world.end(call, CallEnd::Answered);
    world.pump().unwrap();
    assert_eq!(world.lines.len(), before);
    let large = world.desk.next_large().unwrap();
    world.desk.not_uploaded(large);
    let large = world.desk.next_large().unwrap();
    let bytes = large.result.get().len();
    assert_eq!(bytes, 70_002);
    world.desk.uploaded(large.job, large.lease, bytes, Desk::blob("ab".into(), bytes));
    world.pump().unwrap();
    let last = &world.lines[before][0].1;
    assert!(last.contains("ab") && last.contains("70002"), "{last}");
    assert_eq!(world.desk.large_bytes, 0);
}
