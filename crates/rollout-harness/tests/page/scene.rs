//! Made-up records of runs: one with everything that can happen in it, and one of any size.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use rollout_core::event::{
    CoordinatorStalled, CoordinatorStarted, CoordinatorStopping, PluginExited, WorkerDeregistered,
    WorkerDraining, WorkerFailed, WorkerFenced, WorkerHeartbeat, WorkerReady, WorkerRecovered,
    WorkerRegistered, WorkerRejected, WorkerResumed, WorkerSuspected,
};
use rollout_core::{Body, Event, Incarnation, Level, Mono, RunId, TimeBudget, WorkerId};
use rollout_harness::log::Log;
use rollout_harness::record::{Ended, Fault, Life, Process, Record, Role, What};

/// The instant at which every made-up run begins.
const BEGAN: Mono = Mono(5_000_000_000);

pub(crate) fn at(ms: u64) -> Mono {
    BEGAN + Duration::from_millis(ms)
}

/// A record in the making. Instants are milliseconds from its beginning.
pub(crate) struct Scene {
    pub(crate) record: Record,
    events: BTreeMap<String, Vec<Event>>,
}

impl Scene {
    pub(crate) fn new(title: &str, length: u64, workers: usize) -> Self {
        let process = |name: String, role| Process {
            name,
            role,
            lives: Vec::new(),
            log: Log::default(),
            stderr: String::new(),
        };
        let mut processes = vec![process("coord".into(), Role::Coordinator)];
        processes.extend(
            (1..=workers)
                .map(|n| process(format!("w{n}"), Role::Worker { id: WorkerId::generate() })),
        );
        let record = Record {
            title: title.into(),
            run: RunId::generate(),
            timing: TimeBudget::default(),
            began: at(0),
            ended: at(length),
            processes,
            faults: Vec::new(),
            harness_late: Duration::from_millis(4),
            leftovers: Vec::new(),
        };
        Self { record, events: BTreeMap::new() }
    }

    pub(crate) fn id(&self, worker: &str) -> WorkerId {
        self.record.process(worker).and_then(Process::worker).unwrap()
    }

    pub(crate) fn life(&mut self, name: &str, from: u64, to: u64, how: (Option<i32>, Option<i32>)) {
        let process = self.record.processes.iter_mut().find(|it| it.name == name).unwrap();
        let ended = Some(Ended { at: at(to), code: how.0, signal: how.1 });
        let pid = 4000 + i32::try_from(from / 10).unwrap();
        process.lives.push(Life { pid, began: at(from), ended });
    }

    pub(crate) fn fault(&mut self, target: &str, what: What, from: u64, to: Option<u64>) {
        let (target, ended) = (target.to_owned(), to.map(at));
        self.record.faults.push(Fault { target, what, began: at(from), ended });
    }

    /// `name` writes an event, about `worker` if about one.
    pub(crate) fn says(
        &mut self,
        name: &str,
        ms: f64,
        worker: Option<&str>,
        body: impl Into<Body>,
    ) {
        let worker_id = worker.map(|worker| self.id(worker));
        self.says_of(name, BEGAN + Duration::from_secs_f64(ms / 1e3), worker_id, body.into(), None);
    }

    pub(crate) fn says_of(
        &mut self,
        name: &str,
        mono: Mono,
        worker_id: Option<WorkerId>,
        body: Body,
        message: Option<&str>,
    ) {
        let at = UNIX_EPOCH + Duration::from_nanos(mono.0);
        let (level, run_id) = (body.level(), Some(self.record.run));
        let message = message.map(str::to_owned);
        let event = Event { seq: 0, at, mono, level, run_id, worker_id, message, body };
        self.events.entry(name.to_owned()).or_default().push(event);
    }

    pub(crate) fn registers(&mut self, worker: &str, ms: f64, epoch: u64) {
        let body = WorkerRegistered {
            epoch,
            incarnation: Incarnation::generate(),
            version: "0.1.0".into(),
            plugins: vec!["sample-cdylib 0.1.0".into()],
        };
        self.says("coord", ms, Some(worker), body.clone());
        self.says(worker, ms + 1.0, Some(worker), body);
        self.says("coord", ms + 12.0, Some(worker), WorkerReady { epoch });
    }

    pub(crate) fn beats(&mut self, worker: &str, from: u64, to: u64, every: usize) {
        let epoch = 1;
        for (beat, ms) in (0..).zip((from..=to).step_by(every)) {
            let jitter = (ms * 7919 % 13) as f64 / 4.0;
            self.says("coord", ms as f64 + jitter, Some(worker), WorkerHeartbeat { epoch, beat });
        }
    }

    pub(crate) fn finish(mut self) -> Record {
        for process in &mut self.record.processes {
            let mut events = self.events.remove(&process.name).unwrap_or_default();
            events.sort_by_key(|event| event.mono);
            for (seq, event) in (1..).zip(events) {
                let line = serde_json::to_string(&Event { seq, ..event }).unwrap();
                process.log.feed(format!("{line}\n").as_bytes());
            }
        }
        self.record.faults.sort_by_key(|fault| fault.began);
        self.record
    }
}

const KILLED: (Option<i32>, Option<i32>) = (None, Some(9));
const FINE: (Option<i32>, Option<i32>) = (Some(0), None);

fn suspected(reason: &'static str) -> WorkerSuspected {
    WorkerSuspected { epoch: 1, reason: reason.into() }
}

fn failed(overshoot_ms: f64, credited_ms: f64) -> WorkerFailed {
    let overdue_ms = 5250.0 + credited_ms + overshoot_ms;
    WorkerFailed { epoch: 1, overdue_ms, overshoot_ms, credited_ms }
}

fn started(term: u64, known_workers: u64) -> CoordinatorStarted {
    let (listen_addr, version) = ("127.0.0.1:50051".into(), "0.1.0".into());
    CoordinatorStarted { term, listen_addr, version, known_workers }
}

/// Forty seconds in which everything happens that can.
pub(crate) fn everything() -> Record {
    let mut scene = Scene::new("scenario: everything at once", 40_000, 5);
    coordinator(&mut scene);
    for (n, worker) in ["w1", "w2", "w3", "w4", "w5"].into_iter().enumerate() {
        scene.registers(worker, 310.0 + 40.0 * n as f64, 1);
    }
    killed(&mut scene);
    frozen(&mut scene);
    cut_off(&mut scene);
    crashed(&mut scene);
    leaving(&mut scene);
    scene.finish()
}

fn coordinator(scene: &mut Scene) {
    scene.life("coord", 20, 31_000, KILLED);
    scene.life("coord", 31_500, 39_900, FINE);
    scene.says("coord", 140.0, None, started(1, 0));
    scene.fault("coord", What::Stop, 19_000, Some(21_000));
    scene.says("coord", 21_004.0, None, CoordinatorStalled { ms: 1988.2 });
    scene.fault("coord", What::Kill, 30_998, None);
    scene.fault("coord", What::Restart, 31_490, None);
    scene.says("coord", 31_640.0, None, started(2, 5));
    let (reason, detail) = ("certificate".into(), "no certificate".into());
    let rejected = WorkerRejected { reason, detail, peer: "127.0.0.1:4711".into(), suppressed: 0 };
    scene.says("coord", 8000.0, None, rejected);
    scene.fault("coord", What::DiskStall, 24_000, Some(27_000));
    scene.fault("coord", What::Terminate, 39_600, None);
    scene.says("coord", 39_610.0, None, CoordinatorStopping { signal: "SIGTERM".into() });
}

/// Killed, failed on time, started again.
fn killed(scene: &mut Scene) {
    scene.life("w1", 200, 6004, KILLED);
    scene.life("w1", 15_000, 39_200, FINE);
    scene.beats("w1", 340, 5840, 500);
    scene.fault("w1", What::Kill, 6000, None);
    scene.says("coord", 6003.1, Some("w1"), suspected("connection_lost"));
    scene.says("coord", 11_592.5, Some("w1"), failed(0.42, 0.0));
    scene.fault("w1", What::Restart, 14_990, None);
    scene.registers("w1", 15_160.0, 2);
    for (from, to) in [(15_180, 18_900), (21_010, 30_900), (31_700, 38_800)] {
        scene.beats("w1", from, to, 500);
    }
    scene.says("coord", 39_100.0, Some("w1"), WorkerDeregistered { epoch: 2 });
}

/// Stopped for longer than its deadline, over a stall of the coordinator: failed, fenced, back.
fn frozen(scene: &mut Scene) {
    scene.life("w2", 200, 39_000, FINE);
    scene.beats("w2", 380, 14_880, 500);
    scene.fault("w2", What::Stop, 15_000, Some(26_000));
    scene.says("coord", 16_381.0, Some("w2"), suspected("missed_beats"));
    scene.says("coord", 22_620.0, Some("w2"), failed(1.3, 1988.2));
    let fenced = |reason: &'static str, unacknowledged_ms| WorkerFenced {
        reason: reason.into(),
        unacknowledged_ms,
    };
    scene.says("w2", 26_001.0, Some("w2"), fenced("unacknowledged", 11_120.0));
    scene.says("w2", 26_020.0, Some("w2"), fenced("failed", 11_140.0));
    scene.registers("w2", 26_090.0, 2);
    for (from, to) in [(26_110, 30_900), (31_760, 38_600)] {
        scene.beats("w2", from, to, 500);
    }
    scene.says("coord", 38_900.0, Some("w2"), WorkerDeregistered { epoch: 2 });
}

/// Cut off for a while, then behind a black hole until it fences itself, then slow.
fn cut_off(scene: &mut Scene) {
    scene.life("w3", 200, 38_900, FINE);
    scene.beats("w3", 420, 9920, 500);
    scene.fault("w3", What::Cut, 10_000, Some(13_000));
    scene.says("coord", 10_002.0, Some("w3"), suspected("connection_lost"));
    scene.says("coord", 13_240.0, Some("w3"), WorkerResumed { epoch: 1 });
    scene.says("w3", 13_241.0, Some("w3"), WorkerResumed { epoch: 1 });
    scene.says("coord", 13_260.0, Some("w3"), WorkerRecovered { epoch: 1, gap_ms: 3340.0 });
    for (from, to) in [(13_270, 18_900), (21_020, 23_600), (28_700, 30_900), (31_800, 38_000)] {
        scene.beats("w3", from, to, 500);
    }
    scene.fault("w3", What::BlackHole, 24_000, Some(28_500));
    scene.says("coord", 25_021.0, Some("w3"), suspected("missed_beats"));
    let fenced = WorkerFenced { reason: "unacknowledged".into(), unacknowledged_ms: 4000.2 };
    scene.says("w3", 27_530.0, Some("w3"), fenced);
    scene.says("coord", 28_640.0, Some("w3"), WorkerResumed { epoch: 1 });
    scene.says("w3", 28_641.0, Some("w3"), WorkerResumed { epoch: 1 });
    scene.says("coord", 28_650.0, Some("w3"), WorkerRecovered { epoch: 1, gap_ms: 5120.0 });
    let by = Duration::from_millis(40);
    scene.fault("w3", What::Delay { by }, 33_000, Some(36_500));
    scene.fault("w3", What::DiskStall, 34_000, Some(35_000));
    scene.says("coord", 38_500.0, Some("w3"), WorkerDeregistered { epoch: 1 });
}

/// Its plugin crashes, then it crashes itself, saying something that must stay text.
fn crashed(scene: &mut Scene) {
    scene.life("w4", 200, 28_000, (Some(70), None));
    for (from, to) in [(460, 18_900), (21_040, 27_900)] {
        scene.beats("w4", from, to, 500);
    }
    let tail = "<script>alert(1)</script>\u{202e}\"'&\n".to_owned();
    let name = "<img src=x onerror=alert(2)>".to_owned();
    let exited =
        PluginExited { name, code: None, signal: Some(11), stderr_tail: tail, expected: false };
    scene.says("w4", 17_000.0, None, exited);
    let log = Body::Log(Level::Error, serde_json::Map::new());
    scene.says_of("w4", at(27_990), None, log, Some("</title></svg><script>alert(3)</script>"));
    let w4 = scene.record.processes.iter_mut().find(|it| it.name == "w4").unwrap();
    w4.stderr = "thread 'main' panicked at </pre><script>alert(4)</script>\n".into();
    scene.says("coord", 28_002.0, Some("w4"), suspected("connection_lost"));
    // The coordinator dies before the deadline; the next one gives it a full one.
    scene.says("coord", 37_391.4, Some("w4"), failed(1.4, 0.0));
}

/// Leaves in good order.
fn leaving(scene: &mut Scene) {
    scene.life("w5", 200, 12_400, FINE);
    scene.beats("w5", 500, 12_000, 500);
    scene.fault("w5", What::Terminate, 12_100, None);
    scene.says("coord", 12_110.0, Some("w5"), WorkerDraining { epoch: 1 });
    scene.says("coord", 12_330.0, Some("w5"), WorkerDeregistered { epoch: 1 });
}

/// A run of so many seconds on so many workers: each beats every `every` milliseconds, and is
/// stopped, cut and killed in turn.
pub(crate) fn chaos(seconds: u64, workers: usize, every: usize) -> Record {
    let length = seconds * 1000;
    let mut scene = Scene::new("chaos: seed 1", length, workers);
    scene.life("coord", 5, length - 100, FINE);
    scene.says("coord", 120.0, None, started(1, 0));
    for n in 1..=workers {
        let worker = format!("w{n}");
        let whats = [What::Stop, What::Cut, What::BlackHole, What::Kill];
        scene.registers(&worker, 200.0 + n as f64, 1);
        let mut born = 150;
        for (turn, start) in (0u64..).zip((400..length.saturating_sub(12_000)).step_by(12_000)) {
            let hit = start + 2500 + (n as u64 * 1847 + turn * 911) % 5000;
            let what = whats[(turn as usize + n) % whats.len()];
            scene.beats(&worker, start, hit, every);
            scene.says("coord", hit as f64 + 1500.0, Some(&worker), suspected("missed_beats"));
            if what == What::Kill {
                scene.fault(&worker, what, hit, None);
                scene.life(&worker, born, hit + 3, KILLED);
                scene.says("coord", hit as f64 + 5750.5, Some(&worker), failed(0.5, 0.0));
                scene.fault(&worker, What::Restart, start + 11_200, None);
                born = start + 11_201;
                scene.registers(&worker, start as f64 + 11_400.0, turn + 2);
            } else {
                scene.fault(&worker, what, hit, Some(hit + 3000));
                let recovered = WorkerRecovered { epoch: 1, gap_ms: 3100.0 };
                scene.says("coord", hit as f64 + 3050.0, Some(&worker), recovered);
                scene.beats(&worker, hit + 3060, start + 11_900, every);
            }
        }
        scene.life(&worker, born, length - 200, FINE);
    }
    scene.finish()
}
