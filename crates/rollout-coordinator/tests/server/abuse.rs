//! Workers with good certificates and bad manners.

use rollout_core::event::Body;
use rollout_core::{Incarnation, TimeBudget, WorkerId};
use rollout_transport::{Down, RejectReason, Up, wire::Timing};
use tokio::time::{sleep, timeout};

use crate::{Fleet, PATIENCE, TICK, hear, registration};

#[tokio::test]
async fn a_worker_that_registers_in_a_loop_has_to_wait_and_costs_one_event_and_nobody_else() {
    let fleet = Fleet::new("[limits]\nregistration_interval = \"30s\"\n");
    let (greedy, other) = (WorkerId::generate(), WorkerId::generate());
    let mut up = registration(other, Incarnation::generate(), None);
    if let Up::Register { timing, .. } = &mut up {
        *timing = Timing::from(&TimeBudget::default());
    }
    let (mut link, answer) = fleet.say(up, other).await;
    assert!(matches!(answer, Down::Registered { .. }), "{answer:?}");
    let greed = async {
        let mut registered = 0;
        for _ in 0..60 {
            let up = registration(greedy, Incarnation::generate(), None);
            match fleet.say(up, greedy).await.1 {
                Down::Registered { .. } => registered += 1,
                Down::Rejected { reason: RejectReason::Rate, detail } => {
                    assert!(detail.contains("too often"), "{detail}");
                }
                answer => panic!("{answer:?}"),
            }
        }
        registered
    };
    let beats = async {
        for beat in 1.. {
            link.up.send(Up::beat(beat)).await.unwrap();
            assert!(matches!(hear(&mut link).await, Down::Ack { beat: of, .. } if of == beat));
            sleep(4 * TICK).await;
        }
    };
    tokio::select! {
        registered = greed => assert_eq!(registered, 20),
        () = beats => unreachable!("it beats without end"),
    }
    fleet.coordinator.stop("test").await.unwrap();
    let refused = fleet.events.of(greedy).into_iter().filter_map(|body| match body {
        Body::WorkerRejected(body) => Some(body),
        _ => None,
    });
    let refused: Vec<_> = refused.collect();
    assert!(refused.iter().all(|body| body.reason == "rate"), "{refused:?}");
    let told: u64 = refused.iter().map(|body| 1 + body.suppressed).sum();
    assert_eq!(told, 40, "none is lost silently");
    assert!(refused.len() < 20, "{} events", refused.len());
    assert!(!fleet.events.topics(other).contains(&"worker_suspected"));
}

#[tokio::test]
async fn a_worker_that_beats_without_end_is_put_out_and_may_come_back() {
    let (fleet, worker) = (Fleet::new(""), WorkerId::generate());
    let incarnation = Incarnation::generate();
    let (mut link, epoch) = fleet.join(worker, incarnation).await;
    let flood = async {
        for beat in 1.. {
            if link.up.send(Up::beat(beat)).await.is_err() {
                return;
            }
        }
    };
    // The last word is lost when the queue to the worker is full of acknowledgements.
    let answers = async { while let Ok(Some(Down::Ack { .. })) = link.down.next().await {} };
    timeout(PATIENCE, async { tokio::join!(answers, flood) }).await.unwrap();
    drop(link);
    let beats = fleet.events.of(worker).iter().filter(|e| e.topic() == "worker_heartbeat").count();
    assert!(beats >= 2_000, "not before its pace is used up: {beats}");
    let why = fleet.events.wait(worker, "worker_rejected", 1).await;
    assert!(matches!(&why, Body::WorkerRejected(body) if body.reason == "rate"), "{why:?}");
    let (_link, answer) = fleet.say(registration(worker, incarnation, Some(epoch)), worker).await;
    assert!(matches!(answer, Down::Registered { resumed: true, .. }), "{answer:?}");
}

#[tokio::test]
async fn a_worker_that_has_left_does_not_keep_its_session() {
    let fleet = Fleet::new("[limits]\nheader_timeout = \"100ms\"\n");
    let (mut link, _) = fleet.join(WorkerId::generate(), Incarnation::generate()).await;
    link.up.send(Up::Deregister).await.unwrap();
    assert_eq!(hear(&mut link).await, Down::Deregistered);
    let ended = timeout(PATIENCE, link.down.next()).await.unwrap();
    assert!(matches!(ended, Ok(None)), "{ended:?}");
}
