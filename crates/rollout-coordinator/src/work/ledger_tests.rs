//! The ledger against a naive model that remembers every grant, under random interleavings of all
//! that can happen, the coordinator's own death included.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use rollout_core::job::Redispatch;

use super::words::{Grant, Suspect, Tally, Trouble};
use super::*;

const WORKERS: usize = 3;
const ITEMS: u64 = 24;

pub(super) fn worker_id(at: usize) -> WorkerId {
    let mut bytes = [1; 16];
    bytes[15] = u8::try_from(at).unwrap();
    WorkerId::from_bytes(bytes)
}

pub(super) fn job_id(at: usize) -> JobId {
    let mut bytes = [2; 16];
    bytes[15] = u8::try_from(at).unwrap();
    JobId::from_bytes(bytes)
}

pub(super) fn spec(items: u64, redispatch: Redispatch) -> JobSpec {
    let limits = JobLimits {
        batch: 5,
        max_losses: 4,
        redispatch,
        progress_timeout: Duration::from_secs(10),
        ..JobLimits::default()
    };
    JobSpec {
        name: "a test".into(),
        plugin: "sample".into(),
        method: "run".into(),
        items,
        has_params: false,
        params_sha256: String::new(),
        plugin_digest: String::new(),
        seed: 0,
        limits,
    }
}

/// What is on disk.
#[derive(Debug, Clone)]
enum Record {
    Grant(Grant),
    Release { job: JobId, worker: WorkerId, item: u64, cause: Cause },
    Settled { job: JobId, worker: WorkerId },
    Fresh { job: JobId, fresh: u64 },
    Waiting { job: JobId, item: u64 },
    Taken { job: JobId, worker: (WorkerId, u64), item: u64 },
}

impl Record {
    fn job(&self) -> JobId {
        match self {
            Self::Grant(grant) => grant.job,
            Self::Release { job, .. }
            | Self::Settled { job, .. }
            | Self::Fresh { job, .. }
            | Self::Waiting { job, .. }
            | Self::Taken { job, .. } => *job,
        }
    }
}

/// What the model knows of an item.
#[derive(Debug, Default)]
struct Known {
    grants: Vec<Grant>,
    leased: bool,
    /// Whether the epoch of the last grant has ended.
    disowned: bool,
    ends: u32,
    failures: u32,
    losses: u32,
}

struct World {
    ledger: Ledger,
    now: Mono,
    items: BTreeMap<(JobId, u64), Known>,
    standing: [(u64, Standing, bool); WORKERS],
    credit: [u32; WORKERS],
    /// What a worker may run still, though it was taken from it when it was suspected.
    taken: [BTreeSet<(JobId, u64)>; WORKERS],
    /// Every lease that was ever granted, to be answered at any time.
    seen: Vec<(usize, u64, JobId, Lease)>,
    log: Vec<Record>,
    ended: Vec<(JobId, u64, bool)>,
    troubles: HashMap<(JobId, u64), Trouble>,
    tallies: BTreeMap<JobId, Tally>,
}

#[derive(Debug, Clone)]
enum Step {
    Want(usize, u32),
    Answer(usize, u8),
    Return(usize),
    Progress(usize),
    Suspect(usize),
    Ready(usize),
    Fail(usize),
    Replace(usize),
    Drain(usize),
    Cut(usize),
    Open(usize),
    Advance(u64),
    Pause(usize, bool),
    Shorten(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let worker = || 0..WORKERS;
    prop_oneof![
        6 => (worker(), 1..12_u32).prop_map(|(w, n)| Step::Want(w, n)),
        12 => (any::<usize>(), 0..10_u8).prop_map(|(at, what)| Step::Answer(at, what)),
        1 => any::<usize>().prop_map(Step::Return),
        1 => any::<usize>().prop_map(Step::Progress),
        2 => worker().prop_map(Step::Suspect),
        3 => worker().prop_map(Step::Ready),
        1 => worker().prop_map(Step::Fail),
        2 => worker().prop_map(Step::Replace),
        1 => worker().prop_map(Step::Drain),
        1 => worker().prop_map(Step::Cut),
        3 => worker().prop_map(Step::Open),
        3 => (1..4_000_u64).prop_map(Step::Advance),
        1 => (0..2_usize, any::<bool>()).prop_map(|(job, paused)| Step::Pause(job, paused)),
        1 => (0..2_usize).prop_map(Step::Shorten),
        1 => Just(Step::Restart),
    ]
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            ledger: Ledger::new(),
            now: Mono(1),
            items: BTreeMap::new(),
            standing: [(1, Standing::Registered, false); WORKERS],
            credit: [0; WORKERS],
            taken: [const { BTreeSet::new() }; WORKERS],
            seen: Vec::new(),
            log: Vec::new(),
            ended: Vec::new(),
            troubles: HashMap::new(),
            tallies: specs().into_iter().map(|(job, _)| (job, Tally::default())).collect(),
        };
        for (job, spec) in specs() {
            world.ledger.add_job(job, &spec);
            for item in 0..spec.items {
                world.items.insert((job, item), Known::default());
            }
        }
        world
    }

    fn act(&mut self, step: &Step) {
        match *step {
            Step::Want(w, n) => {
                let (epoch, standing, up) = self.standing[w];
                self.ledger.want(worker_id(w), epoch, n);
                if standing != Standing::Failed && up {
                    self.credit[w] += n;
                }
            }
            Step::Answer(at, what) => self.answer(at, what),
            Step::Return(at) => self.give_back(at),
            Step::Progress(at) => {
                if let Some((w, epoch, job, lease)) = self.pick(at) {
                    self.ledger.progress(self.now, worker_id(w), epoch, job, &[lease.item]);
                }
            }
            Step::Suspect(w) => self.stand(w, 0, Standing::Suspected),
            Step::Ready(w) => self.stand(w, 0, Standing::Ready),
            Step::Fail(w) => self.stand(w, 0, Standing::Failed),
            Step::Replace(w) => self.stand(w, 1, Standing::Ready),
            Step::Drain(w) => self.stand(w, 0, Standing::Draining),
            Step::Cut(w) => {
                self.ledger.stream_down(worker_id(w));
                (self.standing[w].2, self.credit[w]) = (false, 0);
            }
            Step::Open(w) => self.open(w),
            Step::Advance(ms) => {
                self.now += Duration::from_millis(ms);
                let mut out = Vec::new();
                self.ledger.expire(self.now, &mut out);
                self.carry_out(out);
            }
            Step::Pause(job, paused) => assert!(self.ledger.pause(job_id(job), paused)),
            Step::Shorten(job) => self.shorten(job_id(job)),
            Step::Restart => self.restart(),
        }
        let mut out = Vec::new();
        self.ledger.grant(self.now, &mut out);
        self.carry_out(out);
    }

    /// Liveness never takes a verdict back: only a new epoch follows on a failure.
    fn stand(&mut self, w: usize, newer: u64, standing: Standing) {
        let (epoch, before, up) = self.standing[w];
        if before == Standing::Failed && newer == 0 {
            return;
        }
        let gone = newer > 0 || standing == Standing::Failed;
        let known = &self.items;
        if standing == Standing::Ready && before == Standing::Suspected && !gone {
            self.taken[w].retain(|key| known[key].ends == 0);
        }
        let held = known.iter().filter(|(_, k)| k.leased && k.holds(w)).map(|(key, _)| *key);
        let in_hand: BTreeSet<_> = held.chain(self.taken[w].iter().copied()).collect();
        let losses: BTreeMap<_, _> =
            known.iter().filter(|(_, k)| k.ends == 0).map(|(key, k)| (*key, k.losses)).collect();
        self.standing[w] = (epoch + newer, standing, up && !gone);
        if gone {
            self.credit[w] = 0;
        }
        let mut out = Vec::new();
        self.ledger.worker(self.now, worker_id(w), epoch + newer, standing, &mut out);
        self.carry_out(out);
        if gone {
            let held = self.items.values().filter(|k| k.leased && k.holds(w));
            assert_eq!(held.count(), 0, "the leases of an epoch end with it");
            for known in self.items.values_mut().filter(|k| k.holds(w)) {
                known.disowned = true;
            }
            self.taken[w].clear();
        }
        // A crash counts against what was in its hands, when it is known to be one, and only there.
        let only = u32::from(gone && in_hand.len() == 1);
        for (key, before) in losses {
            let blamed = u32::from(in_hand.contains(&key)) * only;
            assert_eq!(self.items[&key].losses, before + blamed, "{key:?} of {in_hand:?}");
            let (job, item) = key;
            if gone && in_hand.contains(&key) && self.items[&key].ends == 0 {
                assert_ne!(self.ledger.jobs[&job].items.suspect(item), Suspect::No, "{key:?}");
            }
        }
    }

    fn open(&mut self, w: usize) {
        let (epoch, standing, _) = self.standing[w];
        let opened = self.ledger.stream_up(worker_id(w), epoch, ["sample".to_owned()]);
        let may = standing != Standing::Failed && self.knows(w);
        assert_eq!(opened.is_ok(), may, "{standing:?}");
        let Ok(grants) = opened else { return };
        (self.standing[w].2, self.credit[w]) = (true, 0);
        let said: u64 = grants.iter().map(|grant| u64::from(grant.count)).sum();
        let held = self.items.values().filter(|k| k.leased && k.holds(w)).count();
        assert_eq!(said, held as u64, "a new stream is told all that the worker has");
    }

    /// The ledger hears of a worker with its first standing.
    fn knows(&self, w: usize) -> bool {
        self.ledger.workers.contains_key(&worker_id(w))
    }

    fn pick(&self, at: usize) -> Option<(usize, u64, JobId, Lease)> {
        // Mostly recent ones, so that something comes of it.
        let recent = self.seen.len().min(20);
        let from = if at.is_multiple_of(4) { 0 } else { self.seen.len() - recent };
        let among = &self.seen[from..];
        (!among.is_empty()).then(|| among[(at / 4) % among.len()])
    }

    fn answer(&mut self, at: usize, what: u8) {
        let Some((w, epoch, job, lease)) = self.pick(at) else { return };
        let what = match what {
            0 | 1 => What::Failed,
            2 => What::Lost { alone: true },
            3 => What::Lost { alone: false },
            _ => What::Result,
        };
        // Now and then a newer process answers for what an older one had.
        let epoch = if at.is_multiple_of(3) { self.standing[w].0 } else { epoch };
        let current = self.standing[w].0 == epoch && self.knows(w);
        if current && self.standing[w].1 != Standing::Failed {
            self.taken[w].remove(&(job, lease.item));
        }
        let known = self.items.get_mut(&(job, lease.item)).unwrap();
        let last = known.grants.last().unwrap();
        let expected = current
            && known.ends == 0
            && !known.disowned
            && (last.attempt, last.worker, last.epoch) == (lease.attempt, worker_id(w), epoch)
            && (what == What::Result || known.leased);
        let outcome = self.ledger.outcome(self.now, worker_id(w), epoch, job, lease, what);
        assert_eq!(outcome.is_ok(), expected, "{what:?} of {lease:?}: {outcome:?} {known:?}");
        let tally = self.tallies.get_mut(&job).unwrap();
        tally.stale += u64::from(outcome.is_err());
        let Ok(accepted) = outcome else { return };
        known.leased = false;
        known.failures += u32::from(what == What::Failed);
        known.losses += u32::from(what == What::Lost { alone: true });
        let over = known.failures >= 3 || known.losses >= 4;
        match accepted {
            Accepted::Done => {
                assert_eq!(what, What::Result, "no failure becomes a result");
                known.ends += 1;
                self.ended.push((job, lease.item, false));
            }
            Accepted::Again(trouble) => {
                assert!(!over && what != What::Result);
                assert_eq!((trouble.failures, trouble.losses), (known.failures, known.losses));
                self.troubles.insert((job, lease.item), trouble);
                let (worker, item, cause) = (worker_id(w), lease.item, Cause::Tried);
                self.log.push(Record::Release { job, worker, item, cause });
            }
            Accepted::Dead(trouble) => {
                assert!(over && what != What::Result);
                assert_eq!((trouble.failures, trouble.losses), (known.failures, known.losses));
                known.ends += 1;
                self.ended.push((job, lease.item, true));
            }
        }
    }

    fn give_back(&mut self, at: usize) {
        let Some((w, epoch, job, lease)) = self.pick(at) else { return };
        if self.standing[w].0 == epoch && self.knows(w) {
            self.taken[w].remove(&(job, lease.item));
        }
        let mut out = Vec::new();
        self.ledger.give_back(worker_id(w), epoch, job, &[lease], &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Granted(grant) => self.granted(grant),
                Effect::Released { job, worker, leases, cause } => {
                    for (item, attempt) in leases {
                        let known = self.items.get_mut(&(job, item)).unwrap();
                        let last = known.grants.last().unwrap();
                        assert_eq!((last.worker, last.attempt), (worker, attempt));
                        if known.ends == 0 {
                            assert!(known.leased, "only a lease can be over");
                            self.log.push(Record::Release { job, worker, item, cause });
                        }
                        known.leased = false;
                        let taken = !matches!(cause, Cause::Returned | Cause::NoProgress);
                        self.tallies.get_mut(&job).unwrap().redispatched += u64::from(taken);
                        if cause == Cause::Suspected {
                            let w = (0..WORKERS).find(|w| worker_id(*w) == worker).unwrap();
                            self.taken[w].insert((job, item));
                        }
                    }
                }
                Effect::Troubled { job, item, trouble } => {
                    let known = self.items.get_mut(&(job, item)).unwrap();
                    known.note(trouble);
                    // Whoever has it by now may finish it.
                    assert!(trouble.failures < 3 && (trouble.losses < 4 || known.leased));
                    self.troubles.insert((job, item), trouble);
                }
                Effect::Settled { job, worker, .. } => {
                    self.log.push(Record::Settled { job, worker });
                }
                Effect::Dead { job, item, trouble, .. } => {
                    let known = self.items.get_mut(&(job, item)).unwrap();
                    known.note(trouble);
                    assert!(trouble.failures >= 3 || trouble.losses >= 4);
                    known.ends += 1;
                    self.ended.push((job, item, true));
                }
            }
        }
        self.check();
    }

    fn granted(&mut self, grant: Grant) {
        let w = (0..WORKERS).find(|w| worker_id(*w) == grant.worker).unwrap();
        assert_eq!(self.standing[w], (grant.epoch, Standing::Ready, true), "may be granted work");
        assert!(grant.count <= 5, "at most a batch");
        assert!(grant.count <= self.credit[w], "within the credit");
        self.credit[w] -= grant.count;
        for item in grant.first..grant.first + u64::from(grant.count) {
            let known = self.items.get_mut(&(grant.job, item)).unwrap();
            assert!(!known.leased && known.ends == 0, "item {item} was free");
            let before = known.grants.last().map_or(0, |last| last.attempt);
            assert_eq!(grant.attempt, before + 1, "an attempt never repeats");
            assert!(known.losses == 0 || grant.alone, "a suspect is retried alone");
            known.grants.push(grant);
            (known.leased, known.disowned) = (true, false);
            self.taken[w].remove(&(grant.job, item));
            let lease = Lease { item, attempt: grant.attempt };
            self.seen.push((w, grant.epoch, grant.job, lease));
        }
        self.log.push(Record::Grant(grant));
    }

    /// The coordinator dies and reads back what it had written.
    fn restart(&mut self) {
        self.ledger = Ledger::new();
        for (job, spec) in specs() {
            self.ledger.add_job(job, &spec);
        }
        for (job, item, dead) in &self.ended {
            self.ledger.restore_end(*job, *item, 1, *dead);
        }
        for record in &self.log {
            match record {
                Record::Grant(grant) => self.ledger.restore_grant(
                    self.now,
                    grant.job,
                    (grant.worker, grant.epoch),
                    grant.attempt,
                    (grant.first, grant.count),
                ),
                Record::Release { job, worker, item, cause } => {
                    self.ledger.restore_release(*job, *worker, (*item, 1), *cause);
                }
                Record::Settled { job, worker } => self.ledger.restore_settled(*job, *worker),
                Record::Fresh { job, fresh } => self.ledger.restore_fresh(*job, *fresh),
                Record::Waiting { job, item } => self.ledger.restore_waiting(*job, (*item, 1)),
                Record::Taken { job, worker, item } => {
                    self.ledger.restore_taken(*job, *worker, (*item, 1));
                }
            }
        }
        for ((job, item), trouble) in &self.troubles {
            self.ledger.restore_trouble(*job, *item, *trouble);
        }
        for (job, tally) in &self.tallies {
            // Of which the failures and losses are what items have been through.
            self.ledger.restore_tally(*job, self.whole(*job, *tally));
        }
        self.remember_taken();
        self.standing.iter_mut().for_each(|worker| worker.2 = false);
        self.credit = [0; WORKERS];
        let registry: Vec<_> =
            (0..WORKERS).map(|w| (worker_id(w), self.standing[w].0, self.standing[w].1)).collect();
        let mut out = Vec::new();
        self.ledger.restored(self.now, registry, &mut out);
        self.carry_out(out);
    }

    /// The job's log begins anew.
    fn shorten(&mut self, job: JobId) {
        self.log.retain(|record| record.job() != job);
        let snapshot = self.ledger.snapshot(job).unwrap();
        self.log.push(Record::Fresh { job, fresh: snapshot.fresh });
        self.log.extend(snapshot.grants.into_iter().map(Record::Grant));
        self.log.extend(snapshot.waiting.into_iter().map(|item| Record::Waiting { job, item }));
        for (worker, epoch, items) in snapshot.taken {
            let worker = (worker, epoch);
            self.log.extend(items.into_iter().map(|item| Record::Taken { job, worker, item }));
        }
    }

    /// What was taken from whom is known from the log alone: that a worker let go is not in it.
    fn remember_taken(&mut self) {
        for (w, taken) in self.taken.iter_mut().enumerate() {
            taken.clear();
            for record in &self.log {
                match record {
                    Record::Grant(grant) if grant.worker == worker_id(w) => taken.retain(|key| {
                        let first = grant.first;
                        !(key.0 == grant.job
                            && (first..first + u64::from(grant.count)).contains(&key.1))
                    }),
                    Record::Release { job, worker, item, cause: Cause::Suspected }
                        if *worker == worker_id(w) =>
                    {
                        taken.insert((*job, *item));
                    }
                    Record::Taken { job, worker, item } if worker.0 == worker_id(w) => {
                        taken.insert((*job, *item));
                    }
                    Record::Settled { job, worker } if *worker == worker_id(w) => {
                        taken.retain(|key| key.0 != *job);
                    }
                    _ => {}
                }
            }
        }
    }

    /// The tally with what the job's items have been through in it.
    fn whole(&self, job: JobId, tally: Tally) -> Tally {
        let of = || self.items.iter().filter(|((of, _), _)| *of == job).map(|(_, known)| known);
        let failures = of().map(|known| u64::from(known.failures)).sum();
        let losses = of().map(|known| u64::from(known.losses)).sum();
        Tally { failures, losses, ..tally }
    }

    fn check(&self) {
        for (job, spec) in specs() {
            let of = || self.items.range((job, 0)..(job, spec.items)).map(|(_, known)| known);
            let counts = self.ledger.counts(job).unwrap();
            assert_eq!(counts.leased, of().filter(|k| k.leased).count() as u64);
            assert_eq!(counts.done + counts.dead, of().filter(|k| k.ends > 0).count() as u64);
            assert_eq!(counts.pending + counts.leased + counts.done + counts.dead, spec.items);
            let whole = self.whole(job, self.tallies[&job]);
            assert_eq!(self.ledger.tally(job), Some(whole), "what was counted is not forgotten");
            assert!(of().all(|known| known.ends <= 1), "an item ends once");
        }
    }

    /// From here on everybody behaves.
    fn finish(&mut self) {
        for job in 0..specs().len() {
            self.ledger.pause(job_id(job), false);
        }
        for w in 0..WORKERS {
            self.act(&Step::Replace(w));
            self.act(&Step::Open(w));
        }
        for _ in 0..500 {
            for w in 0..WORKERS {
                self.act(&Step::Want(w, 7));
            }
            let held: Vec<_> = self.seen.drain(..).collect();
            for (w, epoch, job, lease) in held {
                let now = self.now;
                let done = |world: &mut Self| {
                    let ledger = &mut world.ledger;
                    ledger.outcome(now, worker_id(w), epoch, job, lease, What::Result)
                };
                if done(self).is_ok() {
                    let known = self.items.get_mut(&(job, lease.item)).unwrap();
                    (known.leased, known.ends) = (false, known.ends + 1);
                } else {
                    self.tallies.get_mut(&job).unwrap().stale += 1;
                }
            }
            self.check();
            if specs().iter().all(|(job, _)| self.ledger.counts(*job).unwrap().finished()) {
                return;
            }
        }
        panic!("items were lost: {:?}", self.ledger);
    }
}

impl Known {
    fn holds(&self, w: usize) -> bool {
        self.grants.last().is_some_and(|last| last.worker == worker_id(w))
    }

    /// One more failure or loss at a time.
    fn note(&mut self, trouble: Trouble) {
        let (failures, losses) = (trouble.failures, trouble.losses);
        let grown = failures - self.failures + (losses - self.losses);
        assert!(grown <= 1, "{grown} at once");
        (self.failures, self.losses) = (failures, losses);
    }
}

fn specs() -> [(JobId, JobSpec); 2] {
    [
        (job_id(0), spec(ITEMS, Redispatch::Suspected)),
        (job_id(1), spec(ITEMS / 2, Redispatch::Failed)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_item_ends_exactly_once(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new();
        for w in 0..WORKERS {
            world.act(&Step::Ready(w));
            world.act(&Step::Open(w));
        }
        for step in &steps {
            world.act(step);
        }
        world.finish();
        prop_assert!(world.items.values().all(|known| known.ends == 1));
    }
}
