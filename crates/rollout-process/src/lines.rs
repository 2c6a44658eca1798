//! Bytes into lines of bounded length, and the last of them kept. Pure.

use std::collections::VecDeque;

/// Splits a stream of bytes at `\n`. A line longer than `max` bytes loses its end, so that a
/// stream without line ends takes no more memory than that.
pub(crate) struct Lines {
    line: Vec<u8>,
    max: usize,
}

impl Lines {
    pub(crate) fn new(max: usize) -> Self {
        Self { line: Vec::new(), max }
    }

    /// Takes `bytes` in and hands out each line they complete, without its `\n`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut on_line: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = self.max.saturating_sub(self.line.len());
            self.line.extend(text.iter().take(room));
            if complete {
                on_line(&String::from_utf8_lossy(&self.line));
                self.line.clear();
            }
        }
    }

    /// Hands out the last line if the stream ended without a `\n`.
    pub(crate) fn finish(self, mut on_line: impl FnMut(&str)) {
        if !self.line.is_empty() {
            on_line(&String::from_utf8_lossy(&self.line));
        }
    }
}

/// The last lines of a stream.
pub(crate) struct Tail {
    lines: VecDeque<String>,
    max: usize,
}

impl Tail {
    pub(crate) fn new(max: usize) -> Self {
        Self { lines: VecDeque::new(), max }
    }

    pub(crate) fn push(&mut self, line: &str) {
        self.lines.push_back(line.to_owned());
        if self.lines.len() > self.max {
            self.lines.pop_front();
        }
    }

    /// The lines kept, oldest first, joined by `\n`.
    pub(crate) fn into_text(self) -> String {
        Vec::from(self.lines).join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(max: usize, pieces: &[&[u8]]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut lines = Lines::new(max);
        for piece in pieces {
            lines.push(piece, |line| seen.push(line.to_owned()));
        }
        lines.finish(|line| seen.push(line.to_owned()));
        seen
    }

    #[test]
    fn lines_do_not_depend_on_how_the_bytes_arrive() {
        assert_eq!(split(80, &[b"one\ntwo\n\nend"]), ["one", "two", "", "end"]);
        assert_eq!(
            split(80, &[b"o", b"ne", b"\nt", b"wo\n", b"\ne", b"nd"]),
            split(80, &[b"one\ntwo\n\nend"])
        );
        assert_eq!(split(80, &[b"one\n"]), ["one"]);
    }

    #[test]
    fn a_line_longer_than_the_limit_loses_its_end_and_not_the_next_line() {
        assert_eq!(split(4, &[b"123456", b"789\nnext\n"]), ["1234", "next"]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(split(80, &[b"a\xffb\n"]), ["a\u{fffd}b"]);
    }

    #[test]
    fn a_tail_keeps_the_last_lines_only() {
        let mut tail = Tail::new(2);
        for line in ["one", "two", "three"] {
            tail.push(line);
        }
        assert_eq!(tail.into_text(), "two\nthree");
        let mut none = Tail::new(0);
        none.push("one");
        assert_eq!(none.into_text(), "");
    }
}
