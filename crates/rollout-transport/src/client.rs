//! The worker's side: one connection to the coordinator, and the session on it.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::http::{CONNECTION_WINDOW, NDJSON, SEND_BUFFER, SESSION, STREAM_WINDOW};
use crate::lines::{self, LineBody, LineSink, LineStream};
use crate::meter::Meter;
use crate::tasks::{KillOnDrop, Tasks};
use crate::tls::Tls;
use crate::verify::{explain, is_about_certificate};
use crate::wire::{Down, Up};

/// The longest line accepted from a coordinator.
const MAX_LINE: usize = 64 * 1024;

/// The lines to the coordinator.
pub type UpSink = LineSink<Up>;
/// The lines from the coordinator.
pub type DownStream = LineStream<Down>;

/// A session with the coordinator. Dropping it cuts the connection at once.
#[derive(Debug)]
pub struct Link {
    /// The lines to the coordinator.
    pub up: UpSink,
    /// The lines from it.
    pub down: DownStream,
    tasks: Tasks,
}

impl Link {
    /// Returns once the connection has ended or is lost.
    pub async fn closed(&self) {
        self.tasks.ended().await;
    }
}

/// It also keeps `up` and `down` from being moved out, which would drop the connection under them.
impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.kill();
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers at the address, or the connection was lost.
    #[error("no coordinator can be reached at {addr}")]
    Unreachable {
        /// The address.
        addr: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// One side does not accept the other's certificate or identity. Trying again will not help.
    #[error("{addr}: {why}")]
    Refused {
        /// The address.
        addr: String,
        /// Which side, and why.
        why: String,
    },
    /// The coordinator's host was reached, and there was no session in time.
    #[error("no session with {addr} within {after:?}")]
    Timeout {
        /// The address.
        addr: String,
        /// How long it was tried.
        after: Duration,
    },
    /// Whoever answers does not speak this protocol.
    #[error("{addr} does not answer as a coordinator does: {why}")]
    Protocol {
        /// The address.
        addr: String,
        /// What it did.
        why: String,
    },
}

/// How long opening a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until the coordinator's host has accepted the connection.
    pub reach: Duration,
    /// As a whole: a coordinator that many ask at once takes one after the other.
    pub whole: Duration,
}

/// So long as a whole, however it is divided.
impl From<Duration> for Patience {
    fn from(whole: Duration) -> Self {
        Self { reach: whole, whole }
    }
}

/// Opens a session with the coordinator at `addr` (`host:port`): TCP, TLS on both sides, HTTP/2,
/// and the headers of the session's request and response, all within `patience`.
///
/// # Errors
/// [`ConnectError`]; only [`ConnectError::Refused`] is final.
pub async fn connect(
    addr: &str,
    tls: &Tls,
    patience: impl Into<Patience>,
) -> Result<Link, ConnectError> {
    let patience = patience.into();
    // Taken before the whole begins: a host that is not reached is never one that does not answer.
    let reach = Instant::now() + patience.reach;
    within(addr, patience.whole, open(addr, tls, reach)).await
}

/// What comes of `opening`, if it comes in time.
pub(crate) async fn within<T>(
    addr: &str,
    after: Duration,
    opening: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    match timeout(after, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(ConnectError::Timeout { addr: addr.to_owned(), after }),
    }
}

async fn open(addr: &str, tls: &Tls, reach: Instant) -> Result<Link, ConnectError> {
    let (mut requests, tasks, cut) = dial(addr, tls, reach, |tasks| {
        let mut http = http2::Builder::new(tasks);
        http.initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        http
    })
    .await?;
    let (up, body) = lines::channel();
    let request = request(body).map_err(|error| protocol(addr, &error))?;
    let response = requests.send_request(request).await.map_err(|error| lost(addr, error))?;
    let down = LineStream::new(accepted(addr, tls, response)?, MAX_LINE, Meter::default());
    cut.disarm();
    Ok(Link { up, down, tasks })
}

/// An HTTP/2 connection with the coordinator, whose host is reached until `reach`, as `settings`
/// has it. Dropping the guard cuts it.
pub(crate) async fn dial<B>(
    addr: &str,
    tls: &Tls,
    reach: Instant,
    settings: impl FnOnce(Tasks) -> http2::Builder<Tasks>,
) -> Result<(http2::SendRequest<B>, Tasks, KillOnDrop), ConnectError>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = secure(addr, tls, reach).await?;
    let tasks = Tasks::here();
    let cut = tasks.kill_on_drop();
    let (requests, http) = settings(tasks.clone())
        .max_send_buf_size(SEND_BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| protocol(addr, &error))?;
    tasks.spawn(http);
    Ok((requests, tasks, cut))
}

/// With TLS 1.3 this side is done before the coordinator has seen its certificate: the verdict is
/// the first thing that can be read, an alert or the coordinator's HTTP/2 settings.
async fn secure(
    addr: &str,
    tls: &Tls,
    reach: Instant,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let failed = |error| tls_error(addr, error);
    let reached = timeout_at(reach, TcpStream::connect(addr)).await;
    let tcp = reached.map_err(io::Error::from).flatten().map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    // Nothing looks at the name: the coordinator is who its certificate's URI says.
    let name = ServerName::from(Ipv4Addr::UNSPECIFIED);
    let connector = TlsConnector::from(tls.client_config());
    let mut stream = connector.connect(name, tcp).await.map_err(failed)?;
    if stream.fill_buf().await.map_err(failed)?.is_empty() {
        return Err(failed(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(stream)
}

fn tls_error(addr: &str, source: io::Error) -> ConnectError {
    let addr = addr.to_owned();
    let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        None => ConnectError::Unreachable { addr, source },
        Some(error @ rustls::Error::InvalidCertificate(_)) => {
            let why = format!(
                "its certificate is not one of this fleet's coordinator: {}; check the address \
                 and the CA's certificate here",
                explain(error)
            );
            ConnectError::Refused { addr, why }
        }
        Some(rustls::Error::AlertReceived(alert)) if is_about_certificate(*alert) => {
            let why = format!(
                "the coordinator does not accept this certificate ({alert:?}); its event stream \
                 says why"
            );
            ConnectError::Refused { addr, why }
        }
        Some(error) => ConnectError::Protocol { addr, why: error.to_string() },
    }
}

fn request(body: LineBody<Up>) -> Result<Request<LineBody<Up>>, hyper::http::Error> {
    Request::post(format!("https://coordinator{SESSION}")).header(CONTENT_TYPE, NDJSON).body(body)
}

fn accepted(addr: &str, tls: &Tls, response: Response<Incoming>) -> Result<Incoming, ConnectError> {
    let addr = addr.to_owned();
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        StatusCode::FORBIDDEN => {
            let why = format!("the coordinator opens no session for {}", tls.identity());
            Err(ConnectError::Refused { addr, why })
        }
        status => Err(ConnectError::Protocol { addr, why: format!("status {status}") }),
    }
}

fn protocol(addr: &str, error: &dyn std::error::Error) -> ConnectError {
    ConnectError::Protocol { addr: addr.to_owned(), why: error.to_string() }
}

fn lost(addr: &str, error: hyper::Error) -> ConnectError {
    ConnectError::Unreachable { addr: addr.to_owned(), source: io::Error::other(error) }
}
