//! What the coordinator finds in its registry, and what becomes of answers that were lost.

use std::time::Instant;

use rollout_storage::Table;
use serde_json::json;

use super::*;

const WORKERS: Table<WorkerId, Value> = Table::new("workers");
const BEATS: Table<WorkerId, Value> = Table::new("heartbeats");

/// A database in which so many workers are live, under epoch 3, as a killed coordinator leaves it;
/// one of them.
fn known(path: &Path, workers: usize, incarnation: Incarnation) -> WorkerId {
    let open = path.with_extension("open");
    let store = Store::open(&open).unwrap();
    let ids: Vec<_> = (0..workers).map(|_| WorkerId::generate()).collect();
    let one = ids[workers / 2];
    let row = json!({"epoch": 3, "incarnation": incarnation, "standing": "live"});
    let beat = json!({"epoch": 3, "beat": 1_000_000, "unix_ms": 1_764_000_000_000_u64});
    for ids in ids.chunks(10_000).map(<[_]>::to_vec) {
        let (row, beat) = (row.clone(), beat.clone());
        let write = move |batch: &mut rollout_storage::Batch<'_>| {
            batch.put_all(WORKERS, ids.iter().map(|id| (id, &row)))?;
            batch.put_all(BEATS, ids.iter().map(|id| (id, &beat)))
        };
        store.write(write).unwrap();
    }
    // Copied while it is open: it was not closed in good order.
    std::fs::copy(open, path).unwrap();
    one
}

/// From opening the database until a known worker has resumed and its beat is acknowledged.
async fn serves_after(workers: usize) -> Duration {
    let (dir, incarnation) = (tempdir().unwrap(), Incarnation::generate());
    let one = known(&dir.path().join("coord.db"), workers, incarnation);
    let _certificates =
        [Identity::Coordinator, Identity::Worker(one)].map(|id| tls(dir.path(), &id));
    let begins = Instant::now();
    let (coordinator, events) = start(dir.path(), "").unwrap();
    let listens = begins.elapsed();
    let fleet = Fleet { dir, coordinator, events };
    let (mut link, answer) = fleet.say(registration(one, incarnation, Some(3)), one).await;
    assert!(matches!(answer, Down::Registered { epoch: 3, resumed: true, .. }), "{answer:?}");
    link.up.send(Up::beat(1)).await.unwrap();
    assert!(matches!(hear(&mut link).await, Down::Ack { .. }));
    let serves = begins.elapsed();
    println!("{workers} known workers: listens after {listens:.1?}, serves after {serves:.1?}");
    serves
}

#[tokio::test]
async fn with_ten_thousand_known_workers_it_serves_at_once() {
    // The promise is a second; this is for an unoptimised build on a machine that is busy.
    let serves = serves_after(10_000).await;
    assert!(serves < Duration::from_secs(5), "serving after {serves:?}");
}

/// By hand: `cargo test --release -p rollout-coordinator --test server -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement, with a database of 300 MB"]
async fn how_long_it_takes_to_serve_with_many_known_workers() {
    for workers in [1, 10_000, 100_000, 1_000_000] {
        serves_after(workers).await;
    }
}

#[tokio::test]
async fn a_process_that_never_heard_its_answer_asks_again_and_keeps_its_epoch() {
    let (fleet, worker) = (Fleet::new(""), WorkerId::generate());
    let incarnation = Incarnation::generate();
    drop(fleet.join(worker, incarnation).await);
    let (_link, answer) = fleet.say(registration(worker, incarnation, None), worker).await;
    assert!(matches!(answer, Down::Registered { epoch: 1, resumed: true, .. }), "{answer:?}");
    let topics = fleet.events.topics(worker).into_iter().filter(|t| *t != "worker_suspected");
    assert_eq!(topics.collect::<Vec<_>>(), ["worker_registered", "worker_resumed"]);
}
