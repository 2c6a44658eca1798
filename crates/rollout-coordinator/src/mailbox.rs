//! What reaches the engine: from sessions, from the ledger's writer, from the coordinator's owner.

use std::sync::Arc;

use rollout_core::{Incarnation, Mono, WorkerId};
use rollout_transport::{Down, DownSink, RejectReason};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::gate::Gate;
use crate::ledger::Durable;

/// Messages that may wait for the engine; then sessions wait, and their workers with them.
pub(crate) const QUEUE: usize = 4_096;
/// One session, as its task and the engine know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionId(pub(crate) u64);

/// What a process says of itself when it registers.
pub(crate) struct Candidate {
    pub(crate) worker: WorkerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) epoch: Option<u64>,
    pub(crate) version: String,
    pub(crate) plugins: Vec<String>,
    pub(crate) unix_ms: Option<u64>,
    pub(crate) session: SessionId,
    pub(crate) down: DownSink,
    /// Ends the session's task.
    pub(crate) end: CancellationToken,
    pub(crate) gate: Arc<Gate>,
}

/// Why a session is refused.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) reason: RejectReason,
    pub(crate) detail: String,
}

impl Rejection {
    pub(crate) fn new(reason: RejectReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// What becomes of a candidate.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Its session's messages count under this epoch; the answer comes after the fsync, if any.
    Epoch(u64),
    /// Its session is to say so, in an event and to the worker.
    Refused(Rejection),
    /// It gets no epoch and has been told why.
    Answered,
}

/// What reaches the engine.
pub(crate) enum Message {
    Register(Box<Candidate>, oneshot::Sender<Admission>),
    /// It has passed the session's gate and is acknowledged.
    Beat {
        worker: WorkerId,
        epoch: u64,
        session: SessionId,
        beat: u64,
        /// What the worker's wall clock shows, if it says so.
        unix_ms: Option<u64>,
        /// When it was read, and not acknowledged yet.
        read: Mono,
    },
    Draining {
        worker: WorkerId,
        epoch: u64,
    },
    Deregister {
        worker: WorkerId,
        epoch: u64,
    },
    Lost {
        worker: WorkerId,
        epoch: u64,
        session: SessionId,
    },
    /// A registration is on disk.
    Recorded {
        worker: WorkerId,
        epoch: u64,
        session: SessionId,
        answer: Down,
    },
    Durable(Durable),
    /// The connections are being served.
    Pulse {
        sent: Mono,
    },
    /// Verdicts end here; the ledger is closed before the answer.
    Stop,
}
