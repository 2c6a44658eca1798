//! The harness's own hands: a fleet of real processes, what is done to them, and the record of it.
#![expect(clippy::unwrap_used, reason = "also in the helpers: a panic fails the test")]

use std::time::Duration;

use rollout_acceptance::built;
use rollout_core::{RunId, TimeBudget};
use rollout_harness::fixtures::Layout;
use rollout_harness::fleet::{Fleet, FleetOptions, Reach, Spec};
use rollout_harness::record::{Record, What};
use rollout_harness::{Interrupt, processes};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// 100 ms beats, a fence of 1 s, and a deadline of 1.8 s.
fn quick() -> TimeBudget {
    TimeBudget {
        heartbeat_interval: Duration::from_millis(100),
        worker_self_fence_timeout: Duration::from_secs(1),
        coordinator_failure_timeout: Duration::from_millis(1_600),
        clock_skew_budget: Duration::from_millis(100),
    }
}

fn fleet(root: &TempDir) -> Fleet {
    let mut fleet = Fleet::new(FleetOptions {
        title: "a test".into(),
        layout: Layout { root: root.path().into(), dir: "data/fleet".into() },
        program: built().rollout.clone(),
        faulty: None,
        timing: quick(),
        run: RunId::generate(),
        interrupt: Interrupt::default(),
    })
    .unwrap();
    fleet.add(Spec::coordinator()).unwrap();
    fleet.add(Spec { reach: Reach::Link, ..Spec::worker("w1") }).unwrap();
    fleet.add(Spec::worker("w2")).unwrap();
    for name in ["coord", "w1", "w2"] {
        fleet.start(name).unwrap();
    }
    for name in ["w1", "w2"] {
        says(&mut fleet, "worker_heartbeat", name, 1);
    }
    fleet
}

/// Waits until the coordinator has written so many of these events about the worker.
fn says(fleet: &mut Fleet, topic: &str, worker: &str, times: usize) {
    let id = fleet.worker_id(worker).unwrap();
    let found = |fleet: &Fleet| {
        let events = fleet.about(id).filter(|event| event.body.topic() == topic);
        (events.count() >= times).then_some(())
    };
    let done = fleet.wait(PATIENCE, found).unwrap();
    assert!(done.is_some(), "{topic} about {worker}: {:?}", fleet.unexpected_exit());
}

#[test]
fn a_fleet_is_cut_healed_killed_and_restarted_and_the_record_says_so() {
    let root = tempfile::tempdir().unwrap();
    let mut fleet = fleet(&root);
    let address = fleet.address().unwrap();
    fleet.cut("w1").unwrap();
    says(&mut fleet, "worker_suspected", "w1", 1);
    fleet.heal("w1").unwrap();
    says(&mut fleet, "worker_recovered", "w1", 1);
    fleet.kill("coord").unwrap();
    fleet.start("coord").unwrap();
    assert_eq!(fleet.listening(PATIENCE).unwrap(), address, "the same port");
    says(&mut fleet, "worker_resumed", "w1", 2);
    says(&mut fleet, "worker_resumed", "w2", 1);
    fleet.stop("w2").unwrap();
    says(&mut fleet, "worker_failed", "w2", 1);
    fleet.end(PATIENCE).unwrap();
    let record = fleet.finish().unwrap();
    assert_eq!(record.leftovers, Vec::<String>::new());
    let done: Vec<_> = record.faults.iter().map(|f| (f.target.as_str(), f.what)).collect();
    let due = [
        ("w1", What::Cut),
        ("coord", What::Kill),
        ("coord", What::Restart),
        ("w2", What::Stop),
        ("w1", What::Terminate),
        ("w2", What::Terminate),
        ("coord", What::Terminate),
    ];
    assert_eq!(done, due);
    let ends = |name| {
        let lives = &record.process(name).unwrap().lives;
        lives.iter().map(|life| life.ended.as_ref().unwrap().exit()).collect::<Vec<_>>()
    };
    assert_eq!(
        ends("coord").iter().map(|e| (e.code, e.signal)).collect::<Vec<_>>(),
        [(None, Some(9)), (Some(0), None)]
    );
    assert!(ends("w1").iter().chain(&ends("w2")).all(|exit| exit.success()));
    for fault in record.faults.iter().filter(|f| matches!(f.what, What::Cut | What::Stop)) {
        assert!(fault.ended.is_some_and(|end| end > fault.began), "{fault:?}");
    }
    record.write(&root.path().join("record")).unwrap();
    let read = Record::read(&root.path().join("record")).unwrap();
    assert_eq!(read.coordinator().unwrap().log.lines().len(), {
        record.coordinator().unwrap().log.lines().len()
    });
}

#[test]
fn a_fleet_that_is_dropped_leaves_no_process() {
    let root = tempfile::tempdir().unwrap();
    let fleet = fleet(&root);
    let pids: Vec<_> = fleet.names().filter_map(|name| fleet.pid(name)).collect();
    assert_eq!(pids.len(), 3);
    let all = processes::trees(&pids).unwrap();
    drop(fleet);
    assert_eq!(processes::still_running(&all).unwrap(), []);
}
