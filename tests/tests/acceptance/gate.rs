//! The acceptance gate: the smoke run with the specification's timing, in a temporary directory and
//! on a free port, side by side with every other test.

use std::fs;

use rollout_acceptance::{Stage, conclusive, story};
use rollout_core::{CoordinatorConfig, TimeBudget, WorkerConfig};
use rollout_harness::Outcome;
use rollout_harness::binaries::workspace_root;
use rollout_harness::log::Log;
use rollout_harness::smoke::Run;

#[test]
fn a_killed_worker_is_reported_by_its_deadline_and_nothing_else_happens() {
    let (stage, run) = conclusive(
        |(_, run): &(Stage, Run)| run.verdict.outcome,
        || {
            let stage = Stage::new();
            let run = stage.smoke(&stage.options());
            (stage, run)
        },
    );
    // An inconclusive run has shown nothing, and does not pass.
    assert_eq!(run.verdict.outcome, Outcome::Pass, "{}", story(&run));
    println!("{}", story(&run));
    for name in [
        "coord.db",
        "w1.db",
        "w2.db",
        "tls/ca.pem",
        "logs/coord.log",
        "logs/w1.log",
        "logs/w2.log",
        "logs/coord.stderr",
        "logs/w1.toml",
        "logs/w2.toml",
        "logs/w1.id",
        "logs/w2.id",
    ] {
        assert!(stage.artifact(name).is_file(), "{name} is missing");
    }
    let log = fs::read_to_string(stage.artifact("logs/coord.log")).unwrap();
    let w1 = fs::read_to_string(stage.artifact("logs/w1.id")).unwrap();
    let hits = Log::from(log.as_str())
        .lines()
        .iter()
        .filter(|line| line.event.is_ok() && line.raw.contains("worker_failed"))
        .filter(|line| line.raw.contains(w1.trim()))
        .count();
    assert_eq!(hits, 1, "{log}");
}

#[test]
fn the_committed_fixtures_state_the_default_timing_word_for_word() {
    let read = |name| fs::read_to_string(workspace_root().join("tests/smoke").join(name)).unwrap();
    let (coordinator, worker) = (read("coordinator.toml"), read("worker.toml"));
    for (name, text) in [("coordinator", &coordinator), ("worker", &worker)] {
        for line in [
            "heartbeat_interval = \"500ms\"",
            "worker_self_fence_timeout = \"4s\"",
            "coordinator_failure_timeout = \"5s\"",
            "clock_skew_budget = \"250ms\"",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {name}.toml");
        }
    }
    let coordinator = CoordinatorConfig::parse(&coordinator).unwrap();
    let worker = WorkerConfig::parse(&worker).unwrap();
    assert_eq!((coordinator.timing, worker.timing), (TimeBudget::default(), TimeBudget::default()));
    assert_eq!(coordinator.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(worker.coordinator, "127.0.0.1:50051");
}
