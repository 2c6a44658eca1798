//! The work thread on a real store: what is acknowledged is on disk, and a new term goes on from it.

mod figures;
mod jobs;
mod leases;
mod results;

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use rollout_core::event::{Body, Level};
use rollout_core::job::JobLimits;
use rollout_core::{Incarnation, JobId, JobSpec, Mono, RunId, SystemClock};
use rollout_transport::work::{
    End, Failure, Final, Followed, Lease, Outcome as Said, Submitted, WorkDown, WorkUp,
};
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::ledger::Ledger as Records;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Recorder(Mutex<Vec<(Option<WorkerId>, Body)>>);

impl Emit for Recorder {
    fn emit(&self, _: Mono, worker: Option<WorkerId>, body: Body) {
        self.0.lock().unwrap().push((worker, body));
    }

    fn log(
        &self,
        _: Mono,
        _: Option<WorkerId>,
        _: Level,
        _: String,
        _: serde_json::Map<String, serde_json::Value>,
    ) {
    }

    fn lead(&self, _: RunId) {}
}

/// A coordinator's work thread, without the rest of it.
struct Rig {
    dir: TempDir,
    workers: Vec<(WorkerId, Incarnation)>,
    events: Arc<Recorder>,
    thread: Option<WorkThread>,
}

impl Rig {
    fn new(workers: usize) -> Self {
        let workers = (0..workers).map(|_| (WorkerId::generate(), Incarnation::generate()));
        let mut rig = Self {
            dir: TempDir::new().unwrap(),
            workers: workers.collect(),
            events: Arc::default(),
            thread: None,
        };
        rig.start();
        rig
    }

    /// A new term on the same database.
    fn start(&mut self) {
        self.start_with(Arc::new(SystemClock));
    }

    fn start_with(&mut self, clock: Arc<dyn Clock>) {
        let store = Arc::new(Store::open(&self.dir.path().join("coordinator.redb")).unwrap());
        let meta = Records::new(Arc::clone(&store)).begin_term(None).unwrap();
        let record = |incarnation| WorkerRecord { epoch: 1, incarnation, standing: Recorded::Live };
        let registry: Vec<_> = self.workers.iter().map(|(id, inc)| (*id, record(*inc))).collect();
        let emit: Arc<dyn Emit> = Arc::clone(&self.events) as _;
        let outside = Outside { clock, emit };
        self.thread = Some(WorkThread::start(store, meta.term, &registry, outside).unwrap());
    }

    async fn restart(&mut self) {
        self.thread.take().unwrap().stop().await.unwrap().unwrap();
        self.start();
    }

    fn work(&self) -> Work {
        self.thread.as_ref().unwrap().handle().clone()
    }

    async fn worker(&self, at: usize) -> Hand {
        let (worker_id, incarnation) = self.workers[at];
        let plugins = vec!["sample".to_owned()];
        let hello = Hello { worker_id, incarnation, epoch: 1, plugins };
        let (sink, told) = self.work().open(hello).await.unwrap().unwrap();
        Hand { sink, told, seq: 0, params: BTreeMap::new() }
    }

    fn count(&self, topic: &str) -> usize {
        self.events.0.lock().unwrap().iter().filter(|(_, body)| body.topic() == topic).count()
    }
}

/// A worker's stream.
struct Hand {
    sink: WorkSink,
    told: mpsc::Receiver<WorkDown>,
    seq: u64,
    params: BTreeMap<u64, Box<RawValue>>,
}

impl Hand {
    async fn next(&mut self) -> WorkDown {
        timeout(PATIENCE, self.told.recv()).await.expect("in time").expect("an open stream")
    }

    async fn want(&self, items: u32) {
        self.sink.send(WorkUp::Want { items }).await.unwrap();
    }

    /// The leases of the next grant.
    async fn granted(&mut self) -> Vec<Lease> {
        loop {
            if let WorkDown::Grant { attempt, first, count, params, .. } = self.next().await {
                let items = first..first + u64::from(count);
                self.params.extend(items.clone().zip(params.unwrap_or_default()));
                return items.map(|item| Lease { item, attempt }).collect();
            }
        }
    }

    async fn done(&mut self, job: JobId, outcomes: Vec<Said>) {
        self.seq += 1;
        self.sink.send(WorkUp::Done { seq: self.seq, job, outcomes }).await.unwrap();
    }

    async fn acked(&mut self) -> (u64, Vec<rollout_transport::work::Stale>) {
        loop {
            if let WorkDown::Ack { seq, stale } = self.next().await {
                return (seq, stale);
            }
        }
    }
}

fn spec(items: u64) -> JobSpec {
    let limits = JobLimits { batch: 8, ..JobLimits::default() };
    JobSpec { seed: 7, limits, ..JobSpec::new("sample", "run", items) }
}

fn raw(text: impl Into<String>) -> Box<RawValue> {
    RawValue::from_string(text.into()).unwrap()
}

fn result(lease: Lease) -> Said {
    Said { lease, end: End::Result(raw(lease.item.to_string())) }
}

async fn submit(work: &Work, spec: JobSpec) -> JobId {
    let (job, (_, none)) = (JobId::generate(), mpsc::channel(1));
    let answer = work.submit(job, spec, none).await.unwrap();
    assert!(matches!(answer, Submitted::Accepted { resumed: false, .. }), "{answer:?}");
    job
}

/// Every item of the job with its end, once it is finished.
async fn follow(work: &Work, job: JobId) -> BTreeMap<u64, Final> {
    let (mut items, mut newest) = (BTreeMap::new(), 0);
    let mut follow = work.follow(job, 0).await.unwrap();
    while let Some(line) = timeout(PATIENCE, follow.next()).await.unwrap().unwrap() {
        if let Followed::Committed { seq, items: ended } = line {
            assert_eq!(seq, newest + 1, "no gap and no repetition");
            newest = seq;
            for committed in ended {
                assert!(items.insert(committed.item, committed.end).is_none(), "once");
            }
        }
    }
    items
}
