//! A client's view of a job: its durable commits in the order of the ledger, read from the store, and
//! how it stands.
//!
//! Nothing is queued for a reader: a slow one reads the store later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rollout_core::JobId;
use rollout_storage::Store;
use rollout_transport::work::{Committed, Followed};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::handle::{View, WorkError};
use super::store;

/// How often the standing is told.
const PERIOD: Duration = Duration::from_secs(1);
/// About how many bytes of commits are held for a reader.
const PAGE: usize = 1 << 20;

/// A job that is followed.
pub struct Follow {
    store: Arc<Store>,
    job: JobId,
    /// The newest commit that was read.
    after: u64,
    page: VecDeque<(u64, Vec<Committed>)>,
    view: watch::Receiver<View>,
    tell: Instant,
    ended: bool,
}

impl Follow {
    pub(crate) fn new(
        store: Arc<Store>,
        job: JobId,
        after: u64,
        view: watch::Receiver<View>,
    ) -> Self {
        let (page, tell) = (VecDeque::new(), Instant::now());
        Self { store, job, after, page, view, tell, ended: false }
    }

    /// The next line; nothing after [`Followed::Finished`] or [`Followed::Stopping`]. To be
    /// cancelled at will.
    ///
    /// # Errors
    /// When the records cannot be read, or the job was removed.
    pub async fn next(&mut self) -> Result<Option<Followed>, WorkError> {
        while !self.ended {
            if let Some((seq, items)) = self.page.pop_front() {
                return Ok(Some(Followed::Committed { seq, items }));
            }
            let view = self.view.borrow_and_update().clone();
            if view.removed {
                return Err(WorkError::NoJob(self.job));
            }
            if view.standing.seq > self.after {
                self.read().await?;
                continue;
            }
            if view.finished {
                self.ended = true;
                return Ok(Some(Followed::Finished(view.standing)));
            }
            if Instant::now() >= self.tell {
                self.tell = Instant::now() + PERIOD;
                return Ok(Some(Followed::Standing(view.standing)));
            }
            tokio::select! {
                changed = self.view.changed() => if changed.is_err() {
                    self.ended = true;
                    return Ok(Some(Followed::Stopping));
                },
                () = sleep_until(self.tell) => {}
            }
        }
        Ok(None)
    }

    async fn read(&mut self) -> Result<(), WorkError> {
        let (store, job, after) = (Arc::clone(&self.store), self.job, self.after);
        let read = spawn_blocking(move || store::commits(&store, job, after, PAGE));
        let page = read.await.map_err(|_| WorkError::Stopping)?.map_err(Arc::new)?;
        // A job that is removed while it is read has none left: the view says so.
        let Some((newest, _)) = page.last() else {
            self.view.changed().await.map_err(|_| WorkError::Stopping)?;
            return Ok(());
        };
        self.after = *newest;
        self.page = page.into();
        Ok(())
    }
}
