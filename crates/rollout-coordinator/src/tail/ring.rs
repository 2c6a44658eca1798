//! The lines that are kept, and where a reader is among them. Pure.

use std::collections::VecDeque;

use rollout_core::event::{TOPICS, Topics};

/// The newest lines, as many as fit.
pub(super) struct Ring {
    most: usize,
    most_bytes: usize,
    /// Which line the oldest is that is kept, from 0.
    first: u64,
    lines: VecDeque<Line>,
    /// Those of all lines, one after the other.
    bytes: VecDeque<u8>,
    /// The lines that are kept no more, by topic.
    gone: [u64; TOPICS],
}

struct Line {
    topic: usize,
    bytes: usize,
}

/// Where a reader is.
#[derive(Debug)]
pub(super) struct Cursor {
    topics: Topics,
    /// The next line to look at.
    next: u64,
    /// Of the lines before it, those of its topics.
    passed: u64,
    /// Where it ends, unless it follows.
    end: Option<End>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    line: u64,
    /// Of the lines before it, those of the reader's topics.
    passed: u64,
}

/// What a reader finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The lines of its topics that are kept no more, before these.
    pub(super) missed: u64,
    /// The next lines.
    pub(super) bytes: Vec<u8>,
    /// Whether there are more already.
    pub(super) more: bool,
}

impl Cursor {
    pub(super) const fn is_following(&self) -> bool {
        self.end.is_none()
    }
}

impl Ring {
    pub(super) const fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            most,
            most_bytes,
            first: 0,
            lines: VecDeque::new(),
            bytes: VecDeque::new(),
            gone: [0; TOPICS],
        }
    }

    /// Takes a line; the oldest give way to it.
    pub(super) fn push(&mut self, topic: usize, line: &[u8]) {
        self.lines.push_back(Line { topic, bytes: line.len() });
        // One that is too long for all the room is gone at once.
        let fits = line.len() <= self.most_bytes;
        let room = if fits { self.most_bytes - line.len() } else { 0 };
        while self.lines.len() > self.most || self.bytes.len() > room {
            self.drop_oldest();
        }
        if fits {
            self.bytes.extend(line);
        } else {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.lines.pop_front() {
            self.bytes.drain(..oldest.bytes.min(self.bytes.len()));
            self.gone[oldest.topic] += 1;
            self.first += 1;
        }
    }

    /// A reader at the oldest line, which goes to the newest there is now, or on and on.
    pub(super) fn open(&self, topics: Topics, follow: bool) -> Cursor {
        let passed = self.gone(topics);
        let end = (!follow).then(|| {
            let kept = self.lines.iter().filter(|line| topics.has(line.topic)).count() as u64;
            End { line: self.end(), passed: passed + kept }
        });
        Cursor { topics, next: self.first, passed, end }
    }

    /// Reads on, until there are about so many bytes.
    pub(super) fn read(&self, cursor: &mut Cursor, about: usize) -> Found {
        let mut found = Found::default();
        let mut end = self.end();
        let mut gone = self.gone(cursor.topics);
        if let Some(last) = cursor.end {
            (end, gone) = (end.min(last.line), gone.min(last.passed));
        }
        if cursor.next < self.first {
            found.missed = gone - cursor.passed;
            (cursor.next, cursor.passed) = (self.first.min(end), gone);
        }
        // Lines come to no more than `most`, which is a `usize`.
        let skipped = cursor.next.saturating_sub(self.first) as usize;
        let mut at: usize = self.lines.iter().take(skipped).map(|line| line.bytes).sum();
        for line in self.lines.iter().skip(skipped) {
            if cursor.next >= end || found.bytes.len() >= about {
                break;
            }
            if cursor.topics.has(line.topic) {
                self.copy(at, line.bytes, &mut found.bytes);
                cursor.passed += 1;
            }
            at += line.bytes;
            cursor.next += 1;
        }
        found.more = cursor.next < end;
        found
    }

    fn copy(&self, at: usize, bytes: usize, to: &mut Vec<u8>) {
        let (front, back) = self.bytes.as_slices();
        let range = |part: &[u8], before: usize| {
            let start = at.saturating_sub(before).min(part.len());
            start..(at + bytes).saturating_sub(before).min(part.len())
        };
        to.extend_from_slice(&front[range(front, 0)]);
        to.extend_from_slice(&back[range(back, front.len())]);
    }

    /// Which line comes next.
    fn end(&self) -> u64 {
        self.first + self.lines.len() as u64
    }

    /// The lines of these topics that are kept no more.
    fn gone(&self, topics: Topics) -> u64 {
        let counts = self.gone.iter().enumerate();
        counts.filter(|(topic, _)| topics.has(*topic)).map(|(_, gone)| gone).sum()
    }
}
