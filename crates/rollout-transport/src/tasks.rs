//! The tasks of one server or one link: all of them are known, and all of them can be ended.

use std::future::Future;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    kill: CancellationToken,
}

impl Tasks {
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.tracker.spawn(self.kill.clone().run_until_cancelled_owned(task));
    }

    /// Returns once every task has ended.
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Drops every task as it stands, now or when it is next spawned.
    pub(crate) fn kill(&self) {
        self.kill.cancel();
    }

    /// Does so when the guard is dropped.
    pub(crate) fn kill_on_drop(&self) -> DropGuard {
        self.kill.clone().drop_guard()
    }
}

/// hyper spawns a stream's tasks through this.
impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}
