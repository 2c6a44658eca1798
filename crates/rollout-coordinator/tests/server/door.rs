//! After a restart: who waits at the door, and who does not come any more.

use std::time::Duration;

use rollout_core::event::{Body, WorkerFailed};
use rollout_core::{Incarnation, WorkerId};
use rollout_transport::{Down, Up};
use tokio::net::TcpStream;

use crate::{Fleet, hear, registration, start};

/// A deadline of 3.1 s, and a door that one peer blocks for 10 s when others wait.
const NARROW: &str = "[timing]\nheartbeat_interval = \"100ms\"\nworker_self_fence_timeout = \
                      \"400ms\"\ncoordinator_failure_timeout = \"2900ms\"\n\
                      clock_skew_budget = \"100ms\"\n\
                      [limits]\nmax_handshakes = 1\nhandshake_timeout = \"50s\"\n";

async fn verdict(fleet: &Fleet, worker: WorkerId) -> WorkerFailed {
    match fleet.events.wait(worker, "worker_failed", 1).await {
        Body::WorkerFailed(failed) => failed,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_crowd_at_the_door_puts_off_the_verdict_on_who_is_not_back_as_long_as_it_stands_there() {
    let fleet = Fleet::new(NARROW);
    let (away, back) = (WorkerId::generate(), WorkerId::generate());
    let process = Incarnation::generate();
    for worker in [away, back] {
        drop(fleet.join(worker, process).await);
    }
    let Fleet { dir, coordinator, .. } = fleet;
    coordinator.stop("test").await.unwrap();
    let (coordinator, events) = start(dir.path(), NARROW).unwrap();
    let fleet = Fleet { dir, coordinator, events };
    let (mut link, answer) = fleet.say(registration(back, process, Some(1)), back).await;
    assert!(matches!(answer, Down::Registered { resumed: true, .. }), "{answer:?}");
    link.up.send(Up::beat(1)).await.unwrap();
    assert!(matches!(hear(&mut link).await, Down::Ack { beat: 1, .. }));

    let address = fleet.coordinator.local_addr();
    let crowd =
        [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let of_back = verdict(&fleet, back).await;
    assert!(!fleet.events.topics(away).contains(&"worker_failed"), "its deadline was earlier");
    drop(crowd);
    let of_away = verdict(&fleet, away).await;
    let credited = of_away.credited_ms - of_back.credited_ms;
    assert!(credited >= 1_000.0, "{of_away:?} {of_back:?}");
    let stalls = fleet.events.0.lock().unwrap();
    let said = stalls.iter().filter_map(|(.., body)| match body {
        Body::CoordinatorStalled(stall) => Some(Duration::from_secs_f64(stall.ms / 1e3)),
        _ => None,
    });
    let said = said.sum::<Duration>().as_secs_f64() * 1e3;
    assert!(said + 1.0 >= of_away.credited_ms, "{said} ms said: {of_away:?}");
}
