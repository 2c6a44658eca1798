//! Sidecars: the caller's side, which hands calls to the process there is, or waits for the next one.
//!
//! A task of its own keeps the sidecar going; callers see what it last published and share nothing
//! else with it.

mod calls;
#[cfg(test)]
mod differential;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod halves;
mod keeper;
mod link;
mod process;
mod python;
mod socket;
mod start;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use rollout_core::Mono;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::call::{Call, Failed, Method, Reply};
use crate::error::{Cause, Executed};
use crate::event::HostConfig;
use crate::manifest::{Manifest, SidecarEntry};

use self::keeper::Keeper;
use self::process::{Process, Unanswered};
pub(crate) use self::socket::private_dir;
use self::start::Starting;

/// A sidecar that has become ready once, and is kept going.
pub(crate) struct Sidecar {
    phase: watch::Receiver<Phase>,
    stop: watch::Sender<bool>,
    /// How many calls may wait for the next process.
    waiting: Semaphore,
    max_waiting: usize,
    /// Holds the task that owns the process; dropped, it kills the process.
    _task: JoinSet<()>,
}

/// What callers are to do.
#[derive(Clone)]
enum Phase {
    /// Call this process.
    Ready(Arc<Process>),
    /// Wait for the next one.
    Restarting,
    /// Fail: it is left alone until then.
    Open { until: Mono },
    /// Fail: it was shut down and nothing of it is left.
    Closed,
}

impl Phase {
    fn is(&self, other: &Arc<Process>) -> bool {
        matches!(self, Self::Ready(process) if Arc::ptr_eq(process, other))
    }
}

impl Sidecar {
    /// Starts the sidecar and waits until it is ready. When this fails, nothing of it is left.
    pub(crate) async fn start(
        entry: &SidecarEntry,
        manifest: &Manifest,
        host: &HostConfig,
    ) -> Result<(Self, Vec<Method>), Cause> {
        let limit = manifest.limits.start_timeout;
        let deadline = Instant::now() + limit;
        let entry = start::resolve(entry, limit).await?;
        let starting = Starting::launch(&entry, manifest, host).await?;
        let (process, link, methods) = starting.ready(&[], deadline, false).await?;
        let (publish, phase) = watch::channel(Phase::Ready(Arc::new(process)));
        let (stop, stop_asked) = watch::channel(false);
        let keeper = Keeper::new(entry, manifest, host, &methods, publish, stop_asked);
        let mut task = JoinSet::new();
        task.spawn(keeper.run(link));
        let max_waiting = manifest.limits.max_in_flight;
        let waiting = Semaphore::new(max_waiting);
        Ok((Self { phase, stop, waiting, max_waiting, _task: task }, methods))
    }

    /// Sends a call and waits for its answer. A call that no process has had yet waits for the next
    /// one, within its own deadline.
    pub(crate) async fn call(&self, call: Call) -> Result<Reply, Failed> {
        let no = |cause| Failed::new(cause, Executed::No);
        let deadline = Instant::now() + call.timeout;
        let mut process = self.ready().map_err(no)?;
        loop {
            if let Some(process) = &process {
                match process.call(&call, deadline).await {
                    Ok(reply) => return Ok(reply),
                    Err(Unanswered::Failed(failed)) => return Err(failed),
                    Err(Unanswered::NotSent) => {}
                }
            }
            self.ready().map_err(no)?;
            process = self.next(process, deadline, call.timeout).await.map_err(no)?;
        }
    }

    /// The process to call, if there is one now.
    fn ready(&self) -> Result<Option<Arc<Process>>, Cause> {
        if *self.stop.borrow() {
            return Err(Cause::Closed { message: "it was shut down" });
        }
        match &*self.phase.borrow() {
            Phase::Ready(process) => Ok(Some(Arc::clone(process))),
            Phase::Restarting => Ok(None),
            Phase::Open { until } => Err(Cause::breaker_open(*until)),
            Phase::Closed => Err(Cause::Closed { message: "it was shut down" }),
        }
    }

    /// How many calls it takes at the same time.
    pub(crate) fn places(&self) -> usize {
        match &*self.phase.borrow() {
            Phase::Ready(process) => process.shared.state().calls.limit(),
            _ => self.max_waiting,
        }
    }

    /// How many calls the process has; one that is being started has none.
    pub(crate) fn in_flight(&self) -> usize {
        match &*self.phase.borrow() {
            Phase::Ready(process) => process.shared.state().calls.count(),
            _ => 0,
        }
    }

    /// Whether there is no process and one is to come.
    pub(crate) fn is_restarting(&self) -> bool {
        matches!(&*self.phase.borrow(), Phase::Restarting)
    }

    /// Waits for what comes after a process that answers no more, or after none.
    async fn next(
        &self,
        last: Option<Arc<Process>>,
        deadline: Instant,
        limit: Duration,
    ) -> Result<Option<Arc<Process>>, Cause> {
        let place = self.waiting.try_acquire();
        let _place = place.map_err(|_| Cause::Overloaded { limit: self.max_waiting })?;
        let mut phase = self.phase.clone();
        let changed = phase.wait_for(|phase| match (phase, &last) {
            (Phase::Restarting, _) => false,
            (phase, Some(last)) => !phase.is(last),
            (_, None) => true,
        });
        let gone = |_| Cause::Closed { message: "its task has ended" };
        let changed = timeout_at(deadline, changed).await.map_err(|_| Cause::Deadline { limit })?;
        changed.map(drop).map_err(gone)?;
        self.ready()
    }

    /// Ends the process and waits until nothing of it is left.
    pub(crate) async fn shutdown(&self) -> Result<(), Cause> {
        self.stop.send_replace(true);
        let mut phase = self.phase.clone();
        // An error means that the task is gone, and the process with it.
        let _ = phase.wait_for(|phase| matches!(phase, Phase::Closed)).await;
        Ok(())
    }
}
