//! A fleet in one thread: every worker has a real session, beats on its own phase, and comes back as
//! a worker does when its connection is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rollout_core::{Clock, Mono, SystemClock, TimeBudget, WorkerId};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::crew::Member;
use super::session::Session;
use crate::error::BenchError;

/// Sessions that are being opened at once, to begin with: a fleet that is started by hand.
const OPENING: usize = 32;
/// The pause of a worker that beats so often that it sees when its beats become durable.
pub(super) const PROBE: Duration = Duration::from_millis(10);
/// Longer than the largest fleet needs to open its sessions.
const LONG: Duration = Duration::from_secs(120);

/// What all sessions share.
pub(super) struct Shared {
    pub(super) addr: String,
    pub(super) budget: TimeBudget,
    pub(super) opening: Arc<Semaphore>,
    /// Sessions that are registered now.
    pub(super) open: AtomicUsize,
    pub(super) acks: AtomicU64,
    pub(super) counts: Counts,
    recording: AtomicBool,
    samples: Mutex<Samples>,
}

/// What should not happen to a fleet that is left alone.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) lost: AtomicU64,
    pub(super) unanswered: AtomicU64,
    pub(super) fenced: AtomicU64,
    pub(super) anew: AtomicU64,
}

/// What was measured while it was recorded, in seconds.
#[derive(Default)]
pub(crate) struct Samples {
    /// From a beat's sending to its acknowledgement.
    pub(crate) acks: Vec<f64>,
    /// How much later than planned a beat was sent: the generator's own fault.
    pub(crate) late: Vec<f64>,
    /// From a probe's beat to the acknowledgement that says it is on disk.
    pub(crate) durable: Vec<f64>,
    /// When sessions were registered or resumed.
    pub(crate) opened: Vec<Mono>,
}

impl Shared {
    /// Adds to the samples, if they are wanted.
    pub(super) fn record(&self, add: impl FnOnce(&mut Samples)) {
        if self.recording.load(Relaxed) {
            add(&mut self.samples.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// A running fleet. Dropping it cuts every session.
pub(crate) struct Load {
    pub(super) shared: Arc<Shared>,
    _sessions: JoinSet<()>,
    handles: Vec<(WorkerId, AbortHandle)>,
    size: usize,
}

impl Load {
    /// Opens a session for each member; the last of them beats every 10 ms.
    pub(crate) async fn open(addr: String, members: &[Member]) -> Result<Self, BenchError> {
        let budget = TimeBudget::default();
        let shared = Arc::new(Shared {
            addr,
            budget,
            opening: Arc::new(Semaphore::new(OPENING)),
            open: AtomicUsize::new(0),
            acks: AtomicU64::new(0),
            counts: Counts::default(),
            recording: AtomicBool::new(false),
            samples: Mutex::default(),
        });
        let (mut sessions, mut handles) = (JoinSet::new(), Vec::new());
        let (base, size) = (Instant::now(), members.len());
        for (n, member) in members.iter().enumerate() {
            let share = n as f64 / size as f64;
            let phase = base + budget.heartbeat_interval.mul_f64(share);
            let probes = n + 1 == size;
            let session = Session::new(Arc::clone(&shared), member.clone(), phase, probes);
            handles.push((member.id, sessions.spawn(session.run())));
        }
        let load = Self { shared, _sessions: sessions, handles, size };
        load.all_open(LONG).await?;
        Ok(load)
    }

    /// Waits until every session that was not cut is registered.
    pub(crate) async fn all_open(&self, patience: Duration) -> Result<(), BenchError> {
        self.open_at_least(self.size, patience).await
    }

    /// Waits until so many sessions are registered.
    pub(crate) async fn open_at_least(
        &self,
        sessions: usize,
        patience: Duration,
    ) -> Result<(), BenchError> {
        let open = async {
            while self.shared.open.load(Relaxed) < sessions {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let late = |_| BenchError::Late(patience, "every session to be open");
        timeout(patience, open).await.map_err(late)
    }

    /// Waits until no session is registered.
    pub(crate) async fn none_open(&self, patience: Duration) -> Result<(), BenchError> {
        let gone = async {
            while self.shared.open.load(Relaxed) > 0 {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let late =
            |_| BenchError::Late(patience, "every session to notice that the server is gone");
        timeout(patience, gone).await.map_err(late)
    }

    /// Cuts the sessions of these members for good; who they are.
    pub(crate) fn cut(&mut self, members: std::ops::Range<usize>) -> Vec<WorkerId> {
        let cut = self.handles.get(members).unwrap_or_default();
        for (_, session) in cut {
            session.abort();
        }
        self.size -= cut.len();
        cut.iter().map(|(id, _)| *id).collect()
    }

    /// Starts recording.
    pub(crate) fn record(&self) {
        self.shared.recording.store(true, Relaxed);
    }

    /// Stops recording, and hands out what was recorded.
    pub(crate) fn recorded(&self) -> Samples {
        self.shared.recording.store(false, Relaxed);
        std::mem::take(&mut *self.shared.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many sessions are registered now.
    pub(crate) fn sessions(&self) -> usize {
        self.shared.open.load(Relaxed)
    }

    /// Acknowledged beats so far.
    pub(crate) fn acks(&self) -> u64 {
        self.shared.acks.load(Relaxed)
    }

    /// How many times a worker was not acknowledged for so long that it would have fenced itself.
    pub(crate) fn fenced(&self) -> u64 {
        self.shared.counts.fenced.load(Relaxed)
    }

    /// How many times a session that was not cut ended, or could not be opened, or lost its epoch.
    pub(crate) fn mishaps(&self) -> [u64; 3] {
        let Counts { lost, unanswered, anew, .. } = &self.shared.counts;
        [lost, unanswered, anew].map(|count| count.load(Relaxed))
    }
}

/// Now, on the clock that samples are taken with.
pub(super) fn now() -> Mono {
    SystemClock.now()
}
