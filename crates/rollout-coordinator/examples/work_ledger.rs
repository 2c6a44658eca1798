//! What the work ledger costs: time for each grant and commit of a million items, and memory for each
//! item that is open. `cargo run --release -p rollout-coordinator --example work_ledger`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rollout_coordinator::work::ledger::Ledger;
use rollout_coordinator::work::ledger::words::{Effect, Standing, What};
use rollout_core::job::JobLimits;
use rollout_core::{JobId, JobSpec, Mono, WorkerId};
use rollout_transport::work::Lease;

const ITEMS: u64 = 1_000_000;
const WORKERS: u64 = 4;

fn main() {
    let resident = memory();
    let mut ledger = Ledger::new();
    let job = add(&mut ledger, 4_096);
    let workers: Vec<WorkerId> = (0..WORKERS).map(|_| WorkerId::generate()).collect();
    open(&mut ledger, &workers);
    let mut out = Vec::new();
    let began = Instant::now();
    for worker in &workers {
        ledger.want(*worker, 1, u32::MAX);
    }
    ledger.grant(Mono(1), &mut out);
    let leased = ledger.counts(job).unwrap_or_default().leased;
    let each = memory().saturating_sub(resident) / leased.max(1);
    println!("{leased} items open at once: {each} bytes each, {:?} to grant", began.elapsed());
    drop((ledger, out));
    for batch in [1, 64, 1_024] {
        run(&workers, batch);
    }
}

/// Grants and commits a million items, each worker with two batches of credit.
fn run(workers: &[WorkerId], batch: u32) {
    let mut ledger = Ledger::new();
    let job = add(&mut ledger, batch);
    open(&mut ledger, workers);
    let (mut out, mut held) = (Vec::new(), VecDeque::new());
    workers.iter().for_each(|worker| ledger.want(*worker, 1, 2 * batch));
    let (mut granting, mut committing) = (Duration::ZERO, Duration::ZERO);
    let mut now = Mono(1);
    loop {
        let began = Instant::now();
        ledger.grant(now, &mut out);
        granting += began.elapsed();
        held.extend(out.drain(..).filter_map(|effect| match effect {
            Effect::Granted(grant) => Some(grant),
            _ => None,
        }));
        let Some(grant) = held.pop_front() else { break };
        now += Duration::from_micros(10) * grant.count;
        let began = Instant::now();
        for item in grant.first..grant.first + u64::from(grant.count) {
            let lease = Lease { item, attempt: grant.attempt };
            let outcome = ledger.outcome(now, grant.worker, 1, job, lease, What::Result);
            assert!(outcome.is_ok(), "{outcome:?}");
        }
        committing += began.elapsed();
        ledger.want(grant.worker, 1, grant.count);
    }
    let counts = ledger.counts(job).unwrap_or_default();
    assert_eq!(counts.done, ITEMS);
    let each = |time: Duration| time.as_nanos() / u128::from(ITEMS);
    println!(
        "batch {batch}: {} ns to grant and {} ns to commit an item, {:.0} items/s",
        each(granting),
        each(committing),
        f64::from(u32::try_from(ITEMS).unwrap_or(u32::MAX)) / (granting + committing).as_secs_f64()
    );
}

fn add(ledger: &mut Ledger, batch: u32) -> JobId {
    let limits = JobLimits { batch, ..JobLimits::default() };
    let spec = JobSpec { limits, ..JobSpec::new("sample", "run", ITEMS) };
    let job = JobId::generate();
    ledger.add_job(job, &spec);
    job
}

fn open(ledger: &mut Ledger, workers: &[WorkerId]) {
    let mut out = Vec::new();
    for worker in workers {
        ledger.worker(Mono(1), *worker, 1, Standing::Ready, &mut out);
        let opened = ledger.stream_up(*worker, 1, ["sample".to_owned()]);
        assert!(opened.is_ok(), "{opened:?}");
    }
}

/// Resident bytes; nothing where the system does not say.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
