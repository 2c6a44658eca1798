//! The tasks of one server or one link: all of them are known, and all of them can be ended.
//!
//! A task is ended by its handle, and does not look at every poll whether it should: a connection
//! is polled several times for each beat.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

/// Tasks that have ended and are forgotten when one is begun: more than one, so that they become
/// fewer, and not all, so that nobody waits for it.
const FORGOTTEN: usize = 8;

#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    home: Handle,
    tracker: TaskTracker,
    running: Arc<Mutex<Running>>,
}

#[derive(Debug, Default)]
struct Running {
    set: JoinSet<()>,
    killed: bool,
}

impl Tasks {
    /// Tasks of the current runtime, from wherever they are spawned.
    pub(crate) fn here() -> Self {
        let (tracker, running) = (TaskTracker::new(), Arc::default());
        Self { home: Handle::current(), tracker, running }
    }

    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.spawn_on(&self.home, task);
    }

    /// Spawns a task on another runtime.
    pub(crate) fn spawn_on<F>(&self, runtime: &Handle, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let task = self.tracker.track_future(async {
            task.await;
        });
        let mut running = self.lock();
        if running.killed {
            // What it holds may have something to do with tasks.
            drop(running);
            return;
        }
        for _ in 0..FORGOTTEN {
            if running.set.try_join_next().is_none() {
                break;
            }
        }
        running.set.spawn_on(task, runtime);
    }

    /// Returns once every task has ended.
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Drops every task as it stands, now or when it is next spawned.
    pub(crate) fn kill(&self) {
        let mut running = self.lock();
        running.killed = true;
        running.set.abort_all();
    }

    /// Does so when the guard is dropped.
    pub(crate) fn kill_on_drop(&self) -> KillOnDrop {
        KillOnDrop(Some(self.clone()))
    }

    /// No holder of this lock runs foreign code.
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills the tasks when it is dropped.
pub(crate) struct KillOnDrop(Option<Tasks>);

impl KillOnDrop {
    /// Lets them live.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(tasks) = &self.0 {
            tasks.kill();
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn killed_tasks_are_dropped_and_so_is_one_that_is_begun_later() {
        let (tasks, (held, mut released)) = (Tasks::here(), mpsc::channel::<()>(1));
        for _ in 0..3 {
            let held = held.clone();
            tasks.spawn(async move { held.closed().await });
        }
        tokio::task::yield_now().await;
        tasks.kill();
        tasks.spawn(async move { held.closed().await });
        let gone = timeout(Duration::from_secs(20), released.recv()).await;
        assert_eq!(gone, Ok(None), "all that they held is dropped");
        timeout(Duration::from_secs(20), tasks.ended()).await.unwrap();
    }

    #[tokio::test]
    async fn tasks_that_have_ended_are_forgotten() {
        let tasks = Tasks::here();
        for _ in 0..1_000 {
            tasks.spawn(async {});
            tokio::task::yield_now().await;
        }
        assert!(tasks.lock().set.len() < 10, "{}", tasks.lock().set.len());
    }

    #[tokio::test]
    async fn a_guard_kills_unless_it_is_disarmed() {
        let tasks = Tasks::here();
        tasks.kill_on_drop().disarm();
        assert!(!tasks.lock().killed);
        drop(tasks.kill_on_drop());
        assert!(tasks.lock().killed);
    }
}
