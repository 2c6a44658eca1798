//! One connection of a server: its requests, its sessions, and its end.

use std::convert::Infallible;
use std::error::Error as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rollout_core::pace::Used;
use rollout_core::{Mono, Pace};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

use crate::admission::Place;
use crate::answer::{self, Answer, Answering};
use crate::http::{CONNECTION_WINDOW, SEND_BUFFER, STREAM_WINDOW};
use crate::identity::Identity;
use crate::lines::{self, LineStream};
use crate::meter::{Meter, Metered};
use crate::routes::Route;
use crate::seldom::Seldom;
use crate::server::{Handler, RefusalKind, Session, Shared, UpStream};
use crate::tasks::Tasks;

/// Streams open at once on a connection; a worker's session needs one, its work one more and one
/// for each blob on its way.
const MAX_STREAMS: u32 = 8;
/// All headers of a request.
const MAX_HEADERS: u32 = 8 * 1024;
/// Streams that the peer has reset before they were looked at.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that this side has reset for what the peer did on them, over a connection's life.
const MAX_ERROR_RESETS: usize = 64;
/// Requests of a connection. What a peer resets at once has been one all the same.
const REQUESTS: Pace = Pace::new(1_000, Duration::from_millis(10));
const TOO_MANY: &str = "more than 1000 requests at once, or 100 a second";
/// Requests of blobs, which have a budget of their own: each large result is one, and may be asked
/// for before. One that fails counts among the others as well.
const BLOBS: Pace = Pace::new(4_000, Duration::from_micros(500));
const TOO_MANY_OF_BLOBS: &str = "more than 4000 requests of blobs at once, or 2000 a second";

type Io = TokioIo<Metered<TlsStream<TcpStream>>>;
type Http<H> = http2::Connection<Io, Requests<H>, Tasks>;

pub(crate) struct Connection<H> {
    pub(crate) shared: Arc<Shared<H>>,
    pub(crate) identity: Identity,
    pub(crate) peer: SocketAddr,
    seen: Mutex<Seen>,
    /// Rung when something has changed that may end the connection.
    changed: Notify,
    pub(crate) meter: Meter,
    begun: Instant,
}

/// Why a connection ends although its peer wants it.
enum Over {
    /// It asked for nothing.
    Idle,
    /// It asked for too much: in what way.
    Flood(&'static str),
    /// The server has stopped.
    Stopping,
}

/// The requests of a connection so far.
#[derive(Default)]
struct Seen {
    /// Whether there was any.
    any: bool,
    /// Sessions and other requests that have not ended.
    open: usize,
    /// Whether one of them is a stream of work.
    work: bool,
    /// What they have used of their pace.
    used: Used,
    /// What those of blobs have used of theirs.
    blobs: Used,
    /// In what way they came too fast.
    flood: Option<&'static str>,
}

impl<H> Connection<H> {
    /// No holder of this lock runs foreign code.
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Handler> Connection<H> {
    pub(crate) fn new(shared: Arc<Shared<H>>, identity: Identity, peer: SocketAddr) -> Arc<Self> {
        let (seen, changed, meter) = (Mutex::default(), Notify::new(), Meter::default());
        Arc::new(Self { shared, identity, peer, seen, changed, meter, begun: Instant::now() })
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
            biased;
            ended = http.as_mut() => return self.ended(ended),
            over = Seldom::new(self.over()) => match over {
                Over::Idle => return,
                Over::Flood(detail) => {
                    return self.refused(RefusalKind::Flood, detail.to_owned());
                }
                Over::Stopping => {}
            },
        }
        if self.lock().any {
            http.as_mut().graceful_shutdown();
            self.ended(http.await);
        }
    }

    /// Returns when the connection is to end although its peer wants it.
    async fn over(&self) -> Over {
        self.shared.stop.run_until_cancelled(self.idle_or_flooded()).await.unwrap_or(Over::Stopping)
    }

    /// Returns when there has been no session and no request for the time that headers may take, or
    /// there have been more requests than may be.
    async fn idle_or_flooded(&self) -> Over {
        let limit = self.shared.limits.header_timeout;
        loop {
            // Who rings it meanwhile is heard.
            let changed = self.changed.notified();
            let (flood, open) = {
                let seen = self.lock();
                (seen.flood, seen.open)
            };
            if let Some(detail) = flood {
                return Over::Flood(detail);
            }
            if open > 0 {
                changed.await;
            } else if timeout(limit, changed).await.is_err() {
                break;
            }
        }
        if !self.lock().any {
            let detail = format!("no request within {limit:?} of the TLS handshake");
            self.refused(RefusalKind::Timeout, detail);
        }
        Over::Idle
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

    fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Answering {
        let is_head = request.method() == Method::HEAD;
        let answering = self.answer_whole(request);
        if is_head { answering.without_body() } else { answering }
    }

    fn answer_whole(self: &Arc<Self>, request: Request<Incoming>) -> Answering {
        let route = Route::of(request.method(), request.uri());
        let of_blob = route.as_ref().is_ok_and(Route::is_of_blob);
        let counted = if of_blob { self.count_blob() } else { self.count_request() };
        if !counted {
            return Answering::now(answer::text(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests",
            ));
        }
        let route = match route {
            Ok(route) => route,
            Err(miss) => return Answering::now(answer::missed(miss)),
        };
        if let Err(only) = route.permits(&self.identity) {
            self.refused(RefusalKind::Identity, only.to_owned());
            if of_blob {
                self.count_request();
            }
            return Answering::now(answer::text(StatusCode::FORBIDDEN, only));
        }
        match route {
            Route::Health => {
                self.lock().any = true;
                self.changed.notify_one();
                Answering::now(answer::text(StatusCode::OK, "ok"))
            }
            Route::Session => Answering::now(self.open(request.into_body())),
            other => self.carry_out(other, request.into_body()),
        }
    }

    /// Counts a request; whether it comes in time.
    pub(crate) fn count_request(&self) -> bool {
        self.count(REQUESTS, |seen| &mut seen.used, TOO_MANY)
    }

    fn count_blob(&self) -> bool {
        self.count(BLOBS, |seen| &mut seen.blobs, TOO_MANY_OF_BLOBS)
    }

    fn count(&self, pace: Pace, of: fn(&mut Seen) -> &mut Used, words: &'static str) -> bool {
        let now = Mono::default() + self.begun.elapsed();
        let mut seen = self.lock();
        let in_time = pace.take(of(&mut seen), now).is_ok();
        if !in_time {
            seen.flood.get_or_insert(words);
            drop(seen);
            self.changed.notify_one();
        }
        in_time
    }

    fn open(self: &Arc<Self>, body: Incoming) -> Response<Answer> {
        let (down, lines) = lines::channel();
        let up = LineStream::new(body, self.shared.limits.max_line, self.meter.clone());
        let end = self.shared.stop.child_token();
        let up = UpStream::new(up, down.downgrade(), end.clone());
        let session = Session { identity: self.identity.clone(), peer: self.peer, up, down, end };
        let open = Open::new(Arc::clone(self));
        self.shared.tasks.spawn(async move { open.handler().session(session).await });
        answer::lines(Answer::Session(lines))
    }
}

/// The requests of a connection, as hyper hands them over.
struct Requests<H>(Arc<Connection<H>>);

impl<H: Handler> Service<Request<Incoming>> for Requests<H> {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        self.0.answer(request)
    }
}

/// Counts as one session or request of its connection for as long as it lives.
pub(crate) struct Open<H> {
    connection: Arc<Connection<H>>,
    work: bool,
}

impl<H> Open<H> {
    pub(crate) fn new(connection: Arc<Connection<H>>) -> Self {
        {
            let mut seen = connection.lock();
            seen.any = true;
            seen.open += 1;
        }
        connection.changed.notify_one();
        Self { connection, work: false }
    }

    pub(crate) fn handler(&self) -> &H {
        &self.connection.shared.handler
    }

    /// Whether the connection had no stream of work before; then this is one.
    pub(crate) fn is_first_of_work(&mut self) -> bool {
        self.work = !std::mem::replace(&mut self.connection.lock().work, true);
        self.work
    }
}

impl<H> Drop for Open<H> {
    fn drop(&mut self) {
        {
            let mut seen = self.connection.lock();
            seen.open -= 1;
            seen.work &= !self.work;
        }
        self.connection.changed.notify_one();
    }
}
