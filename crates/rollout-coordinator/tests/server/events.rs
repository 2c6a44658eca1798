//! The coordinator's events, read over the wire.

use rollout_core::event::Body;
use rollout_core::{Incarnation, Level, WorkerId};
use rollout_transport::{CallError, Down, Identity, LineStream, Remote, Up};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::time::{sleep, timeout};

use crate::{Fleet, PATIENCE, TICK, hear};

type Lines = LineStream<Box<RawValue>>;

/// The next line, of any kind.
async fn next(lines: &mut Lines) -> Option<String> {
    let line = timeout(PATIENCE, lines.next()).await.unwrap().unwrap();
    line.map(|line| line.get().to_owned())
}

fn line(topic: &str) -> Option<String> {
    Some(format!("{{\"topic\":\"{topic}\"}}"))
}

async fn events(client: &Remote, topics: &[&str], follow: bool) -> Result<Lines, CallError> {
    let topics: Vec<_> = topics.iter().map(|&topic| topic.to_owned()).collect();
    timeout(PATIENCE, client.events(&topics, follow)).await.unwrap()
}

#[tokio::test]
async fn what_has_happened_is_read_and_who_follows_sees_a_worker_register_as_it_does() {
    let (fleet, worker) = (Fleet::new(""), WorkerId::generate());
    let client = fleet.client().await;
    let mut all = events(&client, &[], true).await.unwrap();
    let mut some = events(&client, &["worker_ready", "worker_registered"], true).await.unwrap();
    assert_eq!(next(&mut all).await, line("coordinator_started"));
    let mut link = fleet.join(worker, Incarnation::generate()).await.0;
    for lines in [&mut all, &mut some] {
        assert_eq!(next(lines).await, line("worker_registered"));
    }
    link.up.send(Up::beat(1)).await.unwrap();
    hear(&mut link).await;
    assert_eq!(next(&mut some).await, line("worker_ready"));
    // Who does not follow is sent what there is.
    fleet.events.wait(worker, "worker_heartbeat", 1).await;
    let mut kept = events(&client, &["coordinator_started", "worker_ready"], false).await.unwrap();
    assert_eq!(next(&mut kept).await, line("coordinator_started"));
    assert_eq!(next(&mut kept).await, line("worker_ready"));
    assert_eq!(next(&mut kept).await, None);
}

#[tokio::test]
async fn a_stopping_coordinator_says_so_to_its_readers_and_ends_their_streams() {
    let fleet = Fleet::new("");
    let client = fleet.client().await;
    let mut lines = events(&client, &["coordinator_stopping"], true).await.unwrap();
    fleet.coordinator.stop("test").await.unwrap();
    assert_eq!(next(&mut lines).await, line("coordinator_stopping"));
    assert_eq!(next(&mut lines).await, None);
}

#[tokio::test]
async fn events_are_no_workers_and_a_topic_that_there_is_not_is_told_which_there_are() {
    let (fleet, worker) = (Fleet::new(""), WorkerId::generate());
    let remote = fleet.remote(&Identity::Worker(worker)).await;
    match events(&remote, &[], true).await {
        Err(CallError::Refused { status: 403, detail }) => {
            assert_eq!(detail, "only a client reads events");
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    fleet.events.wait(worker, "worker_rejected", 1).await;
    let client = fleet.client().await;
    for topic in ["worker", "log&topic=log", ""] {
        match events(&client, &["log", topic], false).await {
            Err(CallError::Refused { status: 400, detail }) => {
                assert!(detail.contains("worker_failed, "), "{detail}");
            }
            other => panic!("{topic}: {:?}", other.map(|_| ())),
        }
    }
}

#[tokio::test]
async fn a_reader_too_many_is_refused_and_a_place_given_up_is_free_again() {
    let fleet = Fleet::new("");
    let (first, second) = (fleet.client().await, fleet.client().await);
    let (third, mut open) = (fleet.client().await, Vec::new());
    for client in [&first, &second] {
        for _ in 0..8 {
            open.push(events(client, &["log"], true).await.unwrap());
        }
    }
    match events(&third, &[], false).await {
        Err(CallError::Refused { status: 409, detail }) => assert!(detail.starts_with("16 read")),
        other => panic!("{:?}", other.map(|_| ())),
    }
    // Nothing is said to it that it could fail to take: it has gone all the same.
    drop(open.pop());
    let again = async {
        while events(&third, &["log"], false).await.is_err() {
            sleep(TICK).await;
        }
    };
    timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn who_does_not_read_is_told_how_many_lines_it_missed_and_beats_and_other_readers_go_on() {
    let (fleet, worker) = (Fleet::new(""), WorkerId::generate());
    let (slow, quick) = (fleet.client().await, fleet.client().await);
    let mut slow = events(&slow, &["log"], true).await.unwrap();
    let mut quick = events(&quick, &["worker_registered"], true).await.unwrap();
    let mut link = fleet.join(worker, Incarnation::generate()).await.0;
    assert_eq!(next(&mut quick).await, line("worker_registered"));
    // Some 30 MB: far more than all windows and queues between, and than is kept.
    let (log, padding) = (Body::Log(Level::Info, Map::new()), "x".repeat(280));
    let (rounds, each) = (500, 200);
    for round in 0..rounds {
        for n in 0..each {
            let line = format!("{{\"n\":{},\"padding\":\"{padding}\"}}\n", round * each + n);
            fleet.events.1.push(&log, line.as_bytes());
        }
        fleet.events.1.publish();
        link.up.send(Up::beat(round + 1)).await.unwrap();
        let answer = hear(&mut link).await;
        assert!(matches!(answer, Down::Ack { beat, .. } if beat == round + 1), "{answer:?}");
    }
    // All else that happened was none of the quick one's business, and cost it nothing.
    let _other = fleet.join(WorkerId::generate(), Incarnation::generate()).await;
    assert_eq!(next(&mut quick).await, line("worker_registered"));
    let (mut expected, mut missed) = (0, 0);
    while expected < rounds * each {
        let line: Value = serde_json::from_str(&next(&mut slow).await.unwrap()).unwrap();
        if line["type"] == "missed" {
            let lines = line["lines"].as_u64().unwrap();
            assert!(lines > 0);
            (expected, missed) = (expected + lines, missed + lines);
        } else {
            assert_eq!(line["n"], expected, "each line once, in order");
            expected += 1;
        }
    }
    assert_eq!(expected, rounds * each);
    assert!(missed > rounds * each / 2, "{missed} of {expected} missed");
}
