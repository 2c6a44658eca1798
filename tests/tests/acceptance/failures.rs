//! Workers that die, freeze and thaw, and coordinators that are stopped: who is suspected, who
//! fails, and who does not.

use std::fs;
use std::thread;
use std::time::Duration;

use rollout_acceptance::fleet::{another, beats, quick, registered, unreachable_body, worker};
use rollout_acceptance::{Actor, Stage, attribute, built, edit_toml, set};
use rollout_core::event::Body;
use rollout_core::{Event, Mono, RunId, WorkerId, chain};
use rollout_harness::Interrupt;
use rollout_harness::detection::{self, Options};
use rollout_process::{Signal, Spawn};

/// The instant of the last beat that the coordinator accepted under the epoch.
fn last_beat(coordinator: &mut Actor, id: WorkerId, of: u64) -> Mono {
    let beats = coordinator.events("worker_heartbeat").into_iter();
    let own = beats.filter(|event| {
        let Body::WorkerHeartbeat(body) = &event.body else { unreachable_body(event) };
        event.worker_id == Some(id) && body.epoch == of
    });
    own.map(|event| event.mono).max().unwrap_or_default()
}

fn of_epoch(event: &Event, epoch: u64) -> bool {
    matches!(&event.body, Body::WorkerFailed(body) if body.epoch == epoch)
        || matches!(&event.body, Body::WorkerRegistered(body) if body.epoch == epoch)
}

#[test]
fn workers_killed_at_random_moments_are_each_suspected_and_failed_once_and_on_time() {
    let stage = quick();
    let options = Options {
        root: stage.root().join("detection"),
        fixtures: stage.fixtures(),
        binaries: built().clone(),
        workers: 6,
        kills: 12,
        seed: 3,
    };
    let report = detection::run(&options, &Interrupt::default(), |_| ());
    let report = report.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(report.wrong, [""; 0]);
    assert_eq!((report.suspected_ms.len(), report.overshoot_ms.len()), (12, 12));
    // The bounds are 100 and 50 ms; these are for a machine that is busy.
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    assert!(most(&report.suspected_ms) < 1_000.0, "{:?}", report.suspected_ms);
    assert!(most(&report.overshoot_ms) < 500.0, "{:?}", report.overshoot_ms);
}

#[test]
fn a_frozen_worker_fails_is_told_fenced_acts_no_more_and_its_second_death_is_reported_alike() {
    let stage = quick();
    let (mut coordinator, address) = stage.coordinator();
    let mut worker = worker(&stage, "w", &address, &[]);
    let (id, first) = registered(&mut worker);
    for epoch in first..first + 2 {
        let _ = worker.event_where("worker_registered", |event| of_epoch(event, epoch));
        let _ = coordinator.event_where(
            "worker_heartbeat",
            |event| matches!(&event.body, Body::WorkerHeartbeat(body) if body.epoch == epoch),
        );
        worker.child.handle().signal_main(Signal::SIGSTOP);
        let failed = coordinator.event_where("worker_failed", |event| of_epoch(event, epoch));
        assert_eq!(failed.worker_id, Some(id));
        let Body::WorkerFailed(body) = &failed.body else { unreachable_body(&failed) };
        let silent = failed.mono.since(last_beat(&mut coordinator, id, epoch));
        let deadline = Duration::from_secs_f64(1.8 + body.credited_ms / 1e3);
        assert!(silent > deadline && silent < deadline + Duration::from_millis(500), "{silent:?}");
        worker.child.handle().signal_main(Signal::SIGCONT);
        let next = |event: &Event| of_epoch(event, epoch + 1);
        let anew = worker.event_where("worker_registered", next);
        let told = |event: &&Event| {
            let Body::WorkerFenced(body) = &event.body else { unreachable_body(event) };
            body.reason == "failed" && event.mono < anew.mono
        };
        let fenced = worker.events("worker_fenced");
        let times = usize::try_from(epoch - first + 1).unwrap_or_default();
        assert_eq!(fenced.iter().filter(told).count(), times, "it was told first: {fenced:?}");
        let acted = last_beat(&mut coordinator, id, epoch);
        assert!(acted < failed.mono, "no beat counts after the verdict");
    }
    let suspected = coordinator.events("worker_suspected");
    assert_eq!(suspected.len(), 2);
    for event in &suspected {
        assert_eq!(attribute(event, "reason"), "missed_beats", "its connection is still there");
    }
    worker.stop();
    assert_eq!(coordinator.events("worker_failed").len(), 2);
}

#[test]
fn a_worker_that_misses_beats_is_suspected_and_recovers_with_its_epoch() {
    let stage = quick();
    let (mut coordinator, address) = stage.coordinator();
    let mut worker = worker(&stage, "w", &address, &[]);
    let (id, epoch) = registered(&mut worker);
    let _ = coordinator.event("worker_heartbeat");
    worker.child.handle().signal_main(Signal::SIGSTOP);
    let suspected = coordinator.event("worker_suspected");
    let silent = suspected.mono.since(last_beat(&mut coordinator, id, epoch));
    assert!(silent >= Duration::from_millis(300), "three beats are missed: {silent:?}");
    worker.child.handle().signal_main(Signal::SIGCONT);
    let recovered = coordinator.event("worker_recovered");
    let Body::WorkerRecovered(body) = &recovered.body else { unreachable_body(&recovered) };
    assert_eq!(body.epoch, epoch);
    assert!(body.gap_ms >= 300.0, "{body:?}");
    worker.stop();
    assert_eq!(coordinator.events("worker_failed"), []);
}

#[test]
fn a_worker_that_wants_more_time_or_another_run_is_refused_with_an_event_and_78() {
    let more_time = [
        (&["timing", "heartbeat_interval"][..], "1h"),
        (&["timing", "worker_self_fence_timeout"], "2h"),
        (&["timing", "coordinator_failure_timeout"], "3h"),
    ];
    let run = RunId::generate().to_string();
    let cases = [
        ("timing", "the worker's heartbeat_interval (3600s) exceeds", &more_time[..]),
        ("run", "this coordinator leads run", &[(&["run_id"], &run)]),
    ];
    let stage = Stage::new();
    let (mut coordinator, address) = stage.coordinator();
    let file = stage.fixtures().join("worker.toml");
    let untouched = fs::read(&file).expect("the fixture is there");
    for (reason, words, changes) in cases {
        fs::write(&file, &untouched).expect("it can be written");
        edit_toml(&file, |table| changes.iter().for_each(|(keys, value)| set(table, keys, value)));
        let refused = worker(&stage, reason, &address, &[]);
        assert_eq!(refused.exit().code, Some(78), "{}", refused.stderr());
        let why = |event: &Event| attribute(event, "reason") == reason;
        let event = coordinator.event_where("worker_rejected", why);
        let detail = attribute(&event, "detail");
        assert!(detail.contains(words), "{detail}");
        assert!(refused.stderr().contains(&detail), "{detail}: {}", refused.stderr());
    }
    assert_eq!(coordinator.events("worker_registered"), []);
}

#[test]
fn a_coordinator_that_was_stopped_says_how_long_and_fails_nobody() {
    let stage = quick();
    let (mut coordinator, address) = stage.coordinator();
    let worker = worker(&stage, "w", &address, &[]);
    let _ = coordinator.event("worker_heartbeat");
    // Longer than the deadline: this is the time that has to be credited.
    stop(&coordinator, Duration::from_millis(2_500));
    let stalled = coordinator.event("coordinator_stalled");
    let Body::CoordinatorStalled(body) = &stalled.body else { unreachable_body(&stalled) };
    assert!(body.ms >= 2_400.0, "{body:?}");
    let _ = coordinator.event_where("worker_heartbeat", |event| event.mono > stalled.mono);
    worker.stop();
    let _ = coordinator.event("worker_deregistered");
    assert_eq!(coordinator.events("worker_failed"), []);
}

/// Stops the coordinator for so long.
fn stop(coordinator: &Actor, span: Duration) {
    coordinator.child.handle().signal_main(Signal::SIGSTOP);
    thread::sleep(span);
    coordinator.child.handle().signal_main(Signal::SIGCONT);
}

#[test]
fn a_starved_coordinator_fails_the_dead_and_nobody_else() {
    let stage = quick();
    let (mut coordinator, address) = stage.coordinator();
    let mut alive = worker(&stage, "alive", &address, &[]);
    let mut dead = another(&stage, "dead", &address);
    let [alive, dying] = [&mut alive, &mut dead].map(|worker| registered(worker).0);
    let _ = [alive, dying].map(|id| beats(&mut coordinator, id, Mono(0)));
    dead.child.handle().signal_main(Signal::SIGKILL);
    // It runs for a tenth of the time.
    for _ in 0..12 {
        stop(&coordinator, Duration::from_millis(450));
        thread::sleep(Duration::from_millis(50));
    }
    let failed = coordinator.event("worker_failed");
    assert_eq!(failed.worker_id, Some(dying));
    let Body::WorkerFailed(body) = &failed.body else { unreachable_body(&failed) };
    assert!(body.credited_ms > 0.0, "{body:?}");
    let silent = failed.mono.since(last_beat(&mut coordinator, dying, 1));
    let deadline = Duration::from_secs_f64(1.8 + body.credited_ms / 1e3);
    assert!(silent > deadline, "failed after {silent:?}, before {deadline:?}");
    let _ = beats(&mut coordinator, alive, failed.mono + Duration::from_millis(1_500));
    assert_eq!(coordinator.events("worker_failed").len(), 1);
    assert_ne!(coordinator.events("coordinator_stalled"), []);
}

/// With the default timing, and by hand: `cargo test --test acceptance -- --ignored ten_stops`.
#[test]
#[ignore = "takes three minutes"]
fn ten_stops_of_1_to_60_s_fail_nobody_and_each_is_said() {
    let stage = Stage::new();
    let (mut coordinator, address) = stage.coordinator();
    let mut workers: Vec<_> = (0..5).map(|n| another(&stage, &format!("w{n}"), &address)).collect();
    let ids: Vec<_> = workers.iter_mut().map(|worker| registered(worker).0).collect();
    for (number, seconds) in [1, 2, 60, 3, 5, 8, 1, 30, 13, 40].into_iter().enumerate() {
        ids.iter().for_each(|id| drop(beats(&mut coordinator, *id, Mono(0))));
        stop(&coordinator, Duration::from_secs(seconds));
        let until = |event: &Event| {
            let Body::CoordinatorStalled(body) = &event.body else { unreachable_body(event) };
            body.ms >= seconds as f64 * 1e3 - 100.0
        };
        let stalled = coordinator.event_where("coordinator_stalled", until);
        println!("stop {number} of {seconds} s: {:?}", stalled.body);
        for id in &ids {
            let _ = beats(&mut coordinator, *id, stalled.mono + Duration::from_secs(2));
        }
        assert_eq!(coordinator.events("worker_failed"), []);
    }
    for worker in &mut workers {
        assert_eq!(worker.events("worker_registered").len(), 1, "they resumed");
    }
}

/// By hand: `ROLLOUT_LOAD_SECONDS=600 cargo test --test acceptance -- --ignored eight_times`.
#[test]
#[ignore = "takes ten minutes"]
fn eight_times_as_much_work_as_the_machine_has_cores_fails_nobody() {
    let seconds = std::env::var("ROLLOUT_LOAD_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(600);
    let stage = Stage::new();
    let (mut coordinator, address) = stage.coordinator();
    let mut workers: Vec<_> = (0..3).map(|n| another(&stage, &format!("w{n}"), &address)).collect();
    let ids: Vec<_> = workers.iter_mut().map(|worker| registered(worker).0).collect();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let busy = || Spawn::new("sh").args(["-c", "while :; do :; done"]).spawn();
    let load: Vec<_> =
        (0..8 * cores).map(|_| busy().unwrap_or_else(|error| panic!("{error}"))).collect();
    let start = last_beat(&mut coordinator, ids[0], 1);
    thread::sleep(Duration::from_secs(seconds));
    let end = start + Duration::from_secs(seconds);
    ids.iter().for_each(|id| drop(beats(&mut coordinator, *id, end)));
    drop(load);
    assert_eq!(coordinator.events("worker_failed"), []);
    let counted = ["worker_heartbeat", "worker_suspected", "coordinator_stalled"]
        .map(|topic| (topic, coordinator.events(topic).len()));
    println!("{seconds} s beside {} busy loops: {counted:?}", 8 * cores);
}
