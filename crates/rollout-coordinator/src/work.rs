//! Work: items are granted to workers, and each comes to its end exactly once.
//!
//! [`ledger`] decides (a pure state machine), a thread of its own carries out and records, [`Work`]
//! is what the server calls. Liveness tells the thread of workers through a board that it never waits
//! for; everything else comes through one bounded queue, and waits when the disk is behind.

mod blobs;
pub(crate) mod board;
mod engine;
mod follow;
mod handle;
pub mod ledger;
mod report;
mod store;
mod tx;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rollout_core::event::Emit;
use rollout_core::{Clock, WorkerId};
use rollout_storage::Store;
use tokio::sync::{mpsc, oneshot};

pub use self::blobs::{BlobError, Blobs, Upload};
use self::board::Board;
use self::engine::{Engine, Start};
pub use self::follow::Follow;
use self::handle::Input;
pub use self::handle::{Hello, Work, WorkError, WorkSink};
use self::ledger::Ledger;
use self::ledger::words::Standing;
use crate::CoordinatorError;
use crate::ledger::{Standing as Recorded, WorkerRecord};
use crate::own_thread::{self, Outcome};

/// A large result that nothing refers to is kept so long: the commit may be on its way.
const BLOB_AGE: Duration = Duration::from_secs(600);

/// The clock and the event stream.
pub(crate) struct Outside {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) emit: Arc<dyn Emit>,
}

/// The running work thread. Dropping it ends the thread once its handles are gone.
pub(crate) struct WorkThread {
    work: Work,
    board: Arc<Board>,
    ended: oneshot::Receiver<Outcome>,
    thread: thread::JoinHandle<()>,
}

impl WorkThread {
    /// Reads the records and starts the thread. `registry` says how the workers stood.
    pub(crate) fn start(
        store: Arc<Store>,
        term: u64,
        registry: &[(WorkerId, WorkerRecord)],
        outside: Outside,
    ) -> Result<Self, CoordinatorError> {
        let failed = |error| CoordinatorError::Ledger(Arc::new(error));
        let Outside { clock, emit } = outside;
        let (mut ledger, mut effects) = (Ledger::new(), Vec::new());
        let now = clock.now();
        let restored = store::restore(&store, &mut ledger, now).map_err(failed)?;
        let workers = registry.iter().map(|(id, record)| (*id, record.epoch, standing(record)));
        ledger.restored(now, workers, &mut effects);
        let mut strays = store::with_params(&store).map_err(failed)?;
        strays.retain(|job| !restored.jobs.contains_key(job));
        if !strays.is_empty() {
            store
                .write(move |batch| store::remove_strays(batch, &strays))
                .map_err(CoordinatorError::Ledger)?;
        }
        let blobs = Blobs::open(store.path())?;
        let referenced = store::referenced(&store).map_err(failed)?;
        blobs.sweep(&referenced, clock.wall().checked_sub(BLOB_AGE).unwrap_or(clock.wall()))?;
        let (sender, inbox) = mpsc::channel(handle::QUEUE);
        let board = Arc::new(Board::default());
        let work = Work { inbox: sender, store: Arc::clone(&store), term, blobs: blobs.clone() };
        let incarnations: HashMap<_, _> =
            registry.iter().map(|(id, record)| (*id, (record.epoch, record.incarnation))).collect();
        let start = Start {
            ledger,
            store,
            term,
            blobs,
            clock,
            emit,
            board: Arc::clone(&board),
            inbox,
            incarnations,
            restored,
        };
        let engine = Engine::new(start);
        let (thread, ended) = own_thread::spawn("work", move || engine.run(effects))?;
        Ok(Self { work, board, ended, thread })
    }

    pub(crate) const fn handle(&self) -> &Work {
        &self.work
    }

    pub(crate) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Waits until the thread ends, which it does on a failing disk alone.
    pub(crate) async fn ended(&mut self) -> Result<Outcome, oneshot::error::RecvError> {
        (&mut self.ended).await
    }

    /// Ends the thread once all that it has taken in is on disk.
    pub(crate) async fn stop(self) -> Result<Outcome, CoordinatorError> {
        // A thread that has ended already says so through `ended`.
        let _ = self.work.inbox.send(Input::Stop).await;
        let outcome = self.ended.await;
        // Its last act was the answer.
        let _ = self.thread.join();
        outcome.map_err(|_| CoordinatorError::EngineLost)
    }
}

/// How a worker of the registry stands before anything is heard of it.
fn standing(record: &WorkerRecord) -> Standing {
    match record.standing {
        Recorded::Live => Standing::Ready,
        Recorded::Failed => Standing::Failed,
        Recorded::Deregistered => Standing::Left,
    }
}

#[cfg(test)]
mod tests;
