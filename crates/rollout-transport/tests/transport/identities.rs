//! Who is let in, who is not, and what both sides are told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use rollout_core::config::Limits;
use rollout_transport::{
    ConnectError, Handler, Identity, Patience, Refusal, RefusalKind, Server, Session, Tls,
    TransportError,
};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::support::{Fleet, LONG, Pki, SHORT, impostor, soon, until_closed, worker};

fn why(error: ConnectError) -> String {
    match error {
        ConnectError::Refused { why, .. } => why,
        other => panic!("not refused, but: {other:?}"),
    }
}

#[tokio::test]
async fn a_worker_is_known_by_its_certificate() {
    let mut fleet = Fleet::new();
    let identity = worker();
    let link = fleet.connect(&fleet.pki.tls(&identity)).await.unwrap();
    let held = fleet.held().await;
    assert_eq!(held.session.identity, identity);
    assert!(held.session.peer.ip().is_loopback());
    drop(link);
    assert!(fleet.refusals.try_recv().is_err());
}

#[tokio::test]
async fn a_coordinator_of_another_ca_is_refused_by_the_worker_and_told() {
    let mut fleet = Fleet::new();
    let error = fleet.connect(&Pki::new().tls(&worker())).await.unwrap_err();
    assert!(why(error).contains("another CA"));
    let (identity, refusal) = fleet.refusal().await;
    assert_eq!((identity, refusal.kind), (None, RefusalKind::Certificate));
    assert!(refusal.detail.contains("this coordinator's"), "{refusal:?}");
    assert!(fleet.sessions.try_recv().is_err());
    fleet.still_serves().await;
}

#[tokio::test]
async fn a_worker_of_another_ca_is_refused_by_the_coordinator_and_learns_it_while_connecting() {
    let mut fleet = Fleet::new();
    let identity = worker();
    let elsewhere = Pki::new();
    let mut files = elsewhere.files_trusting(&identity, &fleet.pki);
    let error = Tls::load(&files).unwrap_err().to_string();
    assert!(error.contains("another CA"), "{error}");
    // It trusts both, so that only the coordinator has anything to object to.
    let both = tempfile::NamedTempFile::new().unwrap();
    let cas = [&files.ca, &elsewhere.files(&identity).ca];
    let bundle: Vec<u8> = cas.iter().flat_map(|ca| std::fs::read(ca).unwrap()).collect();
    std::fs::write(both.path(), bundle).unwrap();
    files.ca = both.path().to_owned();
    let error = fleet.connect(&Tls::load(&files).unwrap()).await.unwrap_err();
    assert!(why(error).contains("does not accept this certificate"));
    let (proven, refusal) = fleet.refusal().await;
    assert_eq!((proven, refusal.kind), (None, RefusalKind::Certificate), "a claim is no proof");
    assert!(refusal.detail.contains(&identity.to_string()), "{refusal:?}");
    assert!(fleet.sessions.try_recv().is_err());
    fleet.still_serves().await;
}

#[tokio::test]
async fn a_coordinators_certificate_opens_no_session() {
    let mut fleet = Fleet::new();
    let error = fleet.connect(&fleet.pki.tls(&Identity::Coordinator)).await.unwrap_err();
    assert!(why(error).contains("does not accept this certificate"));
    let (_, refusal) = fleet.refusal().await;
    assert_eq!(refusal.kind, RefusalKind::Identity);
    assert!(refusal.detail.contains("/coordinator"), "{refusal:?}");
    assert!(fleet.sessions.try_recv().is_err());
}

#[tokio::test]
async fn a_worker_that_poses_as_the_coordinator_is_refused_by_the_others() {
    let pki = Pki::new();
    let acceptor = TlsAcceptor::from(impostor(&pki.files(&worker())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let tls = pki.tls(&worker());
    let victim = rollout_transport::connect(&addr, &tls, LONG);
    let served = async { acceptor.accept(listener.accept().await.unwrap().0).await };
    let (link, served) = soon("both", async { tokio::join!(victim, served) }).await;
    assert!(why(link.unwrap_err()).contains("not one of this fleet's coordinator"));
    assert!(served.is_err());
}

struct Nobody;

impl Handler for Nobody {
    async fn session(&self, _: Session) {}
    fn refused(&self, _: SocketAddr, _: Option<&Identity>, _: &Refusal) {}
}

#[tokio::test]
async fn a_server_does_not_start_with_a_workers_certificate() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let identity = worker();
    let tls = Pki::new().tls(&identity);
    let error = Server::start(listener, tls, Limits::default(), Arc::new(Nobody)).unwrap_err();
    assert!(matches!(error, TransportError::Role(found) if found == identity));
}

#[tokio::test]
async fn a_client_may_ask_for_health_but_opens_no_session() {
    let mut fleet = Fleet::new();
    let identity = Identity::Client("ann".into());
    let error = fleet.connect(&fleet.pki.tls(&identity)).await.unwrap_err();
    assert!(why(error).contains("/client/ann"));
    let (proven, refusal) = fleet.refusal().await;
    assert_eq!((proven, refusal.kind), (Some(identity.clone()), RefusalKind::Identity));
    let mut http = fleet.http(&identity).await;
    let get = Request::get("https://any.name/v1/health").body(Full::default()).unwrap();
    assert_eq!(http.ask(get).await, (StatusCode::OK, "ok\n".into()));
    assert!(fleet.sessions.try_recv().is_err());
}

#[tokio::test]
async fn other_paths_and_methods_do_not_exist() {
    let mut fleet = Fleet::new();
    let mut http = fleet.http(&worker()).await;
    for (method, path, status) in [
        (Method::GET, "/v1/session", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/v1/health", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/v1/session/", StatusCode::NOT_FOUND),
        (Method::GET, "/", StatusCode::NOT_FOUND),
    ] {
        let uri = format!("https://any.name{path}");
        let request = Request::builder().method(method).uri(uri).body(Full::default()).unwrap();
        assert_eq!(http.ask(request).await.0, status, "{path}");
    }
    assert!(fleet.sessions.try_recv().is_err() && fleet.refusals.try_recv().is_err());
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_or_an_old_one_is_refused() {
    let mut fleet = Fleet::new();
    let mut plain = fleet.tcp().await;
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until_closed(&mut plain).await;
    assert_eq!(fleet.refusal().await.1.kind, RefusalKind::Protocol);
    let mut old = fleet.tcp().await;
    old.write_all(&tls12_hello()).await.unwrap();
    let alert = until_closed(&mut old).await;
    assert_eq!(alert.last(), Some(&70), "protocol_version: {alert:?}");
    assert_eq!(fleet.refusal().await.1.kind, RefusalKind::Protocol);
    fleet.still_serves().await;
}

/// A ClientHello without the extension that offers TLS 1.3.
fn tls12_hello() -> Vec<u8> {
    let groups: &[u8] = &[0, 10, 0, 4, 0, 2, 0, 29];
    let signatures: &[u8] = &[0, 13, 0, 4, 0, 2, 4, 3];
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 16]);
    hello.extend([groups, signatures].concat());
    let length = |n: usize| u8::try_from(n).unwrap();
    let mut record = vec![22, 3, 1, 0, length(hello.len() + 4), 1, 0, 0, length(hello.len())];
    record.extend(hello);
    record
}

#[tokio::test]
async fn a_peer_that_goes_away_during_the_handshake_is_no_refusal() {
    let mut fleet = Fleet::new();
    drop(fleet.tcp().await);
    let mut plain = fleet.tcp().await;
    plain.write_all(b"not TLS at all").await.unwrap();
    until_closed(&mut plain).await;
    assert_eq!(fleet.refusal().await.1.kind, RefusalKind::Protocol);
    assert!(fleet.refusals.try_recv().is_err());
}

#[tokio::test]
async fn nobody_listening_is_unreachable_and_a_silent_listener_times_out() {
    let tls = Pki::new().tls(&worker());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let error = rollout_transport::connect(&addr, &tls, SHORT).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Timeout { .. }), "{error:?}");
    assert!(error.to_string().contains(&addr), "{error}");
    drop(listener);
    let error = rollout_transport::connect(&addr, &tls, LONG).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&addr), "{error}");
}

#[tokio::test]
async fn who_reaches_a_listener_that_is_busy_waits_longer_than_reaching_it_may_take() {
    let tls = Pki::new().tls(&worker());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let whole = SHORT * 4;
    let begun = Instant::now();
    let patience = Patience { reach: SHORT, whole };
    let error = rollout_transport::connect(&addr, &tls, patience).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Timeout { after, .. } if *after == whole), "{error:?}");
    assert!(begun.elapsed() >= whole);
}

#[tokio::test]
async fn a_host_that_is_not_reached_is_never_one_that_does_not_answer() {
    let tls = Pki::new().tls(&worker());
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let addr = full.local_addr().unwrap().as_socket().unwrap();
    // Nobody accepts them, and once the queue is full the system answers no more.
    let mut waiting = Vec::new();
    while let Ok(tcp) = std::net::TcpStream::connect_timeout(&addr, SHORT * 4) {
        waiting.push(tcp);
    }
    // The two ends of an attempt fall into different milliseconds seldom, but not among so many.
    let mut attempts = JoinSet::new();
    for _ in 0..400 {
        let (addr, tls) = (addr.to_string(), tls.clone());
        attempts.spawn(async move { rollout_transport::connect(&addr, &tls, SHORT).await });
    }
    while let Some(outcome) = attempts.join_next().await {
        let error = outcome.unwrap().unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn who_has_given_up_before_its_turn_costs_no_handshake() {
    let limits = Limits {
        max_handshakes: 4,
        handshake_timeout: Duration::from_secs(20),
        ..Limits::default()
    };
    let mut fleet = Fleet::with(limits);
    let hello = fleet.hello();
    // It has the one turn that there is, until it has had its patience.
    let mut before = fleet.tcp().await;
    before.write_all(&hello).await.unwrap();
    assert!(soon("the server's half", before.read(&mut [0; 64])).await.unwrap() > 0);
    let mut tcp = fleet.tcp().await;
    tcp.write_all(&hello).await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // Closed with the hello unread, which may be a reset.
    let _ = soon("an end", tcp.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "{} bytes of a handshake that nobody awaits", answer.len());
    fleet.still_serves().await;
    assert!(fleet.refusals.try_recv().is_err());
}
