//! Crashes: who is blamed for one, when, and that whoever is the reason does not go on forever.

use std::collections::VecDeque;

use super::tests::{job_id, spec, worker_id};
use super::words::HOLD;
use super::*;
use rollout_core::job::{MAX_BATCH, Redispatch};

const POISON: u64 = 5;

/// A worker that runs its leases one after another, and dies of one item.
struct Runner {
    epoch: u64,
    held: VecDeque<(u64, u32)>,
    /// Since when it is dead.
    died: Option<Mono>,
}

/// How a dead worker is noticed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Death {
    /// Its supervisor starts it anew before anybody misses it.
    Replaced,
    /// Its connection is lost at once, and its deadline passes.
    Silent,
}

struct Fleet {
    ledger: Ledger,
    now: Mono,
    runners: Vec<Runner>,
    dead: Vec<(u64, Trouble)>,
    deaths: u32,
}

impl Fleet {
    fn new(workers: usize, items: u64, redispatch: Redispatch) -> Self {
        let mut ledger = Ledger::new();
        ledger.add_job(job_id(0), &spec(items, redispatch));
        let runner = || Runner { epoch: 0, held: VecDeque::new(), died: None };
        let runners = (0..workers).map(|_| runner()).collect();
        let mut fleet = Self { ledger, now: Mono(1), runners, dead: Vec::new(), deaths: 0 };
        (0..workers).for_each(|w| fleet.begin(w));
        fleet
    }

    /// A new process is the worker now.
    fn begin(&mut self, w: usize) {
        let runner = &mut self.runners[w];
        *runner = Runner { epoch: runner.epoch + 1, held: VecDeque::new(), died: None };
        let epoch = runner.epoch;
        self.stand(w, Standing::Ready);
        self.ledger.stream_up(worker_id(w), epoch, ["sample".to_owned()]).unwrap();
        self.ledger.want(worker_id(w), epoch, 4);
    }

    fn stand(&mut self, w: usize, standing: Standing) {
        let mut out = Vec::new();
        self.ledger.worker(self.now, worker_id(w), self.runners[w].epoch, standing, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Granted(grant) => {
                    let w = (0..self.runners.len()).find(|w| worker_id(*w) == grant.worker);
                    let items = grant.first..grant.first + u64::from(grant.count);
                    self.runners[w.unwrap()].held.extend(items.map(|item| (item, grant.attempt)));
                }
                Effect::Dead { item, trouble, .. } => self.dead.push((item, trouble)),
                Effect::Released { .. } | Effect::Troubled { .. } | Effect::Settled { .. } => {}
            }
        }
    }

    fn tick(&mut self, death: Death) {
        self.now += Duration::from_millis(100);
        for w in 0..self.runners.len() {
            match self.runners[w].died {
                Some(at) if self.now >= at + Duration::from_millis(5_750) => {
                    self.stand(w, Standing::Failed);
                    self.begin(w);
                }
                Some(_) => {}
                None => self.run_one(w, death),
            }
        }
        let mut out = Vec::new();
        self.ledger.expire(self.now, &mut out);
        self.ledger.grant(self.now, &mut out);
        self.carry_out(out);
    }

    fn run_one(&mut self, w: usize, death: Death) {
        let Some((item, attempt)) = self.runners[w].held.pop_front() else { return };
        if item != POISON {
            let (id, epoch) = (worker_id(w), self.runners[w].epoch);
            let lease = Lease { item, attempt };
            // It may be that it was taken away meanwhile.
            let _ = self.ledger.outcome(self.now, id, epoch, job_id(0), lease, What::Result);
            self.ledger.want(id, epoch, 1);
            return;
        }
        self.deaths += 1;
        match death {
            Death::Replaced => self.begin(w),
            Death::Silent => {
                self.runners[w].died = Some(self.now);
                self.stand(w, Standing::Suspected);
            }
        }
    }
}

#[test]
fn an_item_that_kills_every_worker_becomes_a_dead_letter_and_the_others_are_done() {
    for death in [Death::Replaced, Death::Silent] {
        for redispatch in [Redispatch::Suspected, Redispatch::Failed] {
            for workers in [1, 2, 5] {
                let mut fleet = Fleet::new(workers, 40, redispatch);
                for _ in 0..3_000 {
                    fleet.tick(death);
                }
                let counts = fleet.ledger.counts(job_id(0)).unwrap();
                let case = format!("{death:?} {redispatch:?} {workers}: {counts:?}");
                assert_eq!((counts.done, counts.dead), (39, 1), "{case}");
                let [(POISON, trouble)] = fleet.dead[..] else { panic!("{case} {:?}", fleet.dead) };
                // Nobody else was blamed, and it not before it was alone.
                assert_eq!((trouble.losses, counts.losses, counts.failures), (4, 4, 0), "{case}");
                assert!(fleet.deaths < 12, "{} workers died: {case}", fleet.deaths);
            }
        }
    }
}

#[test]
fn a_lone_item_of_a_killed_worker_that_another_has_finished_by_the_verdict_is_not_blamed() {
    let mut fleet = Fleet::new(2, 1, Redispatch::Suspected);
    let mut out = Vec::new();
    fleet.ledger.grant(fleet.now, &mut out);
    fleet.carry_out(out);
    let first = (0..2).find(|w| !fleet.runners[*w].held.is_empty()).unwrap();
    fleet.runners[first].died = Some(fleet.now);
    fleet.stand(first, Standing::Suspected);
    for _ in 0..57 {
        fleet.tick(Death::Silent);
    }
    assert_eq!(fleet.ledger.counts(job_id(0)).unwrap().done, 1);
    let mut out = Vec::new();
    fleet.ledger.worker(fleet.now, worker_id(first), 1, Standing::Failed, &mut out);
    assert!(matches!(out[..], [Effect::Settled { .. }]), "{out:?}");
    let counts = fleet.ledger.counts(job_id(0)).unwrap();
    assert_eq!((counts.done, counts.losses, counts.redispatched), (1, 0, 1));
}

#[test]
fn a_suspicion_that_comes_to_nothing_blames_nobody() {
    let mut fleet = Fleet::new(2, 1, Redispatch::Suspected);
    for _ in 0..50 {
        let mut out = Vec::new();
        fleet.ledger.grant(fleet.now, &mut out);
        fleet.carry_out(out);
        let w = (0..2).find(|w| fleet.ledger.leased(worker_id(*w)) > 0).unwrap();
        fleet.stand(w, Standing::Suspected);
        fleet.now += HOLD;
        let mut out = Vec::new();
        fleet.ledger.expire(fleet.now, &mut out);
        assert!(matches!(out[..], [Effect::Released { .. }]), "{out:?}");
        fleet.stand(w, Standing::Ready);
        fleet.ledger.want(worker_id(w), 1, 1);
    }
    let counts = fleet.ledger.counts(job_id(0)).unwrap();
    assert_eq!((counts.pending, counts.losses, counts.redispatched), (1, 0, 50));
}

#[test]
fn what_was_taken_from_a_worker_goes_first_whichever_job_it_is_of() {
    let mut fleet = Fleet::new(1, 4, Redispatch::Suspected);
    let mut out = Vec::new();
    fleet.ledger.grant(fleet.now, &mut out);
    // Many other jobs, which are all due before the one that has had so much of the workers' time.
    for job in 1..200 {
        fleet.ledger.add_job(job_id(job), &spec(1_000, Redispatch::Suspected));
    }
    fleet.ledger.jobs.get_mut(&job_id(0)).unwrap().used = Duration::from_secs(3_600);
    fleet.stand(0, Standing::Suspected);
    let (id, mut out) = (worker_id(1), Vec::new());
    fleet.ledger.worker(fleet.now, id, 1, Standing::Ready, &mut out);
    fleet.ledger.stream_up(id, 1, ["sample".to_owned()]).unwrap();
    fleet.now += HOLD;
    fleet.ledger.expire(fleet.now, &mut out);
    fleet.ledger.want(id, 1, 5);
    out.clear();
    fleet.ledger.grant(fleet.now, &mut out);
    let granted = out.iter().filter_map(|effect| match effect {
        Effect::Granted(grant) => Some((grant.job, grant.attempt, grant.count)),
        _ => None,
    });
    let granted: Vec<_> = granted.collect();
    assert_eq!(granted[0], (job_id(0), 2, 4));
    assert_eq!(granted[1..].iter().map(|(.., count)| count).sum::<u32>(), 1);
}

#[test]
fn a_worker_holds_little_until_it_has_finished_something_and_then_what_it_wants() {
    let mut ledger = Ledger::new();
    let mut wide = spec(100_000, Redispatch::Suspected);
    wide.limits.batch = 4_096;
    ledger.add_job(job_id(0), &wide);
    let (id, mut out) = (worker_id(0), Vec::new());
    ledger.worker(Mono(1), id, 1, Standing::Ready, &mut out);
    ledger.stream_up(id, 1, ["sample".to_owned()]).unwrap();
    ledger.want(id, 1, 1_000);
    ledger.grant(Mono(1), &mut out);
    assert_eq!(ledger.leased(id), 64);
    let now = Mono(1) + Duration::from_millis(10);
    let lease = Lease { item: 0, attempt: 1 };
    ledger.outcome(now, id, 1, job_id(0), lease, What::Result).unwrap();
    ledger.grant(now, &mut out);
    assert_eq!(ledger.leased(id), 999, "all its credit, without another word");
}

#[test]
fn credit_left_over_from_one_job_is_used_for_the_next_at_once_by_whoever_has_its_plugin() {
    let mut ledger = Ledger::new();
    ledger.add_job(job_id(0), &spec(3, Redispatch::Suspected));
    let mut out = Vec::new();
    for (w, plugins) in [(0, vec!["sample"]), (1, vec!["other"]), (2, vec!["sample", "other"])] {
        let (id, plugins) = (worker_id(w), plugins.into_iter().map(str::to_owned));
        ledger.worker(Mono(1), id, 1, Standing::Ready, &mut out);
        ledger.stream_up(id, 1, plugins).unwrap();
        ledger.want(id, 1, 10);
    }
    ledger.grant(Mono(1), &mut out);
    for effect in std::mem::take(&mut out) {
        let Effect::Granted(grant) = effect else { continue };
        for item in grant.first..grant.first + u64::from(grant.count) {
            let lease = Lease { item, attempt: 1 };
            ledger.outcome(Mono(2), grant.worker, 1, job_id(0), lease, What::Result).unwrap();
        }
    }
    assert!(ledger.counts(job_id(0)).unwrap().finished());
    let mut other = spec(100, Redispatch::Suspected);
    other.plugin = "other".into();
    ledger.add_job(job_id(1), &other);
    ledger.grant(Mono(3), &mut out);
    let leased: Vec<u64> = (0..3).map(|w| ledger.leased(worker_id(w))).collect();
    assert!(leased[0] == 0 && leased[1] == 10 && leased[2] >= 7, "{leased:?}");
}

#[test]
fn a_worker_that_was_forgotten_is_granted_work_whatever_the_log_remembers_of_it() {
    let (mut ledger, mut out) = (Ledger::new(), Vec::new());
    ledger.add_job(job_id(0), &spec(9, Redispatch::Suspected));
    ledger.restore_grant(Mono(1), job_id(0), (worker_id(0), 7), 1, (0, 4));
    ledger.restored(Mono(1), [], &mut out);
    ledger.worker(Mono(2), worker_id(0), 1, Standing::Ready, &mut out);
    ledger.stream_up(worker_id(0), 1, ["sample".to_owned()]).unwrap();
    ledger.want(worker_id(0), 1, 9);
    ledger.grant(Mono(2), &mut out);
    assert_eq!(ledger.leased(worker_id(0)), 9);
    // A worker of the older life says something of what it had.
    let lease = Lease { item: 0, attempt: 1 };
    let late = ledger.outcome(Mono(3), worker_id(0), 7, job_id(0), lease, What::Result);
    assert_eq!(late, Err(Token::Epoch));
}

#[test]
fn what_a_worker_has_is_said_again_in_grants_that_it_takes() {
    let mut fleet = Fleet::new(1, 0, Redispatch::Suspected);
    let limits = JobLimits { batch: MAX_BATCH, ..JobLimits::default() };
    let many = JobSpec { limits, ..spec(20_000, Redispatch::Suspected) };
    fleet.ledger.add_job(job_id(1), &many);
    let (id, mut held) = (worker_id(0), 0);
    fleet.ledger.want(id, 1, 10_001);
    while held < 10_000 {
        let mut out = Vec::new();
        fleet.ledger.grant(fleet.now, &mut out);
        for effect in out {
            let Effect::Granted(grant) = effect else { panic!("{effect:?}") };
            held += u64::from(grant.count);
            if grant.first == 0 {
                let lease = Lease { item: 0, attempt: grant.attempt };
                fleet.now += Duration::from_micros(1);
                fleet.ledger.outcome(fleet.now, id, 1, job_id(1), lease, What::Result).unwrap();
                held -= 1;
                fleet.ledger.want(id, 1, 1);
            }
        }
    }
    fleet.ledger.stream_down(id);
    let again = fleet.ledger.stream_up(id, 1, ["sample".to_owned()]).unwrap();
    assert_eq!(again.iter().map(|grant| u64::from(grant.count)).sum::<u64>(), held);
    assert!(again.iter().all(|grant| grant.count <= MAX_BATCH), "{again:?}");
    assert!(again.len() < 5, "neighbours share a grant");
}

#[test]
fn an_item_that_is_to_be_alone_goes_to_an_idle_worker_though_a_busy_one_was_reserved() {
    let mut fleet = Fleet::new(2, 40, Redispatch::Suspected);
    let mut out = Vec::new();
    fleet.ledger.grant(fleet.now, &mut out);
    fleet.carry_out(out);
    // The second dies of its last item, which is to be a worker's only lease now.
    while fleet.runners[1].held.len() > 1 {
        let (item, attempt) = fleet.runners[1].held.pop_front().unwrap();
        let (lease, now) = (Lease { item, attempt }, fleet.now);
        fleet.ledger.outcome(now, worker_id(1), 1, job_id(0), lease, What::Result).unwrap();
    }
    fleet.ledger.want(worker_id(0), 1, 4);
    fleet.begin(1);
    fleet.stand(1, Standing::Draining);
    let mut out = Vec::new();
    fleet.ledger.grant(fleet.now, &mut out);
    assert!(out.is_empty(), "the first is busy, and is let run empty: {out:?}");
    fleet.stand(1, Standing::Ready);
    fleet.ledger.grant(fleet.now, &mut out);
    let to_the_idle = |effect: &Effect| matches!(effect, Effect::Granted(grant) if grant.worker == worker_id(1) && grant.alone);
    assert!(out.iter().any(to_the_idle), "{out:?}");
}

#[test]
fn a_shorter_patience_holds_for_the_leases_that_are_out() {
    let mut fleet = Fleet::new(1, 40, Redispatch::Suspected);
    let mut out = Vec::new();
    fleet.ledger.grant(fleet.now, &mut out);
    fleet.carry_out(out);
    let before = fleet.ledger.next_wake().unwrap();
    let limits = JobLimits {
        progress_timeout: Duration::from_secs(1),
        ..spec(40, Redispatch::Suspected).limits
    };
    fleet.ledger.set_limits(job_id(0), limits);
    let wake = fleet.ledger.next_wake().unwrap();
    assert!(wake + Duration::from_secs(8) < before, "{wake:?} {before:?}");
}
