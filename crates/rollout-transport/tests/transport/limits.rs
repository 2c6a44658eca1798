//! What one peer, or all of them, may cost.

use std::time::Instant;

use http_body_util::Full;
use hyper::{Request, StatusCode};
use rollout_core::config::Limits;
use rollout_transport::{Refusal, RefusalKind, Up};
use tokio::io::AsyncWriteExt;
use tokio::task::{JoinSet, yield_now};

use crate::support::{Fleet, LONG, PREFACE, SHORT, soon, until_closed, worker};

fn kind((_, refusal): (Option<rollout_transport::Identity>, Refusal)) -> RefusalKind {
    refusal.kind
}

#[tokio::test]
async fn a_connection_that_does_not_shake_hands_in_time_is_closed_and_not_before() {
    let mut fleet = Fleet::with(Limits { handshake_timeout: SHORT, ..Limits::default() });
    for first in [&b""[..], b"\x16\x03\x01\x02"] {
        let begun = Instant::now();
        let mut silent = fleet.tcp().await;
        silent.write_all(first).await.unwrap();
        until_closed(&mut silent).await;
        assert!(begun.elapsed() >= SHORT);
        assert_eq!(kind(fleet.refusal().await), RefusalKind::Timeout);
    }
    fleet.still_serves().await;
}

#[tokio::test]
async fn a_connection_that_does_not_ask_in_time_is_closed_and_not_before() {
    let mut fleet = Fleet::with(Limits { header_timeout: SHORT, ..Limits::default() });
    for first in [&b""[..], &PREFACE[..9], PREFACE] {
        let mut silent = fleet.raw(&[b"h2"]).await;
        let begun = Instant::now();
        silent.write_all(first).await.unwrap();
        silent.flush().await.unwrap();
        until_closed(&mut silent).await;
        assert!(begun.elapsed() >= SHORT / 2);
        let (identity, refusal) = fleet.refusal().await;
        assert_eq!(refusal.kind, RefusalKind::Timeout);
        assert!(identity.is_some());
    }
    fleet.still_serves().await;
}

#[tokio::test]
async fn a_session_may_be_silent_for_longer_than_headers_may_take() {
    let mut fleet = Fleet::with(Limits { header_timeout: SHORT, ..Limits::default() });
    let (link, mut held) = fleet.session().await;
    for _ in 0..3 {
        until_closed(&mut fleet.raw(&[b"h2"]).await).await;
        assert_eq!(kind(fleet.refusal().await), RefusalKind::Timeout);
    }
    link.up.send(Up::beat(1)).await.unwrap();
    assert_eq!(held.session.up.next().await.unwrap(), Some(Up::beat(1)));
    assert!(fleet.refusals.try_recv().is_err());
}

#[tokio::test]
async fn a_connection_whose_session_has_ended_is_closed_without_complaint() {
    let mut fleet = Fleet::with(Limits { header_timeout: SHORT, ..Limits::default() });
    let (link, held) = fleet.session().await;
    drop(held);
    // The worker keeps its side open, so that it is the coordinator that closes.
    let up = link.up.clone();
    soon("the connection's end", link.closed()).await;
    assert!(up.try_send(Up::Draining).is_err());
    assert!(fleet.refusals.try_recv().is_err());
}

#[tokio::test]
async fn a_connection_over_the_limit_is_closed_at_once_and_a_free_place_is_taken_again() {
    let mut fleet = Fleet::with(Limits { max_connections: 2, ..Limits::default() });
    let (first, mut first_held) = fleet.session().await;
    let (second, _second_held) = fleet.session().await;
    let tls = fleet.pki.tls(&worker());
    let refused = fleet.connect(&tls).await.unwrap_err();
    assert!(refused.to_string().contains(&fleet.addr), "{refused}");
    assert_eq!(kind(fleet.refusal().await), RefusalKind::Capacity);
    first.up.send(Up::beat(1)).await.unwrap();
    assert_eq!(first_held.session.up.next().await.unwrap(), Some(Up::beat(1)));
    drop(second);
    let again = soon("a free place", async {
        loop {
            match fleet.connect(&tls).await {
                Ok(link) => break link,
                Err(_) => yield_now().await,
            }
        }
    });
    drop(again.await);
}

#[tokio::test]
async fn a_frame_over_the_limit_closes_its_connection_and_no_other() {
    let mut fleet = Fleet::new();
    let (other, mut held) = fleet.session().await;
    let mut raw = fleet.raw(&[b"h2"]).await;
    raw.write_all(PREFACE).await.unwrap();
    // DATA of 16 KiB and one byte on stream 1.
    raw.write_all(b"\x00\x40\x01\x00\x00\x00\x00\x00\x01").await.unwrap();
    raw.write_all(&[b'x'; 16 * 1024 + 1]).await.unwrap();
    raw.flush().await.unwrap();
    let (identity, refusal) = fleet.refusal().await;
    assert_eq!(refusal.kind, RefusalKind::Protocol);
    assert!(identity.is_some() && refusal.detail.contains("size"), "{refusal:?}");
    until_closed(&mut raw).await;
    other.up.send(Up::beat(1)).await.unwrap();
    assert_eq!(held.session.up.next().await.unwrap(), Some(Up::beat(1)));
}

#[tokio::test]
async fn headers_over_the_limit_are_refused() {
    let mut fleet = Fleet::new();
    let mut http = fleet.http(&worker()).await;
    let request = Request::post("https://any.name/v1/session")
        .header("x-long", "x".repeat(9 * 1024))
        .body(Full::default())
        .unwrap();
    let answer = soon("an answer", http.requests.send_request(request)).await;
    let status = answer.map(|response| response.status());
    assert!(!matches!(status, Ok(StatusCode::OK)), "{status:?}");
    assert!(fleet.sessions.try_recv().is_err());
    fleet.still_serves().await;
}

#[tokio::test]
async fn a_connection_has_eight_sessions_at_most_and_the_ninth_waits() {
    let mut fleet = Fleet::new();
    let (ninth, other) = (worker(), worker());
    let mut http = fleet.http(&ninth).await;
    let get = Request::get("https://any.name/v1/health").body(Full::default()).unwrap();
    assert_eq!(http.ask(get).await.0, StatusCode::OK, "the server's settings have arrived");
    let mut responses = JoinSet::new();
    for _ in 0..9 {
        let post = Request::post("https://any.name/v1/session").body(Full::default()).unwrap();
        responses.spawn(http.requests.clone().send_request(post));
    }
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(fleet.held().await);
    }
    let _link = fleet.connect(&fleet.pki.tls(&other)).await.unwrap();
    assert_eq!(fleet.held().await.session.identity, other);
    drop(held.pop());
    assert_eq!(fleet.held().await.session.identity, ninth);
}

#[tokio::test]
async fn http_1_is_refused_whether_it_is_asked_for_or_just_spoken() {
    let mut fleet = Fleet::new();
    assert!(fleet.try_raw(&[b"http/1.1"]).await.is_err());
    assert_eq!(kind(fleet.refusal().await), RefusalKind::Protocol);
    let mut raw = fleet.raw(&[]).await;
    raw.write_all(b"POST /v1/session HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    raw.flush().await.unwrap();
    assert_eq!(kind(fleet.refusal().await), RefusalKind::Protocol);
    until_closed(&mut raw).await;
}

#[tokio::test]
async fn a_flood_of_empty_frames_closes_its_connection_and_is_named() {
    let mut fleet = Fleet::new();
    let mut raw = fleet.raw(&[b"h2"]).await;
    raw.write_all(PREFACE).await.unwrap();
    // POST https://x/v1/session, without Huffman: method and scheme from the static table.
    let path = b"/v1/session";
    let mut headers = vec![0x83, 0x87, 0x41, 1, b'x', 0x44, u8::try_from(path.len()).unwrap()];
    headers.extend(path);
    let length = u8::try_from(headers.len()).unwrap();
    raw.write_all(&[0, 0, length, 1, 4, 0, 0, 0, 1]).await.unwrap();
    raw.write_all(&headers).await.unwrap();
    raw.flush().await.unwrap();
    let _held = fleet.held().await;
    raw.write_all(&[0, 0, 0, 0, 0, 0, 0, 0, 1].repeat(101)).await.unwrap();
    raw.flush().await.unwrap();
    let (_, refusal) = tokio::time::timeout(LONG, fleet.refusal()).await.unwrap();
    assert_eq!(refusal.kind, RefusalKind::Flood);
    assert!(
        refusal.detail.contains("excessive load") || refusal.detail.contains("calm"),
        "{refusal:?}"
    );
    until_closed(&mut raw).await;
}
