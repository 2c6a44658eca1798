//! What `rollout status` prints, to the letter.

use rollout_core::job::JobSpec;
use rollout_core::{JobId, RunId, WorkerId};
use rollout_transport::work::Standing;

use super::*;

fn fleet() -> Status {
    let job = JobId::generate();
    let spec = JobSpec { name: "cartpole".into(), ..JobSpec::new("cartpole", "run", 1000) };
    let standing =
        Standing { pending: 500, leased: 32, done: 468, workers: 1, ..Standing::default() };
    let worker = WorkerStatus {
        worker_id: WorkerId::generate(),
        epoch: 1,
        state: "ready".into(),
        last_beat_ms: 120.0,
        plugins: vec!["cartpole".into()],
        leased: 32,
        oldest: Some(Oldest { job, item: 812, since_ms: 3_200.0 }),
    };
    Status {
        run_id: RunId::generate(),
        term: 2,
        workers: vec![worker],
        jobs: vec![JobStatus { job, spec, standing }],
    }
}

#[test]
fn a_healthy_fleet_is_two_tables_of_at_most_80_columns() {
    let text = status("127.0.0.1:50051", &fleet());
    assert!(text.contains("ready  120 ms ago  32     cartpole 812, 3.2 s"), "{text}");
    assert!(text.contains("cartpole  1,000  468   0     32       500      0        1"), "{text}");
    assert!(!text.contains('!'), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn what_is_stuck_is_said_in_a_sentence_each() {
    let mut fleet = fleet();
    fleet.workers[0].oldest.as_mut().unwrap().since_ms = 95_000.0;
    assert!(stuck(&fleet)[0].contains("item 812 of cartpole shows no progress"), "{fleet:?}");
    fleet.workers[0].oldest = None;
    fleet.workers[0].state = "suspected".into();
    fleet.workers[0].last_beat_ms = 2_500.0;
    assert!(stuck(&fleet)[0].contains("has not been heard of for 2.5 s and has 32 items"));
    fleet.workers[0].state = "failed".into();
    assert_eq!(stuck(&fleet), [""; 0]);
    fleet.jobs[0].standing.workers = 0;
    assert!(stuck(&fleet)[0].contains("no worker that is ready has plugin `cartpole`"));
    fleet.jobs[0].standing.paused = true;
    assert!(stuck(&fleet)[0].contains("is paused"));
}
