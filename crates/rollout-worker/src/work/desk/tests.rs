//! The desk against a naive coordinator and plugins that do whatever they like.

mod blame;
mod held;

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
