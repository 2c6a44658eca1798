//! What was seen of a run, as one value: the processes with their lives and logs, and what was done
//! to them. Judges and reports need nothing else, so that a run can be judged again when it is long
//! over.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rollout_core::{Event, Mono, RunId, TimeBudget, WorkerId};
use rollout_process::Exit;
use serde::{Deserialize, Serialize};

use crate::log::Log;

/// The file below a record's directory that has all but the logs.
pub const FILE: &str = "record.json";

/// Everything that was seen of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What was run, in a few words.
    pub title: String,
    /// The run.
    pub run: RunId,
    /// The coordinator's time budget.
    pub timing: TimeBudget,
    /// The instant before the first process was started.
    pub began: Mono,
    /// The instant at which the last one was gone.
    pub ended: Mono,
    /// The processes, the coordinator first.
    pub processes: Vec<Process>,
    /// What was done to them, in the order in which it was begun.
    pub faults: Vec<Fault>,
    /// The worst lateness of the harness itself.
    #[serde(with = "rollout_core::duration")]
    pub harness_late: Duration,
    /// What was still there after the end, in words.
    pub leftovers: Vec<String>,
}

/// A process of the cast: the same one however often it is started.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its name: that of its files, too.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// From each start to its end.
    pub lives: Vec<Life>,
    /// What it wrote to its standard output in all its lives, one after the other.
    #[serde(skip)]
    pub log: Log,
    /// What it wrote to its standard error.
    #[serde(skip)]
    pub stderr: String,
}

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Role {
    /// The coordinator.
    Coordinator,
    /// A worker.
    Worker {
        /// Its id.
        id: WorkerId,
    },
}

/// A process from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Life {
    /// Its number.
    pub pid: i32,
    /// The instant before it was started.
    pub began: Mono,
    /// The instant after which it was gone, and how it ended; none while it runs.
    pub ended: Option<Ended>,
}

/// An end that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// The instant at which it was seen.
    pub at: Mono,
    /// The exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
}

impl Ended {
    /// An end seen at this instant.
    #[must_use]
    pub const fn new(at: Mono, exit: Exit) -> Self {
        Self { at, code: exit.code, signal: exit.signal }
    }
}

/// Something that was done to a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The name of the process.
    pub target: String,
    /// What was done.
    pub what: What,
    /// The instant just before it was done.
    pub began: Mono,
    /// The instant just after it was undone, for what is: a signal that stops, a link that is cut.
    pub ended: Option<Mono>,
}

/// What can be done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum What {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
    /// SIGSTOP, until SIGCONT.
    Stop,
    /// Started again on the same files.
    Restart,
    /// SIGKILL to its sidecars.
    KillSidecars,
    /// Its link to the coordinator is cut: connections are reset and refused.
    Cut,
    /// Its link takes everything and passes nothing on.
    BlackHole,
    /// What passes its link is late.
    Delay {
        /// By how much, in each direction.
        #[serde(with = "rollout_core::duration")]
        by: Duration,
    },
    /// Its disk neither fails nor finishes.
    DiskStall,
    /// Its disk is full.
    DiskFull,
    /// Its disk reports an error.
    DiskError,
}

impl What {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Terminate => "terminate",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::KillSidecars => "kill sidecars",
            Self::Cut => "cut",
            Self::BlackHole => "black hole",
            Self::Delay { .. } => "delay",
            Self::DiskStall => "disk stall",
            Self::DiskFull => "disk full",
            Self::DiskError => "disk error",
        }
    }
}

impl Record {
    /// The process of this name.
    #[must_use]
    pub fn process(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.name == name)
    }

    /// The coordinator.
    #[must_use]
    pub fn coordinator(&self) -> Option<&Process> {
        self.processes.iter().find(|process| process.role == Role::Coordinator)
    }

    /// The workers, with their ids.
    pub fn workers(&self) -> impl Iterator<Item = (&Process, WorkerId)> {
        self.processes.iter().filter_map(|process| Some((process, process.worker()?)))
    }

    /// What was done to the process of this name.
    pub fn faults_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Fault> {
        self.faults.iter().filter(move |fault| fault.target == name)
    }

    /// The coordinator's events about `worker`, in their order.
    pub fn about(&self, worker: WorkerId) -> impl DoubleEndedIterator<Item = &Event> {
        let events = self.coordinator().into_iter().flat_map(|it| it.log.events());
        events.filter(move |event| event.worker_id == Some(worker))
    }

    /// Writes the record below `dir`; the logs, `<name>.log` and `<name>.stderr`, as well.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join(FILE), serde_json::to_vec_pretty(self).map_err(io::Error::other)?)?;
        for process in &self.processes {
            let lines: String =
                process.log.lines().iter().map(|line| format!("{}\n", line.raw)).collect();
            let torn = process.log.torn().unwrap_or_default();
            fs::write(dir.join(format!("{}.log", process.name)), lines + &torn)?;
            fs::write(dir.join(format!("{}.stderr", process.name)), &process.stderr)?;
        }
        Ok(())
    }

    /// Reads what [`write`](Self::write) has written.
    ///
    /// # Errors
    /// When a file is missing, or is not a record.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let mut record: Self = serde_json::from_slice(&fs::read(dir.join(FILE))?)?;
        for process in &mut record.processes {
            let name = &process.name;
            process.log.feed(&fs::read(dir.join(format!("{name}.log")))?);
            let stderr = fs::read(dir.join(format!("{name}.stderr")))?;
            process.stderr = String::from_utf8_lossy(&stderr).into_owned();
        }
        Ok(record)
    }
}

impl Ended {
    /// How it ended.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        Exit { code: self.code, signal: self.signal }
    }
}

impl Process {
    /// How its last life ended, if that was seen.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        Some(self.lives.last()?.ended.as_ref()?.exit())
    }

    /// Its id, if it is a worker.
    #[must_use]
    pub const fn worker(&self) -> Option<WorkerId> {
        match self.role {
            Role::Worker { id } => Some(id),
            Role::Coordinator => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rollout_core::RunId;

    use super::*;

    const LINE: &str = "{\"seq\":1,\"ts\":\"2023-11-14T22:13:20.000001Z\",\"mono_ns\":17,\
        \"level\":\"info\",\"kind\":\"event\",\"topic\":\"worker_ready\",\"run_id\":null,\
        \"attrs\":{\"epoch\":1}}";

    fn record() -> Record {
        let process = |name: &str, role, log: &str| Process {
            name: name.into(),
            role,
            lives: vec![Life {
                pid: 7,
                began: Mono(1),
                ended: Some(Ended { at: Mono(9), code: None, signal: Some(9) }),
            }],
            log: Log::from(log),
            stderr: format!("{name} said this"),
        };
        let worker = Role::Worker { id: WorkerId::generate() };
        let delay = What::Delay { by: Duration::from_millis(30) };
        Record {
            title: "a test".into(),
            run: RunId::generate(),
            timing: TimeBudget::default(),
            began: Mono(0),
            ended: Mono(10),
            processes: vec![
                process("coord", Role::Coordinator, &format!("{LINE}\nnot an event\ntorn")),
                process("w1", worker, ""),
            ],
            faults: vec![Fault {
                target: "w1".into(),
                what: delay,
                began: Mono(3),
                ended: Some(Mono(4)),
            }],
            harness_late: Duration::from_millis(2),
            leftovers: vec!["w1.db is locked".into()],
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written_with_lines_that_are_no_events_and_a_torn_one() {
        let (dir, written) = (tempfile::tempdir().unwrap(), record());
        written.write(dir.path()).unwrap();
        let read = Record::read(dir.path()).unwrap();
        let text = |record: &Record| serde_json::to_string(record).unwrap();
        assert_eq!(text(&read), text(&written));
        let log = &read.coordinator().unwrap().log;
        assert_eq!(log.lines().len(), 2);
        assert_eq!(log.events().count(), 1);
        assert_eq!(log.torn().as_deref(), Some("torn"));
        assert_eq!(read.process("w1").unwrap().stderr, "w1 said this");
        assert_eq!(read.faults_of("w1").count(), 1);
    }

    #[test]
    fn a_record_without_its_logs_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        record().write(dir.path()).unwrap();
        fs::remove_file(dir.path().join("w1.log")).unwrap();
        assert!(Record::read(dir.path()).is_err());
    }
}
