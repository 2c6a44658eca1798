//! A made-up chaos run in which everything went as it should: a worker killed and failed, one
//! frozen, one cut off, one that dies while the coordinator is stopped; the coordinator killed.

use std::borrow::Cow;
use std::time::Duration;

use rollout_core::event::{
    CoordinatorStalled, CoordinatorStarted, CoordinatorStopping, FENCE_LIFTED, WorkerDeregistered,
    WorkerFailed, WorkerFenced, WorkerHeartbeat, WorkerReady, WorkerRecovered, WorkerRegistered,
    WorkerResumed, WorkerSuspected,
};
use rollout_core::{Body, Incarnation, Level, Mono, RunId, TimeBudget, WorkerId};
use rollout_harness::Record;
use rollout_harness::chaos::short_timing;
use rollout_harness::log::Log;
use rollout_harness::record::{Ended, Fault, Life, Process, Role, What};

use crate::evidence::{Stream, ms};

/// The instant so many milliseconds after the record began.
pub(crate) fn at(n: u64) -> Mono {
    Mono(1_000_000_000_000) + ms(n)
}

/// The time from the last beat to the failure.
pub(crate) const DEADLINE: u64 = 1_800;
/// How long the coordinator was stopped, and what it says of that.
pub(crate) const STALL: u64 = 2_560;

/// The streams of a process, one for each of its lives.
pub(crate) struct Actor {
    pub(crate) name: &'static str,
    pub(crate) id: Option<WorkerId>,
    pub(crate) lives: Vec<(Life, Stream)>,
    /// Text after the events of a life.
    pub(crate) junk: Vec<(usize, String)>,
}

/// The scene, to be spoilt.
pub(crate) struct Scene {
    pub(crate) run: RunId,
    pub(crate) timing: TimeBudget,
    pub(crate) coordinator: Actor,
    pub(crate) workers: Vec<Actor>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) late: Duration,
    pub(crate) leftovers: Vec<String>,
}

impl Actor {
    fn new(name: &'static str, id: Option<WorkerId>) -> Self {
        Self { name, id, lives: Vec::new(), junk: Vec::new() }
    }

    /// A life; it ends with an exit code or by a signal.
    fn life(&mut self, run: RunId, began: u64, ended: u64, killed: bool) {
        let pid = 100 + i32::try_from(self.lives.len()).unwrap();
        let (code, signal) = if killed { (None, Some(9)) } else { (Some(0), None) };
        let ended = Some(Ended { at: at(ended), code, signal });
        self.lives.push((Life { pid, began: at(began), ended }, Stream::new(run)));
    }

    /// Says something in the life that is running then.
    pub(crate) fn say(&mut self, when: u64, worker: Option<WorkerId>, body: impl Into<Body>) {
        let (_, stream) = self.lives.iter_mut().rfind(|(life, _)| life.began <= at(when)).unwrap();
        stream.insert(at(when), worker, body);
    }

    /// Writes a tracing record in the life that is running then.
    pub(crate) fn log_line(&mut self, when: u64, message: &str) {
        let (_, stream) = self.lives.iter_mut().rfind(|(life, _)| life.began <= at(when)).unwrap();
        stream.log_line(at(when), Level::Info, message);
    }

    fn process(&self) -> Process {
        let text = |place: usize, stream: &Stream| {
            let junk = self.junk.iter().filter(|(life, _)| *life == place);
            stream.text() + &junk.map(|(_, text)| text.as_str()).collect::<String>()
        };
        let streams = self.lives.iter().enumerate();
        let log: String = streams.map(|(place, (_, stream))| text(place, stream)).collect();
        Process {
            name: self.name.to_owned(),
            role: self.id.map_or(Role::Coordinator, |id| Role::Worker { id }),
            lives: self.lives.iter().map(|(life, _)| life.clone()).collect(),
            log: Log::from(log.as_str()),
            stderr: String::new(),
        }
    }
}

pub(crate) fn failed(beat: u64, when: u64, epoch: u64, credited: u64) -> (u64, WorkerFailed) {
    let overshoot_ms = when as f64 - (beat + DEADLINE + credited) as f64;
    let overdue_ms = (when - beat - 200) as f64;
    (when, WorkerFailed { epoch, overdue_ms, overshoot_ms, credited_ms: credited as f64 })
}

pub(crate) fn fenced(reason: &'static str, unacknowledged: u64) -> WorkerFenced {
    let unacknowledged_ms = unacknowledged as f64;
    WorkerFenced { reason: Cow::Borrowed(reason), unacknowledged_ms }
}

pub(crate) fn suspected(epoch: u64, reason: &'static str) -> WorkerSuspected {
    WorkerSuspected { epoch, reason: Cow::Borrowed(reason) }
}

impl Scene {
    /// What the coordinator says about a worker, numbered from 1.
    pub(crate) fn say(&mut self, when: u64, worker: usize, body: impl Into<Body>) {
        let id = self.workers[worker - 1].id;
        self.coordinator.say(when, id, body);
    }

    /// What a worker says of itself.
    pub(crate) fn own(&mut self, when: u64, worker: usize, body: impl Into<Body>) {
        let id = self.workers[worker - 1].id;
        self.workers[worker - 1].say(when, id, body);
    }

    pub(crate) fn fault(&mut self, target: &str, what: What, began: u64, ended: Option<u64>) {
        let (target, began, ended) = (target.to_owned(), at(began), ended.map(at));
        self.faults.push(Fault { target, what, began, ended });
        self.faults.sort_by_key(|fault| fault.began);
    }

    /// A registration, in both logs, and the first beat.
    pub(crate) fn registers(&mut self, worker: usize, when: u64, epoch: u64) {
        let incarnation = Incarnation::generate();
        let (version, plugins) = ("0.1.0".to_owned(), Vec::new());
        let body = WorkerRegistered { epoch, incarnation, version, plugins };
        self.say(when, worker, body.clone());
        self.own(when + 5, worker, body);
        self.say(when + 10, worker, WorkerHeartbeat { epoch, beat: 0 });
        self.say(when + 10, worker, WorkerReady { epoch });
    }

    /// A resumption, in both logs.
    pub(crate) fn resumes(&mut self, worker: usize, when: u64, epoch: u64) {
        self.say(when, worker, WorkerResumed { epoch });
        self.own(when + 5, worker, WorkerResumed { epoch });
    }

    /// Beats every 200 ms, the last one at `to` at the latest.
    pub(crate) fn beats(&mut self, worker: usize, epoch: u64, from: u64, to: u64) {
        for when in (from..=to).step_by(200) {
            self.say(when, worker, WorkerHeartbeat { epoch, beat: when });
        }
    }

    pub(crate) fn record(&self) -> Record {
        let processes = [&self.coordinator].into_iter().chain(&self.workers);
        Record {
            title: "a made-up run".into(),
            run: self.run,
            timing: self.timing,
            began: at(0),
            ended: at(20_600),
            processes: processes.map(Actor::process).collect(),
            faults: self.faults.clone(),
            harness_late: self.late,
            leftovers: self.leftovers.clone(),
        }
    }

    /// The run in which everything went as it should.
    pub(crate) fn good() -> Self {
        let run = RunId::generate();
        let mut scene = Self {
            run,
            timing: short_timing(),
            coordinator: Actor::new("coord", None),
            workers: ["w1", "w2", "w3", "w4"]
                .map(|name| Actor::new(name, Some(WorkerId::generate())))
                .into(),
            faults: Vec::new(),
            late: ms(3),
            leftovers: Vec::new(),
        };
        scene.cast(run);
        for worker in 1..=4 {
            scene.registers(worker, 500, 1);
        }
        scene.killed();
        scene.frozen();
        scene.coordinator_stopped();
        scene.coordinator_killed();
        scene.cut_off();
        scene.ends();
        scene
    }

    fn cast(&mut self, run: RunId) {
        self.coordinator.life(run, 0, 12_510, true);
        self.coordinator.life(run, 12_600, 20_400, false);
        let started = |term, known_workers| CoordinatorStarted {
            term,
            listen_addr: "127.0.0.1:7".into(),
            version: "0.1.0".into(),
            known_workers,
        };
        self.coordinator.say(50, None, started(1, 0));
        self.coordinator.say(12_700, None, started(2, 3));
        self.workers[0].life(run, 100, 3_005, true);
        self.workers[0].life(run, 5_500, 20_150, false);
        self.workers[1].life(run, 100, 20_150, false);
        self.workers[2].life(run, 100, 20_150, false);
        self.workers[3].life(run, 100, 6_960, true);
    }

    /// w1 is killed at 3 s, failed, and replaced.
    fn killed(&mut self) {
        self.beats(1, 1, 710, 2_910);
        self.fault("w1", What::Kill, 3_000, None);
        self.say(3_020, 1, suspected(1, "connection_lost"));
        let (when, body) = failed(2_910, 2_910 + DEADLINE + 1, 1, 0);
        self.say(when, 1, body);
        self.registers(1, 6_000, 2);
        self.beats(1, 2, 6_210, 6_910);
    }

    /// w2 is frozen from 3 to 6 s, failed, and registers anew.
    fn frozen(&mut self) {
        self.beats(2, 1, 710, 2_910);
        self.fault("w2", What::Stop, 3_000, Some(6_000));
        self.say(3_515, 2, suspected(1, "missed_beats"));
        let (when, body) = failed(2_910, 2_910 + DEADLINE + 1, 1, 0);
        self.say(when, 2, body);
        self.own(6_002, 2, fenced("unacknowledged", 3_100));
        self.own(6_010, 2, fenced("failed", 3_110));
        self.registers(2, 6_100, 2);
        self.beats(2, 2, 6_310, 6_910);
        self.beats(3, 1, 710, 6_910);
    }

    /// The coordinator is stopped from 7 to 9.5 s; w4 has just died.
    fn coordinator_stopped(&mut self) {
        self.fault("w4", What::Kill, 6_950, None);
        self.beats(4, 1, 710, 6_910);
        self.fault("coord", What::Stop, 7_000, Some(9_500));
        let stalled = CoordinatorStalled { ms: STALL as f64 };
        self.coordinator.say(9_560, None, stalled);
        self.say(9_561, 4, suspected(1, "connection_lost"));
        for (worker, epoch) in [(1, 2), (2, 2), (3, 1)] {
            self.say(9_561, worker, suspected(epoch, "connection_lost"));
            self.own(8_110, worker, fenced("unacknowledged", 1_200));
            self.resumes(worker, 9_600, epoch);
            self.say(9_610, worker, WorkerHeartbeat { epoch, beat: 1 });
            self.workers[worker - 1].log_line(9_615, FENCE_LIFTED);
            self.say(9_610, worker, WorkerRecovered { epoch, gap_ms: 2_700.0 });
            self.beats(worker, epoch, 9_810, 12_450);
        }
        let (when, body) = failed(6_910, 6_910 + DEADLINE + STALL + 1, 1, STALL);
        self.say(when, 4, body);
    }

    /// The coordinator is killed at 12.5 s, and started again.
    fn coordinator_killed(&mut self) {
        self.fault("coord", What::Kill, 12_500, None);
        self.fault("coord", What::Restart, 12_600, None);
        for (worker, epoch) in [(1, 2), (2, 2), (3, 1)] {
            self.resumes(worker, 12_800, epoch);
        }
        self.beats(1, 2, 12_810, 20_010);
        self.beats(2, 2, 12_810, 20_010);
    }

    /// w3 is cut off from 14.5 to 18 s, fences itself, is failed, and registers anew.
    fn cut_off(&mut self) {
        self.beats(3, 1, 12_810, 14_410);
        self.fault("w3", What::BlackHole, 14_500, Some(18_000));
        self.say(15_015, 3, suspected(1, "missed_beats"));
        self.own(15_610, 3, fenced("unacknowledged", 1_200));
        let (when, body) = failed(14_410, 14_410 + DEADLINE + 1, 1, 0);
        self.say(when, 3, body);
        self.own(18_100, 3, fenced("failed", 3_690));
        self.registers(3, 18_200, 2);
        self.beats(3, 2, 18_410, 20_010);
    }

    fn ends(&mut self) {
        for (worker, name) in (1..).zip(["w1", "w2", "w3"]) {
            self.fault(name, What::Terminate, 20_050, None);
            self.say(20_100, worker, WorkerDeregistered { epoch: 2 });
            self.own(20_105, worker, WorkerDeregistered { epoch: 2 });
        }
        self.fault("coord", What::Terminate, 20_300, None);
        let stopping = CoordinatorStopping { signal: "SIGTERM".into() };
        self.coordinator.say(20_310, None, stopping);
    }
}
