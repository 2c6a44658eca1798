//! The coordinator's side: accepts connections within limits, verifies who they are from, and
//! hands each session to its [`Handler`].

use std::future::{Future, Ready, poll_fn, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rollout_core::config::Limits;
use rollout_core::{JobId, JobSpec};
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::admission;
use crate::bodies::{PieceSink, PieceStream};
use crate::doormen::{Doormen, Queue};
use crate::identity::Identity;
use crate::lines::{LineSink, LineStream, WeakSink};
use crate::requests::{Denied, Params, WorkSession};
use crate::routes::{Control, EventsQuery};
use crate::seldom::Seldom;
use crate::tasks::Tasks;
use crate::tls::Tls;
use crate::wire::{Down, RejectReason, Up, WireError};
use crate::work::{Followed, Standing, Status, Submitted};

/// Connections that the system may hold until they are accepted; it may allow fewer. A fleet that
/// comes back all at once waits here, where the standard library's 128 would cost it a second.
const BACKLOG: i32 = 4096;

/// So many of the handshakes under way, one in this number, have more than arrived: what has begun is
/// to be finished soon, however many come. Peers a tenth of a second away still get in by the
/// thousand a second.
const BEGUN: usize = 4;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The certificate is not a coordinator's.
    #[error("a server needs the certificate of /coordinator, this one is for {0}")]
    Role(Identity),
    /// The TLS stack does not accept its settings.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// The listening socket cannot be used.
    #[error("cannot listen")]
    Listener(#[source] io::Error),
    /// The threads that shake hands cannot be started.
    #[error("cannot start the threads for TLS handshakes")]
    Threads(#[source] io::Error),
}

/// What the owner of a server does with what arrives.
pub trait Handler: Send + Sync + 'static {
    /// Leads a session, in a task of the server's, until either side ends it.
    fn session(&self, session: Session) -> impl Future<Output = ()> + Send;

    /// Somebody was not let in, or was put out. Called for each, from the connection's task: it
    /// must not block. `identity` is proven, never merely claimed.
    fn refused(&self, peer: SocketAddr, identity: Option<&Identity>, why: &Refusal);

    /// Leads a worker's stream of work, in a task of the server's, until either side ends it.
    fn work(&self, session: WorkSession) -> impl Future<Output = ()> + Send {
        drop(session);
        ready(())
    }

    /// A client submits a job. Dropped when it gives up or is cut off; then nothing may come of it.
    fn submit(
        &self,
        job: JobId,
        spec: JobSpec,
        params: Params,
    ) -> impl Future<Output = Result<Submitted, Denied>> + Send {
        drop((job, spec, params));
        ready(Err(no_work()))
    }

    /// A client follows a job from the commit after `after`. What comes of it in the end feeds
    /// `lines`, in a task of the server's; it waits while the client does not read.
    fn follow(
        &self,
        job: JobId,
        after: u64,
        lines: LineSink<Followed>,
    ) -> impl Future<Output = Result<impl Future<Output = ()> + Send + 'static, Denied>> + Send
    {
        drop((job, after, lines));
        ready(Err::<Ready<()>, _>(no_work()))
    }

    /// A client pauses a job, resumes it or ends it.
    fn control(
        &self,
        job: JobId,
        control: Control,
    ) -> impl Future<Output = Result<Standing, Denied>> + Send {
        let _ = (job, control);
        ready(Err(no_work()))
    }

    /// A client asks how everything stands.
    fn status(&self) -> impl Future<Output = Result<Status, Denied>> + Send {
        ready(Err(no_work()))
    }

    /// A client reads the coordinator's events. What comes of it in the end feeds `lines` with
    /// whole lines, in a task of the server's; it waits while the client does not read.
    fn events(
        &self,
        query: EventsQuery,
        lines: PieceSink,
    ) -> impl Future<Output = Result<impl Future<Output = ()> + Send + 'static, Denied>> + Send
    {
        drop((query, lines));
        ready(Err::<Ready<()>, _>(Denied::NotFound("there are no events here".to_owned())))
    }

    /// Somebody asks whether the blob is there: its size. The name is that of a blob.
    fn has_blob(&self, sha256: String) -> impl Future<Output = Result<u64, Denied>> + Send {
        drop(sha256);
        ready(Err(no_work()))
    }

    /// A worker uploads a blob. It is durable once this ends well. Dropped when the worker gives up.
    fn put_blob(
        &self,
        sha256: String,
        pieces: PieceStream,
    ) -> impl Future<Output = Result<(), Denied>> + Send {
        drop((sha256, pieces));
        ready(Err(no_work()))
    }

    /// A client downloads a blob: its size, and what feeds `pieces`.
    fn get_blob(
        &self,
        sha256: String,
        pieces: PieceSink,
    ) -> impl Future<Output = Result<(u64, impl Future<Output = ()> + Send + 'static), Denied>> + Send
    {
        drop((sha256, pieces));
        ready(Err::<(u64, Ready<()>), _>(no_work()))
    }
}

/// What a server answers that knows sessions alone.
fn no_work() -> Denied {
    Denied::NotFound("there is no work here".to_owned())
}

/// Why somebody was not let in, or was put out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// For people.
    pub detail: String,
}

impl Refusal {
    fn new(kind: RefusalKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// One side's certificate does not hold for the other.
    Certificate,
    /// The certificate holds, but its identity may not do this.
    Identity,
    /// It does not speak TLS 1.3, or breaks HTTP/2.
    Protocol,
    /// There are as many connections as may be, of all peers or of this one.
    Capacity,
    /// It said nothing for too long.
    Timeout,
    /// It asked for too much: requests, resets, headers, frames that carry nothing.
    Flood,
}

impl RefusalKind {
    /// The word for events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Identity => "identity",
            Self::Protocol => "protocol",
            Self::Capacity => "capacity",
            Self::Timeout => "timeout",
            Self::Flood => "flood",
        }
    }
}

/// A worker's session. It lasts until `down` and all its clones are dropped.
#[derive(Debug)]
pub struct Session {
    /// Who it is with, by its certificate: a worker.
    pub identity: Identity,
    /// From where.
    pub peer: SocketAddr,
    /// The lines from the worker.
    pub up: UpStream,
    /// The lines to it.
    pub down: DownSink,
    /// Ends the session when it is cancelled: `up` gives no more once nothing has arrived. It is
    /// cancelled when the server closes.
    pub end: CancellationToken,
}

/// The lines to a worker.
pub type DownSink = LineSink<Down>;

/// The lines from a worker.
#[derive(Debug)]
pub struct UpStream {
    lines: LineStream<Up>,
    down: WeakSink<Down>,
    stop: Seldom<WaitForCancellationFutureOwned>,
}

impl UpStream {
    pub(crate) fn new(
        lines: LineStream<Up>,
        down: WeakSink<Down>,
        stop: CancellationToken,
    ) -> Self {
        Self { lines, down, stop: Seldom::new(stop.cancelled_owned()) }
    }

    /// The next line; none when the worker has ended its side, or when no line has arrived and the
    /// server is closing. Cancel-safe.
    ///
    /// # Errors
    /// When a line is too long or malformed, which the worker is told with [`Down::Rejected`]; when
    /// the stream is cut. It gives nothing afterwards.
    pub async fn next(&mut self) -> Result<Option<Up>, WireError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Up>, WireError>> {
        let Poll::Ready(next) = self.lines.poll_next(cx) else {
            return Pin::new(&mut self.stop).poll(cx).map(|()| Ok(None));
        };
        if let Err(error) = &next
            && error.is_violation()
            && let Some(down) = self.down.upgrade()
        {
            let reason = RejectReason::Protocol;
            // A worker that does not read either is cut off without a word.
            let _ = down.try_send(Down::Rejected { reason, detail: error.to_string() });
        }
        Poll::Ready(next)
    }
}

/// A listening server and every task it has begun. Dropping it cuts all connections.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    stop: CancellationToken,
    tasks: Tasks,
    /// Dropped last: what is left of their work is cut before.
    doormen: Doormen,
}

/// What every connection of a server has in common.
pub(crate) struct Shared<H> {
    pub(crate) handler: Arc<H>,
    pub(crate) limits: Limits,
    pub(crate) tasks: Tasks,
    pub(crate) stop: CancellationToken,
    pub(crate) tls: TlsAcceptor,
}

impl<H: Handler> Shared<H> {
    /// Tells the handler.
    pub(crate) fn refuse(
        &self,
        peer: SocketAddr,
        identity: Option<&Identity>,
        kind: RefusalKind,
        detail: impl Into<String>,
    ) {
        self.handler.refused(peer, identity, &Refusal::new(kind, detail));
    }
}

impl Server {
    /// Serves on a listening socket, in tasks of the current tokio runtime; hands are shaken on
    /// threads of the server's own.
    ///
    /// # Errors
    /// When the certificate is not the coordinator's, the socket cannot be used, or there is no
    /// thread to be had.
    pub fn start<H: Handler>(
        listener: std::net::TcpListener,
        tls: Tls,
        limits: Limits,
        handler: Arc<H>,
    ) -> Result<Self, TransportError> {
        if *tls.identity() != Identity::Coordinator {
            return Err(TransportError::Role(tls.identity().clone()));
        }
        let config = tls.server_config().map_err(TransportError::Tls)?;
        listener.set_nonblocking(true).map_err(TransportError::Listener)?;
        SockRef::from(&listener).listen(BACKLOG).map_err(TransportError::Listener)?;
        let listener = TcpListener::from_std(listener).map_err(TransportError::Listener)?;
        let addr = listener.local_addr().map_err(TransportError::Listener)?;
        let begun = (limits.max_handshakes / BEGUN).max(1);
        let doormen = Doormen::start(begun).map_err(TransportError::Threads)?;
        let (tasks, stop) = (Tasks::here(), CancellationToken::new());
        let shared = Shared {
            handler,
            limits,
            tasks: tasks.clone(),
            stop: stop.clone(),
            tls: config.into(),
        };
        let accept =
            admission::accept(listener, Arc::new(shared), doormen.doors(), doormen.queue());
        tasks.spawn(accept);
        Ok(Self { addr, stop, tasks, doormen })
    }

    /// The address it listens on.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Who waits to be let in.
    #[must_use]
    pub fn queue(&self) -> Queue {
        self.doormen.queue()
    }

    /// Stops: no connection is accepted from now on, [`UpStream::next`] gives none, and once each
    /// session has sent what it has queued its connection is closed. What is left after `grace` is
    /// cut.
    pub async fn close(self, grace: Duration) {
        self.stop.cancel();
        if timeout(grace, self.tasks.ended()).await.is_err() {
            self.tasks.kill();
            self.tasks.ended().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.kill();
    }
}
