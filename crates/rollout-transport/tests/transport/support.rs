//! A fleet of one test: a CA in a temporary directory, a server whose sessions and refusals the
//! test receives, and peers that do not play by the rules.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rollout_core::config::Limits;
use rollout_core::{Incarnation, TimeBudget, WorkerId};
use rollout_transport::certs::{TlsFiles, dev_identity};
use rollout_transport::{ConnectError, Handler, Identity, Link, Refusal, Server, Session, Tls, Up};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Far longer than anything here takes: it only turns a hang into a failure.
pub(crate) const LONG: Duration = Duration::from_secs(20);
pub(crate) const SHORT: Duration = Duration::from_millis(60);
/// The client's preface and empty SETTINGS.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let ended = tokio::time::timeout(LONG, future).await;
    ended.unwrap_or_else(|_| panic!("{what}: not within {LONG:?}"))
}

pub(crate) struct Pki(TempDir);

impl Pki {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn files(&self, identity: &Identity) -> TlsFiles {
        dev_identity(self.0.path(), identity, &[], &mut |_| ()).unwrap()
    }

    pub(crate) fn tls(&self, identity: &Identity) -> Tls {
        Tls::load(&self.files(identity)).unwrap()
    }

    /// A worker's certificate of this CA, held by somebody who trusts another.
    pub(crate) fn files_trusting(&self, identity: &Identity, other: &Self) -> TlsFiles {
        let ca = other.files(&Identity::Coordinator).ca;
        TlsFiles { ca, ..self.files(identity) }
    }
}

pub(crate) fn worker() -> Identity {
    Identity::Worker(WorkerId::generate())
}

pub(crate) fn register() -> Up {
    Up::Register {
        worker_id: WorkerId::generate(),
        incarnation: Incarnation::generate(),
        epoch: Some(3),
        run_id: None,
        version: "0.1.0".into(),
        plugins: vec!["echo".into()],
        timing: (&TimeBudget::default()).into(),
        unix_ms: Some(1_700_000_000_000),
    }
}

/// A session in the hands of a test. The server's task for it ends when this is dropped.
pub(crate) struct Held {
    pub(crate) session: Session,
    _done: oneshot::Sender<()>,
}

pub(crate) type Refused = (Option<Identity>, Refusal);

struct Recorder {
    sessions: mpsc::UnboundedSender<Held>,
    refusals: mpsc::UnboundedSender<Refused>,
}

impl Handler for Recorder {
    async fn session(&self, session: Session) {
        let (done, ended) = oneshot::channel();
        let _ = self.sessions.send(Held { session, _done: done });
        let _ = ended.await;
    }

    fn refused(&self, _peer: SocketAddr, identity: Option<&Identity>, why: &Refusal) {
        let _ = self.refusals.send((identity.cloned(), why.clone()));
    }
}

pub(crate) struct Fleet {
    pub(crate) pki: Pki,
    pub(crate) server: Option<Server>,
    pub(crate) addr: String,
    pub(crate) sessions: mpsc::UnboundedReceiver<Held>,
    pub(crate) refusals: mpsc::UnboundedReceiver<Refused>,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let (to_sessions, sessions) = mpsc::unbounded_channel();
        let (to_refusals, refusals) = mpsc::unbounded_channel();
        let handler = Arc::new(Recorder { sessions: to_sessions, refusals: to_refusals });
        let pki = Pki::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tls = pki.tls(&Identity::Coordinator);
        let server = Server::start(listener, tls, limits, handler).unwrap();
        let addr = server.local_addr().to_string();
        Self { pki, server: Some(server), addr, sessions, refusals }
    }

    pub(crate) async fn connect(&self, tls: &Tls) -> Result<Link, ConnectError> {
        rollout_transport::connect(&self.addr, tls, LONG).await
    }

    pub(crate) async fn session(&mut self) -> (Link, Held) {
        let link = self.connect(&self.pki.tls(&worker())).await.unwrap();
        (link, self.held().await)
    }

    pub(crate) async fn held(&mut self) -> Held {
        soon("a session", self.sessions.recv()).await.unwrap()
    }

    pub(crate) async fn refusal(&mut self) -> Refused {
        soon("a refusal", self.refusals.recv()).await.unwrap()
    }

    /// That a new worker is served as if nothing had happened.
    pub(crate) async fn still_serves(&mut self) {
        let (link, mut held) = self.session().await;
        link.up.send(Up::beat(1)).await.unwrap();
        let line = soon("a beat", held.session.up.next()).await.unwrap();
        assert_eq!(line, Some(Up::beat(1)));
    }

    pub(crate) async fn tcp(&self) -> TcpStream {
        TcpStream::connect(&self.addr).await.unwrap()
    }

    /// A TLS connection of a worker that may then say anything.
    pub(crate) async fn raw(&self, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        self.try_raw(alpn).await.unwrap()
    }

    pub(crate) async fn try_raw(&self, alpn: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let config = careless(&self.pki.files(&worker()), alpn);
        let name = ServerName::try_from("x.example").unwrap();
        TlsConnector::from(config).connect(name, self.tcp().await).await
    }

    /// What a worker says first.
    pub(crate) fn hello(&self) -> Vec<u8> {
        let config = careless(&self.pki.files(&worker()), &[b"h2"]);
        let name = ServerName::try_from("x.example").unwrap();
        let mut hello = Vec::new();
        let mut tls = rustls::ClientConnection::new(config, name).unwrap();
        tls.write_tls(&mut hello).unwrap();
        hello
    }

    /// Shakes hands without a certificate, until the server has said what it thinks of that.
    pub(crate) async fn anonymous(&self) -> TlsStream<TcpStream> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("x.example").unwrap();
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, self.tcp().await);
        let mut stream = connecting.await.unwrap();
        until_closed(&mut stream).await;
        stream
    }

    /// An HTTP/2 connection of `identity` that may request anything.
    pub(crate) async fn http(&self, identity: &Identity) -> Http {
        let config = careless(&self.pki.files(identity), &[b"h2"]);
        let name = ServerName::try_from("x.example").unwrap();
        let tls = TlsConnector::from(config).connect(name, self.tcp().await).await.unwrap();
        let http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (requests, connection) = http.handshake(TokioIo::new(tls)).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) });
        Http { requests, _tasks: tasks }
    }
}

pub(crate) struct Http {
    pub(crate) requests: SendRequest<Full<Bytes>>,
    _tasks: JoinSet<()>,
}

impl Http {
    pub(crate) async fn ask(&mut self, request: Request<Full<Bytes>>) -> (StatusCode, String) {
        let response = soon("a response", self.requests.send_request(request)).await.unwrap();
        body_of(response).await
    }
}

pub(crate) async fn body_of<B: hyper::body::Body>(response: Response<B>) -> (StatusCode, String)
where
    B::Error: std::fmt::Debug,
{
    let status = response.status();
    let body = soon("a body", response.into_body().collect()).await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Reads until the peer closes; a reset is a close too.
pub(crate) async fn until_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut read = Vec::new();
    let _ = soon("the end of a connection", stream.read_to_end(&mut read)).await;
    read
}

fn pair(files: &TlsFiles) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let cert = CertificateDer::from_pem_file(&files.cert).unwrap();
    (vec![cert], PrivateKeyDer::from_pem_file(&files.key).unwrap())
}

/// A client that accepts any server.
pub(crate) fn careless(files: &TlsFiles, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let (chain, key) = pair(files);
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// A server that accepts any client and shows any certificate.
pub(crate) fn impostor(files: &TlsFiles) -> Arc<ServerConfig> {
    let (chain, key) = pair(files);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
