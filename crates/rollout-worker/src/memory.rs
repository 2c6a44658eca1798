//! What a worker remembers across its own death: its id, its last epoch and the plugins it loaded.

use std::sync::Arc;

use rollout_core::WorkerId;
use rollout_storage::{StorageError, Store, Table};
use serde::{Deserialize, Serialize};

const WORKER: Table<(), WorkerRow> = Table::new("worker");
const PLUGINS: Table<String, PluginRow> = Table::new("plugins");

/// The worker's own row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct WorkerRow {
    worker_id: WorkerId,
    /// The last epoch it registered under; 0 before the first.
    epoch: u64,
}

/// A plugin, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PluginRow {
    pub(crate) version: String,
    pub(crate) digest: String,
}

/// The worker's database.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Store>);

impl Memory {
    pub(crate) fn new(store: Store) -> Self {
        Self(Arc::new(store))
    }

    /// Makes the database this worker's, unless it is another's: then that one's id.
    pub(crate) fn claim(&self, worker_id: WorkerId) -> Result<Option<WorkerId>, Arc<StorageError>> {
        match self.0.get(WORKER, &()).map_err(Arc::new)? {
            Some(row) => Ok((row.worker_id != worker_id).then_some(row.worker_id)),
            None => {
                let row = WorkerRow { worker_id, epoch: 0 };
                self.0.write(move |batch| batch.put(WORKER, &(), &row)).map(|()| None)
            }
        }
    }

    /// Records a registration; `failed` is told if that cannot be done.
    pub(crate) fn registered(
        &self,
        worker_id: WorkerId,
        epoch: u64,
        failed: impl FnOnce(Arc<StorageError>) + Send + 'static,
    ) {
        let row = WorkerRow { worker_id, epoch };
        self.0.submit(
            rollout_storage::Priority::Control,
            move |batch| batch.put(WORKER, &(), &row),
            move |outcome| {
                if let Err(error) = outcome {
                    failed(error);
                }
            },
        );
    }

    /// Records the plugins this process has loaded.
    pub(crate) fn loaded(
        &self,
        plugins: Vec<(String, PluginRow)>,
    ) -> Result<(), Arc<StorageError>> {
        if plugins.is_empty() {
            return Ok(());
        }
        self.0.write(move |batch| {
            batch.put_all(PLUGINS, plugins.iter().map(|(name, row)| (name, row)))
        })
    }
}

/// The id of the worker whose database this is, if it is one's.
///
/// # Errors
/// When the database cannot be read.
pub fn remembered_id(store: &Store) -> Result<Option<WorkerId>, StorageError> {
    Ok(store.get(WORKER, &())?.map(|row: WorkerRow| row.worker_id))
}
