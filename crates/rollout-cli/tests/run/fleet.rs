//! `rollout run --coordinator`: a job on a fleet that runs already.
#![expect(clippy::unwrap_used, reason = "a helper of tests: a panic fails the test")]

use rollout_core::Event;
use rollout_core::event::Body;
use rollout_process::Signal;

use crate::stage::{Running, Stage};

/// A stage with a coordinator; its address, and the process.
fn coordinator(stage: &Stage) -> (String, Running) {
    stage.write(
        "coordinator.toml",
        "listen = \"127.0.0.1:0\"\nstorage = \"c.db\"\ntls_dir = \"tls\"\n",
    );
    let coordinator =
        stage.start_into("c.ndjson", &["coordinator", "run", "--config", "coordinator.toml"]);
    let started = |line| match serde_json::from_str::<Event>(line).ok()?.body {
        Body::CoordinatorStarted(started) => Some(started.listen_addr),
        _ => None,
    };
    stage.await_text("c.ndjson", "coordinator_started");
    (stage.read("c.ndjson").lines().find_map(started).unwrap(), coordinator)
}

fn worker(stage: &Stage, address: &str, plugins: &[&str]) -> Running {
    worker_with(stage, address, plugins, "")
}

fn worker_with(stage: &Stage, address: &str, plugins: &[&str], more: &str) -> Running {
    stage.write(
        "worker.toml",
        &format!(
            "coordinator = \"{address}\"\nstorage = \"w.db\"\ntls_dir = \"tls\"\nsidecar_dir = \"s\"\n{more}"
        ),
    );
    let mut args = vec!["worker", "run", "--config", "worker.toml"];
    args.extend(plugins.iter().flat_map(|plugin| ["--plugin", plugin]));
    stage.start_into("w.ndjson", &args)
}

#[test]
fn a_job_on_a_running_fleet_gives_its_results_and_is_removed_there() {
    let stage = Stage::new(30, "seed = 7", "sleep_ms = 30");
    let (address, coordinator) = coordinator(&stage);
    let worker = worker(&stage, &address, &["plugin.toml"]);
    let url = format!("https://{address}");
    let fleet = ["--coordinator", &url, "--tls-dir", "tls"];
    let run = [&["run", "job.toml", "--out", "out"], &fleet[..]].concat();
    let running = stage.start(&run);
    stage.await_lines("out/results.partial.jsonl", 4);
    let (code, status, err) = stage.rollout(&[&["status"], &fleet[..]].concat());
    assert!(code == Some(0) && status.contains("tried"), "{status}{err}");
    // Stopped, it goes on with what it has; nothing is lost by it.
    running.signal(Signal::SIGINT);
    let (exit, said) = running.end();
    assert_eq!(exit.code, Some(75), "{said}");
    assert!(said.contains("[workers] has no effect on a running fleet"), "{said}");
    let said = stage.exits(64, &["resume", "out", "--workers", "3"]);
    assert!(said.contains("--workers has no effect on a running fleet"), "{said}");
    stage.exits(0, &["resume", "out"]);
    assert_eq!(stage.read("out/results.jsonl").lines().count(), 30);
    assert_eq!(stage.json("out/run.json")["coordinator"], address);
    let (_, status, _) = stage.rollout(&[&["status", "--json"], &fleet[..]].concat());
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (&status["jobs"], status["workers"].as_array().map(Vec::len)),
        (&serde_json::json!([]), Some(1))
    );
    drop((worker, coordinator));
}

#[test]
fn a_drained_worker_gives_back_what_it_cannot_finish_in_its_drain_timeout_and_deregisters() {
    let stage = Stage::new(1, "", "sleep_ms = 120000");
    let (address, coordinator) = coordinator(&stage);
    let worker = worker_with(&stage, &address, &["plugin.toml"], "drain_timeout = \"2s\"\n");
    let fleet = ["--coordinator", &address, "--tls-dir", "tls"];
    let running = stage.start(&[&["run", "job.toml", "--out", "out"], &fleet[..]].concat());
    stage.await_text("c.ndjson", "items_leased");
    worker.signal(Signal::SIGTERM);
    let (exit, said) = worker.end();
    assert_eq!(exit.code, Some(0), "{said}");
    stage.await_text("c.ndjson", "worker_deregistered");
    let mut events = Vec::new();
    for line in stage.read("c.ndjson").lines() {
        events.push(serde_json::from_str::<Event>(line).unwrap());
    }
    let at = |topic| events.iter().find(|event| event.body.topic() == topic).unwrap().mono;
    // With half of the two seconds and more for the item, which a slow machine does not change, and
    // far from the two minutes that it would take.
    let took = at("items_redispatched").since(at("worker_draining"));
    assert!(took.as_millis() > 900 && took.as_secs() < 60, "{took:?}");
    assert!(events.iter().all(|event| event.body.topic() != "worker_failed"), "{events:?}");
    let (_, status, _) = stage.rollout(&[&["status", "--json"], &fleet[..]].concat());
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let standing = &status["jobs"][0]["standing"];
    let counts = ["pending", "failures", "losses", "redispatched"].map(|key| &standing[key]);
    assert_eq!(counts, [1, 0, 0, 0], "what is given back is no retry");
    drop((running, coordinator));
}

#[test]
fn a_run_stopped_before_it_has_its_job_again_pauses_it_on_the_fleet() {
    let stage = Stage::new(4, "", "sleep_ms = 60000");
    let (address, coordinator) = coordinator(&stage);
    let _worker = worker(&stage, &address, &["plugin.toml"]);
    let fleet = ["--coordinator", &address, "--tls-dir", "tls"];
    let first = stage.start(&[&["run", "job.toml", "--out", "out"], &fleet[..]].concat());
    stage.await_text("c.ndjson", "items_leased");
    first.signal(Signal::SIGKILL);
    first.end();
    // Nothing is heard of the job before the signal comes.
    coordinator.signal(Signal::SIGSTOP);
    let resumed = stage.start_into("resumed.ndjson", &["resume", "out", "--json"]);
    stage.await_text("resumed.ndjson", "progress");
    resumed.signal(Signal::SIGINT);
    stage.await_text("out/run.json", "stopped by SIGINT");
    coordinator.signal(Signal::SIGCONT);
    assert_eq!(resumed.end().0.code, Some(75));
    let (_, status, _) = stage.rollout(&[&["status", "--json"], &fleet[..]].concat());
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(status["jobs"][0].to_string().contains("\"paused\":true"), "{status}");
}

#[test]
fn a_job_that_no_worker_can_run_exits_69_and_says_which_plugins_there_are() {
    let stage = Stage::new(30, "start_timeout = \"1s\"", "");
    let (address, _coordinator) = coordinator(&stage);
    let _worker = worker(&stage, &address, &["plugin.toml"]);
    stage.await_text("c.ndjson", "worker_ready");
    let fleet = ["--coordinator", &address, "--tls-dir", "tls"];
    let run = [&["run", "job.toml", "--plugin", "other", "--out", "out"], &fleet[..]].concat();
    let said = stage.exits(69, &run);
    assert!(said.contains("none of 1 workers has plugin `other`, they have: tried"), "{said}");
    assert_eq!(stage.json("out/run.json")["exit"], 69);
}

#[test]
fn a_coordinator_that_is_not_there_or_a_certificate_that_is_missing_is_said() {
    let stage = Stage::new(3, "", "");
    let run = ["run", "job.toml", "--coordinator", "127.0.0.1:1"];
    assert!(stage.exits(64, &run).contains("--tls-dir"));
    let said = stage.exits(64, &["run", "job.toml", "--coordinator", "nowhere", "--tls-dir", "t"]);
    assert!(said.contains("host:port"), "{said}");
    stage.exits(
        64,
        &["run", "job.toml", "--workers", "2", "--coordinator", "h:1", "--tls-dir", "t"],
    );
    let said = stage.exits(69, &["status", "--coordinator", "127.0.0.1:1", "--tls-dir", "t"]);
    assert!(said.contains("no coordinator can be reached at 127.0.0.1:1"), "{said}");
}
