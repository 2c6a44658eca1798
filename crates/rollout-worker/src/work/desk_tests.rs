//! The desk against a naive coordinator and plugins that do whatever they like.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rollout_transport::work::{Failure, WorkDown, WorkUp};

use super::*;
use crate::work::verdict::{Answer, CallEnd};

const PROGRESS: Duration = Duration::from_secs(2);
const ITEM: Duration = Duration::from_secs(10);

fn failure(code: &str) -> Failure {
    Failure { code: code.into(), message: String::new(), traceback: None, stderr_tail: None }
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.into()).unwrap()
}

/// A lease as the coordinator has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    attempt: u32,
    leased: bool,
    alone: bool,
    done: bool,
}

/// The coordinator, and the calls that the plugins have.
struct World {
    desk: Desk,
    now: Mono,
    job: JobId,
    items: BTreeMap<u64, Known>,
    credit: u64,
    /// What each call has: the items by their place, as long as they have no answer.
    calls: BTreeMap<u64, BTreeMap<usize, u64>>,
    alone: Option<u64>,
    places: usize,
    /// The `Done` lines so far, and which are acknowledged.
    lines: Vec<Vec<(Lease, String)>>,
    acked: usize,
    said: usize,
    fenced: bool,
    progressed: BTreeSet<u64>,
}

impl World {
    fn new(places: usize) -> Self {
        let benches = vec![Bench { name: "p".into(), places }];
        let mut world = Self {
            desk: Desk::new(benches, 2),
            now: Mono(1 << 40),
            job: JobId::generate(),
            items: BTreeMap::new(),
            credit: 0,
            calls: BTreeMap::new(),
            alone: None,
            places,
            lines: Vec::new(),
            acked: 0,
            said: 0,
            fenced: false,
            progressed: BTreeSet::new(),
        };
        world.stream();
        world
    }

    fn hear(&mut self, line: WorkDown) {
        self.desk.heard(self.now, line).unwrap();
    }

    /// A new stream, on which all leases are said again.
    fn stream(&mut self) {
        self.desk.stream(self.now);
        (self.credit, self.said) = (0, self.acked);
        let limits =
            JobLimits { progress_timeout: PROGRESS, item_timeout: ITEM, ..JobLimits::default() };
        let (plugin, method) = ("p".into(), "m".into());
        self.hear(WorkDown::Job { job: self.job, plugin, method, seed: 7, limits });
        let leased: Vec<_> = self.items.iter().filter(|(_, known)| known.leased).collect();
        let grants: Vec<_> =
            leased.iter().map(|(item, known)| self.grant(**item, **known)).collect();
        grants.into_iter().for_each(|grant| self.hear(grant));
    }

    fn grant(&self, first: u64, known: Known) -> WorkDown {
        let Known { attempt, alone, .. } = known;
        WorkDown::Grant { job: self.job, attempt, first, count: 1, alone, params: None }
    }

    /// Grants as much as the credit allows: items that wait first, then new ones.
    fn grant_some(&mut self, count: u64, alone: bool) {
        for _ in 0..count.min(self.credit) {
            self.credit -= 1;
            let waits = |known: &Known| !known.leased && !known.done;
            let next = self.items.len() as u64;
            let item = self.items.iter().find(|(_, known)| waits(known)).map_or(next, |(i, _)| *i);
            let none = Known { attempt: 0, leased: false, alone: false, done: false };
            let known = self.items.entry(item).or_insert(none);
            (known.attempt, known.leased, known.alone) = (known.attempt + 1, true, alone);
            let known = *known;
            self.hear(self.grant(item, known));
        }
    }

    /// Begins and says what there is to.
    fn pump(&mut self) -> Result<(), TestCaseError> {
        for call in self.desk.take_cut() {
            prop_assert!(self.calls.remove(&call).is_some());
            self.alone = self.alone.filter(|alone| *alone != call);
        }
        while let Some(plan) = self.desk.next_call(self.now) {
            self.begun(&plan)?;
        }
        while let Some(line) = self.desk.next_line(self.now) {
            prop_assert!(!self.fenced);
            self.line(line)?;
        }
        Ok(())
    }

    fn begun(&mut self, plan: &Plan) -> Result<(), TestCaseError> {
        prop_assert!(!self.fenced);
        prop_assert!(self.calls.len() < self.places);
        prop_assert!(self.alone.is_none(), "another beside one that is to be alone");
        let item = |params: &RawValue| {
            let value: serde_json::Value = serde_json::from_str(params.get()).unwrap();
            let item = value["item"].as_u64().unwrap();
            assert_eq!(value["seed"].as_u64(), Some(rollout_core::job::item_seed(7, item)));
            item
        };
        let items: BTreeMap<usize, u64> =
            plan.params.iter().map(|params| item(params)).enumerate().collect();
        prop_assert!(!items.is_empty());
        for item in items.values() {
            let known = self.items[item];
            prop_assert!(known.leased, "item {} is not its", item);
            if known.alone {
                prop_assert!(items.len() == 1 && self.calls.is_empty());
                self.alone = Some(plan.call);
            }
        }
        self.calls.insert(plan.call, items);
        Ok(())
    }

    fn line(&mut self, line: WorkUp) -> Result<(), TestCaseError> {
        match line {
            WorkUp::Want { items } => {
                self.credit += u64::from(items);
                prop_assert!(self.credit as usize <= pace::MOST);
            }
            WorkUp::Done { seq, outcomes, .. } => {
                let seq = seq as usize;
                prop_assert_eq!(seq, self.said + 1);
                self.said = seq;
                let outcomes: Vec<_> =
                    outcomes.iter().map(|of| (of.lease, format!("{:?}", of.end))).collect();
                if seq <= self.lines.len() {
                    prop_assert_eq!(&self.lines[seq - 1], &outcomes);
                    return Ok(());
                }
                for (lease, end) in &outcomes {
                    self.outcome(*lease, end)?;
                }
                self.lines.push(outcomes);
            }
            WorkUp::Return { leases, .. } => {
                for lease in leases {
                    self.release(lease);
                }
            }
            WorkUp::Progress { items, .. } => self.progressed.extend(items),
            WorkUp::Hello { .. } => prop_assert!(false, "it has said that"),
        }
        Ok(())
    }

    fn outcome(&mut self, lease: Lease, end: &str) -> Result<(), TestCaseError> {
        let twice = self.lines.iter().flatten().any(|(other, _)| *other == lease);
        prop_assert!(!twice, "{:?} has two outcomes", lease);
        let known = self.items.get_mut(&lease.item).unwrap();
        if known.attempt == lease.attempt && known.leased {
            known.leased = false;
            known.done = end.starts_with("Result");
        }
        Ok(())
    }

    fn release(&mut self, lease: Lease) {
        let known = self.items.get_mut(&lease.item).unwrap();
        if known.attempt == lease.attempt {
            known.leased = false;
        }
    }

    fn nth_call(&self, n: usize) -> Option<u64> {
        self.calls.keys().nth(n % self.calls.len().max(1)).copied()
    }

    fn answer(&mut self, call: u64, answer: impl Fn() -> Answer) {
        let Some(items) = self.calls.get_mut(&call) else { return };
        let Some((n, _)) = items.pop_first() else { return };
        self.desk.answered(self.now, call, n, answer());
        // A second one for the same item is nothing.
        self.desk.answered(self.now, call, n, answer());
    }

    fn end(&mut self, call: u64, end: CallEnd) {
        self.calls.remove(&call);
        self.alone = self.alone.filter(|alone| *alone != call);
        let _ = self.desk.ended(self.now, call, end);
    }

    fn ack(&mut self, n: usize) {
        self.acked += n.min(self.said - self.acked);
        let seq = self.acked as u64;
        self.hear(WorkDown::Ack { seq, stale: Vec::new() });
    }

    fn revoke(&mut self, n: usize) {
        let leased: Vec<u64> =
            self.items.iter().filter(|(_, known)| known.leased).map(|(item, _)| *item).collect();
        let Some(item) = leased.get(n % leased.len().max(1)).copied() else { return };
        let lease = Lease { item, attempt: self.items[&item].attempt };
        self.release(lease);
        self.hear(WorkDown::Revoke { job: self.job, leases: vec![lease] });
    }

    fn settle(&mut self) {
        let settling: Vec<usize> = self.desk.settling().map(|(at, _)| at).collect();
        settling.into_iter().for_each(|at| self.desk.settled(at, self.places));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Grant(count, alone) => self.grant_some(count, alone),
            Step::Answer(call, kind) => {
                let Some(call) = self.nth_call(call) else { return };
                self.answer(call, || match kind {
                    0 => Answer::Failed(failure("user")),
                    1 => Answer::NotRun,
                    _ => Answer::Result(raw("1")),
                });
            }
            Step::End(call, kind) => {
                let Some(call) = self.nth_call(call) else { return };
                while kind > 6 && !self.calls[&call].is_empty() {
                    self.answer(call, || Answer::Result(raw("2")));
                }
                self.end(call, end_of(kind));
            }
            Step::Progress(call) => {
                if let Some(call) = self.nth_call(call) {
                    self.desk.progress(self.now, call);
                }
            }
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.desk.expire(self.now);
            }
            Step::Revoke(n) => self.revoke(n),
            Step::Stream => self.stream(),
            Step::Fence(fenced) => {
                self.fenced = fenced;
                self.desk.fence(fenced);
            }
            Step::Ack(n) => self.ack(n),
            Step::Settle => self.settle(),
        }
    }
}

fn end_of(kind: u8) -> CallEnd {
    match kind {
        0 => CallEnd::Crashed(failure("crashed")),
        1 => CallEnd::Killed,
        2 => CallEnd::Suspect(failure("deadline")),
        3 => CallEnd::Hopeless(failure("unknown_method")),
        4 => CallEnd::NotRun(None),
        5 => CallEnd::NotRun(Some(Duration::from_secs(5))),
        _ => CallEnd::Answered,
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Grant(u64, bool),
    Answer(usize, u8),
    End(usize, u8),
    Progress(usize),
    Wait(u64),
    Revoke(usize),
    Stream,
    Fence(bool),
    Ack(usize),
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (1u64..20, prop::bool::weighted(0.1)).prop_map(|(n, alone)| Step::Grant(n, alone)),
        10 => (any::<usize>(), 0u8..8).prop_map(|(call, kind)| Step::Answer(call, kind)),
        6 => (any::<usize>(), 0u8..6).prop_map(|(call, kind)| Step::End(call, kind)),
        8 => any::<usize>().prop_map(|call| Step::End(call, 7)),
        2 => any::<usize>().prop_map(Step::Progress),
        4 => prop_oneof![0u64..50, 0u64..3_000].prop_map(Step::Wait),
        2 => any::<usize>().prop_map(Step::Revoke),
        2 => Just(Step::Stream),
        1 => Just(Step::Fence(true)),
        2 => Just(Step::Fence(false)),
        6 => (0usize..6).prop_map(Step::Ack),
        4 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 0..150)
}

proptest! {
    /// Whatever the coordinator and the plugins do: nothing is run that is not held, nothing beside
    /// what is to be alone, no more calls than there are places; no lease has two outcomes, and none
    /// is lost: in the end each has its outcome or went back.
    #[test]
    fn every_lease_comes_to_one_end(steps in steps(), places in 1usize..5) {
        let mut world = World::new(places);
        world.pump()?;
        for step in steps {
            world.step(step);
            world.pump()?;
        }
        world.step(Step::Fence(false));
        for _ in 0..10_000 {
            world.now += Duration::from_millis(1_001);
            world.settle();
            world.pump()?;
            while let Some(call) = world.nth_call(0) {
                world.step(Step::End(usize::MAX - usize::MAX % world.calls.len(), 7));
                prop_assert!(!world.calls.contains_key(&call));
            }
            world.ack(usize::MAX);
            if world.items.values().all(|known| !known.leased) {
                break;
            }
        }
        let left: Vec<_> = world.items.iter().filter(|(_, known)| known.leased).collect();
        prop_assert!(left.is_empty(), "{:?}", left);
        world.pump()?;
        world.ack(usize::MAX);
        prop_assert!(world.desk.jobs.values().all(|job| job.held.is_empty()));
        prop_assert!(world.desk.is_clear());
    }

    /// Told to leave, it begins nothing more, and gives everything back that has no outcome.
    #[test]
    fn whoever_leaves_begins_nothing_and_gives_back_what_it_has(
        before in steps(), after in steps(), places in 1usize..5,
    ) {
        let mut world = World::new(places);
        for step in before {
            world.step(step);
            world.pump()?;
        }
        world.step(Step::Fence(false));
        world.desk.leave();
        for step in after {
            world.step(step);
            prop_assert!(world.desk.next_call(world.now).is_none());
            world.pump()?;
        }
        world.step(Step::Fence(false));
        world.desk.abandon();
        for _ in 0..1_000 {
            world.pump()?;
            world.ack(usize::MAX);
        }
        prop_assert!(world.desk.is_clear());
        prop_assert!(world.calls.is_empty());
        prop_assert!(world.items.values().all(|known| !known.leased));
    }
}

/// A world with a call of so many items under way, all of one call.
fn with_call_of(items: u64) -> World {
    let mut world = World::new(1);
    world.pump().unwrap();
    for _ in 0..40 {
        let Some(call) = world.nth_call(0) else {
            world.grant_some(items, false);
            world.pump().unwrap();
            continue;
        };
        if world.calls[&call].len() as u64 == items {
            return world;
        }
        world.now += Duration::from_micros(10);
        world.step(Step::End(0, 7));
        world.pump().unwrap();
        world.ack(usize::MAX);
        world.pump().unwrap();
    }
    panic!("calls do not grow to {items} items");
}

/// The outcomes so far that are no results.
fn bad(world: &World) -> Vec<(u64, String)> {
    let all = world.lines.iter().flatten();
    let bad = all.filter(|(_, end)| !end.starts_with("Result"));
    bad.map(|(lease, end)| (lease.item, end.clone())).collect()
}

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
