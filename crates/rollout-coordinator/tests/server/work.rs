//! Work over the wire: a worker's stream and a client's jobs, spoken to by hand.

use std::time::Instant;

use bytes::Bytes;
use rollout_core::job::JobLimits;
use rollout_core::{Incarnation, JobId, JobSpec, WorkerId};
use rollout_transport::work::{
    Blob, End, Final, Followed, Lease, MAX_LINE, Outcome, Submitted, WorkDown, WorkUp,
};
use rollout_transport::{CallError, Identity, Link, Remote, Up, WorkLink};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::{Fleet, PATIENCE, TICK, tls};

fn spec(items: u64) -> JobSpec {
    JobSpec {
        name: "a test".into(),
        plugin: "p".into(),
        method: "run".into(),
        items,
        has_params: false,
        params_sha256: String::new(),
        plugin_digest: String::new(),
        seed: 7,
        limits: JobLimits::default(),
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn with_params(lines: &[String]) -> JobSpec {
    let params_sha256 = sha256(lines.concat().as_bytes());
    JobSpec { has_params: true, params_sha256, ..spec(lines.len() as u64) }
}

/// Pieces that are all there.
fn given(pieces: &[String]) -> Option<mpsc::Receiver<Bytes>> {
    let (sender, receiver) = mpsc::channel(pieces.len().max(1));
    for piece in pieces {
        sender.try_send(piece.clone().into()).unwrap();
    }
    Some(receiver)
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.unwrap()
}

/// A worker that is registered, with its stream of work.
struct Worker {
    id: WorkerId,
    incarnation: Incarnation,
    epoch: u64,
    _session: Link,
    remote: Remote,
    link: WorkLink,
    seq: u64,
}

impl Fleet {
    pub(crate) async fn remote(&self, identity: &Identity) -> Remote {
        let address = self.coordinator.local_addr().to_string();
        Remote::open(&address, &tls(self.dir.path(), identity), PATIENCE).await.unwrap()
    }

    pub(crate) async fn client(&self) -> Remote {
        self.remote(&Identity::Client("ann".into())).await
    }

    async fn worker(&self) -> Worker {
        let (id, incarnation) = (WorkerId::generate(), Incarnation::generate());
        let (session, epoch) = self.join(id, incarnation).await;
        session.up.send(Up::beat(1)).await.unwrap();
        let remote = self.remote(&Identity::Worker(id)).await;
        let link = remote.work().await.unwrap();
        Worker { id, incarnation, epoch, _session: session, remote, link, seq: 0 }
    }
}

impl Worker {
    fn hello(&self) -> WorkUp {
        let (worker_id, incarnation, epoch) = (self.id, self.incarnation, self.epoch);
        WorkUp::Hello { worker_id, incarnation, epoch, plugins: vec!["p".into()] }
    }

    async fn say(&self, up: WorkUp) {
        soon(self.link.up.send(up)).await.unwrap();
    }

    async fn hear(&mut self) -> Option<WorkDown> {
        soon(self.link.down.next()).await.unwrap()
    }

    /// The next grant, of which this is all: the leases.
    async fn granted(&mut self) -> Vec<Lease> {
        match self.hear().await {
            Some(WorkDown::Job { .. }) => Box::pin(self.granted()).await,
            Some(WorkDown::Grant { attempt, first, count, .. }) => {
                (first..first + u64::from(count)).map(|item| Lease { item, attempt }).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    async fn done(&mut self, job: JobId, leases: &[Lease], end: impl Fn(Lease) -> End) {
        self.seq += 1;
        let outcomes = leases.iter().map(|lease| Outcome { lease: *lease, end: end(*lease) });
        self.say(WorkUp::Done { seq: self.seq, job, outcomes: outcomes.collect() }).await;
        loop {
            match self.hear().await {
                Some(WorkDown::Ack { seq, stale }) if seq == self.seq => {
                    return assert_eq!(stale, []);
                }
                Some(WorkDown::Ack { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn result(text: &str) -> End {
    End::Result(RawValue::from_string(text.into()).unwrap())
}

fn accepted(answer: &Submitted) {
    assert!(matches!(answer, Submitted::Accepted { resumed: false, .. }), "{answer:?}");
}

/// Submits until the id is free.
async fn accepted_in_the_end(client: &Remote, job: JobId, spec: &JobSpec, params: &[String]) {
    let trying = async {
        loop {
            let answer = client.submit(job, spec, given(params)).await.unwrap();
            if let Submitted::Accepted { resumed, .. } = answer {
                return assert!(!resumed);
            }
            sleep(TICK).await;
        }
    };
    soon(trying).await;
}

#[tokio::test]
async fn a_job_goes_from_its_client_over_a_worker_back_byte_for_byte() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let (client, mut worker) = (fleet.client().await, fleet.worker().await);
    accepted(&client.submit(job, &spec(3), None).await.unwrap());
    worker.say(worker.hello()).await;
    worker.say(WorkUp::Want { items: 8 }).await;
    let leases = worker.granted().await;
    assert_eq!(leases.len(), 3);
    let mut follow = client.follow(job, 0).await.unwrap();
    worker.done(job, &leases, |lease| result(&format!("{{\"n\" : {}.0}}", lease.item))).await;
    let (mut items, mut standings) = (Vec::new(), 0);
    let finished = loop {
        match soon(follow.next()).await.unwrap().unwrap() {
            Followed::Committed { seq, items: batch } => {
                assert_eq!(seq, 1);
                items.extend(batch);
            }
            Followed::Standing(_) => standings += 1,
            Followed::Finished(standing) => break standing,
            Followed::Stopping => panic!("nobody stops"),
        }
    };
    assert!(standings > 0, "how it stands is told from the beginning");
    assert_eq!((finished.done, finished.pending, finished.leased, finished.seq), (3, 0, 0, 1));
    for committed in &items {
        let Final::Result(raw) = &committed.end else { panic!("{committed:?}") };
        assert_eq!(raw.get(), format!("{{\"n\" : {}.0}}", committed.item));
    }
    assert_eq!(items.len(), 3);
    assert!(soon(follow.next()).await.unwrap().is_none());
    let status = client.status().await.unwrap();
    assert_eq!(status.run_id, fleet.coordinator.run_id());
    assert_eq!((status.workers.len(), status.jobs.len(), status.term), (1, 1, 1));
    assert_eq!((status.workers[0].worker_id, status.jobs[0].job), (worker.id, job));
    let again = client.submit(job, &spec(3), None).await.unwrap();
    assert!(matches!(again, Submitted::Accepted { resumed: true, .. }), "{again:?}");
    let other = client.submit(job, &spec(4), None).await.unwrap();
    assert!(matches!(other, Submitted::Changed { .. }), "{other:?}");
    client.cancel(job).await.unwrap();
    assert!(matches!(client.cancel(job).await, Err(CallError::NotFound { .. })));
}

#[tokio::test]
async fn parameters_reach_the_worker_in_whatever_pieces_they_come() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let (client, mut worker) = (fleet.client().await, fleet.worker().await);
    let lines: Vec<_> = (0..5_000).map(|n| format!("{{\"q\":\"question {n}\"}}\n")).collect();
    let whole = lines.concat();
    let pieces: Vec<_> = whole.as_bytes().chunks(37).map(Bytes::copy_from_slice).collect();
    let (sender, receiver) = mpsc::channel(4);
    let feed = async move {
        for piece in pieces {
            sender.send(piece).await.unwrap();
        }
    };
    let spec = with_params(&lines);
    let submit = client.submit(job, &spec, Some(receiver));
    let (answer, ()) = soon(async { tokio::join!(submit, feed) }).await;
    accepted(&answer.unwrap());
    worker.say(worker.hello()).await;
    worker.say(WorkUp::Want { items: 10 }).await;
    assert!(matches!(worker.hear().await, Some(WorkDown::Job { .. })));
    let Some(WorkDown::Grant { first: 0, params: Some(params), .. }) = worker.hear().await else {
        panic!("no grant with parameters")
    };
    let found: Vec<_> = params.iter().map(|param| format!("{}\n", param.get())).collect();
    assert_eq!(found, lines[..found.len()]);
    assert!(!found.is_empty());
    // Resumed, the parameters are not wanted, and what was sent of them disturbs nobody.
    for _ in 0..3 {
        let again = client.submit(job, &spec, given(&lines)).await.unwrap();
        assert!(matches!(again, Submitted::Accepted { resumed: true, .. }), "{again:?}");
    }
    assert_eq!(client.status().await.unwrap().jobs.len(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_submission_is_said_and_its_id_stays_free() {
    let fleet = Fleet::new("");
    let client = fleet.client().await;
    let good: Vec<_> = (0..3).map(|n| format!("{n}\n")).collect();
    let spec = with_params(&good);
    let refused = |answer: Result<Submitted, CallError>, wanted: u16, words: &str| match answer {
        Err(CallError::Refused { status, detail }) => {
            assert_eq!(status, wanted, "{detail}");
            assert!(detail.contains(words), "{detail}");
        }
        other => panic!("{other:?}"),
    };
    // An id of its own each: it is free again soon after the answer, not before it.
    let jobs: Vec<_> = std::iter::repeat_with(JobId::generate).take(5).collect();
    let mut left = jobs.iter();
    let mut submit =
        |lines: Vec<String>| client.submit(*left.next().unwrap(), &spec, given(&lines));
    let long = format!("\"{}\"\n", "x".repeat(1 << 20));
    refused(submit(vec!["0\n".into(), long]).await, 413, "longer than");
    refused(submit(vec!["0\n1\n{\n".into()]).await, 400, "not a message");
    refused(submit(vec!["0\n1\n2".into()]).await, 400, "inside a line");
    for (lines, words) in [("0\n1\n", "3 items"), ("0\n1\n3\n", "params_sha256")] {
        match submit(vec![lines.into()]).await.unwrap() {
            Submitted::Invalid { detail } => assert!(detail.contains(words), "{detail}"),
            other => panic!("{other:?}"),
        }
    }
    for job in jobs {
        accepted_in_the_end(&client, job, &spec, &good).await;
    }
}

#[tokio::test]
async fn a_submission_that_is_given_up_or_cut_off_leaves_its_id_free() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let client = fleet.client().await;
    let lines: Vec<_> = (0..3_000).map(|n| format!("[{n:300}]\n")).collect();
    let spec = with_params(&lines);
    for cut in [false, true] {
        let other = fleet.client().await;
        let (sender, receiver) = mpsc::channel(1);
        let mut submit = Box::pin(other.submit(job, &spec, Some(receiver)));
        let half = async {
            for line in &lines[..2_000] {
                sender.send(line.clone().into()).await.unwrap();
            }
            // More than fits in between: the parameters are being read, and the id is taken.
            let answer = client.submit(job, &spec, given(&lines)).await.unwrap();
            assert!(!matches!(answer, Submitted::Accepted { .. }), "two submissions of one id");
        };
        tokio::select! {
            answer = &mut submit => panic!("{answer:?}"),
            () = soon(half) => {}
        }
        drop(submit);
        if cut {
            drop(other);
            accepted_in_the_end(&client, job, &spec, &lines).await;
            continue;
        }
        accepted_in_the_end(&client, job, &spec, &lines).await;
        client.cancel(job).await.unwrap();
        assert!(other.status().await.is_ok(), "the connection is as good as before");
    }
}

#[tokio::test]
async fn there_is_nothing_to_be_done_with_a_job_that_is_not_there() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let client = fleet.client().await;
    let missing = |error: CallError| match error {
        CallError::NotFound { what } => assert!(what.contains(&job.to_string()), "{what}"),
        other => panic!("{other:?}"),
    };
    missing(client.follow(job, 0).await.unwrap_err());
    missing(client.pause(job).await.unwrap_err());
    missing(client.resume(job).await.unwrap_err());
    missing(client.cancel(job).await.unwrap_err());
    accepted(&client.submit(job, &spec(1), None).await.unwrap());
    assert!(client.pause(job).await.unwrap().paused);
    assert!(!client.resume(job).await.unwrap().paused);
}

#[tokio::test]
async fn a_blob_is_there_under_the_name_of_its_bytes_and_under_no_other() {
    let fleet = Fleet::new("");
    let (client, worker) = (fleet.client().await, fleet.worker().await);
    let bytes: Vec<_> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (bytes, name) = (Bytes::from(bytes.clone()), sha256(&bytes));
    let wrong = sha256(b"something else");
    match worker.remote.put_blob(&wrong, bytes.clone()).await {
        Err(CallError::Refused { status: 400, detail }) => {
            assert!(detail.contains("SHA-256"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(client.get_blob(&wrong).await, Err(CallError::NotFound { .. })));
    for _ in 0..2 {
        worker.remote.put_blob(&name, bytes.clone()).await.unwrap();
    }
    let (mut stream, mut read) = (client.get_blob(&name).await.unwrap(), Vec::new());
    while let Some(piece) = soon(stream.next()).await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert!(read == bytes);
    // An upload that is given up leaves nothing.
    let names = || std::fs::read_dir(fleet.dir.path().join("coord.blobs")).unwrap().count();
    assert_eq!(names(), 1);
}

#[tokio::test]
async fn a_result_in_a_blob_is_committed_and_its_client_is_told_where_it_is() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let (client, mut worker) = (fleet.client().await, fleet.worker().await);
    accepted(&client.submit(job, &spec(1), None).await.unwrap());
    worker.say(worker.hello()).await;
    worker.say(WorkUp::Want { items: 1 }).await;
    let leases = worker.granted().await;
    let bytes = Bytes::from(vec![b'7'; 100_000]);
    let blob = Blob { sha256: sha256(&bytes), bytes: 100_000 };
    worker.remote.put_blob(&blob.sha256, bytes).await.unwrap();
    worker.done(job, &leases, |_| End::Blob(blob.clone())).await;
    let mut follow = client.follow(job, 0).await.unwrap();
    loop {
        match soon(follow.next()).await.unwrap().unwrap() {
            Followed::Committed { items, .. } => {
                assert!(matches!(&items[0].end, Final::Blob(found) if *found == blob));
                break;
            }
            Followed::Standing(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn hundreds_of_blobs_a_second_are_no_flood() {
    let fleet = Fleet::new("");
    let worker = fleet.worker().await;
    let begun = Instant::now();
    // Each is asked for and not sent: 1,500 requests, far more than 100 a second.
    let bytes = Bytes::from_static(b"a blob");
    let name = sha256(&bytes);
    for _ in 0..1_500 {
        soon(worker.remote.put_blob(&name, bytes.clone())).await.unwrap();
    }
    assert!(begun.elapsed() < PATIENCE);
    assert!(!fleet.events.topics(worker.id).contains(&"worker_rejected"));
}

#[tokio::test]
async fn a_stream_of_work_that_begins_wrongly_is_refused_and_says_why() {
    let fleet = Fleet::new("[events]\nworker_rejected_interval = \"0s\"\n");
    let worker = fleet.worker().await;
    let WorkUp::Hello { incarnation, epoch, plugins, .. } = worker.hello() else { panic!() };
    let hello = |worker_id, epoch| {
        let plugins = plugins.clone();
        WorkUp::Hello { worker_id, incarnation, epoch, plugins }
    };
    let long = WorkUp::Done {
        seq: 1,
        job: JobId::generate(),
        outcomes: vec![Outcome {
            lease: Lease { item: 0, attempt: 1 },
            end: result(&format!("\"{}\"", "x".repeat(MAX_LINE))),
        }],
    };
    let many = WorkUp::Progress { job: JobId::generate(), items: vec![0; 100_001] };
    let named = |plugins| WorkUp::Hello { worker_id: worker.id, incarnation, epoch, plugins };
    for (lines, words, event) in [
        (vec![hello(WorkerId::generate(), epoch)], "the certificate is worker", true),
        (vec![WorkUp::Want { items: 1 }], "not a hello", true),
        (vec![hello(worker.id, epoch + 1)], "epoch", false),
        (vec![hello(worker.id, epoch), long], "longer than", true),
        (vec![hello(worker.id, epoch), many], "a line of 100001 items", true),
        (vec![named(vec!["p".into(); 65])], "plugins", true),
        (vec![named(vec!["p".repeat(257)])], "plugins", true),
    ] {
        let events = || {
            let topics = fleet.events.topics(worker.id);
            topics.iter().filter(|topic| **topic == "worker_rejected").count()
        };
        let before = events();
        let remote = fleet.remote(&Identity::Worker(worker.id)).await;
        let mut link = remote.work().await.unwrap();
        for line in lines {
            soon(link.up.send(line)).await.unwrap();
        }
        match soon(link.down.next()).await.unwrap() {
            Some(WorkDown::Refused { detail }) => assert!(detail.contains(words), "{detail}"),
            other => panic!("{other:?}"),
        }
        assert!(soon(link.down.next()).await.unwrap().is_none(), "{words}");
        let told = async {
            while events() != before + usize::from(event) {
                sleep(TICK).await;
            }
        };
        soon(told).await;
    }
}

#[tokio::test]
async fn a_follower_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let (client, mut worker) = (fleet.client().await, fleet.worker().await);
    let limits = JobLimits { batch: 1, ..JobLimits::default() };
    accepted(&client.submit(job, &JobSpec { limits, ..spec(400) }, None).await.unwrap());
    let mut slow = client.follow(job, 0).await.unwrap();
    worker.say(worker.hello()).await;
    worker.say(WorkUp::Want { items: 400 }).await;
    // Far more than all windows and queues between.
    let large = format!("\"{}\"", "x".repeat(30_000));
    let (mut left, mut items) = (400, Vec::new());
    while left > 0 {
        match worker.hear().await {
            Some(WorkDown::Grant { attempt, first, count, .. }) => {
                for item in first..first + u64::from(count) {
                    left -= 1;
                    worker.seq += 1;
                    let outcome = Outcome { lease: Lease { item, attempt }, end: result(&large) };
                    let (seq, outcomes) = (worker.seq, vec![outcome]);
                    worker.say(WorkUp::Done { seq, job, outcomes }).await;
                }
            }
            Some(WorkDown::Job { .. } | WorkDown::Ack { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let quick = fleet.client().await;
    let mut follow = quick.follow(job, 0).await.unwrap();
    loop {
        match soon(follow.next()).await.unwrap() {
            Some(Followed::Finished(standing)) => break assert_eq!(standing.done, 400),
            Some(_) => {}
            None => panic!("ended before the job"),
        }
    }
    let mut next = 1;
    loop {
        match soon(slow.next()).await.unwrap() {
            Some(Followed::Committed { seq, items: batch }) => {
                assert_eq!(seq, next, "without gaps");
                next += 1;
                items.extend(batch.into_iter().map(|committed| committed.item));
            }
            Some(Followed::Standing(_)) => {}
            Some(Followed::Finished(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    items.sort_unstable();
    assert_eq!(items, (0..400).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_is_connected_hears_that_the_coordinator_stops() {
    let (fleet, job) = (Fleet::new(""), JobId::generate());
    let (client, mut worker) = (fleet.client().await, fleet.worker().await);
    accepted(&client.submit(job, &spec(2), None).await.unwrap());
    worker.say(worker.hello()).await;
    worker.say(WorkUp::Want { items: 1 }).await;
    worker.granted().await;
    let silent = fleet.worker().await;
    let mut follow = client.follow(job, 0).await.unwrap();
    let params: Vec<_> = (0..10).map(|n| format!("{n}\n")).collect();
    let (open, receiver) = mpsc::channel(1);
    let spec = with_params(&params);
    let coming = JobId::generate();
    let submit = client.submit(coming, &spec, Some(receiver));
    let begun = async {
        loop {
            match client.submit(coming, &spec, given(&[])).await.unwrap() {
                Submitted::Invalid { detail } if detail.contains("somebody else") => return,
                Submitted::Invalid { .. } => sleep(TICK).await,
                other => panic!("{other:?}"),
            }
        }
    };
    let stop = async {
        // Both have begun when they are asked to end.
        assert!(matches!(soon(follow.next()).await, Ok(Some(Followed::Standing(_)))));
        soon(begun).await;
        fleet.coordinator.stop("test").await.unwrap();
        loop {
            match soon(follow.next()).await.unwrap() {
                Some(Followed::Standing(_)) => {}
                other => break assert!(matches!(other, Some(Followed::Stopping)), "{other:?}"),
            }
        }
        assert!(soon(follow.next()).await.unwrap().is_none());
    };
    let (answer, ()) = tokio::join!(submit, stop);
    drop(open);
    match answer {
        Err(CallError::Lost { why }) => assert!(why.contains("stopping"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(worker.hear().await, Some(WorkDown::Stopping)));
    assert!(worker.hear().await.is_none());
    let mut down = silent.link.down;
    assert!(matches!(soon(down.next()).await.unwrap(), Some(WorkDown::Stopping)));
    soon(client.closed()).await;
    assert!(matches!(client.status().await, Err(CallError::Lost { .. })));
}
