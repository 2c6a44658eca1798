//! What happened to a process at an instant: its starts and ends, what was done to it, and what it
//! and the coordinator wrote about that.

use std::time::Duration;

use rollout_core::{Body, Event, Level, Mono, WorkerId};
use rollout_process::{Exit, Signal};

use super::story::{Kind, Mark, attributes};
use super::text::{cut, time};
use crate::record::{Ended, Fault, Process, Record, Role, What};

/// The most characters of a label.
const LABEL: usize = 40;
/// A death this soon after a kill is the kill's.
const SOON: Duration = Duration::from_secs(1);

/// All of a process, in no particular order.
pub(super) fn of(record: &Record, process: &Process) -> Vec<Mark> {
    let faults = record.faults_of(&process.name).map(fault);
    let mut marks: Vec<_> = faults.collect();
    for life in &process.lives {
        let pid = format!("pid {}", life.pid);
        marks.push(mark(Kind::Began, life.began, String::new(), "started", pid));
        marks.extend(life.ended.as_ref().map(|ended| end(record, process, ended)));
    }
    let own = process.log.events().filter_map(|event| match process.role {
        Role::Coordinator => coordinators(event, known(record, event.worker_id)),
        Role::Worker { .. } => workers(event),
    });
    marks.extend(own);
    if let Some(id) = process.worker() {
        marks.extend(record.about(id).filter_map(about));
    }
    marks
}

fn mark(kind: Kind, at: Mono, label: String, word: &str, detail: String) -> Mark {
    let label = cut(&label, LABEL);
    Mark { kind, at, label, word: word.to_owned(), detail, times: 1 }
}

/// Whether a lane of its own shows what is said about this worker.
fn known(record: &Record, worker: Option<WorkerId>) -> bool {
    worker.is_some_and(|worker| record.workers().any(|(_, id)| id == worker))
}

fn fault(fault: &Fault) -> Mark {
    let mut label = fault.what.word().to_owned();
    if let What::Delay { by } = fault.what {
        label = format!("{label} {}", time(by));
    }
    let mut detail = "done by the harness".to_owned();
    if let Some(ended) = fault.ended {
        let lasted = time(ended.since(fault.began));
        detail = format!("{detail}, undone after {lasted}");
        let between = if matches!(fault.what, What::Delay { .. }) { " for " } else { " " };
        label = format!("{label}{between}{lasted}");
    }
    let kind = if fault.what == What::Kill { Kind::Kill } else { Kind::Fault };
    mark(kind, fault.began, label, fault.what.word(), detail)
}

fn end(record: &Record, process: &Process, ended: &Ended) -> Mark {
    let exit = Exit { code: ended.code, signal: ended.signal };
    let kill = record.faults_of(&process.name).any(|fault| {
        fault.what == What::Kill && fault.began <= ended.at && ended.at.since(fault.began) < SOON
    });
    let killed = kill && ended.signal == Some(Signal::SIGKILL as i32);
    let label = match exit.signal.map(Signal::try_from) {
        // The kill's own mark says so.
        _ if killed => String::new(),
        Some(Ok(signal)) => signal.to_string(),
        Some(Err(_)) => exit.to_string(),
        None => exit.code.map_or_else(|| exit.to_string(), |code| format!("exit {code}")),
    };
    let fine = killed || exit.success();
    let kind = if fine { Kind::Ended } else { Kind::Trouble };
    mark(kind, ended.at, label, "ended", exit.to_string())
}

fn event_mark(event: &Event, kind: Kind, label: String) -> Mark {
    mark(kind, event.mono, label, event.body.topic(), attributes(event))
}

/// What the coordinator writes about itself, or about somebody who has no lane.
fn coordinators(event: &Event, elsewhere: bool) -> Option<Mark> {
    let (kind, label) = match &event.body {
        Body::CoordinatorStarted(started) => (Kind::Term, format!("term {}", started.term)),
        Body::CoordinatorStalled(stall) => {
            (Kind::Stalled, format!("stalled {}", time(millis(stall.ms))))
        }
        Body::CoordinatorStopping(_) => (Kind::Leaving, "stopping".to_owned()),
        _ if elsewhere => return None,
        _ => return trouble(event),
    };
    Some(event_mark(event, kind, label))
}

/// What the coordinator writes about a worker.
fn about(event: &Event) -> Option<Mark> {
    let (kind, label) = match &event.body {
        Body::WorkerRegistered(it) => (Kind::Registered, format!("epoch {}", it.epoch)),
        Body::WorkerResumed(it) => (Kind::Resumed, format!("resumed, epoch {}", it.epoch)),
        Body::WorkerSuspected(_) => (Kind::Suspected, "suspected".to_owned()),
        Body::WorkerRecovered(it) => {
            (Kind::Recovered, format!("recovered, {}", time(millis(it.gap_ms))))
        }
        Body::WorkerFailed(it) => {
            (Kind::Failed, format!("failed, {} over", time(millis(it.overshoot_ms))))
        }
        Body::WorkerDraining(_) => (Kind::Leaving, "draining".to_owned()),
        Body::WorkerDeregistered(_) => (Kind::Leaving, "left".to_owned()),
        _ => return trouble(event),
    };
    Some(event_mark(event, kind, label))
}

/// What a worker writes about itself; what the coordinator writes as well is left to that.
fn workers(event: &Event) -> Option<Mark> {
    let (kind, label) = match &event.body {
        Body::WorkerFenced(it) => (Kind::Fenced, format!("fenced: {}", it.reason)),
        Body::PluginExited(it) if it.expected => return None,
        Body::PluginExited(it) => (Kind::Trouble, format!("{} ended", it.name)),
        Body::PluginRestarted(it) => (Kind::Trouble, format!("{} is back", it.name)),
        _ => return trouble(event),
    };
    Some(event_mark(event, kind, label))
}

/// Whatever else is worth a look.
fn trouble(event: &Event) -> Option<Mark> {
    if event.level < Level::Warn {
        return None;
    }
    let label = match event.body {
        Body::Log(Level::Error, _) => "error".to_owned(),
        Body::Log(..) => "warning".to_owned(),
        _ => event.body.topic().replace('_', " "),
    };
    Some(event_mark(event, Kind::Trouble, label))
}

fn millis(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default()
}
