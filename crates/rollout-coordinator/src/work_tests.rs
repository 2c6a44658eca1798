//! The work thread on a real store: what is acknowledged is on disk, and a new term goes on from it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::time::Instant;

use rollout_core::event::{Body, Level};
use rollout_core::job::JobLimits;
use rollout_core::{Incarnation, JobId, JobSpec, Mono, RunId, SystemClock};
use rollout_transport::work::{
    End, Failure, Final, Followed, Lease, Outcome as Said, Submitted, Token, WorkDown, WorkUp,
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
    JobSpec {
        name: "a test".into(),
        plugin: "sample".into(),
        method: "run".into(),
        items,
        has_params: false,
        params_sha256: String::new(),
        plugin_digest: String::new(),
        seed: 7,
        limits: JobLimits { batch: 8, ..JobLimits::default() },
    }
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

#[tokio::test]
async fn results_come_out_once_each_and_in_the_order_of_the_ledger() {
    let rig = Rig::new(1);
    let work = rig.work();
    let job = submit(&work, spec(100)).await;
    let mut hand = rig.worker(0).await;
    let mut done = 0;
    while done < 100 {
        hand.want(8).await;
        let outcomes: Vec<Said> = hand.granted().await.into_iter().map(result).collect();
        done += outcomes.len();
        hand.done(job, outcomes).await;
        assert_eq!(hand.acked().await, (hand.seq, vec![]));
    }
    let items = follow(&work, job).await;
    assert_eq!(items.len(), 100);
    for (item, end) in items {
        let Final::Result(result) = end else { panic!("{end:?}") };
        assert_eq!(result.get(), item.to_string());
    }
    assert!(rig.count("items_leased") > 0 && rig.count("items_committed") > 0);
    assert_eq!(rig.count("commit_rejected") + rig.count("items_redispatched"), 0);
}

#[tokio::test]
async fn a_new_term_keeps_the_leases_and_takes_what_was_not_acknowledged_once() {
    let mut rig = Rig::new(1);
    let job = submit(&rig.work(), spec(16)).await;
    let mut hand = rig.worker(0).await;
    hand.want(16).await;
    let first = hand.granted().await;
    let second = hand.granted().await;
    hand.done(job, first.iter().copied().map(result).collect()).await;
    assert_eq!(hand.acked().await.0, 1);
    rig.restart().await;
    let mut again = rig.worker(0).await;
    assert_eq!(again.granted().await, second, "what it still has is said again, and no more");
    again.done(job, first.iter().copied().map(result).collect()).await;
    assert_eq!(again.acked().await, (1, vec![]), "taken in before: no second commit");
    again.seq = 1;
    again.done(job, second.iter().copied().map(result).collect()).await;
    assert_eq!(again.acked().await, (2, vec![]));
    assert_eq!(follow(&rig.work(), job).await.len(), 16);
    assert_eq!(rig.count("commit_rejected"), 0);
}

/// A clock that a test puts forward.
#[derive(Default)]
struct Forward(std::sync::atomic::AtomicU64);

impl Clock for Forward {
    fn now(&self) -> Mono {
        let ahead = self.0.load(std::sync::atomic::Ordering::SeqCst);
        SystemClock.now() + Duration::from_millis(ahead)
    }

    fn boot(&self) -> Mono {
        self.now()
    }

    fn wall(&self) -> std::time::SystemTime {
        SystemClock.wall()
    }
}

#[tokio::test]
async fn an_item_is_not_blamed_for_the_silence_of_a_slow_disk() {
    for slow in [true, false] {
        let mut rig = Rig::new(1);
        let clock = Arc::new(Forward::default());
        rig.thread.take().unwrap().stop().await.unwrap().unwrap();
        rig.start_with(Arc::clone(&clock) as _);
        let work = rig.work();
        let limits =
            JobLimits { progress_timeout: Duration::from_millis(1), ..JobLimits::default() };
        let job = submit(&work, JobSpec { limits, ..spec(1) }).await;
        let mut hand = rig.worker(0).await;
        hand.want(1).await;
        hand.granted().await;
        let (release, held) = std::sync::mpsc::channel::<()>();
        if slow {
            let hold = move |_: &mut rollout_storage::Batch<'_>| {
                let _ = held.recv();
                Ok(())
            };
            work.store.submit(rollout_storage::Priority::Control, hold, |_| ());
        }
        let mut pausing = tokio::task::JoinSet::new();
        pausing.spawn({
            let work = work.clone();
            async move { work.pause(job).await.unwrap() }
        });
        if !slow {
            assert!(pausing.join_next().await.unwrap().unwrap().paused);
        }
        // Eight seconds, none of which looks as if the thread itself had been stopped.
        for _ in 0..40 {
            clock.0.fetch_add(200, std::sync::atomic::Ordering::SeqCst);
            work.status().await.unwrap();
        }
        drop(release);
        while let Some(standing) = pausing.join_next().await {
            assert!(standing.unwrap().paused);
        }
        let standing = work.status().await.unwrap().1[0].standing.clone();
        assert_eq!((standing.leased, standing.failures), (u64::from(slow), u64::from(!slow)));
    }
}

#[tokio::test]
async fn the_log_of_leases_stays_short_while_a_job_runs_and_a_new_term_goes_on_from_it() {
    const ITEMS: u64 = 12_000;
    let mut rig = Rig::new(1);
    let limits = JobLimits { batch: 1, ..JobLimits::default() };
    let job = submit(&rig.work(), JobSpec { limits, ..spec(ITEMS) }).await;
    let (mut done, mut seq, mut longest) = (0, 0, 0);
    while done < ITEMS {
        let mut hand = rig.worker(0).await;
        hand.seq = seq;
        hand.want(600).await;
        let term = (done + ITEMS / 3).min(ITEMS);
        while done < term {
            let leases = hand.granted().await;
            done += leases.len() as u64;
            hand.done(job, leases.into_iter().map(result).collect()).await;
            hand.want(1).await;
            if done.is_multiple_of(500) {
                longest = longest.max(store::lease_rows(&rig.work().store, job));
            }
        }
        seq = hand.seq;
        // What a stream that is cut has not acknowledged is to be said again.
        while hand.acked().await.0 < seq {}
        drop(hand);
        rig.restart().await;
    }
    assert!((1_000..6_000).contains(&longest), "{longest} rows");
    assert_eq!(follow(&rig.work(), job).await.len() as u64, ITEMS);
    assert_eq!(rig.count("commit_rejected"), 0);
}

#[tokio::test]
async fn a_suspected_worker_loses_its_items_to_another_and_its_late_commit_is_refused() {
    let rig = Rig::new(2);
    let work = rig.work();
    let job = submit(&work, spec(4)).await;
    let mut slow = rig.worker(0).await;
    slow.want(4).await;
    let mut late = slow.granted().await;
    late.truncate(2);
    let board = rig.thread.as_ref().unwrap().board();
    board.stands(rig.workers[0].0, 1, Standing::Suspected);
    let mut quick = rig.worker(1).await;
    quick.want(100).await;
    let mut ended = HashSet::new();
    while ended.len() < 4 {
        let leases = quick.granted().await;
        ended.extend(leases.iter().map(|lease| lease.item));
        quick.done(job, leases.into_iter().map(result).collect()).await;
        assert_eq!(quick.acked().await.1, []);
    }
    slow.done(job, late.iter().copied().map(result).collect()).await;
    let (_, stale) = slow.acked().await;
    assert_eq!(stale.iter().map(|s| s.token).collect::<Vec<_>>(), vec![Token::State; 2]);
    // The answer may have been lost with its stream.
    let mut again = rig.worker(0).await;
    again.done(job, late.iter().copied().map(result).collect()).await;
    assert_eq!(again.acked().await, (1, stale), "the same once more");
    assert_eq!(follow(&work, job).await.len(), 4);
    assert_eq!((rig.count("items_redispatched"), rig.count("commit_rejected")), (1, 1));
}

#[tokio::test]
async fn what_a_job_has_been_through_is_known_in_every_later_term_and_what_is_given_back_is_nothing()
 {
    let mut rig = Rig::new(2);
    let work = rig.work();
    let job = submit(&work, spec(5)).await;
    let mut slow = rig.worker(0).await;
    slow.want(5).await;
    let mut leases = slow.granted().await;
    while leases.len() < 5 {
        leases.extend(slow.granted().await);
    }
    // One fails, one crashes, both for good as far as this worker goes, and one is given back.
    let failure =
        Failure { code: "bad".into(), message: "no".into(), traceback: None, stderr_tail: None };
    let end = |lease: Lease| match lease.item {
        0 => Said { lease, end: End::Failed(failure.clone()) },
        _ => Said { lease, end: End::Lost { failure: failure.clone(), alone: true } },
    };
    slow.done(job, leases[..2].iter().copied().map(end).collect()).await;
    assert_eq!(slow.acked().await.1, []);
    slow.sink.send(WorkUp::Return { job, leases: vec![leases[2]] }).await.unwrap();
    // The other two are taken from it, and what it says of one of them then is refused.
    rig.thread.as_ref().unwrap().board().stands(rig.workers[0].0, 1, Standing::Suspected);
    let mut quick = rig.worker(1).await;
    quick.want(100).await;
    let mut again = Vec::new();
    while again.len() < 5 {
        again.extend(quick.granted().await);
    }
    quick.done(job, again.into_iter().map(result).collect()).await;
    assert_eq!(quick.acked().await.1, []);
    slow.done(job, vec![result(leases[3])]).await;
    assert_eq!(slow.acked().await.1.len(), 1);
    let through = async |rig: &Rig| {
        let (_, jobs) = rig.work().status().await.unwrap();
        let [of] = &jobs[..] else { panic!("{jobs:?}") };
        let standing = &of.standing;
        [standing.done, standing.failures, standing.losses, standing.redispatched, standing.stale]
    };
    assert_eq!(through(&rig).await, [5, 1, 1, 2, 1]);
    drop((work, slow, quick));
    for _ in 0..2 {
        rig.restart().await;
        assert_eq!(through(&rig).await, [5, 1, 1, 2, 1]);
    }
}

#[tokio::test]
async fn an_item_that_always_fails_is_a_dead_letter_with_its_error_and_the_others_are_done() {
    let rig = Rig::new(1);
    let work = rig.work();
    let job = submit(&work, spec(3)).await;
    let mut hand = rig.worker(0).await;
    let failure = Failure {
        code: "bad".into(),
        message: "no such level".into(),
        traceback: Some("line 3".into()),
        stderr_tail: None,
    };
    hand.want(3).await;
    let mut answered = 0;
    while answered < 5 {
        let leases = hand.granted().await;
        answered += leases.len();
        let outcome = |lease: Lease| match lease.item {
            1 => Said { lease, end: End::Failed(failure.clone()) },
            _ => result(lease),
        };
        hand.done(job, leases.into_iter().map(outcome).collect()).await;
        hand.want(1).await;
    }
    let items = follow(&work, job).await;
    assert_eq!(items.len(), 3);
    let Final::Dead { failure: last, failures: 3, losses: 0 } = &items[&1] else {
        panic!("{items:?}");
    };
    assert_eq!(last, &failure);
    assert_eq!(rig.count("item_dead_lettered"), 1);
}

#[tokio::test]
async fn parameters_are_checked_and_come_with_the_grant_after_a_restart_too() {
    let mut rig = Rig::new(1);
    let params: Vec<Box<RawValue>> = (0..600).map(|i| raw(format!("{{\"n\":{i}}}"))).collect();
    let lines: String = params.iter().map(|param| format!("{}\n", param.get())).collect();
    let digest = handle::hex(&<sha2::Sha256 as sha2::Digest>::digest(lines));
    let mut with = JobSpec { has_params: true, params_sha256: digest, ..spec(600) };
    let job = JobId::generate();
    let give = |params: Vec<Box<RawValue>>| {
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(params).unwrap();
        receiver
    };
    let short = rig.work().submit(job, with.clone(), give(params[..599].to_vec())).await.unwrap();
    assert!(matches!(short, Submitted::Invalid { .. }), "{short:?}");
    let mut changed = params.clone();
    changed[3] = raw("0");
    let other = rig.work().submit(JobId::generate(), with.clone(), give(changed)).await.unwrap();
    assert!(matches!(other, Submitted::Invalid { .. }), "{other:?}");
    let taken = rig.work().submit(job, with.clone(), give(params)).await.unwrap();
    assert!(matches!(taken, Submitted::Accepted { resumed: false, .. }), "{taken:?}");
    rig.restart().await;
    let mut hand = rig.worker(0).await;
    while hand.params.len() < 600 {
        hand.want(8).await;
        let leases = hand.granted().await;
        hand.done(job, leases.into_iter().map(result).collect()).await;
    }
    for (item, param) in &hand.params {
        assert_eq!(param.get(), format!("{{\"n\":{item}}}"));
    }
    with.seed = 8;
    let answer = rig.work().submit(job, with, mpsc::channel(1).1).await.unwrap();
    let Submitted::Changed { differences } = answer else { panic!("{answer:?}") };
    assert_eq!(differences, ["seed"]);
}

#[tokio::test]
async fn large_parameters_come_in_several_lines_and_too_large_ones_are_refused_by_their_line() {
    let rig = Rig::new(1);
    let work = rig.work();
    let of = |bytes: usize| raw(format!("\"{}\"", "x".repeat(bytes - 2)));
    let with = |params: &[Box<RawValue>]| {
        let lines: String = params.iter().map(|param| format!("{}\n", param.get())).collect();
        let params_sha256 = handle::hex(&<sha2::Sha256 as sha2::Digest>::digest(lines));
        JobSpec { has_params: true, params_sha256, ..spec(params.len() as u64) }
    };
    let give = |params: Vec<Box<RawValue>>| {
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(params).unwrap();
        receiver
    };
    let params = vec![of(9), of(rollout_transport::work::MAX_PARAMS + 1), of(9)];
    let answer = work.submit(JobId::generate(), with(&params), give(params)).await.unwrap();
    let Submitted::Invalid { detail } = answer else { panic!("{answer:?}") };
    assert!(detail.contains("line 2 have 1048577 bytes"), "{detail}");
    let sizes = [9, 100_000, 100_000, 100_000, rollout_transport::work::MAX_PARAMS, 9, 9, 200_000];
    let params: Vec<_> = sizes.map(of).into();
    let spec = with(&params);
    let answer = work.submit(JobId::generate(), spec, give(params)).await.unwrap();
    assert!(matches!(answer, Submitted::Accepted { .. }), "{answer:?}");
    let mut hand = rig.worker(0).await;
    hand.want(8).await;
    let mut lines = Vec::new();
    while hand.params.len() < sizes.len() {
        lines.push(hand.granted().await.len());
    }
    assert_eq!(lines, [3, 1, 1, 3]);
    assert!(hand.params.values().map(|param| param.get().len()).eq(sizes));
}

#[tokio::test]
async fn a_submission_dropped_at_any_point_leaves_its_id_free() {
    let rig = Rig::new(1);
    let work = rig.work();
    let with = JobSpec { has_params: true, ..spec(1) };
    let job = JobId::generate();
    for polls in 0..6 {
        // Parameters that never come: it is dropped wherever it has got to by then.
        let (sender, params) = mpsc::channel(1);
        let mut submission = Box::pin(work.submit(job, with.clone(), params));
        for _ in 0..polls {
            let poll = std::future::poll_fn(|context| {
                std::task::Poll::Ready(submission.as_mut().poll(context).is_ready())
            });
            assert!(!poll.await);
            // Answered by then, with nobody who has looked.
            work.status().await.unwrap();
        }
        drop((submission, sender));
        // A full inbox must not keep the id taken either.
        let mut waiting = Vec::new();
        while let Ok(permit) = work.inbox.try_reserve() {
            let (reply, answer) = oneshot::channel();
            permit.send(Input::Status(reply));
            waiting.push(answer);
            if waiting.len() == handle::QUEUE {
                break;
            }
        }
    }
    let (_, none) = mpsc::channel(1);
    let taken = work.submit(job, spec(1), none).await.unwrap();
    assert!(matches!(taken, Submitted::Accepted { resumed: false, .. }), "{taken:?}");
}

#[tokio::test]
async fn a_paused_job_grants_nothing_and_a_cancelled_one_is_gone_after_a_restart() {
    let mut rig = Rig::new(1);
    let work = rig.work();
    let (paused, other) = (submit(&work, spec(8)).await, submit(&work, spec(8)).await);
    assert!(work.pause(paused).await.unwrap().paused);
    let mut hand = rig.worker(0).await;
    hand.want(100).await;
    let leases = hand.granted().await;
    assert_eq!(leases.len(), 8);
    hand.done(other, leases.into_iter().map(result).collect()).await;
    assert_eq!(hand.acked().await, (1, vec![]), "they were the other job's");
    assert_eq!(work.resume(paused).await.unwrap().leased, 0);
    assert_eq!(hand.granted().await.len(), 8);
    let mut follow = work.follow(paused, 0).await.unwrap();
    work.cancel(paused).await.unwrap();
    let end = loop {
        match follow.next().await {
            Ok(Some(Followed::Standing(_))) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Err(WorkError::NoJob(_))), "{end:?}");
    drop((work, follow));
    rig.restart().await;
    let (_, jobs) = rig.work().status().await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.job).collect::<Vec<_>>(), [other]);
}

#[tokio::test]
async fn a_large_result_counts_only_once_its_bytes_are_there() {
    let rig = Rig::new(1);
    let work = rig.work();
    let job = submit(&work, spec(1)).await;
    let mut hand = rig.worker(0).await;
    let bytes = vec![b'x'; 100_000];
    let sha256 = handle::hex(&<sha2::Sha256 as sha2::Digest>::digest(&bytes));
    let blob = rollout_transport::work::Blob { sha256: sha256.clone(), bytes: 100_000 };
    for uploaded in [false, true] {
        if uploaded {
            let mut upload = work.blobs().begin(&sha256).unwrap();
            upload.write(&bytes).unwrap();
            assert_eq!(upload.finish().unwrap(), 100_000);
        }
        hand.want(1).await;
        let lease = hand.granted().await[0];
        hand.done(job, vec![Said { lease, end: End::Blob(blob.clone()) }]).await;
        hand.acked().await;
        let standing = work.status().await.unwrap().1[0].standing.clone();
        assert_eq!(standing.done, u64::from(uploaded));
        assert_eq!(standing.failures, 0, "its item is not to blame for bytes that have gone");
    }
    let mut wrong = work.blobs().begin(&sha256).unwrap();
    wrong.write(b"other bytes").unwrap();
    assert!(matches!(wrong.finish(), Err(BlobError::Digest { .. })));
    assert!(work.blobs().begin("../coordinator.redb").is_err());
    let left = std::fs::read_dir(rig.dir.path().join("coordinator.blobs")).unwrap().count();
    assert_eq!(left, 1, "what was refused leaves nothing");
}

#[tokio::test]
async fn a_large_result_that_is_asked_for_counts_as_new_when_the_old_ones_go() {
    let rig = Rig::new(1);
    let blobs = rig.work().blobs().clone();
    let sha256 = handle::hex(&<sha2::Sha256 as sha2::Digest>::digest(b"a result"));
    let mut upload = blobs.begin(&sha256).unwrap();
    upload.write(b"a result").unwrap();
    upload.finish().unwrap();
    let old = SystemClock.wall() - 2 * BLOB_AGE;
    blobs.read(&sha256).unwrap().unwrap().set_modified(old).unwrap();
    assert_eq!(blobs.keep(&sha256).unwrap(), Some(8));
    let before = SystemClock.wall() - BLOB_AGE;
    assert_eq!(blobs.sweep(&HashSet::new(), before).unwrap(), 0);
    blobs.read(&sha256).unwrap().unwrap().set_modified(old).unwrap();
    assert_eq!(blobs.sweep(&HashSet::new(), before).unwrap(), 1);
    assert_eq!(blobs.keep(&sha256).unwrap(), None);
}

#[tokio::test]
async fn a_cancelled_job_takes_no_large_result_along_that_another_commits() {
    let mut rig = Rig::new(1);
    let work = rig.work();
    let (first, second) = (submit(&work, spec(1)).await, submit(&work, spec(1)).await);
    let mut hand = rig.worker(0).await;
    let sha256 = handle::hex(&<sha2::Sha256 as sha2::Digest>::digest(b"the same"));
    let mut upload = work.blobs().begin(&sha256).unwrap();
    upload.write(b"the same").unwrap();
    upload.finish().unwrap();
    hand.want(2).await;
    let leases = [hand.granted().await[0], hand.granted().await[0]];
    let said = |lease| {
        let blob = rollout_transport::work::Blob { sha256: sha256.clone(), bytes: 8 };
        vec![Said { lease, end: End::Blob(blob) }]
    };
    hand.done(first, said(leases[0])).await;
    hand.acked().await;
    // The cancellation is taken in while the other commit may still be on its way.
    hand.done(second, said(leases[1])).await;
    work.cancel(first).await.unwrap();
    assert_eq!(follow(&work, second).await.len(), 1);
    assert!(work.blobs().read(&sha256).unwrap().is_some(), "a commit refers to it");
    drop(work);
    rig.restart().await;
    assert!(rig.work().blobs().read(&sha256).unwrap().is_some(), "after a restart, too");
}

#[tokio::test]
async fn what_is_too_large_for_a_row_is_a_failure_of_its_item_and_every_row_can_be_followed() {
    let rig = Rig::new(1);
    let work = rig.work();
    let limits = JobLimits { max_attempts: 1, ..spec(1).limits };
    let job = submit(&work, JobSpec { limits, ..spec(64) }).await;
    let mut hand = rig.worker(0).await;
    let mut done = 0;
    while done < 64 {
        hand.want(8).await;
        let leases = hand.granted().await;
        done += leases.len();
        let end = |lease: Lease| match lease.item {
            0 => End::Result(raw(format!("\"{}\"", "x".repeat(100_000)))),
            // Six bytes each in a line of JSON.
            _ => End::Failed(Failure {
                code: "odd".into(),
                message: "\u{1}".repeat(100_000),
                traceback: Some("\u{1}".repeat(100_000)),
                stderr_tail: Some("ö\u{1}".repeat(100_000)),
            }),
        };
        let said = leases.into_iter().map(|lease| Said { lease, end: end(lease) }).collect();
        hand.done(job, said).await;
        assert_eq!(hand.acked().await, (hand.seq, vec![]));
    }
    let (mut follow, mut ended) = (work.follow(job, 0).await.unwrap(), 0);
    while let Some(line) = timeout(PATIENCE, follow.next()).await.unwrap().unwrap() {
        let length = serde_json::to_vec(&line).unwrap().len();
        assert!(length <= rollout_transport::work::MAX_LINE, "{length} bytes");
        let Followed::Committed { items, .. } = line else { continue };
        ended += items.len();
        for committed in items.iter().filter(|committed| committed.item == 0) {
            let Final::Dead { failure, .. } = &committed.end else { panic!("counted") };
            assert_eq!(failure.code, "result_too_large");
        }
    }
    assert_eq!(ended, 64);
}

#[tokio::test]
async fn a_worker_is_told_the_new_limits_of_a_resumed_job_at_once() {
    let rig = Rig::new(1);
    let work = rig.work();
    let job = submit(&work, spec(8)).await;
    let mut hand = rig.worker(0).await;
    hand.want(8).await;
    hand.granted().await;
    let limits = JobLimits { progress_timeout: Duration::from_secs(1), ..spec(8).limits };
    let (_, none) = mpsc::channel(1);
    work.submit(job, JobSpec { limits: limits.clone(), ..spec(8) }, none).await.unwrap();
    let WorkDown::Job { job: told, limits: new, .. } = hand.next().await else { panic!() };
    assert_eq!((told, new), (job, limits));
}

#[tokio::test]
async fn a_coordinator_whose_term_is_over_commits_nothing() {
    let mut rig = Rig::new(1);
    let job = submit(&rig.work(), spec(1)).await;
    let mut hand = rig.worker(0).await;
    hand.want(1).await;
    let leases = hand.granted().await;
    let records = Records::new(Arc::clone(&rig.work().store));
    records.begin_term(None).unwrap();
    hand.done(job, leases.into_iter().map(result).collect()).await;
    let ended = timeout(PATIENCE, rig.thread.as_mut().unwrap().ended()).await.unwrap().unwrap();
    assert!(matches!(*ended.unwrap_err(), StorageError::Fenced { .. }));
}

/// Time spent on lines at the coordinator's end.
#[derive(Default)]
struct Spent(Duration);

impl Spent {
    fn here<T>(&mut self, act: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = act();
        self.0 += began.elapsed();
        done
    }
}

/// What each thread of this process has had of the processors, and the process's memory at its peak,
/// where the system tells.
fn threads() -> String {
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut told = String::new();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let stat = read(&task.path().join("stat"));
        let after: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks: u64 = after.iter().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
        let name = read(&task.path().join("comm"));
        told += &format!("{} {} ms, ", name.trim(), ticks * 10);
    }
    let status = read(std::path::Path::new("/proc/self/status"));
    told + status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default()
}

/// Figures, for people: `cargo test --release -p rollout-coordinator -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "prints figures and judges nothing"]
async fn a_million_items_committed_durably() {
    const ITEMS: u64 = 1_000_000;
    let mut rig = Rig::new(2);
    let work = rig.work();
    let limits = JobLimits { batch: 512, ..JobLimits::default() };
    let job = submit(&work, JobSpec { limits, ..spec(ITEMS) }).await;
    let began = Instant::now();
    let spent = Arc::new(Mutex::new(Spent::default()));
    let mut hands = tokio::task::JoinSet::new();
    for at in 0..2 {
        let mut hand = rig.worker(at).await;
        let spent = Arc::clone(&spent);
        hands.spawn(async move {
            hand.want(4_096).await;
            while let Some(down) = hand.told.recv().await {
                // Both ways as lines, as a coordinator and a worker of two processes have them.
                let line = spent.lock().unwrap().here(|| serde_json::to_vec(&down).unwrap());
                let down: WorkDown = serde_json::from_slice(&line).unwrap();
                let WorkDown::Grant { attempt, first, count, .. } = down else { continue };
                let leases = (first..first + u64::from(count)).map(|item| Lease { item, attempt });
                hand.seq += 1;
                let outcomes = leases.map(result).collect();
                let line =
                    serde_json::to_vec(&WorkUp::Done { seq: hand.seq, job, outcomes }).unwrap();
                let up = spent.lock().unwrap().here(|| serde_json::from_slice(&line).unwrap());
                hand.sink.send(up).await.unwrap();
                hand.want(count).await;
            }
        });
    }
    let mut follow = work.follow(job, 0).await.unwrap();
    let (mut followed, mut half) = (0, None);
    while let Some(line) = follow.next().await.unwrap() {
        spent.lock().unwrap().here(|| serde_json::to_vec(&line).unwrap());
        if let Followed::Committed { items, .. } = line {
            followed += items.len() as u64;
            if followed >= ITEMS / 2 {
                half.get_or_insert_with(|| began.elapsed());
            }
        }
    }
    println!("lines of the coordinator: {:?}; {}", spent.lock().unwrap().0, threads());
    let (all, half) = (began.elapsed(), half.unwrap());
    println!("{followed} items in {all:?}, the first half of them in {half:?}");
    hands.shutdown().await;
    drop((work, follow));
    rig.thread.take().unwrap().stop().await.unwrap().unwrap();
    let began = Instant::now();
    rig.start();
    println!("the next term starts in {:?}", began.elapsed());
}
