//! What a session costs without a coordinator: a hyper server over the same mTLS that answers each
//! line on the one open stream with a line as long as an acknowledgement, and does nothing else.

use std::convert::Infallible;
use std::fs;
use std::future::ready;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rollout_core::RunId;
use rollout_transport::Down;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::args::BareArgs;
use crate::error::BenchError;

/// Connections that the system may hold until they are accepted, as the coordinator has it.
const BACKLOG: u32 = 4096;

/// Serves until it is killed.
pub(crate) async fn serve(args: &BareArgs) -> Result<(), BenchError> {
    rollout_process::raise_open_files().map_err(BenchError::io("no limit of open files"))?;
    let acceptor = TlsAcceptor::from(Arc::new(tls(args)?));
    let listener = listen(args.listen).map_err(BenchError::io("cannot listen"))?;
    let addr = listener.local_addr().map_err(BenchError::io("cannot listen"))?;
    writeln!(io::stdout(), "{addr}").map_err(BenchError::io("standard output"))?;
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.map_err(BenchError::io("cannot accept"))?;
        connections.spawn(connection(acceptor.clone(), tcp));
        while connections.try_join_next().is_some() {}
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

fn tls(args: &BareArgs) -> Result<ServerConfig, BenchError> {
    let read = |path| fs::read(path).map_err(BenchError::io("cannot read a certificate"));
    let chain = |text: &[u8]| CertificateDer::pem_slice_iter(text).flatten().collect::<Vec<_>>();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain(&read(&args.ca)?));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::from_pem_slice(&read(&args.key)?)?;
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients.build()?)
        .with_single_cert(chain(&read(&args.cert)?), key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Whoever breaks it off is gone, and nobody asks.
async fn connection(acceptor: TlsAcceptor, tcp: TcpStream) {
    let _ = tcp.set_nodelay(true);
    let Ok(tls) = acceptor.accept(tcp).await else { return };
    let answer = |request: Request<Incoming>| {
        let lines = Answers(request.into_body());
        ready(Ok::<_, Infallible>(Response::new(lines)))
    };
    let http = http2::Builder::new(TokioExecutor::new());
    let _ = http.serve_connection(TokioIo::new(tls), service_fn(answer)).await;
}

/// An answer for each chunk of lines that comes.
struct Answers(Incoming);

impl Body for Answers {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            if let Ok(lines) = frame.into_data()
                && let Some(answer) = answer(&lines)
            {
                return Poll::Ready(Some(Ok(Frame::data(answer.into()))));
            }
        }
    }
}

/// The number of a chunk's last beat goes back; anything but a beat is a registration.
fn answer(lines: &[u8]) -> Option<Vec<u8>> {
    const BEAT: &[u8] = b"{\"type\":\"beat\",\"beat\":";
    let line = lines.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
    let Some(rest) = line.strip_prefix(BEAT) else { return registered() };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut answer = Vec::with_capacity(96);
    for part in [
        &b"{\"type\":\"ack\",\"beat\":"[..],
        &rest[..digits],
        b",\"durable\":",
        &rest[..digits],
        b"}\n",
    ] {
        answer.extend_from_slice(part);
    }
    Some(answer)
}

fn registered() -> Option<Vec<u8>> {
    let run_id = RunId::generate();
    let answer = Down::Registered { run_id, epoch: 1, term: 1, resumed: false, waited_ms: 0 };
    let mut line = serde_json::to_vec(&answer).ok()?;
    line.push(b'\n');
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_beat_of_a_chunk_is_acknowledged() {
        let lines =
            "{\"type\":\"beat\",\"beat\":7}\n{\"type\":\"beat\",\"beat\":18,\"unix_ms\":9}\n";
        let answer = answer(lines.as_bytes()).unwrap();
        let down: Down = serde_json::from_slice(&answer).unwrap();
        assert_eq!(down, Down::Ack { beat: 18, durable: 18 });
    }

    #[test]
    fn whatever_else_is_a_registration_once_it_has_ended() {
        assert!(answer(b"{\"type\":\"reg").is_none());
        let down: Down = serde_json::from_slice(&answer(b"{}\n").unwrap()).unwrap();
        assert!(matches!(down, Down::Registered { .. }));
    }
}
