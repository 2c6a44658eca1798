//! What a worker says, checked and handed to the engine: one task per session, and nothing decided
//! here that the engine could be wrong about.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rollout_core::pace::Used;
use rollout_core::{Clock, JobId, JobSpec, Mono, Pace, RunId, TimeBudget, WorkerId, chain};
use rollout_transport::work::{Followed, Standing, Status, Submitted};
use rollout_transport::{
    Control, Denied, Down, EventsQuery, Handler, Identity, LineSink, Params, PieceSink,
    PieceStream, Refusal, RejectReason, Session, Up, WireError, WorkSession, wire::Timing,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Sleep, sleep, timeout};

use crate::mailbox::{Admission, Candidate, Message, Rejection, SessionId};
use crate::refusals::{Refusals, Refused};
use crate::requests::Requests;
use crate::streams;
use crate::tail::Tail;

/// Lines of a session in the long run: twice what the shortest interval makes of beats.
const LINES: Duration = Duration::from_millis(5);
/// Lines at once, at least.
const LINES_AT_ONCE: u32 = 2_000;

/// What every session needs to know.
pub(crate) struct Sessions {
    pub(crate) run_id: RunId,
    pub(crate) budget: TimeBudget,
    pub(crate) registration_timeout: Duration,
    pub(crate) engine: mpsc::Sender<Message>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) next: AtomicU64,
    pub(crate) requests: Requests,
    pub(crate) tail: Tail,
}

impl Handler for Sessions {
    async fn session(&self, mut session: Session) {
        let identity = match session.identity {
            Identity::Worker(worker) => worker,
            ref other => {
                let detail = format!("the certificate is {other}'s, not a worker's");
                return self.reject(&session, None, Rejection::new(RejectReason::Identity, detail));
            }
        };
        match self.registration(&mut session, identity).await {
            Ok(candidate) => self.speak(&mut session, candidate).await,
            Err(Some(rejection)) => self.reject(&session, Some(identity), rejection),
            Err(None) => {}
        }
    }

    fn refused(&self, peer: SocketAddr, identity: Option<&Identity>, why: &Refusal) {
        let worker = match identity {
            Some(Identity::Worker(worker)) => Some(*worker),
            _ => None,
        };
        let (reason, detail) = (why.kind.as_str(), why.detail.clone());
        self.refusals.report(self.clock.now(), Refused { worker, reason, detail, peer });
    }

    async fn work(&self, session: WorkSession) {
        let (worker, peer) = (session.worker, session.peer);
        let led = streams::lead(self.requests.work(), session, self.registration_timeout).await;
        if let Err(Rejection { reason, detail }) = led {
            let (worker, reason) = (Some(worker), reason.as_str());
            self.refusals.report(self.clock.now(), Refused { worker, reason, detail, peer });
        }
    }

    async fn submit(&self, job: JobId, spec: JobSpec, params: Params) -> Result<Submitted, Denied> {
        self.requests.submit(job, spec, params).await
    }

    async fn follow(
        &self,
        job: JobId,
        after: u64,
        lines: LineSink<Followed>,
    ) -> Result<impl Future<Output = ()> + Send + 'static, Denied> {
        self.requests.follow(job, after, lines).await
    }

    async fn control(&self, job: JobId, control: Control) -> Result<Standing, Denied> {
        self.requests.control(job, control).await
    }

    async fn status(&self) -> Result<Status, Denied> {
        self.requests.status().await
    }

    async fn events(
        &self,
        query: EventsQuery,
        lines: PieceSink,
    ) -> Result<impl Future<Output = ()> + Send + 'static, Denied> {
        self.tail.read(query, lines)
    }

    async fn has_blob(&self, sha256: String) -> Result<u64, Denied> {
        self.requests.has_blob(sha256).await
    }

    async fn put_blob(&self, sha256: String, pieces: PieceStream) -> Result<(), Denied> {
        self.requests.put_blob(sha256, pieces).await
    }

    async fn get_blob(
        &self,
        sha256: String,
        pieces: PieceSink,
    ) -> Result<(u64, impl Future<Output = ()> + Send + 'static), Denied> {
        self.requests.get_blob(sha256, pieces).await
    }
}

impl Sessions {
    fn reject(&self, session: &Session, worker: Option<WorkerId>, rejection: Rejection) {
        let Rejection { reason, detail } = rejection;
        let (word, peer) = (reason.as_str(), session.peer);
        let refused = Refused { worker, reason: word, detail: detail.clone(), peer };
        self.refusals.report(self.clock.now(), refused);
        // A peer that is gone already needs no answer.
        let _ = session.down.try_send(Down::Rejected { reason, detail });
    }

    /// Reads and checks the first line. One who goes away before is no refusal.
    async fn registration(
        &self,
        session: &mut Session,
        identity: WorkerId,
    ) -> Result<Box<Candidate>, Option<Rejection>> {
        let protocol = |detail: String| Rejection::new(RejectReason::Protocol, detail);
        let first = match timeout(self.registration_timeout, session.up.next()).await {
            Ok(Ok(Some(first))) => first,
            Ok(Ok(None) | Err(WireError::Lost(_))) => return Err(None),
            Ok(Err(error)) => return Err(Some(protocol(chain(&error)))),
            Err(_) => {
                // No protocol error: perhaps it was this coordinator that did not run.
                let detail = format!("no registration within {:?}", self.registration_timeout);
                return Err(Some(Rejection::new(RejectReason::Timeout, detail)));
            }
        };
        let candidate = self.candidate(session, identity, first)?;
        Ok(Box::new(candidate))
    }

    /// Checks what a session begins with.
    fn candidate(
        &self,
        session: &Session,
        identity: WorkerId,
        first: Up,
    ) -> Result<Candidate, Rejection> {
        let Up::Register {
            worker_id,
            incarnation,
            epoch,
            run_id,
            version,
            plugins,
            timing,
            unix_ms,
        } = first
        else {
            let detail = "the first line is not a registration";
            return Err(Rejection::new(RejectReason::Protocol, detail));
        };
        if worker_id != identity {
            let detail = format!("the certificate is worker {identity}'s, not {worker_id}'s");
            return Err(Rejection::new(RejectReason::Identity, detail));
        }
        if let Some(other) = run_id.filter(|run| *run != self.run_id) {
            let detail = format!("this coordinator leads run {}, not {other}", self.run_id);
            return Err(Rejection::new(RejectReason::Run, detail));
        }
        self.check_timing(&timing)?;
        Ok(Candidate {
            worker: worker_id,
            incarnation,
            epoch,
            version,
            plugins,
            unix_ms,
            session: SessionId(self.next.fetch_add(1, Ordering::Relaxed)),
            down: session.down.clone(),
            end: session.end.clone(),
            gate: Arc::default(),
        })
    }

    /// A worker cannot give itself more time than the coordinator gives it.
    fn check_timing(&self, timing: &Timing) -> Result<(), Rejection> {
        let refuse = |detail: String| Err(Rejection::new(RejectReason::Timing, detail));
        let ours = self.budget;
        let Some(interval) = timing.heartbeat_interval() else {
            return refuse("heartbeat_interval is no duration".into());
        };
        let Some(fence) = timing.worker_self_fence_timeout() else {
            return refuse("worker_self_fence_timeout is no duration".into());
        };
        if interval > ours.heartbeat_interval {
            return refuse(format!(
                "the worker's heartbeat_interval ({interval:?}) exceeds the coordinator's ({:?})",
                ours.heartbeat_interval
            ));
        }
        if fence >= ours.coordinator_failure_timeout {
            return refuse(format!(
                "the worker's worker_self_fence_timeout ({fence:?}) must be less than the \
                 coordinator's coordinator_failure_timeout ({:?})",
                ours.coordinator_failure_timeout
            ));
        }
        Ok(())
    }

    /// How fast a session may speak. Whatever was sent while the coordinator was stopped may come at
    /// once: a worker that hears nothing stops when its fence falls.
    fn pace(&self) -> Pace {
        let until_the_fence = self.budget.coordinator_failure_timeout.as_millis() / 5;
        let at_once = u32::try_from(until_the_fence).unwrap_or(u32::MAX).max(LINES_AT_ONCE);
        Pace::new(at_once, LINES)
    }

    /// Hands the session's messages on until it ends. The engine waits for none of them, so that a
    /// failed send means that it has ended.
    async fn speak(&self, session: &mut Session, candidate: Box<Candidate>) {
        let (worker, id, gate) = (candidate.worker, candidate.session, Arc::clone(&candidate.gate));
        let (reply, registered) = oneshot::channel();
        if self.engine.send(Message::Register(candidate, reply)).await.is_err() {
            return;
        }
        let epoch = match registered.await {
            Ok(Admission::Epoch(epoch)) => epoch,
            Ok(Admission::Refused(why)) => return self.reject(session, Some(worker), why),
            Ok(Admission::Answered) | Err(_) => return,
        };
        let (pace, mut used) = (self.pace(), Used::default());
        let mut gone = None;
        loop {
            let line = tokio::select! {
                biased;
                () = at(&mut gone) => break,
                line = session.up.next() => line,
            };
            let read = self.clock.now();
            let heard = match pace.take(&mut used, read) {
                Ok(()) => message(line, read, worker, epoch, id),
                Err(_) => {
                    let detail = "more than 2000 lines at once, or 200 a second";
                    Err(Some(Rejection::new(RejectReason::Rate, detail)))
                }
            };
            let message = match heard {
                Ok(message) => message,
                Err(rejection) => {
                    rejection.into_iter().for_each(|why| self.reject(session, Some(worker), why));
                    break;
                }
            };
            if matches!(message, Message::Deregister { .. }) {
                gate.close();
                // Nobody waits for its beats any more, so nobody would end its session.
                gone.get_or_insert_with(|| Box::pin(sleep(self.registration_timeout)));
            }
            // Before the gate: what has passed it reaches the engine whatever becomes of this task.
            let Ok(room) = self.engine.reserve().await else { return };
            match message {
                Message::Beat { beat, .. } if gate.pass() => {
                    room.send(message);
                    // A full queue means a peer that does not read: it misses it.
                    let _ = session.down.try_send(Down::Ack { beat, durable: gate.durable() });
                }
                Message::Beat { .. } if session.end.is_cancelled() => break,
                Message::Beat { .. } => {}
                message => room.send(message),
            }
        }
        let _ = self.engine.send(Message::Lost { worker, epoch, session: id }).await;
    }
}

/// What a line is for the engine, or why it is the last: a reason to refuse the worker, or none.
fn message(
    line: Result<Option<Up>, WireError>,
    read: Mono,
    worker: WorkerId,
    epoch: u64,
    session: SessionId,
) -> Result<Message, Option<Rejection>> {
    let protocol = |detail: String| Err(Some(Rejection::new(RejectReason::Protocol, detail)));
    match line {
        Ok(Some(Up::Beat { beat, unix_ms })) => {
            Ok(Message::Beat { worker, epoch, session, beat, unix_ms, read })
        }
        Ok(Some(Up::Draining)) => Ok(Message::Draining { worker, epoch }),
        Ok(Some(Up::Deregister)) => Ok(Message::Deregister { worker, epoch }),
        Ok(Some(Up::Register { .. })) => protocol("a second registration in one session".into()),
        Err(error) if error.is_violation() => protocol(chain(&error)),
        Ok(None) | Err(_) => Err(None),
    }
}

/// Returns when the time is over, if it runs. Most sessions never need one: it is no part of them.
async fn at(time: &mut Option<Pin<Box<Sleep>>>) {
    match time {
        Some(time) => time.await,
        None => pending().await,
    }
}
