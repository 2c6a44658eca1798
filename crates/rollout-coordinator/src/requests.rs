//! Single requests, beside the sessions and streams of workers: what clients ask of the work ledger, and
//! the blobs that workers upload and clients download.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::sync::Arc;

use rollout_core::{JobId, JobSpec, RunId, chain};
use rollout_transport::work::{Followed, Standing, Status, Submitted};
use rollout_transport::{Control, Denied, LineSink, Params, PieceSink, PieceStream, WireError};
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;

use crate::work::{BlobError, Blobs, Work, WorkError};

/// About how many bytes of a blob or of parameters are held at once.
const HELD: usize = 64 * 1024;
/// The most parameters that are handed on together.
const TOGETHER: usize = 1024;
/// Blobs that are written or read at the same moment; the others wait. What clients follow is read
/// by the same threads, and must not wait behind all the blobs of a fleet.
const AT_ONCE: usize = 32;

/// What answers them.
pub(crate) struct Requests {
    work: Work,
    run_id: RunId,
    term: u64,
    disk: Disk,
}

impl Requests {
    pub(crate) fn new(work: Work, run_id: RunId, term: u64) -> Self {
        let disk = Disk { blobs: work.blobs().clone(), places: Arc::new(Semaphore::new(AT_ONCE)) };
        Self { work, run_id, term, disk }
    }

    pub(crate) const fn work(&self) -> &Work {
        &self.work
    }

    pub(crate) async fn submit(
        &self,
        job: JobId,
        spec: JobSpec,
        params: Params,
    ) -> Result<Submitted, Denied> {
        let (pieces, taken) = mpsc::channel(1);
        // When the parameters fail, the submission is dropped before it can take what there is of
        // them for all.
        tokio::select! {
            biased;
            answer = self.work.submit(job, spec, taken) => answer.map_err(|error| denied(&error)),
            Err(error) = feed(params, pieces) => Err(error.into()),
        }
    }

    pub(crate) async fn follow(
        &self,
        job: JobId,
        after: u64,
        lines: LineSink<Followed>,
    ) -> Result<impl Future<Output = ()> + Send + 'static, Denied> {
        let mut follow = self.work.follow(job, after).await.map_err(|error| denied(&error))?;
        Ok(async move {
            // The stream of a job that is removed meanwhile, or of a store that fails, ends without
            // a last line: the client asks again, and is told.
            while let Ok(Some(line)) = follow.next().await {
                if lines.send(line).await.is_err() {
                    return;
                }
            }
        })
    }

    pub(crate) async fn control(&self, job: JobId, control: Control) -> Result<Standing, Denied> {
        let standing = match control {
            Control::Pause => self.work.pause(job).await,
            Control::Resume => self.work.resume(job).await,
            Control::Cancel => self.work.cancel(job).await,
        };
        standing.map_err(|error| denied(&error))
    }

    pub(crate) async fn status(&self) -> Result<Status, Denied> {
        let (workers, jobs) = self.work.status().await.map_err(|error| denied(&error))?;
        Ok(Status { run_id: self.run_id, term: self.term, workers, jobs })
    }

    pub(crate) async fn has_blob(&self, sha256: String) -> Result<u64, Denied> {
        let missing = format!("there is no blob {sha256}");
        let kept = self.disk.run(move |blobs| blobs.keep(&sha256));
        kept.await?.ok_or(Denied::NotFound(missing))
    }

    pub(crate) async fn put_blob(
        &self,
        sha256: String,
        mut pieces: PieceStream,
    ) -> Result<(), Denied> {
        let mut upload = self.disk.run(move |blobs| blobs.begin(&sha256)).await?;
        loop {
            let (mut held, mut bytes) = (Vec::new(), 0);
            while bytes < HELD
                && let Some(piece) = pieces.next().await?
            {
                bytes += piece.len();
                held.push(piece);
            }
            if held.is_empty() {
                return self.disk.run(move |_| upload.finish()).await.map(|_| ());
            }
            let writing = self.disk.run(move |_| {
                held.iter().try_for_each(|piece| upload.write(piece))?;
                Ok(upload)
            });
            upload = writing.await?;
        }
    }

    pub(crate) async fn get_blob(
        &self,
        sha256: String,
        pieces: PieceSink,
    ) -> Result<(u64, impl Future<Output = ()> + Send + 'static), Denied> {
        let (file, bytes) = self.open(sha256).await?;
        let disk = self.disk.clone();
        Ok((bytes, async move { disk.send(file, pieces).await }))
    }

    /// The blob's file, and its size.
    async fn open(&self, sha256: String) -> Result<(File, u64), Denied> {
        let missing = format!("there is no blob {sha256}");
        let opened = self.disk.run(move |blobs| {
            let Some(file) = blobs.read(&sha256)? else { return Ok(None) };
            let bytes = file.metadata().map(|found| found.len());
            Ok(bytes.ok().map(|bytes| (file, bytes)))
        });
        opened.await?.ok_or(Denied::NotFound(missing))
    }
}

/// The blobs, and who may use the disk.
#[derive(Clone)]
struct Disk {
    blobs: Blobs,
    places: Arc<Semaphore>,
}

impl Disk {
    /// Runs what blocks on a thread for that.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Blobs) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, Denied> {
        // Neither is ever closed before the server is.
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| Denied::Stopping)?;
        let blobs = self.blobs.clone();
        let running = spawn_blocking(move || {
            let outcome = job(&blobs);
            drop(place);
            outcome
        });
        running.await.map_err(|_| Denied::Stopping)?.map_err(|error| match error {
            BlobError::Name(_) | BlobError::Digest { .. } => Denied::Invalid(error.to_string()),
            BlobError::Io { .. } => {
                tracing::error!(error = chain(&error), "a blob failed");
                Denied::Failed("the coordinator cannot read or write the blob".to_owned())
            }
        })
    }

    /// Sends the file, a piece at a time, as fast as the peer reads.
    async fn send(self, mut file: File, pieces: PieceSink) {
        loop {
            let read = self.run(move |_| {
                let mut piece = Vec::with_capacity(HELD);
                let read = file.by_ref().take(HELD as u64).read_to_end(&mut piece);
                Ok((file, read.map(|_| piece)))
            });
            let piece = match read.await {
                Ok((_, Ok(piece))) if piece.is_empty() => return,
                Ok((rest, Ok(piece))) => {
                    file = rest;
                    piece
                }
                Ok((_, Err(error))) => return pieces.fail(error).await,
                Err(_) => return pieces.fail(io::Error::other("stopping")).await,
            };
            if pieces.send(piece.into()).await.is_err() {
                return;
            }
        }
    }
}

/// Hands on the parameters that arrive.
async fn feed(
    mut params: Params,
    pieces: mpsc::Sender<Vec<Box<RawValue>>>,
) -> Result<(), WireError> {
    let mut ended = false;
    while !ended {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        while bytes < HELD && piece.len() < TOGETHER && !ended {
            match params.next().await? {
                Some(param) => {
                    bytes += param.get().len();
                    piece.push(param);
                }
                None => ended = true,
            }
        }
        // Nobody takes more than there are items.
        if !piece.is_empty() && pieces.send(piece).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn denied(error: &WorkError) -> Denied {
    match error {
        WorkError::NoJob(_) => Denied::NotFound(error.to_string()),
        WorkError::Stopping => Denied::Stopping,
        WorkError::Storage(_) => {
            tracing::error!(error = chain(error), "a client is not served");
            Denied::Failed(error.to_string())
        }
    }
}
