//! Real workers and coordinators that die, hang, leave and come back.

use std::fs;

use rollout_acceptance::fleet::{quick, registered, worker};
use rollout_acceptance::{edit_toml, set, text};
use rollout_core::WorkerId;
use rollout_core::event::Body;
use rollout_process::Signal;

#[test]
fn a_worker_that_is_stopped_leaves_and_comes_back_under_its_id_with_the_next_epoch() {
    let stage = quick();
    let (mut coordinator, address) = stage.coordinator();
    let mut first = worker(&stage, "first", &address, &[]);
    let (id, epoch) = registered(&mut first);
    first.stop();
    let _ = coordinator.event("worker_deregistered");
    let mut second = worker(&stage, "second", &address, &[]);
    assert_eq!(registered(&mut second), (id, epoch + 1), "the database remembers the id");
    second.stop();
    let other = WorkerId::generate().to_string();
    let foreign = worker(&stage, "foreign", &address, &["--worker-id", &other]);
    assert_eq!(foreign.exit().code, Some(78), "{}", foreign.stderr());
    assert!(foreign.stderr().contains(&id.to_string()), "{}", foreign.stderr());
    assert_eq!(coordinator.events("worker_failed"), []);
    assert_eq!(coordinator.events("worker_suspected"), []);
}

#[test]
fn a_worker_that_is_not_heard_when_it_leaves_is_gone_after_its_drain_timeout() {
    let stage = quick();
    let (mut coordinator, address) = stage.coordinator();
    edit_toml(&stage.fixtures().join("worker.toml"), |table| {
        set(table, &["drain_timeout"], "300ms");
    });
    let worker = worker(&stage, "w", &address, &[]);
    let _ = coordinator.event("worker_heartbeat");
    coordinator.child.handle().signal_main(Signal::SIGSTOP);
    worker.child.handle().signal_main(Signal::SIGTERM);
    assert_eq!(worker.exit().code, Some(0), "{}", worker.stderr());
    coordinator.child.handle().signal_main(Signal::SIGCONT);
}

#[test]
fn a_worker_asked_to_leave_while_it_is_cut_off_leaves_once_it_is_back() {
    let stage = quick();
    let (mut coordinator, address) = stage.coordinator();
    let mut worker = worker(&stage, "w", &address, &[]);
    let _ = coordinator.event("worker_heartbeat");
    let handle = coordinator.child.handle();
    handle.signal_main(Signal::SIGSTOP);
    let _ = worker.event("worker_fenced");
    worker.child.handle().signal_main(Signal::SIGTERM);
    handle.signal_main(Signal::SIGCONT);
    let _ = coordinator.event("worker_deregistered");
    assert_eq!(worker.exit().code, Some(0), "{}", worker.stderr());
    for (topic, times) in
        [("worker_registered", 1), ("worker_deregistered", 1), ("worker_failed", 0)]
    {
        assert_eq!(coordinator.events(topic).len(), times, "{topic}");
    }
}

#[test]
fn a_newer_process_with_the_same_id_ends_the_older_one_with_77() {
    let stage = quick();
    let (mut coordinator, address) = stage.coordinator();
    let id = WorkerId::generate();
    let older = {
        let mut older = worker(&stage, "older", &address, &["--worker-id", &id.to_string()]);
        registered(&mut older);
        older
    };
    edit_toml(&stage.fixtures().join("worker.toml"), |table| {
        set(table, &["storage"], "./data/smoke/newer.db");
    });
    let mut newer = worker(&stage, "newer", &address, &["--worker-id", &id.to_string()]);
    assert_eq!(registered(&mut newer), (id, 2));
    assert_eq!(older.exit().code, Some(77), "{}", older.stderr());
    let _ = coordinator.event_where(
        "worker_heartbeat",
        |event| matches!(&event.body, Body::WorkerHeartbeat(body) if body.epoch == 2),
    );
    assert_eq!(newer.child.try_wait(), None, "the newer one goes on");
}

#[test]
fn without_a_coordinator_a_worker_gives_up_after_its_start_timeout_with_69() {
    let stage = quick();
    edit_toml(&stage.fixtures().join("worker.toml"), |table| {
        set(table, &["start_timeout"], "300ms");
    });
    let alone = worker(&stage, "alone", "127.0.0.1:1", &[]);
    assert_eq!(alone.exit().code, Some(69), "{}", alone.stderr());
    let stderr = alone.stderr();
    assert!(stderr.contains("not registered within") && stderr.contains("127.0.0.1:1"), "{stderr}");
}

#[test]
fn a_worker_with_files_of_its_own_needs_no_ca_key_and_takes_its_id_from_its_certificate() {
    let stage = quick();
    let (mut coordinator, address) = stage.coordinator();
    let id = WorkerId::generate();
    let (tls, away) = (text(&stage.artifact("tls")), text(&stage.root().join("away")));
    let identity = format!("/worker/{id}");
    let args = ["cert", "issue", "--dir", &tls, "--identity", &identity, "--out", &away];
    let issued = stage.start("issue", &args);
    assert_eq!(issued.exit().code, Some(0), "{}", issued.stderr());
    fs::remove_file(stage.artifact("tls/ca.key")).expect("the CA's key is there");
    edit_toml(&stage.fixtures().join("worker.toml"), |table| {
        table.remove("tls_dir");
        let file = |name: String| format!("{away}/{name}");
        set(table, &["ca"], &file("ca.pem".to_owned()));
        set(table, &["cert"], &file(format!("worker-{id}.pem")));
        set(table, &["key"], &file(format!("worker-{id}.key")));
    });
    let remote = worker(&stage, "remote", &address, &[]);
    let _ = coordinator.event_where("worker_heartbeat", |event| event.worker_id == Some(id));
    remote.stop();
}

#[test]
fn a_plugin_that_does_not_start_stops_the_worker_before_it_registers_and_says_why() {
    let stage = quick();
    let (mut coordinator, address) = stage.coordinator();
    let manifest = stage.root().join("broken.toml");
    let broken = "[plugin]\nname = \"broken\"\nversion = \"1\"\n[entry.sidecar]\n\
                  command = [\"python3\", \"-c\", \"raise SystemExit('no GPU here')\"]\n";
    fs::write(&manifest, broken).expect("a new file");
    let failing = worker(&stage, "failing", &address, &["--plugin", &text(&manifest)]);
    assert_eq!(failing.exit().code, Some(69), "{}", failing.stderr());
    let stderr = failing.stderr();
    assert!(stderr.contains("broken") && stderr.contains("no GPU here"), "{stderr}");
    let healthy = worker(&stage, "healthy", &address, &[]);
    let _ = coordinator.event("worker_heartbeat");
    assert_eq!(coordinator.events("worker_registered").len(), 1, "only the healthy one did");
    healthy.stop();
}
