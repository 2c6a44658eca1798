//! What is to be seen of a record, before anything is drawn: a lane for each process with what it
//! went through, in time.

use std::time::Duration;

use rollout_core::{Event, Mono, WorkerId};
use serde_json::Value;

use super::countdown::{self, Countdown};
use super::scale::Scale;
use super::{marks, spans};
use crate::record::{Process, Record};

/// The most marks, and the most spans, of a page: beyond it neighbours of one kind become one.
const MOST: usize = 2000;

/// A process's part.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    /// Its name.
    pub(super) name: String,
    /// Its id, if it is a worker.
    pub(super) worker: Option<WorkerId>,
    /// What lasted.
    pub(super) spans: Vec<Span>,
    /// What happened at an instant, in the order of time.
    pub(super) marks: Vec<Mark>,
    /// When its beats were accepted.
    pub(super) beats: Vec<Mono>,
    /// The times in which its deadline came near.
    pub(super) countdowns: Vec<Countdown>,
}

/// The rows of a lane, from above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    /// What was done to it.
    Fault,
    /// The process itself.
    Process,
    /// What it said of itself.
    Own,
    /// What the coordinator took it for.
    Seen,
}

/// Something that lasted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Span {
    /// Where it is drawn.
    pub(super) row: Row,
    /// How: the name of a style.
    pub(super) class: &'static str,
    /// Its beginning.
    pub(super) from: Mono,
    /// Its end.
    pub(super) to: Mono,
    /// What it is, in words.
    pub(super) title: String,
}

/// What kind of thing happened at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The coordinator's verdict.
    Failed,
    /// It was killed.
    Kill,
    /// Something else was done to it.
    Fault,
    /// It fenced itself.
    Fenced,
    /// The coordinator began a term.
    Term,
    /// The coordinator noticed that it had been stopped.
    Stalled,
    /// A worker was given an epoch.
    Registered,
    /// It was suspected.
    Suspected,
    /// It kept its epoch on a new connection.
    Resumed,
    /// It was suspected no more.
    Recovered,
    /// It was asked to end, or left.
    Leaving,
    /// It ended.
    Ended,
    /// Something that should not be.
    Trouble,
    /// It was started.
    Began,
}

/// Something that happened at an instant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mark {
    /// What kind of thing.
    pub(super) kind: Kind,
    /// When.
    pub(super) at: Mono,
    /// Its label in the chart; empty for none.
    pub(super) label: String,
    /// Its name in the table.
    pub(super) word: String,
    /// All there is to say about it.
    pub(super) detail: String,
    /// How many of its kind it stands for.
    pub(super) times: usize,
}

impl Kind {
    /// The style of its mark, and the name of its sign.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Kill => "kill",
            Self::Fault => "fault",
            Self::Fenced => "fenced",
            Self::Term => "term",
            Self::Stalled => "stalled",
            Self::Registered => "registered",
            Self::Suspected => "suspected",
            Self::Resumed => "resumed",
            Self::Recovered => "recovered",
            Self::Leaving => "leaving",
            Self::Ended => "ended",
            Self::Trouble => "trouble",
            Self::Began => "began",
        }
    }

    /// The row on which its sign stands.
    pub(super) const fn row(self) -> Row {
        match self {
            Self::Kill | Self::Fault | Self::Ended | Self::Began | Self::Term | Self::Trouble => {
                Row::Process
            }
            Self::Fenced | Self::Stalled => Row::Own,
            _ => Row::Seen,
        }
    }

    /// The order in which labels are given room.
    pub(super) const fn rank(self) -> u8 {
        self as u8
    }
}

/// The lanes of a record, the coordinator's first.
pub(super) fn lanes(record: &Record, scale: Scale) -> Vec<Lane> {
    let mut lanes: Vec<_> = record.processes.iter().map(|process| lane(record, process)).collect();
    thin(&mut lanes, scale);
    lanes
}

fn lane(record: &Record, process: &Process) -> Lane {
    let worker = process.worker();
    let mut marks = marks::of(record, process);
    marks.sort_by_key(|mark| mark.at);
    let beats = worker.map_or_else(Vec::new, |id| countdown::beats(record, id));
    let countdowns = worker.map_or_else(Vec::new, |id| countdown::of(record, id));
    let spans = spans::of(record, process);
    Lane { name: process.name.clone(), worker, spans, marks, beats, countdowns }
}

/// Makes one of neighbours of one kind until there are no more than a page can show.
fn thin(lanes: &mut [Lane], scale: Scale) {
    let all = lanes.to_vec();
    let mut pixels = 0.5;
    loop {
        let marks: usize = lanes.iter().map(|lane| lane.marks.len()).sum();
        let spans: usize = lanes.iter().map(|lane| lane.spans.len()).sum();
        if marks <= MOST && spans <= MOST || pixels > super::scale::LEAST_WIDTH {
            return;
        }
        let near = scale.lasts(pixels);
        for (lane, all) in lanes.iter_mut().zip(&all) {
            lane.marks = merge_marks(&all.marks, near);
            lane.spans = merge_spans(&all.spans, near);
        }
        pixels *= 2.0;
    }
}

fn merge_marks(marks: &[Mark], near: Duration) -> Vec<Mark> {
    let mut merged: Vec<Mark> = Vec::new();
    for mark in marks {
        let last = merged.iter_mut().rfind(|last| last.kind == mark.kind);
        match last.filter(|last| mark.at.since(last.at) <= near) {
            Some(last) => last.times += mark.times,
            None => merged.push(mark.clone()),
        }
    }
    merged
}

fn merge_spans(spans: &[Span], near: Duration) -> Vec<Span> {
    let mut merged: Vec<Span> = Vec::new();
    for span in spans {
        let last = merged.iter_mut().rfind(|last| (last.row, last.class) == (span.row, span.class));
        match last.filter(|last| span.from.since(last.to) <= near) {
            Some(last) => last.to = last.to.max(span.to),
            None => merged.push(span.clone()),
        }
    }
    merged
}

/// The attributes of an event, and its message, in one line.
pub(super) fn attributes(event: &Event) -> String {
    let value = serde_json::to_value(event).unwrap_or_default();
    let mut parts: Vec<String> = event.message.iter().cloned().collect();
    if let Some(Value::Object(attrs)) = value.get("attrs") {
        parts.extend(attrs.iter().map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            value => format!("{key}={value}"),
        }));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(kind: Kind, at: u64) -> Mark {
        let (label, word, detail) = (String::new(), String::new(), String::new());
        Mark { kind, at: Mono(at), label, word, detail, times: 1 }
    }

    proptest! {
        #[test]
        fn thinned_marks_stand_for_all_of_their_kind_and_are_few(
            instants in proptest::collection::vec(0u64..1_000_000, 0..9000),
        ) {
            let mut instants = instants;
            instants.sort_unstable();
            let kinds = [Kind::Suspected, Kind::Recovered];
            let marks: Vec<_> =
                instants.iter().map(|at| mark(kinds[*at as usize % 2], *at)).collect();
            let lane = Lane {
                name: "w1".into(),
                worker: None,
                spans: Vec::new(),
                marks: marks.clone(),
                beats: Vec::new(),
                countdowns: Vec::new(),
            };
            let mut lanes = [lane];
            thin(&mut lanes, Scale::new(Mono(0), Mono(1_000_000)));
            let count = |marks: &[Mark], kind| -> usize {
                marks.iter().filter(|mark| mark.kind == kind).map(|mark| mark.times).sum()
            };
            for kind in kinds {
                prop_assert_eq!(count(&lanes[0].marks, kind), count(&marks, kind));
            }
            prop_assert!(lanes[0].marks.len() <= MOST);
            prop_assert!(marks.len() > MOST || lanes[0].marks == marks);
            prop_assert!(lanes[0].marks.is_sorted_by_key(|mark| mark.at));
        }
    }
}
