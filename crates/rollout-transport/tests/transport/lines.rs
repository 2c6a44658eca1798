//! What travels in a session, whole and in order, and what a broken line does.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use rollout_core::RunId;
use rollout_core::config::Limits;
use rollout_transport::{Down, FenceReason, RejectReason, Up, WireError};
use tokio::task::yield_now;

use crate::support::{Fleet, Held, LONG, body_of, register, soon, worker};

async fn next_up(held: &mut Held) -> Result<Option<Up>, WireError> {
    soon("a line from the worker", held.session.up.next()).await
}

#[tokio::test]
async fn every_message_arrives_as_it_was_sent_and_the_end_after_the_last() {
    let mut fleet = Fleet::new();
    let (mut link, mut held) = fleet.session().await;
    for up in [register(), Up::beat(u64::MAX), Up::Draining, Up::Deregister] {
        link.up.send(up.clone()).await.unwrap();
        assert_eq!(next_up(&mut held).await.unwrap(), Some(up));
    }
    for down in [
        Down::Registered {
            run_id: RunId::generate(),
            epoch: 1,
            term: 2,
            resumed: true,
            waited_ms: 0,
        },
        Down::Ack { beat: 9, durable: 8 },
        Down::Fenced { reason: FenceReason::Superseded },
        Down::Rejected { reason: RejectReason::Timing, detail: "a \"b\"\n".into() },
        Down::Deregistered,
        Down::Stopping,
    ] {
        held.session.down.send(down.clone()).await.unwrap();
        assert_eq!(soon("a line", link.down.next()).await.unwrap(), Some(down));
    }
    held.session.down.try_send(Down::Deregistered).unwrap();
    drop(held);
    assert_eq!(soon("a line", link.down.next()).await.unwrap(), Some(Down::Deregistered));
    assert_eq!(soon("the end", link.down.next()).await.unwrap(), None);
    assert_eq!(soon("the end", link.down.next()).await.unwrap(), None);
    assert!(fleet.refusals.try_recv().is_err());
}

#[tokio::test]
async fn a_worker_that_dies_is_lost_and_not_merely_silent() {
    let mut fleet = Fleet::new();
    let (link, mut held) = fleet.session().await;
    drop(link);
    assert!(matches!(next_up(&mut held).await, Err(WireError::Lost(_))));
    soon("the sink's end", async {
        while held.session.down.try_send(Down::Stopping).is_ok() {
            yield_now().await;
        }
    })
    .await;
    assert!(fleet.refusals.try_recv().is_err());
}

#[tokio::test]
async fn a_coordinator_that_dies_is_lost_and_not_merely_silent() {
    let mut fleet = Fleet::new();
    let (mut link, _held) = fleet.session().await;
    drop(fleet.server.take());
    assert!(matches!(soon("a line", link.down.next()).await, Err(WireError::Lost(_))));
    soon("the connection's end", link.closed()).await;
}

/// Sends each line in a frame of its own, as far as the window goes, to a side that reads none.
#[tokio::test]
async fn a_side_that_wakes_to_hundreds_of_small_frames_reads_them_all() {
    let mut fleet = Fleet::new();
    let (mut link, mut held) = fleet.session().await;
    let ups = async {
        for beat in 1..=550 {
            link.up.send(Up::beat(beat)).await.unwrap();
            for _ in 0..4 {
                yield_now().await;
            }
        }
    };
    soon("beats that nobody reads", ups).await;
    let downs = async {
        for beat in 1..=400 {
            held.session.down.send(Down::Ack { beat, durable: 0 }).await.unwrap();
            for _ in 0..4 {
                yield_now().await;
            }
        }
    };
    soon("acks that nobody reads", downs).await;
    for beat in 1..=550 {
        assert_eq!(next_up(&mut held).await.unwrap(), Some(Up::beat(beat)));
    }
    for beat in 1..=400 {
        let ack = soon("an ack", link.down.next()).await.unwrap();
        assert_eq!(ack, Some(Down::Ack { beat, durable: 0 }));
    }
}

#[tokio::test]
async fn a_reader_that_resumes_gets_thousands_of_lines_in_order_and_the_sender_waited_for_it() {
    const LINES: u64 = 20_000;
    let mut fleet = Fleet::new();
    let (mut link, mut held) = fleet.session().await;
    let (up, down) = (link.up.clone(), held.session.down.clone());
    let sent = std::sync::atomic::AtomicU64::new(0);
    let send = async {
        for beat in 1..=LINES {
            up.send(Up::beat(beat)).await.unwrap();
            down.send(Down::Ack { beat, durable: beat }).await.unwrap();
            sent.store(beat, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let read = async {
        let mut before = u64::MAX;
        while before != sent.load(std::sync::atomic::Ordering::Relaxed) {
            before = sent.load(std::sync::atomic::Ordering::Relaxed);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(before < LINES / 2, "{before} lines were buffered for a side that does not read");
        for beat in 1..=LINES {
            assert_eq!(held.session.up.next().await.unwrap(), Some(Up::beat(beat)));
            let ack = link.down.next().await.unwrap();
            assert_eq!(ack, Some(Down::Ack { beat, durable: beat }));
            if beat % 1000 == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
    };
    soon("all lines", async { tokio::join!(send, read) }).await;
}

/// Posts a session with this body and no more; gives what the coordinator read and answered.
async fn post(fleet: &mut Fleet, body: Bytes) -> (Vec<Up>, Option<WireError>, String) {
    let mut http = fleet.http(&worker()).await;
    let request = Request::post("https://any.name/v1/session").body(Full::new(body)).unwrap();
    let response = soon("a response", http.requests.send_request(request)).await.unwrap();
    let mut held = fleet.held().await;
    let mut lines = Vec::new();
    let error = loop {
        match next_up(&mut held).await {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert!(matches!(next_up(&mut held).await, Ok(None)), "nothing is read after the end");
    drop(held);
    let (status, answer) = body_of(response).await;
    assert_eq!(status, StatusCode::OK);
    (lines, error, answer)
}

#[tokio::test]
async fn a_malformed_line_ends_the_session_with_a_reason_and_what_came_before_counts() {
    let mut fleet = Fleet::new();
    for bad in [
        &b"\n"[..],
        b"{\n",
        b"\xff\xfe\n",
        b"{\"type\":\"beat\",\"beat\":\"\xff\"}\n",
        b"{\"type\":\"fly\"}\n",
        b"{\"type\":\"beat\"}\n",
        b"{\"type\":\"beat\",\"beat\":-1}\n",
        b"[]\n",
    ] {
        let body = [b"{\"type\":\"draining\"}\n", bad, b"{\"type\":\"deregister\"}\n"].concat();
        let (lines, error, answer) = post(&mut fleet, body.into()).await;
        assert_eq!(lines, [Up::Draining]);
        assert!(matches!(error, Some(WireError::Malformed(_))), "{bad:?}: {error:?}");
        assert!(answer.starts_with("{\"type\":\"rejected\",\"reason\":\"protocol\""), "{answer}");
        assert_eq!(answer.lines().count(), 1);
    }
    fleet.still_serves().await;
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_line_is_truncated_and_nobody_is_left_to_tell() {
    let mut fleet = Fleet::new();
    let (lines, error, answer) = post(&mut fleet, "{\"type\":\"draining\"}".into()).await;
    assert!(lines.is_empty() && matches!(error, Some(WireError::Truncated)), "{error:?}");
    assert_eq!(answer, "");
}

#[tokio::test]
async fn keys_of_a_newer_peer_are_ignored() {
    let mut fleet = Fleet::new();
    let body = "{\"beat\":7,\"mood\":[1,{}],\"type\":\"beat\"}\r\n";
    let (lines, error, answer) = post(&mut fleet, body.into()).await;
    assert_eq!(lines, [Up::beat(7)]);
    assert!(error.is_none() && answer.is_empty());
}

#[tokio::test]
async fn a_line_of_the_longest_length_is_read_and_one_byte_more_ends_the_session() {
    let limits = Limits { max_line: 1024, ..Limits::default() };
    let mut fleet = Fleet::with(limits);
    let line = |length: usize| {
        let frame = "{\"type\":\"draining\",\"x\":\"\"}";
        frame.replace("\"\"", &format!("\"{}\"", "x".repeat(length - frame.len()))) + "\n"
    };
    let body = line(1024) + &line(1025) + &line(30);
    let (lines, error, answer) = post(&mut fleet, body.into()).await;
    assert_eq!(lines, [Up::Draining]);
    assert!(matches!(error, Some(WireError::Oversized { limit: 1024 })), "{error:?}");
    assert!(answer.contains("\"reason\":\"protocol\"") && answer.contains("1024"), "{answer}");
    let endless = "x".repeat(1 << 20);
    let (_, error, _) = soon("an endless line", post(&mut fleet, endless.into())).await;
    assert!(matches!(error, Some(WireError::Oversized { .. })), "{error:?}");
    fleet.still_serves().await;
}

#[tokio::test]
async fn the_worker_is_told_what_it_did_wrong_and_other_sessions_go_on() {
    let limits = Limits { max_line: 1024, ..Limits::default() };
    let mut fleet = Fleet::with(limits);
    let (mut other, mut other_held) = fleet.session().await;
    let (mut link, mut held) = fleet.session().await;
    let Up::Register { worker_id, incarnation, timing, .. } = register() else { panic!() };
    let plugins = vec!["p".repeat(2000)];
    let version = String::new();
    let long = Up::Register {
        worker_id,
        incarnation,
        epoch: None,
        run_id: None,
        version,
        plugins,
        timing,
        unix_ms: None,
    };
    link.up.send(long).await.unwrap();
    assert!(next_up(&mut held).await.is_err());
    drop(held);
    let told = soon("a line", link.down.next()).await.unwrap();
    assert!(matches!(told, Some(Down::Rejected { reason: RejectReason::Protocol, .. })));
    assert_eq!(soon("the end", link.down.next()).await.unwrap(), None);
    other.up.send(Up::beat(1)).await.unwrap();
    assert_eq!(next_up(&mut other_held).await.unwrap(), Some(Up::beat(1)));
    other_held.session.down.send(Down::Ack { beat: 1, durable: 0 }).await.unwrap();
    let ack = tokio::time::timeout(LONG, other.down.next()).await.unwrap().unwrap();
    assert_eq!(ack, Some(Down::Ack { beat: 1, durable: 0 }));
}
