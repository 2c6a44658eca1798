//! The writer: one thread that owns every write transaction of a store.
//!
//! While a commit syncs, what arrives forms the next group, so that many writes share one fsync
//! and a lone one waits for no timer.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use redb::{Database, Durability};

use crate::StorageError;
use crate::table::Batch;

/// Writes that may be queued; one more is refused.
const MAX_QUEUED: usize = 65_536;
/// Writes in one commit, so that a control write never waits for an endless group.
const MAX_GROUP: usize = 4_096;

/// Which writes go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for it: registrations, grants, commits.
    Control,
    /// It may wait behind control writes: beats.
    Background,
}

type Write = Box<dyn FnOnce(&mut Batch<'_>) -> Result<(), StorageError> + Send>;
type Done = Box<dyn FnOnce(Result<(), Arc<StorageError>>) + Send>;

pub(crate) struct Job {
    pub(crate) write: Write,
    pub(crate) done: Done,
}

#[derive(Default)]
struct Queues {
    control: VecDeque<Job>,
    background: VecDeque<Job>,
    closing: bool,
    /// Why nothing more is written; the first reason is the one.
    failed: Option<Arc<StorageError>>,
}

struct Shared {
    queues: Mutex<Queues>,
    arrived: Condvar,
    path: PathBuf,
}

impl Shared {
    /// No holder of this lock runs foreign code, so a poisoned one still guards sound queues.
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(db: Arc<Database>, path: PathBuf) -> Result<Self, StorageError> {
        let queues = Mutex::new(Queues::default());
        let shared = Arc::new(Shared { queues, arrived: Condvar::new(), path });
        let owned = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(&db, &owned))
            .map_err(|e| StorageError::io(&shared.path, e))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn submit(&self, priority: Priority, job: Job) {
        let refusal = {
            let mut queues = self.shared.lock();
            let queued = queues.control.len() + queues.background.len();
            if let Some(first) = &queues.failed {
                Some((job, Arc::clone(first)))
            } else if queues.closing {
                Some((job, Arc::new(StorageError::closed(&self.shared.path))))
            } else if queued >= MAX_QUEUED {
                let path = self.shared.path.clone();
                Some((job, Arc::new(StorageError::Overloaded { path, queued })))
            } else {
                match priority {
                    Priority::Control => queues.control.push_back(job),
                    Priority::Background => queues.background.push_back(job),
                }
                None
            }
        };
        match refusal {
            Some((job, error)) => (job.done)(Err(error)),
            None => self.shared.arrived.notify_one(),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in a caller's closure ended the thread; it has been reported on the way.
            let _ = thread.join();
        }
    }
}

fn run(db: &Database, shared: &Shared) {
    let refuse_the_rest = FailOnExit(shared);
    while let Some(group) = next_group(shared) {
        let (writes, dones): (Vec<Write>, Vec<Done>) =
            group.into_iter().map(|job| (job.write, job.done)).unzip();
        let outcome = commit(db, &shared.path, writes).map_err(Arc::new);
        if let Err(first) = &outcome {
            refuse_the_rest.because(first);
        }
        for done in dones {
            done(outcome.clone());
        }
        if outcome.is_err() {
            return;
        }
    }
}

/// Whatever ends the writer, nobody is left waiting for it.
struct FailOnExit<'s>(&'s Shared);

impl FailOnExit<'_> {
    /// From now on everybody is told of this.
    fn because(&self, error: &Arc<StorageError>) {
        self.0.lock().failed.get_or_insert_with(|| Arc::clone(error));
    }
}

impl Drop for FailOnExit<'_> {
    fn drop(&mut self) {
        let closed = Arc::new(StorageError::closed(&self.0.path));
        let (left, error) = {
            let mut queues = self.0.lock();
            let error = Arc::clone(queues.failed.get_or_insert(closed));
            let Queues { control, background, .. } = &mut *queues;
            let left: Vec<Job> = control.drain(..).chain(background.drain(..)).collect();
            (left, error)
        };
        for job in left {
            (job.done)(Err(Arc::clone(&error)));
        }
    }
}

/// What is queued, control writes first; waits until there is something, and is nothing only when
/// the store is closing and everything is written.
fn next_group(shared: &Shared) -> Option<Vec<Job>> {
    let mut queues = shared.lock();
    loop {
        let control = queues.control.len().min(MAX_GROUP);
        let background = queues.background.len().min(MAX_GROUP - control);
        if control + background > 0 {
            let mut group: Vec<Job> = queues.control.drain(..control).collect();
            group.extend(queues.background.drain(..background));
            return Some(group);
        }
        if queues.closing {
            return None;
        }
        queues = shared.arrived.wait(queues).unwrap_or_else(PoisonError::into_inner);
    }
}

fn commit(db: &Database, path: &Path, writes: Vec<Write>) -> Result<(), StorageError> {
    let failed = |e: redb::Error| StorageError::redb(path, e);
    let mut transaction = db.begin_write().map_err(|e| failed(e.into()))?;
    transaction.set_durability(Durability::Immediate).map_err(|e| failed(e.into()))?;
    let mut batch = Batch { transaction: &transaction, path };
    for write in writes {
        write(&mut batch)?;
    }
    transaction.commit().map_err(|e| failed(e.into()))
}
