//! Runs that must fail, and say why: the gate with something wrong, and real processes that are to
//! be refused.

use std::net::TcpListener;
use std::time::Duration;

use rollout_acceptance::{Stage, check, edit_toml, set, story, text};
use rollout_core::WorkerId;
use rollout_harness::Outcome;
use rollout_harness::smoke::{Fault, Options, Run};
use rollout_process::Signal;

/// Runs a gate that has to fail, and leave nothing behind all the same.
fn failing(stage: &Stage, options: &Options) -> Run {
    let run = stage.smoke(options);
    assert_eq!(run.verdict.outcome, Outcome::Fail, "{}", story(&run));
    assert_eq!(check(&run, "nothing-left").outcome, Outcome::Pass, "{}", story(&run));
    run
}

#[test]
fn a_run_in_which_nobody_is_killed_but_a_failure_expected_fails() {
    let stage = Stage::new().with_timing(100, 400, 800, 100);
    let patience = Duration::from_millis(1500);
    let run = failing(&stage, &Options { fault: Fault::None, patience, ..stage.options() });
    let check = check(&run, "failed-once");
    assert_eq!(check.outcome, Outcome::Fail, "{}", story(&run));
    assert!(check.detail.contains("names w1 0 times"), "{}", story(&run));
    assert!(run.verdict.measured.is_none());
}

#[test]
fn a_deadline_beyond_eight_seconds_fails_and_the_message_says_so() {
    let nine = |table: &mut toml::Table| {
        set(table, &["timing", "coordinator_failure_timeout"], "9s");
    };
    let stage = Stage::new().with("coordinator", nine).with("worker", nine);
    let run = failing(&stage, &stage.options());
    let why = "coordinator_failure_timeout = 9s puts the deadline 9.75 s after the last beat";
    assert!(check(&run, "in-time").detail.contains(why), "{}", story(&run));
    let names: Vec<_> = run.verdict.complaints().map(|check| &*check.name).collect();
    assert_eq!(names, ["timeline", "failed-once", "in-time", "grep"], "{}", story(&run));
}

#[test]
fn a_broken_rule_is_refused_with_78_and_both_fields_before_anything_is_opened() {
    let broken = |table: &mut toml::Table| {
        set(table, &["timing", "worker_self_fence_timeout"], "6s");
    };
    let stage = Stage::new().with("coordinator", broken);
    let story = story(&failing(&stage, &stage.options()));
    assert!(story.contains("exited with 78"), "{story}");
    let rule = "worker_self_fence_timeout (6s) must be less than coordinator_failure_timeout (5s)";
    assert!(story.contains(rule), "{story}");
    for name in ["coord.db", "tls"] {
        assert!(!stage.artifact(name).exists(), "{name} was made");
    }
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let stage = Stage::new().with("worker", |table| set(table, &["timing", "heartbeat"], "1s"));
    let story = story(&failing(&stage, &stage.options()));
    assert!(story.contains("exited with 78") && story.contains("`heartbeat`"), "{story}");
}

#[test]
fn a_taken_port_is_refused_with_69_and_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let stage = Stage::new();
    let options = Options { port: Some(address.port()), ..stage.options() };
    let run = stage.smoke(&options);
    let story = story(&run);
    assert_eq!(run.verdict.outcome, Outcome::Fail, "{story}");
    assert!(story.contains("exited with 69") && story.contains(&address.to_string()), "{story}");
    let names: Vec<_> = run.verdict.complaints().map(|check| &*check.name).collect();
    assert!(!names.contains(&"nothing-left"), "{story}");
}

#[test]
fn a_second_coordinator_on_the_same_database_is_refused_and_the_first_unharmed() {
    let stage = Stage::new();
    let (first, address) = stage.coordinator();
    let config = text(&stage.fixtures().join("coordinator.toml"));
    let second = stage.start("second", &["coordinator", "run", "--config", &config]);
    let exit = second.exit();
    assert_eq!(exit.code, Some(69), "{exit}: {}", second.stderr());
    assert!(second.stderr().contains("coord.db"), "{}", second.stderr());
    assert_eq!(first.child.try_wait(), None);
    let mut first = worker_joins(&stage, first, &address);
    first.child.handle().signal_main(Signal::SIGTERM);
    let _ = first.event("coordinator_stopping");
    assert_eq!(first.exit().code, Some(0), "{}", first.stderr());
}

/// A worker with a certificate of this stage's CA registers with the coordinator and leaves.
fn worker_joins(
    stage: &Stage,
    mut coordinator: rollout_acceptance::Actor,
    address: &str,
) -> rollout_acceptance::Actor {
    let id = WorkerId::generate();
    let config = stage.fixtures().join("worker.toml");
    edit_toml(&config, |table| set(table, &["coordinator"], address));
    let worker = stage.start(
        "worker",
        &["worker", "run", "--config", &text(&config), "--worker-id", &id.to_string()],
    );
    let _ = coordinator.event_where("worker_heartbeat", |event| event.worker_id == Some(id));
    worker.stop();
    let _ = coordinator.event_where("worker_deregistered", |event| event.worker_id == Some(id));
    coordinator
}

#[test]
fn a_worker_of_another_ca_is_refused_and_the_others_are_served() {
    let stage = Stage::new();
    let (mut coordinator, address) = stage.coordinator();
    let stranger = Stage::new().with("worker", |table| {
        set(table, &["coordinator"], &address);
        set(table, &["start_timeout"], "2s");
    });
    let config = text(&stranger.fixtures().join("worker.toml"));
    let refused = stranger.start("stranger", &["worker", "run", "--config", &config]);
    let event = coordinator.event("worker_rejected");
    assert_eq!(rollout_acceptance::attribute(&event, "reason"), "certificate");
    assert!(!refused.exit().success());
    let coordinator = worker_joins(&stage, coordinator, &address);
    coordinator.stop();
}

#[test]
fn a_worker_whose_certificate_is_somebody_elses_exits_77_and_the_others_are_served() {
    let stage = Stage::new();
    let (coordinator, address) = stage.coordinator();
    let coordinator = worker_joins(&stage, coordinator, &address);
    let (own, other) = (WorkerId::generate(), WorkerId::generate());
    let (tls, thief) = (stage.artifact("tls"), stage.root().join("thief"));
    let identity = format!("/worker/{own}");
    let issue = ["cert", "issue", "--dir", &text(&tls), "--identity", &identity, "--out"];
    let issued = stage.start("issue", &[&issue[..], &[&text(&thief)]].concat());
    assert_eq!(issued.exit().code, Some(0), "{}", issued.stderr());
    let config = stage.fixtures().join("worker.toml");
    edit_toml(&config, |table| {
        table.remove("tls_dir");
        for (key, file) in [("ca", "ca.pem"), ("cert", "worker.pem"), ("key", "worker.key")] {
            let file = file.replace("worker", &format!("worker-{own}"));
            set(table, &[key], &text(&thief.join(file)));
        }
    });
    let args = ["worker", "run", "--config", &text(&config), "--worker-id", &other.to_string()];
    let stolen = stage.start("thief", &args);
    let exit = stolen.exit();
    assert_eq!(exit.code, Some(77), "{exit}: {}", stolen.stderr());
    assert!(stolen.stderr().contains(&identity), "{}", stolen.stderr());
    coordinator.stop();
}
