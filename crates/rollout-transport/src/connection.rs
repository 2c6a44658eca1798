//! One connection of a server: its requests, its sessions, and its end.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rollout_core::pace::Used;
use rollout_core::{Mono, Pace};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

use crate::admission::Place;
use crate::http::{CONNECTION_WINDOW, HEALTH, NDJSON, SEND_BUFFER, SESSION, STREAM_WINDOW};
use crate::identity::Identity;
use crate::lines::{self, LineBody, LineStream};
use crate::meter::{Meter, Metered};
use crate::server::{Handler, RefusalKind, Session, Shared, UpStream};
use crate::tasks::Tasks;
use crate::wire::Down;

/// Streams open at once on a connection; a worker's session needs one.
const MAX_STREAMS: u32 = 8;
/// All headers of a request.
const MAX_HEADERS: u32 = 8 * 1024;
/// Streams that the peer has reset before they were looked at.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that this side has reset for what the peer did on them, over a connection's life.
const MAX_ERROR_RESETS: usize = 64;
/// Requests of a connection. What a peer resets at once has been one all the same.
const REQUESTS: Pace = Pace::new(1_000, Duration::from_millis(10));

type Io = TokioIo<Metered<TlsStream<TcpStream>>>;
type Http<H> = http2::Connection<Io, Requests<H>, Tasks>;

pub(crate) struct Connection<H> {
    shared: Arc<Shared<H>>,
    identity: Identity,
    peer: SocketAddr,
    requests: watch::Sender<Seen>,
    meter: Meter,
    begun: Instant,
}

/// The requests of a connection so far.
#[derive(Default)]
struct Seen {
    /// Whether there was any.
    any: bool,
    /// Sessions that have not ended.
    open: usize,
    /// What they have used of their pace.
    used: Used,
    /// Whether they came too fast.
    flood: bool,
}

impl<H: Handler> Connection<H> {
    pub(crate) fn new(shared: Arc<Shared<H>>, identity: Identity, peer: SocketAddr) -> Arc<Self> {
        let (requests, meter, begun) = (watch::Sender::default(), Meter::default(), Instant::now());
        Arc::new(Self { shared, identity, peer, requests, meter, begun })
    }

    /// Serves in a task of its own, which holds the connection's place among those allowed. What
    /// lasts as long as the connection is boxed or small: this is the memory of an idle worker.
    pub(crate) fn start(self: Arc<Self>, tls: TlsStream<TcpStream>, place: Place) {
        let io = TokioIo::new(Metered::new(tls, self.meter.clone()));
        let http = http2::Builder::new(self.shared.tasks.clone())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADERS)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_ERROR_RESETS)
            .auto_date_header(false)
            .serve_connection(io, Requests(Arc::clone(&self)));
        let http = Box::pin(http);
        let tasks = self.shared.tasks.clone();
        tasks.spawn(async move {
            self.drive(http).await;
            drop(place);
        });
    }

    /// Returns when the peer has gone or asked for nothing, or the server has stopped. Who has not
    /// asked by then has nothing to wait for; others get what is under way.
    async fn drive(&self, mut http: Pin<Box<Http<H>>>) {
        tokio::select! {
            ended = http.as_mut() => return self.ended(ended),
            () = self.idle() => return,
            () = self.flooded() => {
                let detail = "more than 1000 requests at once, or 100 a second";
                return self.refused(RefusalKind::Flood, detail.to_owned());
            }
            () = self.shared.stop.cancelled() => {}
        }
        if self.requests.borrow().any {
            http.as_mut().graceful_shutdown();
            self.ended(http.await);
        }
    }

    /// Returns when there has been no session and no request for the time that headers may take.
    async fn idle(&self) {
        let limit = self.shared.limits.header_timeout;
        let mut requests = self.requests.subscribe();
        loop {
            // Waiting fails only without a sender, and `self` is one.
            let _ = requests.wait_for(|seen| seen.open == 0).await;
            if timeout(limit, requests.changed()).await.is_err() {
                break;
            }
        }
        if !self.requests.borrow().any {
            let detail = format!("no request within {limit:?} of the TLS handshake");
            self.refused(RefusalKind::Timeout, detail);
        }
    }

    /// Returns when there have been more requests than may be.
    async fn flooded(&self) {
        // Waiting fails only without a sender, and `self` is one.
        let _ = self.requests.subscribe().wait_for(|seen| seen.flood).await;
    }

    fn ended(&self, ended: hyper::Result<()>) {
        let Err(error) = ended else { return };
        if self.meter.has_flooded() {
            let detail = "a flood of frames that carry nothing: headers, resets, pings, settings";
            return self.refused(RefusalKind::Flood, detail.to_owned());
        }
        match error.source().and_then(|source| source.downcast_ref::<h2::Error>()) {
            Some(h2) if h2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) && h2.is_library() => {
                self.refused(RefusalKind::Flood, h2.to_string());
            }
            Some(h2) if !h2.is_io() => self.refused(RefusalKind::Protocol, h2.to_string()),
            _ => tracing::debug!(%error, peer = %self.peer, "connection lost"),
        }
    }

    fn refused(&self, kind: RefusalKind, detail: String) {
        self.shared.refuse(self.peer, Some(&self.identity), kind, detail);
    }

    fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        if self.is_too_fast() {
            return text(StatusCode::TOO_MANY_REQUESTS, "too many requests\n");
        }
        match (request.method(), request.uri().path()) {
            (&Method::POST, SESSION) => self.open(request.into_body()),
            (&Method::GET, HEALTH) => {
                self.requests.send_modify(|seen| seen.any = true);
                text(StatusCode::OK, "ok\n")
            }
            (_, SESSION) => not_allowed("POST"),
            (_, HEALTH) => not_allowed("GET"),
            _ => text(StatusCode::NOT_FOUND, "no such path\n"),
        }
    }

    fn is_too_fast(&self) -> bool {
        let now = Mono::default() + self.begun.elapsed();
        let mut too_fast = false;
        self.requests.send_if_modified(|seen| {
            too_fast = REQUESTS.take(&mut seen.used, now).is_err();
            seen.flood |= too_fast;
            too_fast
        });
        too_fast
    }

    fn open(self: &Arc<Self>, body: Incoming) -> Response<Answer> {
        if !matches!(self.identity, Identity::Worker(_)) {
            self.refused(RefusalKind::Identity, "only a worker opens a session".to_owned());
            return text(StatusCode::FORBIDDEN, "only a worker opens a session\n");
        }
        let (down, lines) = lines::channel();
        let up = LineStream::new(body, self.shared.limits.max_line, self.meter.clone());
        let up = UpStream::new(up, down.downgrade(), self.shared.stop.clone());
        let session = Session { identity: self.identity.clone(), peer: self.peer, up, down };
        let open = Open::new(Arc::clone(self));
        self.shared.tasks.spawn(async move { open.0.shared.handler.session(session).await });
        respond(StatusCode::OK, (CONTENT_TYPE, NDJSON), Answer::Lines(lines))
    }
}

/// The requests of a connection, as hyper hands them over.
struct Requests<H>(Arc<Connection<H>>);

impl<H: Handler> Service<Request<Incoming>> for Requests<H> {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Answer>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        ready(Ok(self.0.answer(request)))
    }
}

/// Counts as one session of its connection for as long as it lives.
struct Open<H>(Arc<Connection<H>>);

impl<H> Open<H> {
    fn new(connection: Arc<Connection<H>>) -> Self {
        connection.requests.send_modify(|seen| {
            seen.any = true;
            seen.open += 1;
        });
        Self(connection)
    }
}

impl<H> Drop for Open<H> {
    fn drop(&mut self) {
        self.0.requests.send_modify(|seen| seen.open -= 1);
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Answer> {
    respond(status, (CONTENT_TYPE, "text/plain"), Answer::Text(Some(text)))
}

fn not_allowed(allowed: &'static str) -> Response<Answer> {
    respond(StatusCode::METHOD_NOT_ALLOWED, (ALLOW, allowed), Answer::Text(None))
}

fn respond(
    status: StatusCode,
    (name, value): (HeaderName, &'static str),
    body: Answer,
) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

/// The body of a response.
enum Answer {
    Lines(LineBody<Down>),
    Text(Option<&'static str>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = serde_json::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, serde_json::Error>>> {
        match &mut *self {
            Self::Lines(lines) => Pin::new(lines).poll_frame(cx),
            Self::Text(text) => Poll::Ready(
                text.take().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))),
            ),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Text(None))
    }
}
