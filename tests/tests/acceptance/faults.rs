//! Faults that cannot be injected from outside, on real processes: a failing disk, clocks that are an
//! hour off, and protections switched off, to show that they are needed. The program that can have
//! them is built beside the one that ships, which cannot.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rollout_acceptance::{Actor, Stage, built, edit_toml, faulty, set, text};
use rollout_core::event::Body;
use rollout_core::{Clock, Event, Incarnation, Mono, SystemClock, TimeBudget, WorkerId};
use rollout_harness::binaries::FAULTS;
use rollout_process::{Signal, Spawn};
use rollout_transport::{Down, Identity, Link, Tls, Up, certs, connect, wire::Timing};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
/// From the last accepted beat to the verdict, with the timing of [`quick`].
const DEADLINE: Duration = Duration::from_millis(1_800);
/// Longer than any deadline.
const STALL: Duration = Duration::from_millis(2_500);

/// 100 ms beats, a fence of 1 s, and a deadline of 1.8 s.
fn quick() -> Stage {
    Stage::new().with_timing(100, 1_000, 1_600, 100)
}

fn coordinator(stage: &Stage, name: &str, faults: &str) -> (Actor, String) {
    stage.coordinator_on("127.0.0.1:0", |args| stage.start_faulty(name, faults, args))
}

fn worker(stage: &Stage, name: &str, address: &str, faults: &str) -> Actor {
    let config = stage.fixtures().join(format!("{name}.toml"));
    fs::copy(stage.fixtures().join("worker.toml"), &config).unwrap();
    edit_toml(&config, |table| {
        set(table, &["coordinator"], address);
        set(table, &["storage"], &format!("./data/smoke/{name}.db"));
    });
    stage.start_faulty(name, faults, &["worker", "run", "--config", &text(&config)])
}

/// The control file of a disk, and the fault that names it.
struct Disk(PathBuf);

impl Disk {
    fn new(stage: &Stage, name: &str) -> Self {
        Self(stage.root().join(name))
    }

    fn fault(&self) -> String {
        format!("disk = \"{}\"\n", self.0.display())
    }

    fn is(&self, word: &str) -> Mono {
        fs::write(&self.0, word).unwrap();
        SystemClock.now()
    }
}

/// Waits for a heartbeat of the worker after `since`.
fn beats_after(coordinator: &mut Actor, worker: WorkerId, since: Mono) -> Event {
    let mine = |event: &Event| event.worker_id == Some(worker) && event.mono > since;
    coordinator.event_where("worker_heartbeat", mine)
}

fn id(actor: &mut Actor) -> WorkerId {
    actor.event("worker_registered").worker_id.unwrap()
}

/// Runs each on a thread of its own.
fn side_by_side<T: Send>(cases: impl IntoIterator<Item = T>, try_one: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| try_one(case));
        }
    });
}

/// Whether a program holds a word. Tens of megabytes are too much for code without optimisation.
fn contains(program: &Path, word: &str) -> bool {
    let output = Spawn::new("grep").args(["-q", "-F", word]).arg(program).output(Some(PATIENCE));
    match output.unwrap().exit.code {
        Some(0) => true,
        Some(1) => false,
        other => panic!("grep {word}: {other:?}"),
    }
}

#[test]
fn the_program_that_ships_has_no_faults_and_does_not_look_for_any() {
    let (ships, has_faults) = (&*built().rollout, faulty());
    for word in [FAULTS, "clock_offset", "stall_credit"] {
        assert!(!contains(ships, word), "{word} is in the program that ships");
        assert!(contains(has_faults, word), "{word} is not where it has to be");
    }
    let stage = Stage::new();
    let file = stage.root().join("faults.toml");
    fs::write(&file, "colour = 1\n").unwrap();
    let config = text(&stage.fixtures().join("coordinator.toml"));
    let args = ["config", "check", &config];
    let run = |name: &str, program: &Path| {
        let spawn = Spawn::new(program).env(FAULTS, &file).args(args);
        stage.run(name, spawn)
    };
    let (deaf, hearing) = (run("deaf", &built().rollout), run("hearing", faulty()));
    assert_eq!(deaf.exit().code, Some(0), "{}", deaf.stderr());
    assert_eq!(hearing.exit().code, Some(78), "{}", hearing.stderr());
    let stderr = hearing.stderr();
    assert!(
        stderr.contains("faults.toml") && stderr.contains("unknown field `colour`"),
        "{stderr}"
    );
}

/// A worker played by hand, to see what it is told.
struct ByHand {
    link: Link,
    sent: u64,
}

impl ByHand {
    async fn join(stage: &Stage, address: &str) -> Self {
        let worker_id = WorkerId::generate();
        let identity = Identity::Worker(worker_id);
        let files = certs::dev_identity(&stage.artifact("tls"), &identity, &[], &mut |_| ());
        let tls = Tls::load(&files.unwrap()).unwrap();
        let link = connect(address, &tls, PATIENCE).await.unwrap();
        let mut hand = Self { link, sent: 0 };
        let budget = TimeBudget {
            heartbeat_interval: Duration::from_millis(100),
            worker_self_fence_timeout: Duration::from_secs(1),
            ..TimeBudget::default()
        };
        let registration = Up::Register {
            worker_id,
            incarnation: Incarnation::generate(),
            epoch: None,
            run_id: None,
            version: "0".to_owned(),
            plugins: Vec::new(),
            timing: Timing::from(&budget),
            unix_ms: None,
        };
        hand.link.up.send(registration).await.unwrap();
        let answer = hand.hear().await;
        assert!(matches!(answer, Down::Registered { .. }), "{answer:?}");
        hand
    }

    async fn hear(&mut self) -> Down {
        timeout(PATIENCE, self.link.down.next()).await.unwrap().unwrap().unwrap()
    }

    /// Beats once; the newest beat that is on disk.
    async fn beat(&mut self) -> u64 {
        self.sent += 1;
        self.link.up.send(Up::beat(self.sent)).await.unwrap();
        let answer = self.hear().await;
        let Down::Ack { beat, durable } = answer else { panic!("{answer:?}") };
        assert_eq!(beat, self.sent);
        tokio::time::sleep(Duration::from_millis(20)).await;
        durable
    }
}

#[tokio::test]
async fn while_the_disk_stalls_beats_are_acknowledged_as_not_durable_and_nobody_is_failed_or_fenced()
 {
    let stage = quick();
    let disk = Disk::new(&stage, "disk");
    let (mut coordinator, address) = coordinator(&stage, "coord", &disk.fault());
    let mut worker = worker(&stage, "w", &address, "");
    let id = id(&mut worker);
    let mut hand = ByHand::join(&stage, &address).await;
    while hand.beat().await == 0 {}
    let stalled = disk.is("stall");
    // What was on its way when the disk stalled may still be said to be on it.
    let (_, on_disk) = (hand.beat().await, hand.beat().await);
    while SystemClock.now() < stalled + STALL {
        assert_eq!(hand.beat().await, on_disk, "nothing becomes durable on a stalled disk");
    }
    let last = beats_after(&mut coordinator, id, stalled + STALL);
    disk.is("");
    while hand.beat().await == on_disk {}
    beats_after(&mut coordinator, id, last.mono);
    for topic in ["worker_failed", "worker_suspected"] {
        assert_eq!(coordinator.events(topic), [], "{topic}");
    }
    assert_eq!(worker.events("worker_fenced"), []);
    worker.stop();
    coordinator.stop();
}

#[test]
fn a_verdict_waits_for_no_disk_and_what_a_crash_kept_off_it_is_said_once_more() {
    let stage = quick();
    let disk = Disk::new(&stage, "disk");
    let (mut first, address) = coordinator(&stage, "coord", &disk.fault());
    let [mut dying, mut living] =
        ["dying", "living"].map(|name| worker(&stage, name, &address, ""));
    let (dies, lives) = (id(&mut dying), id(&mut living));
    for id in [dies, lives] {
        beats_after(&mut first, id, Mono(0));
    }
    let stalled = disk.is("stall");
    dying.child.handle().signal_main(Signal::SIGKILL);
    let verdict = first.event("worker_failed");
    let took = verdict.mono.since(stalled);
    assert!(took < DEADLINE + PATIENCE / 4, "{took:?}");
    first.child.handle().signal_main(Signal::SIGKILL);
    assert_eq!(first.exit().signal, Some(9));
    disk.is("");
    let (mut again, _) = stage.coordinator_on(&address, |args| stage.start("again", args));
    let started = again.event("coordinator_started");
    let Body::CoordinatorStarted(body) = &started.body else { panic!("{started:?}") };
    assert_eq!(body.known_workers, 2, "the verdict is not on disk");
    let repeated = again.event("worker_failed");
    let epoch = |event: &Event| match &event.body {
        Body::WorkerFailed(body) => (event.worker_id, body.epoch),
        other => panic!("{other:?}"),
    };
    assert_eq!((epoch(&verdict), epoch(&repeated)), ((Some(dies), 1), (Some(dies), 1)));
    beats_after(&mut again, lives, repeated.mono + DEADLINE);
    assert_eq!(again.events("worker_failed").len(), 1, "once, and the other one is untouched");
    living.stop();
    again.stop();
}

#[test]
fn a_full_or_broken_disk_ends_the_coordinator_with_74_and_loses_nothing_acknowledged() {
    let cases = [("full", "No space left on device"), ("error", "Input/output error")];
    side_by_side(cases, |(word, words)| {
        let stage = quick();
        let disk = Disk::new(&stage, "disk");
        let (mut first, address) = coordinator(&stage, "coord", &disk.fault());
        let mut worker = worker(&stage, "w", &address, "");
        let id = id(&mut worker);
        beats_after(&mut first, id, Mono(0));
        disk.is(word);
        assert_eq!(first.exit().code, Some(74), "{}", first.stderr());
        let stderr = first.stderr();
        assert!(stderr.contains("coord.db") && stderr.contains(words), "{stderr}");
        assert_eq!(first.events("worker_failed"), []);
        // It does not start on such a disk either.
        let file = text(&stage.fixtures().join("coordinator.toml"));
        let args = ["coordinator", "run", "--config", &file];
        let refused = stage.start_faulty("refused", &disk.fault(), &args);
        assert_eq!(refused.exit().code, Some(74), "{}", refused.stderr());
        disk.is("");
        let (mut again, _) = stage.coordinator_on(&address, |args| stage.start("again", args));
        let resumed = again.event("worker_resumed");
        let Body::WorkerResumed(body) = &resumed.body else { panic!("{resumed:?}") };
        assert_eq!((resumed.worker_id, body.epoch), (Some(id), 1), "its registration is there");
        beats_after(&mut again, id, resumed.mono);
        assert_eq!(again.events("worker_failed"), []);
        worker.stop();
        again.stop();
    });
}

#[test]
fn a_worker_beats_on_while_its_own_disk_stalls_and_ends_with_74_when_that_fails() {
    let stage = quick();
    let disk = Disk::new(&stage, "disk");
    let (mut coordinator, address) = stage.coordinator();
    let mut healthy = worker(&stage, "healthy", &address, "");
    let mut failing = worker(&stage, "failing", &address, &disk.fault());
    let (other, id) = (id(&mut healthy), id(&mut failing));
    beats_after(&mut coordinator, id, Mono(0));
    // A worker writes when it registers: it is frozen until it has to do so again.
    failing.child.handle().signal_main(Signal::SIGSTOP);
    let verdict = coordinator.event("worker_failed");
    assert_eq!(verdict.worker_id, Some(id));
    disk.is("stall");
    failing.child.handle().signal_main(Signal::SIGCONT);
    let anew = failing.event_where(
        "worker_registered",
        |event| matches!(&event.body, Body::WorkerRegistered(body) if body.epoch == 2),
    );
    beats_after(&mut coordinator, id, anew.mono + DEADLINE);
    let fenced = failing.events("worker_fenced");
    assert!(fenced.iter().all(|event| event.mono < anew.mono), "{fenced:?}");
    disk.is("error");
    assert_eq!(failing.exit().code, Some(74), "{}", failing.stderr());
    let stderr = failing.stderr();
    assert!(stderr.contains("failing.db") && stderr.contains("Input/output error"), "{stderr}");
    beats_after(&mut coordinator, other, SystemClock.now());
    let failed = coordinator.events("worker_failed");
    assert!(failed.iter().all(|event| event.worker_id == Some(id)), "{failed:?}");
    disk.is("full");
    let refused = worker(&stage, "failing", &address, &disk.fault());
    assert_eq!(refused.exit().code, Some(74), "{}", refused.stderr());
    healthy.stop();
    coordinator.stop();
}

/// Who has which clock, and by how much the worker's is then ahead.
const CLOCKS: [(&str, &str, i64); 5] = [
    ("clock_offset = \"+1h\"", "", -3_600_000),
    ("clock_offset = \"-1h\"", "", 3_600_000),
    ("", "clock_offset = \"+1h\"", 3_600_000),
    ("", "clock_offset = \"-1h\"", -3_600_000),
    ("", "", 0),
];

#[test]
fn a_clock_that_is_an_hour_off_is_reported_once_and_changes_no_verdict() {
    side_by_side(CLOCKS, |(the_coordinators, the_workers, skew)| {
        let stage = quick();
        let (mut coordinator, address) = coordinator(&stage, "coord", the_coordinators);
        let mut dying = worker(&stage, "dying", &address, the_workers);
        let mut living = worker(&stage, "living", &address, the_workers);
        let (dies, lives) = (id(&mut dying), id(&mut living));
        let started = beats_after(&mut coordinator, dies, Mono(0));
        beats_after(&mut coordinator, dies, started.mono + DEADLINE);
        dying.child.handle().signal_main(Signal::SIGKILL);
        let verdict = coordinator.event("worker_failed");
        let beats = coordinator.events("worker_heartbeat");
        let last = beats.iter().rfind(|event| event.worker_id == Some(dies)).unwrap();
        let took = verdict.mono.since(last.mono);
        assert!(DEADLINE <= took && took < DEADLINE + PATIENCE / 4, "{took:?}");
        beats_after(&mut coordinator, lives, verdict.mono);
        assert_eq!(coordinator.events("worker_failed").len(), 1, "the other one is untouched");
        for actor in [&mut dying, &mut living] {
            assert_eq!(actor.events("worker_fenced"), []);
        }
        assert_skew(&mut coordinator, lives, skew);
        assert_eq!(offset_of(&mut coordinator), the_coordinators.get(16..18).unwrap_or(""));
        assert_eq!(offset_of(&mut living), the_workers.get(16..18).unwrap_or(""));
        living.stop();
        coordinator.stop();
    });
}

/// Once, if there is one, and about right.
fn assert_skew(coordinator: &mut Actor, worker: WorkerId, expected: i64) {
    let reports = coordinator.events("clock_skew_exceeded");
    let mine: Vec<_> = reports.iter().filter(|event| event.worker_id == Some(worker)).collect();
    assert_eq!(mine.len(), usize::from(expected != 0), "{reports:?}");
    for event in mine {
        let Body::ClockSkewExceeded(body) = &event.body else { panic!("{event:?}") };
        assert!((body.skew_ms - expected).abs() < 60_000, "{body:?}");
    }
}

/// How the times of its events differ from this process's clock: `+1`, `-1` or nothing.
fn offset_of(actor: &mut Actor) -> &'static str {
    let (mono, wall) = (SystemClock.now(), SystemClock.wall());
    let event = actor.events("worker_registered").remove(0);
    let expected = wall - mono.since(event.mono);
    let hour = Duration::from_secs(3_600)..Duration::from_secs(3_660);
    let near = |off: Duration| hour.start - Duration::from_secs(60) < off && off < hour.end;
    match event.at.duration_since(expected) {
        Ok(ahead) if near(ahead) => "+1",
        Err(behind) if near(behind.duration()) => "-1",
        _ => "",
    }
}

#[test]
fn a_protection_that_is_switched_off_is_missed() {
    side_by_side([without_fence, without_epoch_check, without_stall_credit], |case| case());
}

fn without_fence() {
    let stage = quick();
    let (first, address) = stage.coordinator();
    let mut worker = worker(&stage, "w", &address, "fence = \"off\"");
    let id = id(&mut worker);
    first.child.handle().signal_main(Signal::SIGKILL);
    assert_eq!(first.exit().signal, Some(9));
    // Half as long again as the fence takes to fall.
    thread::sleep(Duration::from_millis(1_500));
    let (mut again, _) = stage.coordinator_on(&address, |args| stage.start("again", args));
    beats_after(&mut again, id, Mono(0));
    assert_eq!(worker.events("worker_fenced"), []);
    worker.stop();
    again.stop();
}

fn without_epoch_check() {
    let stage = quick();
    let (mut coordinator, address) = coordinator(&stage, "coord", "epoch_check = \"off\"");
    let mut worker = worker(&stage, "w", &address, "");
    let id = id(&mut worker);
    worker.child.handle().signal_main(Signal::SIGSTOP);
    let failed = coordinator.event("worker_failed");
    worker.child.handle().signal_main(Signal::SIGCONT);
    let beat = beats_after(&mut coordinator, id, failed.mono);
    let Body::WorkerHeartbeat(body) = &beat.body else { panic!("{beat:?}") };
    assert_eq!(body.epoch, 1, "the epoch that has failed beats on");
    worker.stop();
    coordinator.stop();
}

fn without_stall_credit() {
    for (faults, fails) in [("", false), ("stall_credit = \"off\"", true)] {
        let stage = quick();
        let (mut coordinator, address) = coordinator(&stage, "coord", faults);
        let mut worker = worker(&stage, "w", &address, "");
        let id = id(&mut worker);
        beats_after(&mut coordinator, id, Mono(0));
        let (its, the_workers) = (coordinator.child.handle(), worker.child.handle());
        // Both stand still, as on a machine that is suspended, so that no beat waits in the socket.
        the_workers.signal_main(Signal::SIGSTOP);
        thread::sleep(Duration::from_millis(200));
        its.signal_main(Signal::SIGSTOP);
        thread::sleep(STALL);
        its.signal_main(Signal::SIGCONT);
        let stalled = coordinator.event("coordinator_stalled");
        if fails {
            let failed = coordinator.event("worker_failed");
            assert!(failed.mono.since(stalled.mono) < DEADLINE / 2, "{failed:?}");
        }
        the_workers.signal_main(Signal::SIGCONT);
        beats_after(&mut coordinator, id, stalled.mono);
        assert_eq!(coordinator.events("worker_failed").len(), usize::from(fails));
        worker.stop();
        coordinator.stop();
    }
}
