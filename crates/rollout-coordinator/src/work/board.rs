//! What the liveness engine tells the work thread.
//!
//! The engine must never wait for work: it writes the newest standing of a worker over the one before
//! it, so that the board is bounded by the size of the fleet and nothing is ever dropped that still
//! holds. What lies between two readings is left out: an epoch that came and went ends with the next.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rollout_core::{Incarnation, Mono, WorkerId};
use tokio::sync::Notify;

use super::ledger::words::Standing;
use crate::liveness::Effect;

/// How a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) epoch: u64,
    /// The process, when it is a new one.
    pub(crate) incarnation: Option<Incarnation>,
    /// Nothing when the worker is forgotten.
    pub(crate) standing: Option<Standing>,
}

/// The board between the two threads.
#[derive(Debug, Default)]
pub(crate) struct Board {
    news: Mutex<BTreeMap<WorkerId, News>>,
    /// When each worker beat last, in nanoseconds.
    beats: Mutex<HashMap<WorkerId, Arc<AtomicU64>>>,
    changed: Notify,
}

impl Board {
    /// A new process is the worker now.
    pub(crate) fn registered(&self, worker: WorkerId, epoch: u64, incarnation: Incarnation) {
        let standing = Some(Standing::Registered);
        self.write(worker, News { epoch, incarnation: Some(incarnation), standing });
    }

    /// The worker's epoch stands otherwise now.
    pub(crate) fn stands(&self, worker: WorkerId, epoch: u64, standing: Standing) {
        self.write(worker, News { epoch, incarnation: None, standing: Some(standing) });
    }

    /// Liveness has come to something.
    pub(crate) fn heard(&self, worker: WorkerId, epoch: u64, effect: Effect) {
        let standing = match effect {
            Effect::Ready | Effect::Recovered { .. } => Standing::Ready,
            Effect::Suspected(_) => Standing::Suspected,
            Effect::Failed { .. } => Standing::Failed,
            Effect::Forgotten => return self.forgotten(worker, epoch),
        };
        self.stands(worker, epoch, standing);
    }

    /// The worker is forgotten.
    pub(crate) fn forgotten(&self, worker: WorkerId, epoch: u64) {
        lock(&self.beats).remove(&worker);
        self.write(worker, News { epoch, incarnation: None, standing: None });
    }

    /// Where the instant of the worker's last accepted beat is to be noted: not on the board itself,
    /// so that a beat takes no lock.
    pub(crate) fn hears(&self, worker: WorkerId) -> Arc<AtomicU64> {
        Arc::clone(lock(&self.beats).entry(worker).or_default())
    }

    /// The worker's last accepted beat in this term.
    pub(crate) fn last_beat(&self, worker: WorkerId) -> Option<Mono> {
        let noted = lock(&self.beats).get(&worker).map(|beat| beat.load(Relaxed));
        noted.filter(|beat| *beat > 0).map(Mono)
    }

    fn write(&self, worker: WorkerId, mut news: News) {
        {
            let mut board = lock(&self.news);
            if let Some(before) = board.get(&worker).filter(|before| before.epoch == news.epoch) {
                news.incarnation = news.incarnation.or(before.incarnation);
            }
            board.insert(worker, news);
        }
        self.changed.notify_one();
    }

    /// What has changed since the last reading.
    pub(crate) fn take(&self) -> BTreeMap<WorkerId, News> {
        std::mem::take(&mut *lock(&self.news))
    }

    /// Waits until something may have changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// No holder of these locks runs foreign code.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
