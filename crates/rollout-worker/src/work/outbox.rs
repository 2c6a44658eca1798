//! The outcomes on their way: gathered into lines, numbered within an epoch, and kept until they are
//! acknowledged, to be sent again on each new stream.
//!
//! After a pause an outcome goes out at once; those that follow share a line every [`GATHER`], or as soon
//! as they fill one: each line costs the coordinator a transaction, and its disk a sync. A few lines are
//! under way at a time; while the coordinator is busy, more share a line.

use std::collections::VecDeque;
use std::time::Duration;

use rollout_core::{JobId, Mono};
use rollout_transport::work::{End, Failure, LINE_TARGET, Outcome, WorkUp};

/// Lines that are sent and not acknowledged.
const WINDOW: usize = 4;
/// The time between two lines, as long as they are not full and more is to come.
pub(super) const GATHER: Duration = Duration::from_millis(20);
/// What an outcome's line has beside its text.
const OVERHEAD: usize = 64;

/// The outcomes of one epoch that are not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Chunk>,
    sent: VecDeque<(u64, Chunk)>,
    /// How many of `sent` have been said on this stream.
    said: usize,
    last: u64,
    bytes: usize,
    /// When the next line is due that is not full.
    due: Mono,
}

#[derive(Debug)]
struct Chunk {
    job: JobId,
    outcomes: Vec<Outcome>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, job: JobId, outcome: Outcome) {
        let size = size(&outcome.end);
        self.bytes += size;
        let fits = |chunk: &&mut Chunk| chunk.job == job && chunk.bytes + size <= LINE_TARGET;
        match self.waiting.iter_mut().rev().find(fits) {
            Some(chunk) => {
                chunk.bytes += size;
                chunk.outcomes.push(outcome);
            }
            None => self.waiting.push_back(Chunk { job, outcomes: vec![outcome], bytes: size }),
        }
    }

    /// The size of what is kept.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty()
    }

    /// Nothing has been said on the stream, which is a new one.
    pub(super) fn stream(&mut self) {
        self.said = 0;
    }

    /// When the next line is due, if one waits for its time alone.
    pub(super) fn due(&self) -> Option<Mono> {
        let waits = self.said < WINDOW && self.said == self.sent.len() && self.waiting.len() == 1;
        waits.then_some(self.due)
    }

    /// The next line, if one may be sent now; `last` says that no outcome is about to follow.
    pub(super) fn line(&mut self, now: Mono, last: bool) -> Option<WorkUp> {
        if self.said >= WINDOW {
            return None;
        }
        if self.said == self.sent.len() {
            if self.waiting.len() == 1 && now < self.due && !last {
                return None;
            }
            let chunk = self.waiting.pop_front()?;
            self.due = now + GATHER;
            self.last += 1;
            self.sent.push_back((self.last, chunk));
        }
        let (seq, chunk) = self.sent.get(self.said)?;
        self.said += 1;
        Some(WorkUp::Done { seq: *seq, job: chunk.job, outcomes: chunk.outcomes.clone() })
    }

    /// The lines up to this one are dealt with: their outcomes.
    pub(super) fn acknowledged(&mut self, seq: u64) -> Vec<(JobId, Vec<Outcome>)> {
        let mut over = Vec::new();
        while self.sent.front().is_some_and(|(sent, _)| *sent <= seq) {
            let Some((_, chunk)) = self.sent.pop_front() else { break };
            self.said = self.said.saturating_sub(1);
            self.bytes -= chunk.bytes;
            over.push((chunk.job, chunk.outcomes));
        }
        over
    }
}

/// About the size of an outcome on the line.
fn size(end: &End) -> usize {
    let failure = |failure: &Failure| {
        let Failure { code, message, traceback, stderr_tail } = failure;
        let some = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        code.len() + message.len() + some(traceback) + some(stderr_tail)
    };
    OVERHEAD
        + match end {
            End::Result(result) => result.get().len(),
            End::Blob(blob) => blob.sha256.len(),
            End::Failed(of) | End::Lost { failure: of, .. } => failure(of),
        }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rollout_transport::work::Lease;
    use serde_json::value::RawValue;

    use super::*;

    fn outcome(item: u64, size: usize) -> Outcome {
        let text = format!("\"{}\"", "x".repeat(size));
        let end = End::Result(RawValue::from_string(text).unwrap());
        Outcome { lease: Lease { item, attempt: 1 }, end }
    }

    fn items(line: &WorkUp) -> (u64, Vec<u64>) {
        let WorkUp::Done { seq, outcomes, .. } = line else { panic!("{line:?}") };
        (*seq, outcomes.iter().map(|outcome| outcome.lease.item).collect())
    }

    #[test]
    fn the_first_goes_at_once_those_that_come_while_the_window_is_full_share_a_line() {
        let (mut outbox, job) = (Outbox::default(), JobId::generate());
        let mut now = Mono::default();
        for item in 0..WINDOW as u64 {
            outbox.push(job, outcome(item, 1));
            assert_eq!(items(&outbox.line(now, false).unwrap()), (item + 1, vec![item]));
            now += GATHER;
        }
        for item in 10..15 {
            outbox.push(job, outcome(item, 1));
            assert!(outbox.line(now, false).is_none() && outbox.due().is_none());
        }
        assert_eq!(outbox.acknowledged(1).len(), 1);
        assert_eq!(items(&outbox.line(now, false).unwrap()), (5, (10..15).collect()));
    }

    #[test]
    fn those_that_follow_wait_for_others_unless_they_fill_a_line_or_are_the_last() {
        let (mut outbox, job, now) = (Outbox::default(), JobId::generate(), Mono::default());
        outbox.push(job, outcome(0, 1));
        assert!(outbox.line(now, false).is_some());
        outbox.push(job, outcome(1, 1));
        assert!(outbox.line(now, false).is_none());
        let due = outbox.due().unwrap();
        assert_eq!(due, now + GATHER);
        outbox.push(job, outcome(2, 1));
        assert_eq!(items(&outbox.line(due, false).unwrap()), (2, vec![1, 2]));
        outbox.push(job, outcome(3, 1));
        assert_eq!(items(&outbox.line(due, true).unwrap()), (3, vec![3]));
        outbox.push(job, outcome(4, 1));
        outbox.push(job, outcome(5, LINE_TARGET));
        assert_eq!(items(&outbox.line(due, false).unwrap()), (4, vec![4]));
    }

    proptest! {
        /// Whatever is pushed, lost with a stream and acknowledged: each outcome is in exactly one
        /// line, a line is always said with the same number and content, in order on each stream,
        /// and none but the acknowledged ones are dropped.
        #[test]
        fn a_line_is_the_same_on_every_stream_and_is_kept_until_it_is_acknowledged(
            steps in prop::collection::vec((0u8..4, 0usize..200_000), 1..120)
        ) {
            let jobs = [JobId::generate(), JobId::generate()];
            let mut outbox = Outbox::default();
            let (mut pushed, mut acked) = (0u64, 0u64);
            let mut lines: Vec<Vec<u64>> = Vec::new();
            let mut on_stream = 0u64;
            for (step, number) in steps {
                match step {
                    0 | 1 => {
                        outbox.push(jobs[number % 2], outcome(pushed, number));
                        pushed += 1;
                    }
                    2 => while let Some(line) = outbox.line(Mono::default(), true) {
                        let (seq, of) = items(&line);
                        prop_assert_eq!(seq, on_stream.max(acked) + 1);
                        on_stream = seq;
                        if seq as usize > lines.len() {
                            prop_assert_eq!(seq as usize, lines.len() + 1);
                            lines.push(of);
                        } else {
                            prop_assert_eq!(&lines[seq as usize - 1], &of);
                        }
                        prop_assert!(on_stream - acked <= WINDOW as u64);
                    },
                    _ if number % 3 == 0 => {
                        outbox.stream();
                        on_stream = acked;
                    }
                    _ => {
                        let seq = acked + number as u64 % (on_stream - acked + 1);
                        let over = outbox.acknowledged(seq);
                        prop_assert_eq!(over.len() as u64, seq - acked);
                        acked = seq;
                    }
                }
            }
            outbox.stream();
            while !outbox.is_empty() {
                while let Some(line) = outbox.line(Mono::default(), true) {
                    let (seq, of) = items(&line);
                    if seq as usize > lines.len() {
                        lines.push(of);
                    }
                    acked = seq;
                }
                outbox.acknowledged(acked);
            }
            prop_assert_eq!(outbox.bytes(), 0);
            let mut all: Vec<u64> = lines.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..pushed).collect::<Vec<_>>());
        }
    }
}
