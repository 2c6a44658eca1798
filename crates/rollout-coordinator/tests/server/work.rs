//! Work over the wire: a worker's stream and a client's jobs, spoken to by hand.

mod blobs;
mod jobs;
mod streams;

use bytes::Bytes;
use rollout_core::{Incarnation, JobId, JobSpec, WorkerId, hex};
use rollout_transport::work::{End, Final, Followed, Lease, Outcome, Submitted, WorkDown, WorkUp};
use rollout_transport::{CallError, Identity, Link, Remote, Up, WorkLink};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::{Fleet, PATIENCE, TICK, tls};

fn spec(items: u64) -> JobSpec {
    JobSpec { seed: 7, ..JobSpec::new("p", "run", items) }
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
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
