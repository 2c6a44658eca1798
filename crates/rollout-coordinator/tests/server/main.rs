//! A real coordinator spoken to by hand, over real TLS: what it accepts, refuses, remembers and
//! says.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod abuse;
mod door;
mod events;
mod registry;
mod work;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollout_coordinator::{Coordinator, CoordinatorError, Port, Tail};
use rollout_core::event::{Body, Emit};
use rollout_core::{
    CoordinatorConfig, Incarnation, Level, Mono, RunId, SystemClock, TimeBudget, WorkerId,
};
use rollout_storage::Store;
use rollout_transport::{
    Down, FenceReason, Identity, Link, RejectReason, Tls, Up, certs, connect, wire::Timing,
};
use serde_json::{Map, Value};
use tempfile::{TempDir, tempdir};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(5);

/// The events of a coordinator, and the lines that are kept of them.
#[derive(Default)]
struct Recorder(Mutex<Vec<(Mono, Option<WorkerId>, Body)>>, Tail);

impl Emit for Recorder {
    fn emit(&self, at: Mono, worker: Option<WorkerId>, body: Body) {
        self.1.push(&body, format!("{{\"topic\":\"{}\"}}\n", body.topic()).as_bytes());
        self.1.publish();
        self.0.lock().unwrap().push((at, worker, body));
    }

    fn log(&self, _: Mono, _: Option<WorkerId>, _: Level, _: String, _: Map<String, Value>) {}

    fn lead(&self, _: RunId) {}
}

impl Recorder {
    fn of(&self, worker: WorkerId) -> Vec<Body> {
        let events = self.0.lock().unwrap();
        let mine = events.iter().filter(|(_, id, _)| *id == Some(worker));
        mine.map(|(.., body)| body.clone()).collect()
    }

    /// What was said of the worker, heartbeats left out.
    fn topics(&self, worker: WorkerId) -> Vec<&'static str> {
        let topics = self.of(worker).iter().map(Body::topic).collect::<Vec<_>>();
        topics.into_iter().filter(|topic| *topic != "worker_heartbeat").collect()
    }

    /// Waits until the topic has been said of the worker so many times; the first.
    async fn wait(&self, worker: WorkerId, topic: &str, times: usize) -> Body {
        let found = async {
            loop {
                let found = self.of(worker).into_iter().filter(|body| body.topic() == topic);
                let found: Vec<_> = found.collect();
                if found.len() >= times {
                    return found[0].clone();
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        let found = timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("no {topic} in {:?}", self.of(worker)))
    }
}

struct Fleet {
    dir: TempDir,
    coordinator: Coordinator,
    events: Arc<Recorder>,
}

/// 100 ms beats, and a deadline of 1.1 s.
const QUICK: &str = "[timing]\nheartbeat_interval = \"100ms\"\nworker_self_fence_timeout = \
                     \"400ms\"\ncoordinator_failure_timeout = \"900ms\"\n\
                     clock_skew_budget = \"100ms\"\n";

fn start(dir: &Path, rest: &str) -> Result<(Coordinator, Arc<Recorder>), CoordinatorError> {
    let text = format!("listen = \"127.0.0.1:0\"\nstorage = \"-\"\ntls_dir = \"-\"\n{rest}");
    let config = CoordinatorConfig::parse(&text).unwrap();
    let tls = tls(dir, &Identity::Coordinator);
    let store = Store::open(&dir.join("coord.db")).unwrap();
    let events = Arc::new(Recorder::default());
    let port = Port::bind(config.listen)?;
    let emit = Arc::clone(&events) as Arc<dyn Emit>;
    let (clock, tail) = (Arc::new(SystemClock), events.1.clone());
    let coordinator = Coordinator::start(&config, port, store, tls, clock, emit, tail)?;
    Ok((coordinator, events))
}

fn tls(dir: &Path, identity: &Identity) -> Tls {
    let files = certs::dev_identity(&dir.join("tls"), identity, &[], &mut |_| ()).unwrap();
    Tls::load(&files).unwrap()
}

impl Fleet {
    fn new(rest: &str) -> Self {
        let dir = tempdir().unwrap();
        let (coordinator, events) = start(dir.path(), rest).unwrap();
        Self { dir, coordinator, events }
    }

    /// Opens a session with `with`'s certificate, says `up`, and hears the answer.
    async fn say(&self, up: Up, with: WorkerId) -> (Link, Down) {
        let tls = tls(self.dir.path(), &Identity::Worker(with));
        let address = self.coordinator.local_addr().to_string();
        let mut link = connect(&address, &tls, PATIENCE).await.unwrap();
        link.up.send(up).await.unwrap();
        let answer = hear(&mut link).await;
        (link, answer)
    }

    async fn join(&self, worker: WorkerId, incarnation: Incarnation) -> (Link, u64) {
        let (link, answer) = self.say(registration(worker, incarnation, None), worker).await;
        match answer {
            Down::Registered { epoch, resumed: false, .. } => (link, epoch),
            other => panic!("{other:?}"),
        }
    }
}

async fn hear(link: &mut Link) -> Down {
    timeout(PATIENCE, link.down.next()).await.unwrap().unwrap().unwrap()
}

fn registration(worker_id: WorkerId, incarnation: Incarnation, epoch: Option<u64>) -> Up {
    // A worker may beat more often, and fence itself earlier, than the coordinator asks.
    let budget = TimeBudget {
        heartbeat_interval: Duration::from_millis(100),
        worker_self_fence_timeout: Duration::from_millis(400),
        ..TimeBudget::default()
    };
    let (timing, plugins) = (Timing::from(&budget), vec!["p 1".to_owned()]);
    let version = "0".to_owned();
    Up::Register {
        worker_id,
        incarnation,
        epoch,
        run_id: None,
        version,
        plugins,
        timing,
        unix_ms: None,
    }
}

#[tokio::test]
async fn a_worker_registers_beats_and_leaves_and_its_beats_become_durable() {
    let (fleet, worker) = (Fleet::new(""), WorkerId::generate());
    let (mut link, epoch) = fleet.join(worker, Incarnation::generate()).await;
    assert_eq!(epoch, 1);
    let mut on_disk = 0;
    for beat in 1..=2_000 {
        link.up.send(Up::beat(beat)).await.unwrap();
        let answer = hear(&mut link).await;
        let Down::Ack { beat: acknowledged, durable } = answer else { panic!("{answer:?}") };
        assert_eq!(acknowledged, beat);
        assert!(durable < beat, "a beat is acknowledged before it is on disk");
        on_disk = durable;
        if on_disk > 0 {
            break;
        }
    }
    assert!(on_disk > 0, "no beat has become durable");
    link.up.send(Up::Draining).await.unwrap();
    link.up.send(Up::Deregister).await.unwrap();
    // A beat that was on its way is no reason to call the worker failed.
    link.up.send(Up::beat(u64::MAX)).await.unwrap();
    assert_eq!(hear(&mut link).await, Down::Deregistered);
    drop(link);
    fleet.coordinator.stop("test").await.unwrap();
    let expected = ["worker_registered", "worker_ready", "worker_draining", "worker_deregistered"];
    assert_eq!(fleet.events.topics(worker), expected);
}

#[tokio::test]
async fn who_speaks_for_another_asks_for_another_run_or_for_more_time_is_refused_with_an_event() {
    let fleet = Fleet::new("[events]\nworker_rejected_interval = \"0s\"\n");
    let own = WorkerId::generate();
    let incarnation = Incarnation::generate();
    let changed = |change: &dyn Fn(&mut Option<RunId>, &mut Timing)| {
        let mut up = registration(own, incarnation, None);
        if let Up::Register { run_id, timing, .. } = &mut up {
            change(run_id, timing);
        }
        up
    };
    for (up, wanted, words) in [
        (
            registration(WorkerId::generate(), incarnation, None),
            RejectReason::Identity,
            "the certificate is worker",
        ),
        (
            changed(&|run_id, _| *run_id = Some(RunId::generate())),
            RejectReason::Run,
            "this coordinator leads run",
        ),
        (
            changed(&|_, timing| timing.heartbeat_interval_ms = 501.0),
            RejectReason::Timing,
            "heartbeat_interval (501ms) exceeds",
        ),
        (
            changed(&|_, timing| timing.worker_self_fence_timeout_ms = 5_000.0),
            RejectReason::Timing,
            "worker_self_fence_timeout (5s) must be less than",
        ),
        (
            changed(&|_, timing| timing.heartbeat_interval_ms = -1.0),
            RejectReason::Timing,
            "is no duration",
        ),
        (Up::beat(1), RejectReason::Protocol, "the first line is not a registration"),
    ] {
        let (_link, answer) = fleet.say(up, own).await;
        let Down::Rejected { reason, detail } = answer else { panic!("{answer:?}") };
        assert_eq!(reason, wanted);
        assert!(detail.contains(words), "{detail}");
    }
    assert_eq!(fleet.events.topics(own), ["worker_rejected"; 6]);
    let (_link, epoch) = fleet.join(own, incarnation).await;
    assert_eq!(epoch, 1, "refusals cost no epoch");
}

#[tokio::test]
async fn a_worker_too_many_is_refused_with_an_event_and_a_place_given_up_is_free_again() {
    let fleet = Fleet::new("[limits]\nmax_workers = 1\n");
    let (first, second) = (WorkerId::generate(), WorkerId::generate());
    let (mut link, _) = fleet.join(first, Incarnation::generate()).await;
    let asks = || registration(second, Incarnation::generate(), None);
    let (_, answer) = fleet.say(asks(), second).await;
    let full = |down: &Down| {
        matches!(down, Down::Rejected { reason: RejectReason::Capacity, detail }
            if detail.contains("the fleet is full: 1 workers"))
    };
    assert!(full(&answer), "{answer:?}");
    fleet.events.wait(second, "worker_rejected", 1).await;
    link.up.send(Up::Deregister).await.unwrap();
    assert_eq!(hear(&mut link).await, Down::Deregistered);
    assert_eq!(fleet.join(second, Incarnation::generate()).await.1, 1);
}

#[tokio::test]
async fn a_session_that_does_not_register_in_time_is_refused() {
    let fleet = Fleet::new("[limits]\nheader_timeout = \"100ms\"\n");
    let worker = WorkerId::generate();
    let tls = tls(fleet.dir.path(), &Identity::Worker(worker));
    let address = fleet.coordinator.local_addr().to_string();
    let mut link = connect(&address, &tls, PATIENCE).await.unwrap();
    let answer = hear(&mut link).await;
    assert!(matches!(answer, Down::Rejected { reason: RejectReason::Timeout, .. }), "{answer:?}");
    fleet.events.wait(worker, "worker_rejected", 1).await;
}

#[tokio::test]
async fn heartbeat_events_are_as_many_as_the_configuration_says() {
    for (which, wanted) in [("all", 3), ("first", 1), ("none", 0)] {
        let fleet = Fleet::new(&format!("[events]\nworker_heartbeat = \"{which}\"\n"));
        let worker = WorkerId::generate();
        let (mut link, _) = fleet.join(worker, Incarnation::generate()).await;
        for beat in 1..=3 {
            link.up.send(Up::beat(beat)).await.unwrap();
            hear(&mut link).await;
        }
        fleet.coordinator.stop("test").await.unwrap();
        let events = fleet.events.of(worker);
        let beats = events.iter().filter(|body| body.topic() == "worker_heartbeat").count();
        assert_eq!(beats, wanted, "{which}");
    }
}

#[tokio::test]
async fn a_second_registration_in_one_session_ends_it() {
    let (fleet, worker) = (Fleet::new(""), WorkerId::generate());
    let incarnation = Incarnation::generate();
    let (mut link, _) = fleet.join(worker, incarnation).await;
    link.up.send(registration(worker, incarnation, None)).await.unwrap();
    let answer = hear(&mut link).await;
    assert!(matches!(answer, Down::Rejected { reason: RejectReason::Protocol, .. }), "{answer:?}");
    fleet.events.wait(worker, "worker_suspected", 1).await;
}

#[tokio::test]
async fn a_lost_connection_is_suspected_resumed_with_its_epoch_and_recovered_by_a_beat() {
    let (fleet, worker) = (Fleet::new(""), WorkerId::generate());
    let incarnation = Incarnation::generate();
    let (mut link, epoch) = fleet.join(worker, incarnation).await;
    link.up.send(Up::beat(1)).await.unwrap();
    hear(&mut link).await;
    drop(link);
    fleet.events.wait(worker, "worker_suspected", 1).await;
    let again = registration(worker, incarnation, Some(epoch));
    let (mut link, answer) = fleet.say(again, worker).await;
    assert!(matches!(answer, Down::Registered { epoch: 1, resumed: true, .. }), "{answer:?}");
    link.up.send(Up::beat(2)).await.unwrap();
    hear(&mut link).await;
    fleet.events.wait(worker, "worker_recovered", 1).await;
    let expected = [
        "worker_registered",
        "worker_ready",
        "worker_suspected",
        "worker_resumed",
        "worker_recovered",
    ];
    assert_eq!(fleet.events.topics(worker), expected);
}

#[tokio::test]
async fn a_newer_process_supersedes_an_older_one_whose_end_then_says_nothing() {
    let (fleet, worker) = (Fleet::new(""), WorkerId::generate());
    let old = Incarnation::generate();
    let (mut link, _) = fleet.join(worker, old).await;
    let (_newer, epoch) = fleet.join(worker, Incarnation::generate()).await;
    assert_eq!(epoch, 2);
    let superseded = Down::Fenced { reason: FenceReason::Superseded };
    assert_eq!(hear(&mut link).await, superseded);
    let (_, answer) = fleet.say(registration(worker, old, Some(1)), worker).await;
    assert_eq!(answer, superseded);
    drop(link);
    fleet.coordinator.stop("test").await.unwrap();
    assert_eq!(fleet.events.topics(worker), ["worker_registered"; 2]);
}

#[tokio::test]
async fn a_worker_that_failed_is_told_so_registers_anew_and_fails_again_like_the_first_time() {
    let (fleet, worker) = (Fleet::new(QUICK), WorkerId::generate());
    let first = Incarnation::generate();
    // The connection stays open: silence alone decides.
    let (mut silent, _) = fleet.join(worker, first).await;
    fleet.events.wait(worker, "worker_failed", 1).await;
    assert_eq!(hear(&mut silent).await, Down::Fenced { reason: FenceReason::Failed });
    let (_, answer) = fleet.say(registration(worker, first, Some(1)), worker).await;
    assert_eq!(answer, Down::Fenced { reason: FenceReason::Failed });
    let (link, epoch) = fleet.join(worker, Incarnation::generate()).await;
    assert_eq!(epoch, 2);
    drop(link);
    fleet.events.wait(worker, "worker_failed", 2).await;
    let failed = |body: &Body| match body {
        Body::WorkerFailed(failed) => Some(failed.epoch),
        _ => None,
    };
    let epochs: Vec<u64> = fleet.events.of(worker).iter().filter_map(failed).collect();
    assert_eq!(epochs, [1, 2]);
}

#[tokio::test]
async fn a_restarted_coordinator_knows_run_term_epochs_and_failures_and_fails_nobody_too_early() {
    let fleet = Fleet::new(QUICK);
    let (dead, alive, left) = (WorkerId::generate(), WorkerId::generate(), WorkerId::generate());
    let process = Incarnation::generate();
    drop(fleet.join(dead, process).await);
    fleet.events.wait(dead, "worker_failed", 1).await;
    let (mut leaving, _) = fleet.join(left, process).await;
    leaving.up.send(Up::Deregister).await.unwrap();
    assert_eq!(hear(&mut leaving).await, Down::Deregistered);
    let (link, _) = fleet.join(alive, process).await;
    let Fleet { dir, coordinator, .. } = fleet;
    let run = coordinator.run_id();
    drop(link);
    coordinator.stop("test").await.unwrap();

    let (coordinator, events) = start(dir.path(), QUICK).unwrap();
    assert_eq!(coordinator.run_id(), run);
    let (listens, _, body) = events.0.lock().unwrap()[0].clone();
    let Body::CoordinatorStarted(started) = body else { panic!("{body:?}") };
    assert_eq!((started.term, started.known_workers), (2, 1));
    let fleet = Fleet { dir, coordinator, events };
    fleet.events.wait(alive, "worker_failed", 1).await;
    let verdict = fleet.events.0.lock().unwrap().iter().find_map(|(at, id, body)| {
        (*id == Some(alive) && body.topic() == "worker_failed").then_some(*at)
    });
    let silent = verdict.unwrap().since(listens);
    assert!(silent >= Duration::from_millis(1_100), "failed after {silent:?}");
    assert_eq!(fleet.events.topics(dead), [""; 0], "no failure is reported twice");
    assert_eq!(fleet.events.topics(left), [""; 0]);
    let (_, answer) = fleet.say(registration(dead, process, Some(1)), dead).await;
    assert_eq!(answer, Down::Fenced { reason: FenceReason::Failed });
    assert_eq!(fleet.join(dead, Incarnation::generate()).await.1, 2);
}

#[tokio::test]
async fn a_database_of_another_run_is_refused_and_left_alone() {
    let Fleet { dir, coordinator, .. } = Fleet::new("");
    let run = coordinator.run_id();
    coordinator.stop("test").await.unwrap();
    let other = format!("run_id = \"{}\"\n", RunId::generate());
    let refused = start(dir.path(), &other).err().unwrap();
    assert!(matches!(refused, CoordinatorError::OtherRun { found, .. } if found == run));
    let (coordinator, events) = start(dir.path(), &format!("run_id = \"{run}\"\n")).unwrap();
    let (.., body) = events.0.lock().unwrap()[0].clone();
    let Body::CoordinatorStarted(started) = body else { panic!("{body:?}") };
    assert_eq!(started.term, 2, "the refused start opened no term");
    coordinator.stop("test").await.unwrap();
}

#[tokio::test]
async fn a_stopping_coordinator_tells_its_workers_and_fails_none() {
    let (fleet, worker) = (Fleet::new(QUICK), WorkerId::generate());
    let (mut link, _) = fleet.join(worker, Incarnation::generate()).await;
    let Fleet { coordinator, events, dir: _dir } = fleet;
    let (stopped, answer) = tokio::join!(coordinator.stop("test"), hear(&mut link));
    stopped.unwrap();
    assert_eq!(answer, Down::Stopping);
    assert_eq!(events.topics(worker), ["worker_registered"]);
}
