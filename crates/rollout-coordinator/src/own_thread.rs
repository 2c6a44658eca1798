//! Threads with a runtime of their own: no connection, and none of the others, can delay what runs
//! there.

use std::sync::Arc;
use std::thread;

use rollout_storage::StorageError;
use tokio::sync::oneshot;

use crate::CoordinatorError;

/// How a thread ended: on a failing disk, if not because it was asked to.
pub(crate) type Outcome = Result<(), Arc<StorageError>>;

/// Starts a thread and lets it run what `run` gives; how that ended comes through the channel.
pub(crate) fn spawn<F: Future<Output = Outcome>>(
    name: &str,
    run: impl FnOnce() -> F + Send + 'static,
) -> Result<(thread::JoinHandle<()>, oneshot::Receiver<Outcome>), CoordinatorError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(CoordinatorError::Thread)?;
    let (report, ended) = oneshot::channel();
    let thread = thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let outcome = runtime.block_on(run());
            // Whoever would have listened has dropped the coordinator.
            let _ = report.send(outcome);
        })
        .map_err(CoordinatorError::Thread)?;
    Ok((thread, ended))
}
