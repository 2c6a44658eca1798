//! What a peer asks for beyond its session: a worker's stream of work, a client's jobs, blobs.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use rollout_core::{JobId, JobSpec, WorkerId};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::answer::{self, Answer, Answering};
use crate::bodies::{self, PieceError, PieceStream};
use crate::connection::{Connection, Open};
use crate::identity::Identity;
use crate::lines::{self, LARGE_QUEUE, LineSink, LineStream};
use crate::routes::{EventsQuery, Route};
use crate::server::Handler;
use crate::wire::WireError;
use crate::work::{Followed, MAX_BLOB, MAX_LINE, MAX_PARAMS, Submitted, WorkDown, WorkUp};

/// The longest [`JobSpec`], in bytes.
const MAX_SPEC: usize = 64 * 1024;

/// A worker's stream of work. It lasts until `down` and all its clones are dropped.
#[derive(Debug)]
pub struct WorkSession {
    /// Who it is with, by its certificate.
    pub worker: WorkerId,
    /// From where.
    pub peer: SocketAddr,
    /// The lines from the worker.
    pub up: LineStream<WorkUp>,
    /// The lines to it.
    pub down: LineSink<WorkDown>,
    /// Cancelled when the server closes.
    pub closing: CancellationToken,
}

/// The parameters of a job's items, one a line.
pub type Params = LineStream<Box<RawValue>>;

/// Why a request is not carried out: the status, and a text for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// 404: there is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// 400: the request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// 409: not beside what is there already.
    #[error("{0}")]
    Conflict(String),
    /// 413: a line or a body is too long.
    #[error("{0}")]
    TooLarge(String),
    /// 503: to be asked again of the next coordinator.
    #[error("the coordinator is stopping")]
    Stopping,
    /// 500: the coordinator cannot.
    #[error("{0}")]
    Failed(String),
}

impl From<WireError> for Denied {
    fn from(error: WireError) -> Self {
        match &error {
            WireError::Oversized { .. } => Self::TooLarge(error.to_string()),
            WireError::Malformed(why) => Self::Invalid(format!("{error}: {why}")),
            WireError::Truncated | WireError::Lost(_) => Self::Invalid(error.to_string()),
        }
    }
}

impl From<PieceError> for Denied {
    fn from(error: PieceError) -> Self {
        match error {
            PieceError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            PieceError::Lost(_) => Self::Invalid(error.to_string()),
        }
    }
}

impl<H: Handler> Connection<H> {
    /// Begins what a permitted peer asks for.
    pub(crate) fn carry_out(self: &Arc<Self>, route: Route, body: Incoming) -> Answering {
        let open = Open::new(Arc::clone(self));
        if route == Route::Work {
            return Answering::now(self.work(open, body));
        }
        let connection = Arc::clone(self);
        Answering::Later(Box::pin(async move {
            let (of_blob, asks) = (route.is_of_blob(), matches!(route, Route::HasBlob(_)));
            let closing = connection.shared.stop.clone();
            let answer = connection.answer_later(route, body, open);
            let answer = closing.run_until_cancelled(answer).await;
            answer.unwrap_or(Err(Denied::Stopping)).unwrap_or_else(|denied| {
                // Whether a blob is there is asked before each upload: that it is not is no failure.
                let is_answer = asks && matches!(denied, Denied::NotFound(_));
                if of_blob && !is_answer {
                    connection.count_request();
                }
                answer::denied(&denied)
            })
        }))
    }

    /// A connection has one such stream: its lines may be long, and one is held while it arrives.
    fn work(self: &Arc<Self>, mut open: Open<H>, body: Incoming) -> Response<Answer> {
        let Identity::Worker(worker) = self.identity else {
            return answer::empty(StatusCode::FORBIDDEN);
        };
        if !open.is_first_of_work() {
            let why = Denied::Conflict("this connection has a stream of work already".to_owned());
            return answer::denied(&why);
        }
        let (down, lines) = lines::bounded(LARGE_QUEUE);
        let up = LineStream::new(body, MAX_LINE, self.meter.clone());
        let closing = self.shared.stop.clone();
        let session = WorkSession { worker, peer: self.peer, up, down, closing };
        self.shared.tasks.spawn(async move { open.handler().work(session).await });
        answer::lines(Answer::Work(lines))
    }

    async fn answer_later(
        &self,
        route: Route,
        body: Incoming,
        open: Open<H>,
    ) -> Result<Response<Answer>, Denied> {
        let handler = &self.shared.handler;
        match route {
            Route::Submit(job) => self.submit(job, body).await.map(|answer| answer::json(&answer)),
            Route::Control(job, control) => {
                handler.control(job, control).await.map(|standing| answer::json(&standing))
            }
            Route::Status => handler.status().await.map(|status| answer::json(&status)),
            Route::Follow(job, after) => self.follow(job, after, open).await,
            Route::Events(query) => self.events(query, open).await,
            Route::HasBlob(name) => {
                let bytes = handler.has_blob(name).await?;
                Ok(with_length(answer::empty(StatusCode::OK), bytes))
            }
            Route::PutBlob(name) => {
                let pieces = PieceStream::new(body, MAX_BLOB, self.meter.clone());
                handler.put_blob(name, pieces).await?;
                Ok(answer::empty(StatusCode::CREATED))
            }
            Route::GetBlob(name) => self.get_blob(name, open).await,
            // Answered before.
            Route::Session | Route::Health | Route::Work => Ok(answer::empty(StatusCode::OK)),
        }
    }

    async fn submit(&self, job: JobId, body: Incoming) -> Result<Submitted, Denied> {
        let mut lines = LineStream::<JobSpec>::new(body, MAX_SPEC, self.meter.clone());
        let Some(spec) = lines.next().await? else {
            return Err(Denied::Invalid(
                "the first line is not there: it says what the job is".into(),
            ));
        };
        self.shared.handler.submit(job, spec, lines.retyped(MAX_PARAMS)).await
    }

    async fn follow(
        &self,
        job: JobId,
        after: u64,
        open: Open<H>,
    ) -> Result<Response<Answer>, Denied> {
        // What waits for a slow reader is in the store; two lines here keep a quick one busy.
        let (sink, lines) = lines::bounded::<Followed>(2);
        let feeding = self.shared.handler.follow(job, after, sink).await?;
        self.shared.tasks.spawn(async move {
            feeding.await;
            drop(open);
        });
        Ok(answer::lines(Answer::Followed(lines)))
    }

    async fn events(&self, query: EventsQuery, open: Open<H>) -> Result<Response<Answer>, Denied> {
        let (sink, pieces) = bodies::pieces();
        let feeding = self.shared.handler.events(query, sink).await?;
        self.shared.tasks.spawn(async move {
            feeding.await;
            drop(open);
        });
        Ok(answer::lines(Answer::Pieces(pieces)))
    }

    async fn get_blob(&self, name: String, open: Open<H>) -> Result<Response<Answer>, Denied> {
        let (sink, pieces) = bodies::pieces();
        let (bytes, feeding) = self.shared.handler.get_blob(name, sink).await?;
        self.shared.tasks.spawn(async move {
            feeding.await;
            drop(open);
        });
        let kind = (CONTENT_TYPE, "application/octet-stream");
        let response = answer::respond(StatusCode::OK, kind, Answer::Pieces(pieces));
        Ok(with_length(response, bytes))
    }
}

fn with_length(mut response: Response<Answer>, bytes: u64) -> Response<Answer> {
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    response
}
