//! What really was: who ran, who was stopped, whose link passed. From the harness's own instants
//! alone, never from what the processes say.

use std::collections::HashMap;
use std::time::Duration;

use rollout_core::Mono;

use super::spans::Spans;
use super::streams::{life_at, was_killed};
use crate::record::{Fault, Life, Process, Record, What};

/// How long after something is undone that may be noted.
const NOTED_WITHIN: Duration = Duration::from_millis(50);

/// What was done to one process, as stretches of time.
#[derive(Debug, Default)]
struct Done {
    /// It was stopped.
    stopped: Spans,
    /// Its link passed nothing.
    cut_off: Spans,
    /// Its link was so slow that it may not have been able to connect.
    slow: Spans,
    /// Its disk was stalled.
    stalled_disk: Spans,
}

/// What really was.
pub(super) struct Truth<'a> {
    record: &'a Record,
    done: HashMap<&'a str, Done>,
    nothing: Done,
}

impl<'a> Truth<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        let patience = record.timing.reconnect().connect_timeout;
        let done = record
            .processes
            .iter()
            .map(|process| (process.name.as_str(), Done::to(record, process, patience)));
        Self { record, done: done.collect(), nothing: Done::default() }
    }

    fn to(&self, process: &Process) -> &Done {
        self.done.get(process.name.as_str()).unwrap_or(&self.nothing)
    }

    /// When it was stopped.
    pub(super) fn stopped(&self, process: &Process) -> &Spans {
        &self.to(process).stopped
    }

    /// When its disk was stalled.
    pub(super) fn stalled_disk(&self, process: &Process) -> &Spans {
        &self.to(process).stalled_disk
    }

    /// Whether this life ran, was not stopped, and had a link that passed, all the time from `from`
    /// to `to`.
    pub(super) fn good(&self, process: &Process, life: &Life, from: Mono, to: Mono) -> bool {
        let done = self.to(process);
        life.began <= from
            && self.runs(process, life, from, to)
            && !done.cut_off.touch(from, to)
            && !done.slow.touch(from, to)
    }

    /// Whether its link passed, and without delay, all the time from `from` to `to`.
    pub(super) fn linked(&self, process: &Process, from: Mono, to: Mono) -> bool {
        let done = self.to(process);
        !done.cut_off.touch(from, to) && !done.slow.touch(from, to)
    }

    /// Whether this life ran and was not stopped, all the time from `from` to `to`.
    pub(super) fn runs(&self, process: &Process, life: &Life, from: Mono, to: Mono) -> bool {
        let gone = self.last_seen(process, life);
        life.began <= from && to < gone && !self.to(process).stopped.touch(from, to)
    }

    /// Whether nothing of this life can have arrived in all the time from `from` to `to`: its link
    /// passed nothing, or passed everything at once and it had ended or was stopped. (A link that
    /// heals passes on what it had swallowed.)
    pub(super) fn silent(&self, process: &Process, life: &Life, from: Mono, to: Mono) -> bool {
        let done = self.to(process);
        let gone = life.ended.as_ref().is_some_and(|ended| ended.at <= from);
        // What is undone is noted after it is.
        let noted = to + NOTED_WITHIN;
        done.cut_off.cover(from, noted)
            || (self.linked(process, from, to) && (gone || done.stopped.cover(from, noted)))
    }

    /// Until when this life surely ran, if it was not stopped: it may have ended at any time between
    /// that and the instant at which it was seen to have ended.
    pub(super) fn last_seen(&self, process: &Process, life: &Life) -> Mono {
        let Some(ended) = &life.ended else { return self.record.ended };
        let fatal = self.record.faults_of(&process.name).filter(|fault| {
            matches!(fault.what, What::Kill | What::Terminate)
                && life.began <= fault.began
                && fault.began <= ended.at
        });
        fatal.map(|fault| fault.began).min().unwrap_or(ended.at).min(ended.at)
    }

    /// The instant before the kill that ended this life, if one did.
    pub(super) fn killed(&self, process: &Process, life: &Life) -> Option<Mono> {
        let ended = life.ended.as_ref().filter(|_| was_killed(life))?;
        let mut faults = self.record.faults_of(&process.name);
        let kill = faults.find(|fault| {
            fault.what == What::Kill && life.began <= fault.began && fault.began <= ended.at
        })?;
        Some(kill.began)
    }
}

impl Done {
    fn to(record: &Record, process: &Process, patience: Duration) -> Self {
        let end = |fault: &Fault| fault.ended.unwrap_or(record.ended);
        let spans = |fits: &dyn Fn(What) -> bool| -> Spans {
            let faults = record.faults_of(&process.name).filter(|fault| fits(fault.what));
            faults.map(|fault| (fault.began, end(fault))).collect()
        };
        // Who is stopped is so until its process ends, at most.
        let stops = record.faults_of(&process.name).filter(|fault| fault.what == What::Stop);
        let stopped = stops.map(|fault| {
            let life = life_at(process, fault.began).and_then(|life| life.ended.as_ref());
            (fault.began, life.map_or(end(fault), |ended| ended.at.min(end(fault))))
        });
        // A handshake is a few round trips, each twice the delay.
        let too_slow = |by: Duration| by * 8 > patience;
        Self {
            stopped: stopped.collect(),
            cut_off: spans(&|what| matches!(what, What::Cut | What::BlackHole)),
            slow: spans(&|what| matches!(what, What::Delay { by } if too_slow(by))),
            stalled_disk: spans(&|what| what == What::DiskStall),
        }
    }
}
