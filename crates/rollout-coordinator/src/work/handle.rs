//! What the HTTP layer calls: plain functions and channels of the messages of work.

use std::sync::{Arc, Weak};

use rollout_core::{Incarnation, JobId, JobSpec, WorkerId, hex};
use rollout_storage::{Priority, StorageError, Store};
use rollout_transport::work::{
    JobStatus, MAX_PARAMS, Standing, Submitted, WorkDown, WorkUp, WorkerStatus,
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot, watch};

use super::blobs::Blobs;
use super::follow::Follow;
use super::store::{self, CHUNK};

/// Messages that may wait for the work thread; then the streams that send them wait.
pub(crate) const QUEUE: usize = 1_024;
/// Messages that may wait for a worker that reads slowly; then its stream is ended, and the next one
/// is told everything again.
pub(crate) const DOWN_QUEUE: usize = 4_096;

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// There is no such job.
    #[error("there is no job {0}")]
    NoJob(JobId),
    /// The coordinator is about to end.
    #[error("the coordinator is stopping")]
    Stopping,
    /// The records cannot be read or written.
    #[error("the work ledger failed")]
    Storage(#[source] Arc<StorageError>),
}

impl From<Arc<StorageError>> for WorkError {
    fn from(error: Arc<StorageError>) -> Self {
        Self::Storage(error)
    }
}

/// One work stream, as its task and the work thread know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId(pub(crate) u64);

/// What a client may do with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    Pause,
    Resume,
    Cancel,
}

/// How a job stands, as far as it is durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) standing: Standing,
    pub(crate) finished: bool,
    /// The job was removed.
    pub(crate) removed: bool,
}

/// Who opens a work stream.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The id in the certificate.
    pub worker_id: WorkerId,
    /// The process.
    pub incarnation: Incarnation,
    /// Its epoch.
    pub epoch: u64,
    /// The names of its plugins.
    pub plugins: Vec<String>,
}

/// Whether a job's parameters are wanted.
pub(crate) enum Begun {
    /// The job is there, or cannot be.
    Answer(Submitted),
    /// It is new, and its id is taken for as long as this is held.
    New(Claim),
}

/// A job's id, taken for a submission. Whichever way that ends, the id is free again then.
#[derive(Debug)]
pub(crate) struct Claim(#[expect(dead_code, reason = "it is held, never looked at")] Arc<()>);

impl Claim {
    /// A claim, and what tells whether it is still held.
    pub(crate) fn new() -> (Self, Weak<()>) {
        let held = Arc::new(());
        let seen = Arc::downgrade(&held);
        (Self(held), seen)
    }
}

pub(crate) enum Input {
    Hello(Hello, mpsc::Sender<WorkDown>, oneshot::Sender<Result<StreamId, String>>),
    Up(WorkerId, StreamId, WorkUp),
    Closed(WorkerId, StreamId),
    Begin(JobId, Box<JobSpec>, oneshot::Sender<Begun>),
    Create(Claim, JobId, Box<JobSpec>, oneshot::Sender<Submitted>),
    Control(JobId, Control, oneshot::Sender<Option<Standing>>),
    Watch(JobId, oneshot::Sender<Option<watch::Receiver<View>>>),
    Status(oneshot::Sender<(Vec<WorkerStatus>, Vec<JobStatus>)>),
    Stop,
}

/// The work ledger, to whoever serves workers and clients.
#[derive(Clone)]
pub struct Work {
    pub(crate) inbox: mpsc::Sender<Input>,
    pub(crate) store: Arc<Store>,
    pub(crate) term: u64,
    pub(crate) blobs: Blobs,
}

impl Work {
    /// Adds a job, whose items' parameters, if it has some, are taken from `params`, in order and
    /// in pieces of any size. A job that is there already is resumed, with the new limits, and
    /// `params` is not read.
    ///
    /// # Errors
    /// When the coordinator stops or its records fail. A job that is refused is an answer.
    pub async fn submit(
        &self,
        job: JobId,
        spec: JobSpec,
        params: mpsc::Receiver<Vec<Box<RawValue>>>,
    ) -> Result<Submitted, WorkError> {
        if let Err(error) = spec.validate() {
            return Ok(Submitted::Invalid { detail: error.to_string() });
        }
        let begun = self.ask(|reply| Input::Begin(job, Box::new(spec.clone()), reply)).await?;
        let claim = match begun {
            Begun::Answer(answer) => return Ok(answer),
            Begun::New(claim) => claim,
        };
        if spec.has_params
            && let Some(detail) = self.take_params(job, &spec, params).await?
        {
            return Ok(Submitted::Invalid { detail });
        }
        self.ask(|reply| Input::Create(claim, job, Box::new(spec), reply)).await
    }

    /// Writes the parameters; what is wrong with them, if anything is.
    async fn take_params(
        &self,
        job: JobId,
        spec: &JobSpec,
        mut params: mpsc::Receiver<Vec<Box<RawValue>>>,
    ) -> Result<Option<String>, WorkError> {
        let (mut digest, mut chunk, mut taken, mut written) = (Sha256::new(), Vec::new(), 0, 0);
        while let Some(piece) = params.recv().await {
            for param in piece {
                if param.get().len() > MAX_PARAMS {
                    return Ok(Some(format!(
                        "the parameters in line {} have {} bytes: at most {MAX_PARAMS} are taken",
                        taken + 1,
                        param.get().len()
                    )));
                }
                digest.update(param.get());
                digest.update(b"\n");
                chunk.push(param);
                taken += 1;
                if chunk.len() as u64 == CHUNK {
                    self.write_params(job, written, std::mem::take(&mut chunk)).await?;
                    written += 1;
                }
            }
            if taken > spec.items {
                break;
            }
        }
        if !chunk.is_empty() {
            self.write_params(job, written, chunk).await?;
        }
        if taken != spec.items {
            return Ok(Some(format!(
                "the job has {} items, and parameters of {taken}",
                spec.items
            )));
        }
        let found = hex(&digest.finalize());
        Ok((found != spec.params_sha256).then(|| {
            format!("params_sha256 is {}, the parameters' is {found}", spec.params_sha256)
        }))
    }

    async fn write_params(
        &self,
        job: JobId,
        chunk: u64,
        params: Vec<Box<RawValue>>,
    ) -> Result<(), WorkError> {
        let (done, outcome) = oneshot::channel();
        let term = self.term;
        self.store.submit(
            Priority::Control,
            move |batch| store::put_params(batch, term, job, chunk, &params),
            move |result| {
                // A submission that was cancelled meanwhile awaits nothing.
                let _ = done.send(result);
            },
        );
        outcome.await.map_err(|_| WorkError::Stopping)?.map_err(WorkError::Storage)
    }

    /// Follows a job's commits from the one after `after`.
    ///
    /// # Errors
    /// When there is no such job, or the coordinator stops.
    pub async fn follow(&self, job: JobId, after: u64) -> Result<Follow, WorkError> {
        let view = self.ask(|reply| Input::Watch(job, reply)).await?;
        let view = view.ok_or(WorkError::NoJob(job))?;
        Ok(Follow::new(Arc::clone(&self.store), job, after, view))
    }

    /// Grants nothing more of the job; what is in the hands of workers is finished.
    ///
    /// # Errors
    /// When there is no such job, or the coordinator stops.
    pub async fn pause(&self, job: JobId) -> Result<Standing, WorkError> {
        self.control(job, Control::Pause).await
    }

    /// Undoes a [`pause`](Self::pause).
    ///
    /// # Errors
    /// When there is no such job, or the coordinator stops.
    pub async fn resume(&self, job: JobId) -> Result<Standing, WorkError> {
        self.control(job, Control::Resume).await
    }

    /// Ends the job and removes it, with all its results.
    ///
    /// # Errors
    /// When there is no such job, or the coordinator stops.
    pub async fn cancel(&self, job: JobId) -> Result<Standing, WorkError> {
        self.control(job, Control::Cancel).await
    }

    async fn control(&self, job: JobId, control: Control) -> Result<Standing, WorkError> {
        let standing = self.ask(|reply| Input::Control(job, control, reply)).await?;
        standing.ok_or(WorkError::NoJob(job))
    }

    /// The workers and jobs, for people.
    ///
    /// # Errors
    /// When the coordinator stops.
    pub async fn status(&self) -> Result<(Vec<WorkerStatus>, Vec<JobStatus>), WorkError> {
        self.ask(Input::Status).await
    }

    /// Opens a worker's stream: what it says goes into the one half, what it is told comes out of the
    /// other. The stream ends when either is dropped, or the second one closes.
    ///
    /// # Errors
    /// In the outer result, when the coordinator stops; in the inner one, why the stream is
    /// refused: the detail of a [`WorkDown::Refused`].
    pub async fn open(
        &self,
        hello: Hello,
    ) -> Result<Result<(WorkSink, mpsc::Receiver<WorkDown>), String>, WorkError> {
        let worker = hello.worker_id;
        let (down, told) = mpsc::channel(DOWN_QUEUE);
        let opened = self.ask(|reply| Input::Hello(hello, down, reply)).await?;
        Ok(opened.map(|stream| {
            let inbox = self.inbox.clone();
            (WorkSink { worker, stream, inbox }, told)
        }))
    }

    /// Where large results go.
    #[must_use]
    pub const fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    async fn ask<T>(
        &self,
        input: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Result<T, WorkError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(input(reply)).await.map_err(|_| WorkError::Stopping)?;
        answer.await.map_err(|_| WorkError::Stopping)
    }
}

/// A worker's half of its stream. Dropping it ends the stream; the leases stay.
pub struct WorkSink {
    worker: WorkerId,
    stream: StreamId,
    inbox: mpsc::Sender<Input>,
}

impl WorkSink {
    /// Hands a message on; waits while the ledger has more than it can write.
    ///
    /// # Errors
    /// When the coordinator stops.
    pub async fn send(&self, message: WorkUp) -> Result<(), WorkError> {
        let input = Input::Up(self.worker, self.stream, message);
        self.inbox.send(input).await.map_err(|_| WorkError::Stopping)
    }

    /// Ends the stream.
    pub async fn close(self) {
        // A coordinator that has stopped has closed it.
        let _ = self.inbox.send(Input::Closed(self.worker, self.stream)).await;
    }
}

impl Drop for WorkSink {
    fn drop(&mut self) {
        // With a full inbox the end is noticed with the next message that cannot be delivered: the
        // receiving half is gone, too.
        let _ = self.inbox.try_send(Input::Closed(self.worker, self.stream));
    }
}
