//! Made-up evidence of a run in which everything went as it should.

use std::time::{Duration, UNIX_EPOCH};

use rollout_core::event::{
    CoordinatorStarted, CoordinatorStopping, PluginLoaded, PluginProbed, WorkerDeregistered,
    WorkerFailed, WorkerHeartbeat, WorkerReady, WorkerRegistered,
};
use rollout_core::{Body, Event, Incarnation, Level, Mono, PluginId, RunId, TimeBudget, WorkerId};
use rollout_harness::log::Log;
use rollout_harness::smoke::{Evidence, Witness, WorkerWitness};
use rollout_harness::{Step, StepReport};
use rollout_process::Exit;

/// The instant of the kill: the last beat of w1 is ten milliseconds before it.
pub(crate) const KILL: Mono = Mono(100_000_000_000);
const CA_LINE: &str = "Generated dev CA at ./data/smoke/tls/ca.pem";
const PLUGINS: [&str; 2] = ["sample-cdylib", "sample-sidecar"];

pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The instant of the verdict: a millisecond past the deadline.
pub(crate) fn kill_event() -> Mono {
    TimeBudget::default().deadline(KILL.before(ms(10))) + ms(1)
}

/// A stream of events that can be spoilt.
pub(crate) struct Stream {
    run: RunId,
    events: Vec<Event>,
}

impl Stream {
    pub(crate) fn new(run: RunId) -> Self {
        Self { run, events: Vec::new() }
    }

    /// The events of a log.
    pub(crate) fn of(log: &Log) -> Self {
        let events: Vec<_> = log.events().cloned().collect();
        let run = events.iter().find_map(|event| event.run_id).unwrap_or_else(RunId::generate);
        Self { run, events }
    }

    /// Adds an event where it belongs in time.
    pub(crate) fn insert(
        &mut self,
        mono: Mono,
        worker_id: Option<WorkerId>,
        body: impl Into<Body>,
    ) {
        self.push(mono, worker_id, None, body.into());
    }

    /// Adds a tracing record.
    pub(crate) fn log_line(&mut self, mono: Mono, level: Level, message: &str) {
        let body = Body::Log(level, serde_json::Map::new());
        self.push(mono, None, Some(message.to_owned()), body);
    }

    fn push(
        &mut self,
        mono: Mono,
        worker_id: Option<WorkerId>,
        message: Option<String>,
        body: Body,
    ) {
        let at = UNIX_EPOCH + Duration::from_nanos(mono.0);
        let (seq, level, run_id) = (0, body.level(), Some(self.run));
        let event = Event { seq, at, mono, level, run_id, worker_id, message, body };
        let index = self.events.partition_point(|other| other.mono <= mono);
        self.events.insert(index, event);
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&Event) -> bool) {
        self.events.retain(keep);
    }

    /// Removes the events with a topic, of which there is one at least.
    pub(crate) fn remove(&mut self, topic: &str) {
        let before = self.events.len();
        self.retain(|event| event.body.topic() != topic);
        assert!(self.events.len() < before, "no {topic} to remove");
    }

    /// Removes the first event with a topic.
    pub(crate) fn remove_one(&mut self, topic: &str) {
        let index = self.events.iter().position(|event| event.body.topic() == topic).unwrap();
        self.events.remove(index);
    }

    /// Changes the events with a topic.
    pub(crate) fn edit(&mut self, topic: &str, edit: impl Fn(&mut Event)) {
        self.events.iter_mut().filter(|event| event.body.topic() == topic).for_each(edit);
    }

    /// Changes every event.
    pub(crate) fn edit_all(&mut self, edit: impl FnMut(&mut Event)) {
        self.events.iter_mut().for_each(edit);
    }

    /// The stream as it would be written.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (seq, event) in (1..).zip(&self.events) {
            let event = Event { seq, ..event.clone() };
            text += &serde_json::to_string(&event).unwrap();
            text.push('\n');
        }
        text
    }

    pub(crate) fn log(&self) -> Log {
        Log::from(self.text().as_str())
    }
}

/// A good run, and the coordinator's stream, which goes into the evidence once it is spoilt.
pub(crate) fn good() -> (Evidence, Stream) {
    let run = RunId::generate();
    let (w1, w2) = (WorkerId::generate(), WorkerId::generate());
    let stop = kill_event() + ms(5);
    let clean = Some(Exit { code: Some(0), signal: None });
    let killed = Some(Exit { code: None, signal: Some(9) });
    let worker = |id, exit| WorkerWitness {
        id,
        seen: Witness { log: worker_log(run), exit, ..Witness::default() },
    };
    let evidence = Evidence {
        run,
        timing: TimeBudget::default(),
        plugins: PLUGINS.map(str::to_owned).to_vec(),
        ca_line: Some(CA_LINE.to_owned()),
        steps: vec![StepReport { step: Step::Build, took: ms(400), result: Ok(String::new()) }],
        coordinator: Witness { stderr: format!("{CA_LINE}\n"), exit: clean, ..Witness::default() },
        w1: worker(w1, killed),
        w2: worker(w2, clean),
        kill: Some(KILL),
        w2_stop: Some(stop),
        harness_late: ms(3),
        leftovers: Vec::new(),
    };
    (evidence, coordinator(run, w1, w2, stop))
}

fn coordinator(run: RunId, w1: WorkerId, w2: WorkerId, stop: Mono) -> Stream {
    let mut stream = Stream::new(run);
    let start = KILL.before(ms(3000));
    let started = CoordinatorStarted {
        term: 1,
        listen_addr: "127.0.0.1:50051".into(),
        version: "0.1.0".into(),
        known_workers: 0,
    };
    stream.insert(start, None, started);
    for id in [w1, w2] {
        let registered = WorkerRegistered {
            epoch: 1,
            incarnation: Incarnation::generate(),
            version: "0.1.0".into(),
            plugins: Vec::new(),
        };
        stream.insert(start + ms(100), Some(id), registered);
        stream.insert(start + ms(101), Some(id), WorkerReady { epoch: 1 });
        let last = if id == w1 { KILL } else { stop };
        for beat in 0.. {
            let at = KILL.before(ms(2510)) + ms(500 * beat);
            if at > last {
                break;
            }
            stream.insert(at, Some(id), WorkerHeartbeat { epoch: 1, beat });
        }
    }
    let failed = WorkerFailed { epoch: 1, overdue_ms: 5251.0, overshoot_ms: 1.0, credited_ms: 0.0 };
    stream.insert(kill_event(), Some(w1), failed);
    stream.insert(stop + ms(20), Some(w2), WorkerDeregistered { epoch: 1 });
    stream.insert(stop + ms(100), None, CoordinatorStopping { signal: "SIGTERM".into() });
    stream
}

fn worker_log(run: RunId) -> Log {
    let mut stream = Stream::new(run);
    for name in PLUGINS.map(str::to_owned) {
        let plugin_id = PluginId::generate();
        let (version, boundary, digest) = ("0.1.0".into(), "cdylib".into(), "00".into());
        let loaded = PluginLoaded { plugin_id, name: name.clone(), version, boundary, digest };
        stream.insert(KILL.before(ms(2900)), None, loaded);
        let probed = PluginProbed { plugin_id, name, method: "echo".into(), took_ms: 0.1 };
        stream.insert(KILL.before(ms(2800)), None, probed);
    }
    stream.log()
}
