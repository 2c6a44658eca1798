//! The coordinator's side: accepts connections within limits, verifies who they are from, and
//! hands each session to its [`Handler`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rollout_core::config::Limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::identity::Identity;
use crate::lines::{LineSink, LineStream, WeakSink};
use crate::tasks::Tasks;
use crate::tls::Tls;
use crate::verify::{Unproven, explain, identity_of, is_about_certificate};
use crate::wire::{Down, RejectReason, Up, WireError};

/// How long accepting pauses when the system has no descriptor or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
}

/// What the owner of a server does with what arrives.
pub trait Handler: Send + Sync + 'static {
    /// Leads a session, in a task of the server's, until either side ends it.
    fn session(&self, session: Session) -> impl Future<Output = ()> + Send;

    /// Somebody was not let in, or was put out. Called for each, from the connection's task: it
    /// must not block. `identity` is proven, never merely claimed.
    fn refused(&self, peer: SocketAddr, identity: Option<&Identity>, why: &Refusal);
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
    pub(crate) fn new(kind: RefusalKind, detail: impl Into<String>) -> Self {
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
    /// There are as many connections as may be.
    Capacity,
    /// It said nothing for too long.
    Timeout,
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
}

/// The lines to a worker.
pub type DownSink = LineSink<Down>;

/// The lines from a worker.
#[derive(Debug)]
pub struct UpStream {
    lines: LineStream<Up>,
    down: WeakSink<Down>,
    stop: CancellationToken,
}

impl UpStream {
    pub(crate) const fn new(
        lines: LineStream<Up>,
        down: WeakSink<Down>,
        stop: CancellationToken,
    ) -> Self {
        Self { lines, down, stop }
    }

    /// The next line; none when the worker has ended its side or the server is closing. Cancel-safe.
    ///
    /// # Errors
    /// When a line is too long or malformed, which the worker is told with [`Down::Rejected`]; when
    /// the stream is cut. It gives nothing afterwards.
    pub async fn next(&mut self) -> Result<Option<Up>, WireError> {
        let Some(next) = self.stop.run_until_cancelled(self.lines.next()).await else {
            return Ok(None);
        };
        if let Err(error) = &next
            && error.is_violation()
            && let Some(down) = self.down.upgrade()
        {
            let reason = RejectReason::Protocol;
            // A worker that does not read either is cut off without a word.
            let _ = down.try_send(Down::Rejected { reason, detail: error.to_string() });
        }
        next
    }
}

/// A listening server and every task it has begun. Dropping it cuts all connections.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    stop: CancellationToken,
    tasks: Tasks,
}

/// What every connection of a server has in common.
pub(crate) struct Shared<H> {
    pub(crate) handler: Arc<H>,
    pub(crate) limits: Limits,
    pub(crate) tasks: Tasks,
    pub(crate) stop: CancellationToken,
    tls: TlsAcceptor,
}

impl Server {
    /// Serves on a listening socket, in tasks of the current tokio runtime.
    ///
    /// # Errors
    /// When the certificate is not the coordinator's, or the socket cannot be used.
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
        let listener = TcpListener::from_std(listener).map_err(TransportError::Listener)?;
        let addr = listener.local_addr().map_err(TransportError::Listener)?;
        let (tasks, stop) = (Tasks::default(), CancellationToken::new());
        let shared = Shared {
            handler,
            limits,
            tasks: tasks.clone(),
            stop: stop.clone(),
            tls: config.into(),
        };
        tasks.spawn(accept(listener, Arc::new(shared)));
        Ok(Self { addr, stop, tasks })
    }

    /// The address it listens on.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.addr
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

async fn accept<H: Handler>(listener: TcpListener, shared: Arc<Shared<H>>) {
    let slots = Arc::new(Semaphore::new(shared.limits.max_connections));
    while let Some(accepted) = shared.stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((tcp, peer)) => match Arc::clone(&slots).try_acquire_owned() {
                Ok(slot) => shared.tasks.spawn(admit(Arc::clone(&shared), tcp, peer, slot)),
                Err(_) => {
                    drop(tcp);
                    let detail = format!("{} connections are open", shared.limits.max_connections);
                    let why = Refusal::new(RefusalKind::Capacity, detail);
                    shared.handler.refused(peer, None, &why);
                }
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                let pause = tokio::time::sleep(ACCEPT_PAUSE);
                shared.stop.run_until_cancelled(pause).await;
            }
        }
    }
}

async fn admit<H: Handler>(
    shared: Arc<Shared<H>>,
    tcp: TcpStream,
    peer: SocketAddr,
    slot: OwnedSemaphorePermit,
) {
    let hands = shake_hands(&shared, tcp, peer);
    if let Some(Some((tls, identity))) = shared.stop.run_until_cancelled(hands).await {
        Connection::new(Arc::clone(&shared), identity, peer).start(tls, slot);
    }
}

/// A peer that goes away in the middle is no refusal: port scanners and health checks do that.
async fn shake_hands<H: Handler>(
    shared: &Shared<H>,
    tcp: TcpStream,
    peer: SocketAddr,
) -> Option<(TlsStream<TcpStream>, Identity)> {
    let limit = shared.limits.handshake_timeout;
    let refused = |identity: Option<&Identity>, kind, detail: String| {
        shared.handler.refused(peer, identity, &Refusal::new(kind, detail));
    };
    // Without it a beat's acknowledgement could wait for the peer's delayed ACK; on a socket that
    // is already dead the next read says so.
    let _ = tcp.set_nodelay(true);
    let Ok(shaken) = timeout(limit, shared.tls.accept(tcp)).await else {
        refused(None, RefusalKind::Timeout, format!("no TLS handshake within {limit:?}"));
        return None;
    };
    match shaken {
        Ok(tls) => {
            let identity = tls.get_ref().1.peer_certificates()?.first().and_then(identity_of)?;
            Some((tls, identity))
        }
        Err(error) => {
            let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
            let (identity, kind, detail) = judge(error);
            refused(identity, kind, detail);
            None
        }
    }
}

fn judge(error: &rustls::Error) -> (Option<&Identity>, RefusalKind, String) {
    use rustls::Error::{AlertReceived, InvalidCertificate, NoCertificatesPresented};
    if let Some(unproven) = Unproven::of(error) {
        let kind = if unproven.is_role { RefusalKind::Identity } else { RefusalKind::Certificate };
        return (unproven.identity.as_ref(), kind, unproven.why.clone());
    }
    match error {
        InvalidCertificate(_) | NoCertificatesPresented => {
            (None, RefusalKind::Certificate, explain(error))
        }
        AlertReceived(alert) if is_about_certificate(*alert) => {
            let detail = format!("it does not accept this coordinator's certificate ({alert:?})");
            (None, RefusalKind::Certificate, detail)
        }
        _ => (None, RefusalKind::Protocol, error.to_string()),
    }
}
