//! How a server ends.

use std::time::Instant;

use rollout_core::config::Limits;
use rollout_transport::{ConnectError, Down, TrySendError, WireError};
use tokio::task::yield_now;

use crate::support::{Fleet, LONG, SHORT, soon, worker};

#[tokio::test]
async fn closing_delivers_what_was_queued_ends_each_session_and_frees_the_port() {
    let mut fleet = Fleet::new();
    let (mut link, mut held) = fleet.session().await;
    let server = fleet.server.take().unwrap();
    held.session.down.send(Down::Stopping).await.unwrap();
    let begun = Instant::now();
    let session = async {
        assert_eq!(held.session.up.next().await.unwrap(), None);
        drop(held);
    };
    let worker = async {
        assert_eq!(link.down.next().await.unwrap(), Some(Down::Stopping));
        assert_eq!(link.down.next().await.unwrap(), None);
    };
    soon("closing", async { tokio::join!(server.close(LONG), session, worker) }).await;
    assert!(begun.elapsed() < LONG / 4, "it does not sit out its grace");
    soon("the connection's end", link.closed()).await;
    assert!(std::net::TcpListener::bind(&fleet.addr).is_ok());
}

#[tokio::test]
async fn from_the_moment_it_closes_it_accepts_nobody() {
    let mut fleet = Fleet::new();
    let (_link, held) = fleet.session().await;
    let tls = fleet.pki.tls(&worker());
    let server = fleet.server.take().unwrap();
    let newcomer = async {
        while let Ok(link) = fleet.connect(&tls).await {
            drop(link);
        }
        let error = fleet.connect(&tls).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
        drop(held);
    };
    soon("closing", async { tokio::join!(server.close(LONG), newcomer) }).await;
}

#[tokio::test]
async fn connections_without_a_session_do_not_hold_up_the_end() {
    let mut fleet = Fleet::new();
    let (_silent, _idle) = (fleet.tcp().await, fleet.raw(&[b"h2"]).await);
    fleet.still_serves().await;
    let server = fleet.server.take().unwrap();
    let begun = Instant::now();
    soon("closing", server.close(LONG)).await;
    assert!(begun.elapsed() < Limits::default().handshake_timeout / 2);
}

#[tokio::test]
async fn a_session_that_does_not_end_is_cut_after_the_grace_and_not_before() {
    let mut fleet = Fleet::new();
    let (mut link, held) = fleet.session().await;
    let server = fleet.server.take().unwrap();
    let begun = Instant::now();
    soon("closing", server.close(SHORT)).await;
    assert!(begun.elapsed() >= SHORT);
    assert!(matches!(soon("a line", link.down.next()).await, Err(WireError::Lost(_))));
    assert!(held.session.down.send(Down::Stopping).await.is_err());
}

#[tokio::test]
async fn a_worker_that_has_stopped_reading_is_cut_after_the_grace() {
    let mut fleet = Fleet::new();
    let (link, held) = fleet.session().await;
    let down = held.session.down.clone();
    soon("a full queue", async {
        let mut refused = 0;
        while refused < 1000 {
            match down.try_send(Down::Ack { beat: 1, durable: 1 }) {
                Ok(()) => refused = 0,
                Err(TrySendError::Full) => refused += 1,
                Err(TrySendError::Gone) => panic!("the session has ended"),
            }
            yield_now().await;
        }
    })
    .await;
    let server = fleet.server.take().unwrap();
    let begun = Instant::now();
    drop((down, held));
    soon("closing", server.close(SHORT)).await;
    assert!(begun.elapsed() >= SHORT, "what is queued is not thrown away at once");
    drop(link);
}
