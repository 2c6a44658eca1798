//! A connection for everything but beats: a worker's work and blobs, a client's jobs.
//!
//! A beat must never wait behind a large result, so this is another connection than a
//! [`Link`](crate::Link)'s. The coordinator closes one on which nothing has been open for its
//! `limits.header_timeout`: the next call is [`CallError::Lost`], and a new connection is due.

mod events;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http2;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioTimer;
use ring::digest;
use rollout_core::{JobId, JobSpec, hex};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::bodies::{PieceError, PieceStream};
use crate::client::{ConnectError, Patience, dial, within};
use crate::http::{BLOBS, JOBS, NDJSON, STATUS, WIDE_CONNECTION_WINDOW, WIDE_STREAM_WINDOW, WORK};
use crate::lines::{self, LARGE_QUEUE, LineBody, LineSink, LineStream};
use crate::meter::Meter;
use crate::tasks::Tasks;
use crate::tls::Tls;
use crate::work::{Followed, MAX_BLOB, MAX_LINE, Standing, Status, Submitted, WorkDown, WorkUp};

/// While something is open, the coordinator is asked so often whether it is there.
const PING: Duration = Duration::from_secs(5);
/// One that has not answered for so long is lost: longer than a coordinator that is stopped for a
/// moment, which is nobody's fault.
const PONG: Duration = Duration::from_secs(20);
/// The longest answer that is no stream, in bytes: the status of a large fleet.
const MAX_ANSWER: u64 = 256 * 1024 * 1024;
/// The longest text with a refusal that is kept, in bytes.
const MAX_DETAIL: usize = 4096;
/// Parameters that are there travel together in about so many bytes.
const CHUNK: usize = 16 * 1024;

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection is gone, or the coordinator is about to be: to be tried again on a new one.
    #[error("the connection to the coordinator is lost: {why}")]
    Lost {
        /// What happened.
        why: String,
    },
    /// There is no such thing.
    #[error("{what}")]
    NotFound {
        /// What is not there, in the coordinator's words.
        what: String,
    },
    /// The coordinator does not do it, and will not if it is asked again.
    #[error("the coordinator refuses ({status}): {detail}")]
    Refused {
        /// The status.
        status: u16,
        /// Why, in its words.
        detail: String,
    },
    /// Whoever answers does not speak this protocol.
    #[error("the coordinator does not answer as it should: {why}")]
    Protocol {
        /// What it did.
        why: String,
    },
}

/// A connection for everything but beats, of a worker or a client. Cheap to clone; with the last
/// clone, it and all that is open on it are cut.
#[derive(Debug, Clone)]
pub struct Remote {
    requests: http2::SendRequest<Outgoing>,
    connection: Arc<Cut>,
}

/// Cuts the connection when it is dropped.
#[derive(Debug)]
struct Cut(Tasks);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// A worker's stream of work. It ends when `up` and all its clones are dropped.
#[derive(Debug)]
pub struct WorkLink {
    /// The lines to the coordinator.
    pub up: LineSink<WorkUp>,
    /// The lines from it.
    pub down: LineStream<WorkDown>,
}

impl Remote {
    /// Connects to the coordinator at `addr` (`host:port`) within `patience`.
    ///
    /// # Errors
    /// [`ConnectError`]; only [`ConnectError::Refused`] is final.
    pub async fn open(
        addr: &str,
        tls: &Tls,
        patience: impl Into<Patience>,
    ) -> Result<Self, ConnectError> {
        let patience = patience.into();
        let reach = Instant::now() + patience.reach;
        let dialling = dial(addr, tls, reach, |tasks| {
            let mut http = http2::Builder::new(tasks);
            http.initial_stream_window_size(WIDE_STREAM_WINDOW)
                .initial_connection_window_size(WIDE_CONNECTION_WINDOW)
                .timer(TokioTimer::new())
                .keep_alive_interval(PING)
                .keep_alive_timeout(PONG);
            http
        });
        let (requests, tasks, cut) = within(addr, patience.whole, dialling).await?;
        cut.disarm();
        Ok(Self { requests, connection: Arc::new(Cut(tasks)) })
    }

    /// Opens the worker's stream of work; one a connection.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn work(&self) -> Result<WorkLink, CallError> {
        let (up, body) = lines::bounded(LARGE_QUEUE);
        let response = self.call(Method::POST, WORK, Outgoing::Work(body)).await?;
        let down = LineStream::new(response.into_body(), MAX_LINE, Meter::default());
        Ok(WorkLink { up, down })
    }

    /// Submits a job. `params` gives its items' parameters: whole lines with their newlines, in
    /// pieces of any size; each line is JSON as it was hashed, without spaces around it. A job that
    /// is there already is resumed, and its `params` not read to the end.
    ///
    /// # Errors
    /// [`CallError`]. A job that is not accepted is an answer.
    pub async fn submit(
        &self,
        job: JobId,
        spec: &JobSpec,
        params: Option<mpsc::Receiver<Bytes>>,
    ) -> Result<Submitted, CallError> {
        let mut first = serde_json::to_vec(spec).map_err(|error| protocol(&error))?;
        first.push(b'\n');
        let body = Outgoing::Submission { first: Some(first.into()), params };
        let response = self.call(Method::PUT, &format!("{JOBS}{job}"), body).await?;
        parsed(response).await
    }

    /// Follows a job's commits from the one after `after`.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::NotFound`] when there is no such job.
    pub async fn follow(&self, job: JobId, after: u64) -> Result<LineStream<Followed>, CallError> {
        let path = format!("{JOBS}{job}/follow?after={after}");
        let response = self.call(Method::GET, &path, Outgoing::none()).await?;
        Ok(LineStream::new(response.into_body(), MAX_LINE, Meter::default()))
    }

    /// Grants nothing more of the job; what is in the hands of workers is finished.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::NotFound`] when there is no such job.
    pub async fn pause(&self, job: JobId) -> Result<Standing, CallError> {
        self.control(Method::POST, &format!("{JOBS}{job}/pause")).await
    }

    /// Undoes a [`pause`](Self::pause).
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::NotFound`] when there is no such job.
    pub async fn resume(&self, job: JobId) -> Result<Standing, CallError> {
        self.control(Method::POST, &format!("{JOBS}{job}/resume")).await
    }

    /// Ends the job and removes it, with all its results.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::NotFound`] when there is no such job.
    pub async fn cancel(&self, job: JobId) -> Result<Standing, CallError> {
        self.control(Method::DELETE, &format!("{JOBS}{job}")).await
    }

    async fn control(&self, method: Method, path: &str) -> Result<Standing, CallError> {
        parsed(self.call(method, path, Outgoing::none()).await?).await
    }

    /// How workers and jobs stand.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn status(&self) -> Result<Status, CallError> {
        parsed(self.call(Method::GET, STATUS, Outgoing::none()).await?).await
    }

    /// Uploads a blob under the name that is its SHA-256, unless it is there already. It is durable
    /// once this returns.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn put_blob(&self, sha256: &str, bytes: Bytes) -> Result<(), CallError> {
        let path = format!("{BLOBS}{sha256}");
        match self.call(Method::HEAD, &path, Outgoing::none()).await {
            Ok(response) if length(&response) == Some(bytes.len() as u64) => return Ok(()),
            Ok(_) | Err(CallError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.call(Method::PUT, &path, Outgoing::Whole(Some(bytes))).await.map(|_| ())
    }

    /// Downloads a blob.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::NotFound`] when there is no such blob.
    pub async fn get_blob(&self, sha256: &str) -> Result<BlobStream, CallError> {
        let path = format!("{BLOBS}{sha256}");
        let response = self.call(Method::GET, &path, Outgoing::none()).await?;
        let pieces = PieceStream::new(response.into_body(), MAX_BLOB, Meter::default());
        let digest = digest::Context::new(&digest::SHA256);
        Ok(BlobStream { pieces, digest, named: sha256.to_owned() })
    }

    /// Returns once the connection has ended or is lost.
    pub async fn closed(&self) {
        self.connection.0.ended().await;
    }

    /// Asks, and returns an answer that is no refusal.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Outgoing,
    ) -> Result<Response<Incoming>, CallError> {
        let mut request =
            Request::builder().method(method).uri(format!("https://coordinator{path}"));
        if matches!(body, Outgoing::Work(_) | Outgoing::Submission { .. }) {
            request = request.header(CONTENT_TYPE, NDJSON);
        }
        let request = request.body(body).map_err(|error| protocol(&error))?;
        let mut requests = self.requests.clone();
        let response = requests.send_request(request).await.map_err(|error| lost(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }
}

/// A blob that arrives.
pub struct BlobStream {
    pieces: PieceStream,
    digest: digest::Context,
    named: String,
}

impl BlobStream {
    /// The next bytes; none at the end, once all of them are found to be those of the name.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::Protocol`] when the bytes are not those of the name.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let piece = self.pieces.next().await.map_err(|error| match error {
            PieceError::TooLarge { .. } => protocol(&error),
            PieceError::Lost(error) => lost(&error),
        })?;
        if let Some(piece) = &piece {
            self.digest.update(piece);
            return Ok(Some(piece.clone()));
        }
        let found = hex(self.digest.clone().finish().as_ref());
        if found == self.named {
            return Ok(None);
        }
        let why = format!("the SHA-256 of blob {} is {found}", self.named);
        Err(CallError::Protocol { why })
    }
}

fn lost(error: &hyper::Error) -> CallError {
    let why = match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    CallError::Lost { why }
}

fn protocol(error: &dyn std::error::Error) -> CallError {
    CallError::Protocol { why: error.to_string() }
}

fn length(response: &Response<Incoming>) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The answer's one JSON object.
async fn parsed<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, CallError> {
    let mut pieces = PieceStream::new(response.into_body(), MAX_ANSWER, Meter::default());
    let mut whole = Vec::new();
    loop {
        match pieces.next().await {
            Ok(Some(piece)) => whole.extend_from_slice(&piece),
            Ok(None) => return serde_json::from_slice(&whole).map_err(|error| protocol(&error)),
            Err(PieceError::Lost(error)) => return Err(lost(&error)),
            Err(error) => return Err(protocol(&error)),
        }
    }
}

async fn refusal(response: Response<Incoming>) -> CallError {
    let status = response.status();
    let mut pieces = PieceStream::new(response.into_body(), MAX_ANSWER, Meter::default());
    let mut text = Vec::new();
    // A text that does not arrive in full is good enough.
    while let (true, Ok(Some(piece))) = (text.len() < MAX_DETAIL, pieces.next().await) {
        text.extend_from_slice(&piece);
    }
    text.truncate(MAX_DETAIL);
    let detail = String::from_utf8_lossy(&text).trim_end().to_owned();
    match status {
        StatusCode::NOT_FOUND => CallError::NotFound { what: detail },
        StatusCode::SERVICE_UNAVAILABLE => CallError::Lost { why: detail },
        status => CallError::Refused { status: status.as_u16(), detail },
    }
}

/// The body of a request.
#[derive(Debug)]
enum Outgoing {
    Work(LineBody<WorkUp>),
    Submission { first: Option<Bytes>, params: Option<mpsc::Receiver<Bytes>> },
    Whole(Option<Bytes>),
}

impl Outgoing {
    const fn none() -> Self {
        Self::Whole(None)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let bytes = match &mut *self {
            Self::Work(lines) => {
                let frame = Pin::new(lines).poll_frame(cx);
                return frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)));
            }
            Self::Submission { first, params } => match (first.take(), params) {
                (Some(first), _) => Poll::Ready(Some(first)),
                (None, None) => Poll::Ready(None),
                (None, Some(params)) => poll_pieces(params, cx),
            },
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
        };
        bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

/// What has been put in, together: many small frames would be a flood to the coordinator.
fn poll_pieces(params: &mut mpsc::Receiver<Bytes>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
    let piece = loop {
        match params.poll_recv(cx) {
            Poll::Ready(Some(piece)) if piece.is_empty() => {}
            Poll::Ready(Some(piece)) => break piece,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        }
    };
    if piece.len() >= CHUNK {
        return Poll::Ready(Some(piece));
    }
    let mut chunk = BytesMut::from(piece);
    while chunk.len() < CHUNK
        && let Ok(piece) = params.try_recv()
    {
        chunk.extend_from_slice(&piece);
    }
    Poll::Ready(Some(chunk.freeze()))
}
