//! What the server answers with: bodies, statuses, and when.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::bodies::PieceBody;
use crate::http::NDJSON;
use crate::lines::LineBody;
use crate::requests::Denied;
use crate::routes::Miss;
use crate::wire::Down;
use crate::work::{Followed, WorkDown};

type BoxError = Box<dyn Error + Send + Sync>;

/// The body of a response.
pub(crate) enum Answer {
    Session(LineBody<Down>),
    Work(LineBody<WorkDown>),
    Followed(LineBody<Followed>),
    Pieces(PieceBody),
    Whole(Option<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Session(lines) => boxed(Pin::new(lines).poll_frame(cx)),
            Self::Work(lines) => boxed(Pin::new(lines).poll_frame(cx)),
            Self::Followed(lines) => boxed(Pin::new(lines).poll_frame(cx)),
            Self::Pieces(pieces) => boxed(Pin::new(pieces).poll_frame(cx)),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
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

type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

fn boxed<E: Into<BoxError>>(polled: Polled<E>) -> Polled<BoxError> {
    polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
}

/// A response that is there, or is being made. The second is dropped when the peer gives up.
pub(crate) enum Answering {
    Now(Option<Response<Answer>>),
    Later(Pin<Box<dyn Future<Output = Response<Answer>> + Send>>),
}

impl Answering {
    pub(crate) const fn now(response: Response<Answer>) -> Self {
        Self::Now(Some(response))
    }

    /// As HEAD is answered: a body would break the stream.
    pub(crate) fn without_body(self) -> Self {
        let bare = |response: Response<Answer>| response.map(|_| Answer::Whole(None));
        match self {
            Self::Now(response) => Self::Now(response.map(bare)),
            Self::Later(response) => Self::Later(Box::pin(async move { bare(response.await) })),
        }
    }
}

impl Future for Answering {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            // Nobody polls a future again that has ended.
            Self::Now(response) => response.take().map_or(Poll::Pending, |it| Poll::Ready(Ok(it))),
            Self::Later(response) => response.as_mut().poll(cx).map(Ok),
        }
    }
}

/// A text, which gets a newline.
pub(crate) fn text(status: StatusCode, text: &str) -> Response<Answer> {
    let body = Answer::Whole(Some(format!("{text}\n").into()));
    respond(status, (CONTENT_TYPE, "text/plain"), body)
}

/// One JSON object and a newline.
pub(crate) fn json(value: &impl Serialize) -> Response<Answer> {
    match serde_json::to_vec(value) {
        Ok(mut line) => {
            line.push(b'\n');
            let body = Answer::Whole(Some(line.into()));
            respond(StatusCode::OK, (CONTENT_TYPE, "application/json"), body)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// A stream of lines.
pub(crate) fn lines(body: Answer) -> Response<Answer> {
    respond(StatusCode::OK, (CONTENT_TYPE, NDJSON), body)
}

/// Nothing but a status.
pub(crate) fn empty(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(None));
    *response.status_mut() = status;
    response
}

pub(crate) fn missed(miss: Miss) -> Response<Answer> {
    match miss {
        Miss::Path => text(StatusCode::NOT_FOUND, "no such path"),
        Miss::Malformed(why) => text(StatusCode::BAD_REQUEST, &why),
        Miss::Method(methods) => respond(
            StatusCode::METHOD_NOT_ALLOWED,
            (ALLOW, methods),
            Answer::Whole(Some(format!("only {methods}\n").into())),
        ),
    }
}

pub(crate) fn denied(denied: &Denied) -> Response<Answer> {
    let status = match denied {
        Denied::NotFound(_) => StatusCode::NOT_FOUND,
        Denied::Invalid(_) => StatusCode::BAD_REQUEST,
        Denied::Conflict(_) => StatusCode::CONFLICT,
        Denied::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Denied::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        Denied::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, &denied.to_string())
}

pub(crate) fn respond(
    status: StatusCode,
    (name, value): (HeaderName, &'static str),
    body: Answer,
) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
