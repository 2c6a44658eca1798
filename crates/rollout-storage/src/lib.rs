//! A durable store on redb: one file per process, fsync for every commit, and one writer thread
//! that groups what arrives while the last commit syncs.
//!
//! It knows nothing of workers, beats or jobs, and has no async runtime: whoever writes is called
//! back once the write is on disk.
//!
//! Entry points: [`Store::open`], [`Store::submit`], [`Table`].

mod create;
mod error;
#[cfg(any(test, feature = "faults"))]
mod faulty;
mod holder;
#[cfg(test)]
mod power_cut;
mod range;
mod table;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableError};

pub use error::StorageError;
pub use table::{Batch, Key, Table};
pub use writer::Priority;
use writer::{Job, Writer};

/// What redb may keep of the file in memory. Our tables are small and their hot state lives in
/// the coordinator; a worker's whole store is a few pages.
const CACHE_BYTES: usize = 4 << 20;

/// An open database file and its writer.
///
/// Dropping it writes what was submitted, then closes the file.
pub struct Store {
    // Declared before `db`: the writer ends, and everything is on disk, before the file is closed.
    writer: Writer,
    db: Arc<Database>,
    path: PathBuf,
}

/// Without the check, redb trusts the file and panics on pages that are not what it wrote.
fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

impl Store {
    /// Opens the file, making it and its directory if they are not there.
    ///
    /// # Errors
    /// [`StorageError::Locked`] when another process has it open, [`StorageError::Damaged`] when
    /// it is no database of ours, otherwise what the file system says. All name the file.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|e| StorageError::io(path, e))?;
        }
        #[cfg(feature = "faults")]
        if let Some(control) = rollout_core::faults::disk() {
            return Self::open_faulty(path, control);
        }
        Self::open_by(path, |path| builder().create(path))
    }

    /// The file, on a disk that does what `control` says.
    #[cfg(any(test, feature = "faults"))]
    fn open_faulty(path: &Path, control: &Path) -> Result<Self, StorageError> {
        Self::open_by(path, |path| {
            let mut options = fs::OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
            builder().create_with_backend(faulty::FaultyDisk::new(file, control.to_owned())?)
        })
    }

    fn open_by(
        path: &Path,
        open: impl Fn(&Path) -> Result<Database, DatabaseError>,
    ) -> Result<Self, StorageError> {
        create::if_missing(path, &open)?;
        Self::start(open(path), path)
    }

    fn start(opened: Result<Database, DatabaseError>, path: &Path) -> Result<Self, StorageError> {
        let db = Arc::new(opened.map_err(|e| StorageError::opening(path, e))?);
        let writer = Writer::start(Arc::clone(&db), path.to_owned())?;
        Ok(Self { writer, db, path: path.to_owned() })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Queues a write and returns at once; `done` is called on the writer's thread after the
    /// commit that holds it is on disk, or with the reason why it never will be.
    ///
    /// `write` runs on the writer's thread, in one transaction with whatever else is queued,
    /// [`Priority::Control`] first. At most 65,536 writes are queued: one more is refused with
    /// [`StorageError::Overloaded`], through `done`. After a failed commit every write is refused
    /// with the same reason: the state of the disk is unknown, and the process should end.
    pub fn submit(
        &self,
        priority: Priority,
        write: impl FnOnce(&mut Batch<'_>) -> Result<(), StorageError> + Send + 'static,
        done: impl FnOnce(Result<(), Arc<StorageError>>) + Send + 'static,
    ) {
        self.writer.submit(priority, Job { write: Box::new(write), done: Box::new(done) });
    }

    /// Writes and waits until it is on disk.
    ///
    /// # Errors
    /// As for [`submit`](Self::submit).
    pub fn write(
        &self,
        write: impl FnOnce(&mut Batch<'_>) -> Result<(), StorageError> + Send + 'static,
    ) -> Result<(), Arc<StorageError>> {
        let (done, outcome) = mpsc::sync_channel(1);
        self.submit(Priority::Control, write, move |result| {
            // The receiver waits below until it has this.
            let _ = done.send(result);
        });
        outcome.recv().unwrap_or_else(|_| Err(Arc::new(StorageError::closed(&self.path))))
    }

    /// The value at `key`, as of the newest commit.
    ///
    /// # Errors
    /// When the file cannot be read, or the value is not of the table's type.
    pub fn get<K: Key, V: serde::de::DeserializeOwned>(
        &self,
        table: Table<K, V>,
        key: &K,
    ) -> Result<Option<V>, StorageError> {
        let mut found = None;
        self.read(table, |rows| {
            let bytes = rows.get(key.encode().as_ref()).map_err(|e| self.failed(e.into()))?;
            found = bytes.map(|v| self.decode(table.name(), v.value())).transpose()?;
            Ok(())
        })?;
        Ok(found)
    }

    /// Every row of the table, in key order, as of the newest commit.
    ///
    /// # Errors
    /// When the file cannot be read, or a row is not of the table's type.
    pub fn scan<K: Key, V: serde::de::DeserializeOwned>(
        &self,
        table: Table<K, V>,
    ) -> Result<Vec<(K, V)>, StorageError> {
        let mut all = Vec::new();
        self.read(table, |rows| {
            for row in rows.iter().map_err(|e| self.failed(e.into()))? {
                let (key, value) = row.map_err(|e| self.failed(e.into()))?;
                let key = K::decode(key.value()).ok_or_else(|| StorageError::Row {
                    path: self.path.clone(),
                    table: table.name(),
                    source: None,
                })?;
                all.push((key, self.decode(table.name(), value.value())?));
            }
            Ok(())
        })?;
        Ok(all)
    }

    fn read<K, V>(
        &self,
        table: Table<K, V>,
        mut rows: impl FnMut(
            redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
        ) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let transaction = self.db.begin_read().map_err(|e| self.failed(e.into()))?;
        match transaction.open_table(table.definition()) {
            Ok(opened) => rows(opened),
            Err(TableError::TableDoesNotExist(_)) => Ok(()),
            Err(e) => Err(self.failed(e.into())),
        }
    }

    fn decode<V: serde::de::DeserializeOwned>(
        &self,
        table: &'static str,
        bytes: &[u8],
    ) -> Result<V, StorageError> {
        serde_json::from_slice(bytes).map_err(|e| StorageError::Row {
            path: self.path.clone(),
            table,
            source: Some(e),
        })
    }

    fn failed(&self, source: redb::Error) -> StorageError {
        StorageError::redb(&self.path, source)
    }
}
