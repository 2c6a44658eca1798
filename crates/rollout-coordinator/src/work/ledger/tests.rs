//! The ledger against a naive model that remembers every grant, under random interleavings of all
//! that can happen, the coordinator's own death included.

mod disk;
mod turns;

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use rollout_core::job::Redispatch;

use self::disk::Record;
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
    JobSpec { limits, ..JobSpec::new("sample", "run", items) }
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
