//! Peers that want the server to work or to wait for them: each is put out with a reason, and the
//! worker beside them is served as before.

use std::net::TcpStream as StdTcpStream;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::{Request, StatusCode};
use rollout_core::config::Limits;
use rollout_transport::{Identity, Link, RefusalKind, Up};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{Fleet, Held, PREFACE, SHORT, soon, until_closed, worker};

const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const UNKNOWN: u8 = 0xfa;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// About so many bytes of frames are sent at once.
const TOGETHER: usize = 8 * 1024;

/// The headers of `POST https://x/v1/session`, without Huffman: method and scheme from the table.
fn post() -> Vec<u8> {
    let path = b"/v1/session";
    let mut headers = vec![0x83, 0x87, 0x41, 1, b'x', 0x44, u8::try_from(path.len()).unwrap()];
    headers.extend(path);
    headers
}

/// A header of about `length` bytes, which stays out of the table.
fn header(length: usize) -> Vec<u8> {
    let mut header = vec![0x00, 1, b'a', 0x7f];
    let mut rest = length.checked_sub(127).unwrap();
    while rest >= 128 {
        header.push(0x80 | u8::try_from(rest % 128).unwrap());
        rest /= 128;
    }
    header.push(u8::try_from(rest).unwrap());
    header.extend(vec![b'v'; length]);
    header
}

/// Sends `frames` until the server closes or there are no more, reading what comes back. They travel
/// together: one at a time they are no flood on a busy machine.
async fn send(raw: TlsStream<TcpStream>, frames: impl Iterator<Item = Vec<u8>>) {
    let (mut from, mut to) = tokio::io::split(raw);
    let send = async {
        let mut together = PREFACE.to_vec();
        for frame in frames {
            together.extend(frame);
            if together.len() >= TOGETHER {
                if to.write_all(&together).await.is_err() {
                    return;
                }
                together.clear();
            }
        }
        let _ = to.write_all(&together).await;
        let _ = to.flush().await;
    };
    let read = async {
        let mut buffer = [0; 4096];
        while let Ok(1..) = from.read(&mut buffer).await {}
    };
    soon("the end of an abused connection", async { tokio::join!(send, read) }).await;
}

/// Sends `frames` on a connection of its own beside a worker, and expects the end that it deserves.
async fn flood(frames: impl Iterator<Item = Vec<u8>>, words: &str) {
    let mut fleet = Fleet::new();
    let (other, mut held) = fleet.session().await;
    let raw = fleet.raw(&[b"h2"]).await;
    send(raw, frames).await;
    let (identity, refusal) = fleet.refusal().await;
    assert_eq!(refusal.kind, RefusalKind::Flood, "{refusal:?}");
    assert!(identity.is_some() && refusal.detail.contains(words), "{refusal:?}");
    assert!(fleet.refusals.try_recv().is_err(), "one connection is refused once");
    beats(&other, &mut held).await;
    fleet.still_serves().await;
}

async fn beats(link: &Link, held: &mut Held) {
    link.up.send(Up::beat(1)).await.unwrap();
    let line = soon("a beat", held.session.up.next()).await.unwrap();
    assert_eq!(line, Some(Up::beat(1)));
}

fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

#[tokio::test]
async fn sessions_that_are_opened_and_reset_at_once_end_their_connection() {
    let open_and_reset = |stream| {
        let reset = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS, stream, &post()), reset].concat()
    };
    flood(streams(50_000).map(open_and_reset), "").await;
}

#[tokio::test]
async fn requests_faster_than_the_pace_end_their_connection() {
    let mut fleet = Fleet::new();
    let (other, mut held) = fleet.session().await;
    let mut http = fleet.http(&worker()).await;
    let mut answered = 0;
    while answered < 20_000 {
        let ask = Request::get("https://any.name/v1/health").body(Full::default()).unwrap();
        match soon("a response", http.requests.send_request(ask)).await {
            Ok(response) if response.status() == StatusCode::OK => answered += 1,
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {}
            Ok(response) => panic!("{}", response.status()),
            Err(_) => break,
        }
    }
    assert!((1_000..20_000).contains(&answered), "{answered}");
    let (_, refusal) = fleet.refusal().await;
    assert_eq!(refusal.kind, RefusalKind::Flood);
    assert!(refusal.detail.contains("more than 1000 requests"), "{refusal:?}");
    beats(&other, &mut held).await;
}

#[tokio::test]
async fn headers_over_the_limit_again_and_again_end_their_connection() {
    let block = [post(), header(9 * 1024)].concat();
    let big = move |stream| frame(HEADERS, END_HEADERS, stream, &block);
    flood(streams(1_000).map(big), "").await;
}

#[tokio::test]
async fn a_header_block_that_never_ends_ends_its_connection() {
    let begin = std::iter::once(frame(HEADERS, 0, 1, &post()));
    let more = frame(CONTINUATION, 0, 1, &header(200));
    flood(begin.chain(std::iter::repeat_n(more, 10_000)), "excessive load").await;
}

#[tokio::test]
async fn a_header_block_that_decodes_to_megabytes_ends_its_connection() {
    // One entry of the table, then a reference of one byte to it thousands of times.
    let mut block = post();
    block.extend([0x40, 1, b'a', 0x7f, 0x80 | 1, 0x1e]);
    block.extend(vec![b'v'; 127 + 1 + 0x1e * 128]);
    block.extend(vec![0xbe; 10_000]);
    flood(std::iter::once(frame(HEADERS, END_HEADERS, 1, &block)), "excessive load").await;
}

#[tokio::test]
async fn frames_that_carry_nothing_end_their_connection_whatever_they_are() {
    let carrying_nothing = [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]),
        frame(UNKNOWN, 0, 0, &[0; 100]),
    ];
    for one in carrying_nothing {
        let many = 600 * 1024 / one.len();
        let words = "frames that carry nothing";
        flood(std::iter::repeat_n(one, many + 10_000), words).await;
    }
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_ends_its_connection() {
    let mut headers = post();
    headers.truncate(5);
    headers.extend([0x44, 10]);
    headers.extend(b"/v1/health");
    let begin = std::iter::once(frame(HEADERS, END_HEADERS, 1, &headers));
    let data = frame(0, 0, 1, &[b'x'; 8 * 1024]);
    let mut fleet = Fleet::new();
    let (other, mut held) = fleet.session().await;
    send(fleet.raw(&[b"h2"]).await, begin.chain(std::iter::repeat_n(data, 10_000))).await;
    let (_, refusal) = fleet.refusal().await;
    let kinds = [RefusalKind::Flood, RefusalKind::Protocol];
    assert!(kinds.contains(&refusal.kind), "{refusal:?}");
    beats(&other, &mut held).await;
}

#[tokio::test]
async fn a_peer_has_so_many_connections_and_no_more_and_others_have_theirs() {
    let limits = Limits { max_connections_per_peer: 2, ..Limits::default() };
    let mut fleet = Fleet::with(limits);
    let greedy = worker();
    let tls = fleet.pki.tls(&greedy);
    let first = fleet.connect(&tls).await.unwrap();
    let mut first_held = fleet.held().await;
    let second = fleet.connect(&tls).await.unwrap();
    let second_held = fleet.held().await;
    assert!(fleet.connect(&tls).await.is_err());
    let (identity, refusal) = fleet.refusal().await;
    assert_eq!((identity, refusal.kind), (Some(greedy), RefusalKind::Capacity));
    assert!(refusal.detail.contains("2 connections with this certificate"), "{refusal:?}");
    fleet.still_serves().await;
    beats(&first, &mut first_held).await;
    drop((second, second_held));
    let again = async {
        loop {
            match fleet.connect(&tls).await {
                Ok(link) => break link,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    drop(soon("a seat", again).await);
}

#[tokio::test]
async fn silent_handshakes_make_room_for_those_who_wait_and_not_before_their_patience() {
    let limits = Limits {
        max_handshakes: 4,
        handshake_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let mut fleet = Fleet::with(limits);
    let begun = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(fleet.tcp().await);
    }
    fleet.still_serves().await;
    // Three rounds of places had to be given up, a fifth of a second each, one after the other.
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    let (identity, refusal) = fleet.refusal().await;
    assert_eq!((identity, refusal.kind), (None, RefusalKind::Timeout));
    assert!(refusal.detail.contains("others wait"), "{refusal:?}");
    until_closed(&mut silent[0]).await;
}

#[tokio::test]
async fn handshakes_that_stop_half_way_make_room_for_those_who_wait_to_begin() {
    let limits = Limits {
        max_handshakes: 8,
        handshake_timeout: Duration::from_secs(10),
        ..Limits::default()
    };
    let mut fleet = Fleet::with(limits);
    let hello = fleet.hello();
    let mut halves = Vec::new();
    // As many as may have begun at once, and not as many as may be under way.
    for _ in 0..2 {
        let mut half = fleet.tcp().await;
        half.write_all(&hello).await.unwrap();
        assert!(soon("the server's half", half.read(&mut [0; 64])).await.unwrap() > 0);
        halves.push(half);
    }
    fleet.still_serves().await;
    assert_eq!(gave_way(&mut fleet), 0, "there are places for all of them");
    drop(halves);
}

/// How many were put out because others waited.
fn gave_way(fleet: &mut Fleet) -> usize {
    let refusals = std::iter::from_fn(|| fleet.refusals.try_recv().ok());
    refusals.filter(|(_, refusal)| refusal.detail.contains("others wait")).count()
}

#[tokio::test]
async fn who_is_honest_gets_in_while_peers_that_stop_half_way_keep_coming() {
    const PLACES: usize = 16;
    let limits = Limits {
        max_handshakes: PLACES,
        handshake_timeout: Duration::from_secs(5),
        ..Limits::default()
    };
    let mut fleet = Fleet::with(limits);
    let (mut halves, mut put_out) = (Vec::new(), 0);
    // First they leave one place, then they come in numbers that take others' places.
    for more in [PLACES - 1, PLACES / 2, PLACES / 2] {
        for _ in 0..more {
            let mut half = fleet.tcp().await;
            // The beginning of a handshake, and no more.
            half.write_all(&[0x16]).await.unwrap();
            halves.push(half);
        }
        fleet.still_serves().await;
        put_out += gave_way(&mut fleet);
        let without_place = (halves.len() + 1).saturating_sub(PLACES);
        assert!(put_out <= without_place, "{put_out} of {} gave way", halves.len());
    }
}

#[tokio::test]
async fn a_fleet_that_comes_all_at_once_waits_to_be_accepted_and_is_not_turned_away() {
    let mut fleet = Fleet::with(Limits { handshake_timeout: SHORT, ..Limits::default() });
    let addr = fleet.addr.parse().unwrap();
    // The server has no chance to accept in between: this thread is its runtime's.
    let crowd: Vec<_> = (0..1_000)
        .map(|_| StdTcpStream::connect_timeout(&addr, Duration::from_secs(1)).unwrap())
        .collect();
    fleet.still_serves().await;
    drop(crowd);
}

#[tokio::test]
async fn a_hundred_without_a_certificate_are_refused_each_and_nobody_else() {
    let mut fleet = Fleet::new();
    let (other, mut held) = fleet.session().await;
    for _ in 0..100 {
        let nobody = fleet.anonymous().await;
        drop(nobody);
    }
    for _ in 0..100 {
        let (identity, refusal) = fleet.refusal().await;
        assert_eq!((identity, refusal.kind), (None::<Identity>, RefusalKind::Certificate));
    }
    beats(&other, &mut held).await;
}
