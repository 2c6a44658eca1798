//! The engine: one task on a thread of its own that feeds sessions' messages and the passing of
//! time to [`Liveness`] and carries out its effects.
//!
//! It is the only owner of liveness, sessions and ledger, so nothing is locked. On the way of a
//! verdict there is no disk and no socket: the event is handed over first, the record follows.
//!
//! Here is what becomes of a message and of a verdict; `turns` says when each has its turn.

mod turns;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rollout_core::config::HeartbeatEvents;
use rollout_core::duration::as_ms;
use rollout_core::event::{
    Body, ClockSkewExceeded, Emit, WorkerDeregistered, WorkerDraining, WorkerFailed,
    WorkerHeartbeat, WorkerReady, WorkerRecovered, WorkerRegistered, WorkerResumed,
    WorkerSuspected,
};
use rollout_core::{Clock, Mono, RunId, WorkerId};
use rollout_storage::StorageError;
use rollout_transport::{Down, DownSink, FenceReason, Queue, RejectReason};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::gate::Gate;
use crate::ledger::{BeatRecord, Ledger, Standing, WorkerRecord};
use crate::liveness::fold::Fold;
use crate::liveness::{Effect, Liveness, Registration, Stale, Suspicion};
use crate::mailbox::{Admission, Candidate, Message, Rejection, SessionId};
use crate::refusals::Refusals;
use crate::registrar::Registrar;
use crate::rush::Rush;
use crate::skew::{Skews, Wall};
use crate::watchdog::Watchdog;
use crate::work::board::Board;
use crate::work::ledger::words::Standing as WorkStanding;

/// The session that currently speaks for a worker.
pub(crate) struct Connected {
    session: SessionId,
    epoch: u64,
    down: DownSink,
    end: CancellationToken,
    gate: Arc<Gate>,
    /// Its beats that have come here.
    booked: u64,
    /// Where the work thread sees its last beat.
    heard: Arc<AtomicU64>,
}

pub(crate) struct Engine {
    pub(crate) run_id: RunId,
    pub(crate) term: u64,
    pub(crate) liveness: Liveness,
    pub(crate) watchdog: Watchdog,
    pub(crate) rush: Rush,
    pub(crate) queue: Queue,
    pub(crate) ledger: Ledger,
    /// Why the ledger writes no more. It does not go through the inbox: the engine itself is told
    /// when it submits to a broken ledger, and must not wait for itself.
    pub(crate) broken: Arc<OnceLock<Arc<StorageError>>>,
    pub(crate) skews: Skews,
    /// What the wall clock showed when this turn began.
    pub(crate) wall: Wall,
    pub(crate) registrar: Registrar,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) heartbeats: HeartbeatEvents,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) emit: Arc<dyn Emit>,
    pub(crate) inbox: mpsc::Receiver<Message>,
    /// For the ledger's writer to answer through.
    pub(crate) outbox: mpsc::WeakSender<Message>,
    pub(crate) sessions: HashMap<WorkerId, Connected, Fold>,
    /// What the work thread reads; nothing here waits for it.
    pub(crate) board: Arc<Board>,
}

impl Engine {
    fn handle(&mut self, now: Mono, message: Message) {
        match message {
            Message::Register(candidate, reply) => {
                // A session that has gone meanwhile is seen as lost by its own task.
                let _ = reply.send(self.register(now, *candidate));
            }
            Message::Beat { worker, epoch, session, beat, unix_ms, read } => {
                if self.beat(now, worker, epoch, session, beat) {
                    let skew_ms = self.skews.beat(read, worker, epoch, unix_ms, self.wall);
                    self.say_skew(now, worker, epoch, skew_ms);
                }
            }
            Message::Draining { worker, epoch } => {
                if self.liveness.draining(worker, epoch) {
                    self.board.stands(worker, epoch, WorkStanding::Draining);
                    self.emit.emit(now, Some(worker), WorkerDraining { epoch }.into());
                }
            }
            Message::Deregister { worker, epoch } => self.deregister(now, worker, epoch),
            Message::Lost { worker, epoch, session } => self.lost(now, worker, epoch, session),
            Message::Recorded { worker, epoch, session, answer } => {
                self.liveness.answered(now, worker, epoch);
                self.answer(worker, session, answer);
            }
            Message::Durable(beats) => self.durable(&beats),
            Message::Pulse { sent } => self.watchdog.pulse(now, sent),
            Message::Stop => {}
        }
    }

    /// What becomes of the candidate; the answer itself goes down the session, after the fsync
    /// where there is one.
    fn register(&mut self, now: Mono, candidate: Candidate) -> Admission {
        let Candidate { worker, incarnation, epoch: known, unix_ms, .. } = candidate;
        if let Err(wait) = self.registrar.admit(now, worker) {
            let detail = format!("the worker registers too often: it may again in {wait:.1?}");
            return Admission::Refused(Rejection::new(RejectReason::Rate, detail));
        }
        let (run_id, term) = (self.run_id, self.term);
        #[cfg(feature = "faults")]
        if let Some(epoch) = known.filter(|_| rollout_core::faults::epoch_check_is_off()) {
            self.liveness.revive(worker, epoch, Some(incarnation));
        }
        match self.liveness.register(now, worker, incarnation, known) {
            Registration::New { epoch } => {
                self.board.registered(worker, epoch, incarnation);
                let (version, plugins) = (candidate.version.clone(), candidate.plugins.clone());
                let body = WorkerRegistered { epoch, incarnation, version, plugins };
                self.emit.emit(now, Some(worker), body.into());
                let answer = Down::Registered { run_id, epoch, term, resumed: false, waited_ms: 0 };
                let session = candidate.session;
                self.connect(candidate, epoch);
                let skew_ms = self.skews.register(now, worker, epoch, unix_ms, self.wall);
                self.say_skew(now, worker, epoch, skew_ms);
                self.record(worker, epoch, Standing::Live, Some((session, answer)));
                Admission::Epoch(epoch)
            }
            Registration::Resumed { epoch } => {
                self.emit.emit(now, Some(worker), WorkerResumed { epoch }.into());
                let session = candidate.session;
                self.connect(candidate, epoch);
                let skew_ms = self.skews.register(now, worker, epoch, unix_ms, self.wall);
                self.say_skew(now, worker, epoch, skew_ms);
                let answer = Down::Registered { run_id, epoch, term, resumed: true, waited_ms: 0 };
                match known {
                    Some(_) => self.answer(worker, session, answer),
                    // It never heard that it is registered: perhaps that is not on disk yet.
                    None => self.record(worker, epoch, Standing::Live, Some((session, answer))),
                }
                Admission::Epoch(epoch)
            }
            Registration::Failed => {
                refuse(&candidate, Down::Fenced { reason: FenceReason::Failed })
            }
            Registration::Superseded => {
                refuse(&candidate, Down::Fenced { reason: FenceReason::Superseded })
            }
            Registration::Full => {
                let detail = format!("the fleet is full: {} workers", self.liveness.live());
                Admission::Refused(Rejection::new(RejectReason::Capacity, detail))
            }
        }
    }

    /// Makes the candidate's session the one that speaks for its worker.
    fn connect(&mut self, candidate: Candidate, epoch: u64) {
        let Candidate { worker, session, down, end, gate, .. } = candidate;
        let heard = self.board.hears(worker);
        let fresh = Connected { session, epoch, down, end, gate, booked: 0, heard };
        if let Some(old) = self.sessions.insert(worker, fresh) {
            old.gate.close();
            if old.epoch != epoch {
                let _ = old.down.try_send(Down::Fenced { reason: FenceReason::Superseded });
            }
            old.end.cancel();
        }
    }

    /// Records how the worker's epoch stands; what its session is to be told then goes out after
    /// the fsync.
    fn record(
        &self,
        worker: WorkerId,
        epoch: u64,
        standing: Standing,
        answer: Option<(SessionId, Down)>,
    ) {
        let Some(incarnation) = self.liveness.incarnation(worker) else { return };
        let (outbox, broken) = (self.outbox.clone(), Arc::clone(&self.broken));
        let (clock, asked) = (Arc::clone(&self.clock), self.clock.now());
        let record = WorkerRecord { epoch, incarnation, standing };
        self.ledger.record(worker, record, move |outcome| match (outcome, answer) {
            (Err(error), _) => say_broken(&broken, error),
            (Ok(()), Some((session, mut answer))) => {
                if let Down::Registered { waited_ms, .. } = &mut answer {
                    *waited_ms = whole_ms(clock.now().since(asked));
                }
                send_from_writer(&outbox, Message::Recorded { worker, epoch, session, answer });
            }
            (Ok(()), None) => {}
        });
    }

    /// A full session queue means a peer that does not read: it misses the answer, and its own
    /// time-out ends the session.
    fn answer(&self, worker: WorkerId, session: SessionId, answer: Down) {
        if let Some(connected) = self.sessions.get(&worker).filter(|c| c.session == session) {
            let _ = connected.down.try_send(answer);
        }
    }

    /// Whether the beat counts.
    fn beat(
        &mut self,
        now: Mono,
        worker: WorkerId,
        epoch: u64,
        session: SessionId,
        beat: u64,
    ) -> bool {
        #[cfg(feature = "faults")]
        let session = self.believed(worker, epoch, session);
        let Some(connected) = self.sessions.get_mut(&worker).filter(|c| c.session == session)
        else {
            return false;
        };
        connected.booked += 1;
        let effect = match self.liveness.beat(now, worker, epoch) {
            Ok(effect) => effect,
            Err(Stale::Left) => return false,
            Err(stale) => {
                let reason = match stale {
                    Stale::Superseded => FenceReason::Superseded,
                    Stale::Failed | Stale::Left => FenceReason::Failed,
                };
                connected.gate.close();
                let _ = connected.down.try_send(Down::Fenced { reason });
                connected.end.cancel();
                return false;
            }
        };
        connected.heard.store(now.0, Relaxed);
        self.ledger.beat(worker, BeatRecord { epoch, beat, unix_ms: self.wall.unix_ms });
        let wanted = match self.heartbeats {
            HeartbeatEvents::All => true,
            HeartbeatEvents::First => effect == Some(Effect::Ready),
            HeartbeatEvents::None => false,
        };
        if wanted {
            self.emit.emit(now, Some(worker), WorkerHeartbeat { epoch, beat }.into());
        }
        if let Some(effect) = effect {
            self.carry_out(now, worker, epoch, effect);
        }
        true
    }

    /// Says, for people, that the worker's wall clock is so far ahead of this one, if it is.
    fn say_skew(&self, now: Mono, worker: WorkerId, epoch: u64, skew_ms: Option<i64>) {
        if let Some(skew_ms) = skew_ms {
            self.emit.emit(now, Some(worker), ClockSkewExceeded { epoch, skew_ms }.into());
        }
    }

    /// The session that is taken to have sent a beat: without the epoch check, any will do, and
    /// whatever has become of its epoch is undone.
    #[cfg(feature = "faults")]
    fn believed(&mut self, worker: WorkerId, epoch: u64, session: SessionId) -> SessionId {
        if !rollout_core::faults::epoch_check_is_off() {
            return session;
        }
        self.liveness.revive(worker, epoch, None);
        self.sessions.get(&worker).map_or(session, |current| current.session)
    }

    fn deregister(&mut self, now: Mono, worker: WorkerId, epoch: u64) {
        if !self.liveness.deregister(now, worker, epoch) {
            return;
        }
        self.board.stands(worker, epoch, WorkStanding::Left);
        self.skews.forget(worker);
        self.emit.emit(now, Some(worker), WorkerDeregistered { epoch }.into());
        let answer = self.sessions.get(&worker).map(|c| (c.session, Down::Deregistered));
        self.record(worker, epoch, Standing::Deregistered, answer);
    }

    fn lost(&mut self, now: Mono, worker: WorkerId, epoch: u64, session: SessionId) {
        if self.sessions.get(&worker).is_none_or(|c| c.session != session) {
            return;
        }
        self.sessions.remove(&worker);
        if self.watchdog.is_stalled() {
            // It gave up a coordinator that did not answer. If it is dead, it misses beats.
            return;
        }
        if let Some(effect) = self.liveness.disconnected(worker, epoch) {
            self.carry_out(now, worker, epoch, effect);
        }
    }

    fn expire(&mut self, now: Mono) {
        let mut effects = Vec::new();
        let sessions = &self.sessions;
        // A beat that is acknowledged and not booked yet is on its way.
        let beats = |worker| {
            let connected: Option<&Connected> = sessions.get(&worker);
            connected.is_some_and(|it| !it.gate.close_after(it.booked))
        };
        let push = |worker, epoch, effect| effects.push((worker, epoch, effect));
        self.liveness.expire_unless(now, beats, push);
        for (worker, epoch, effect) in effects {
            self.carry_out(now, worker, epoch, effect);
        }
    }

    fn carry_out(&mut self, now: Mono, worker: WorkerId, epoch: u64, effect: Effect) {
        let body: Body = match effect {
            Effect::Ready => WorkerReady { epoch }.into(),
            Effect::Suspected(why) => {
                WorkerSuspected { epoch, reason: Cow::Borrowed(word(why)) }.into()
            }
            Effect::Recovered { gap } => WorkerRecovered { epoch, gap_ms: as_ms(gap) }.into(),
            Effect::Failed { overdue, overshoot, credited } => WorkerFailed {
                epoch,
                overdue_ms: as_ms(overdue),
                overshoot_ms: as_ms(overshoot),
                credited_ms: as_ms(credited),
            }
            .into(),
            Effect::Forgotten => {
                self.board.forgotten(worker, epoch);
                let broken = Arc::clone(&self.broken);
                return self.ledger.forget(worker, epoch, move |outcome| {
                    if let Err(error) = outcome {
                        say_broken(&broken, error);
                    }
                });
            }
        };
        self.emit.emit(now, Some(worker), body);
        self.board.heard(worker, epoch, effect);
        if let Effect::Failed { .. } = effect {
            self.skews.forget(worker);
            self.record(worker, epoch, Standing::Failed, None);
            #[cfg(feature = "faults")]
            if rollout_core::faults::epoch_check_is_off() {
                return;
            }
            if let Some(connected) = self.sessions.remove(&worker) {
                let _ = connected.down.try_send(Down::Fenced { reason: FenceReason::Failed });
                connected.end.cancel();
            }
        }
    }
}

const fn word(why: Suspicion) -> &'static str {
    match why {
        Suspicion::ConnectionLost => "connection_lost",
        Suspicion::MissedBeats => "missed_beats",
    }
}

/// Answers a candidate that gets no epoch.
fn refuse(candidate: &Candidate, answer: Down) -> Admission {
    let _ = candidate.down.try_send(answer);
    Admission::Answered
}

/// The ledger is broken; the first reason is the one.
fn say_broken(broken: &OnceLock<Arc<StorageError>>, error: Arc<StorageError>) {
    // The engine looks at every turn, and so within a tick.
    let _ = broken.set(error);
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// From the ledger's writer, which may wait for the engine; an engine that has ended needs no
/// answer.
fn send_from_writer(outbox: &mpsc::WeakSender<Message>, message: Message) {
    if let Some(outbox) = outbox.upgrade() {
        let _ = outbox.blocking_send(message);
    }
}
