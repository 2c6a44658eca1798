//! Reads an event stream while it is being written: whole lines only, each an event or evidence.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rollout_core::Event;

/// A line of a stream.
#[derive(Debug, Clone)]
pub struct Line {
    /// The line as written, without its end; bytes that are not UTF-8 are replaced.
    pub raw: String,
    /// The event it is, or why it is none.
    pub event: Result<Event, String>,
}

impl Line {
    fn read(bytes: &[u8]) -> Self {
        let event = serde_json::from_slice(bytes).map_err(|e| e.to_string());
        Self { raw: String::from_utf8_lossy(bytes).into_owned(), event }
    }
}

/// What one process wrote to its standard output.
#[derive(Debug, Clone, Default)]
pub struct Log {
    lines: Vec<Line>,
    rest: Vec<u8>,
}

impl Log {
    /// Appends what was written next, cut anywhere.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(&bytes[..end]);
            self.lines.push(Line::read(&self.rest));
            self.rest.clear();
            bytes = &bytes[end + 1..];
        }
        self.rest.extend_from_slice(bytes);
    }

    /// The complete lines.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The lines that are events, in the order they were written.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.lines.iter().filter_map(|line| line.event.as_ref().ok())
    }

    /// Changes the complete lines, for logs that are made up from real ones.
    pub(crate) fn edit(&mut self, edit: impl FnOnce(&mut Vec<Line>)) {
        edit(&mut self.lines);
    }

    /// A last line without its end, if there is one.
    #[must_use]
    pub fn torn(&self) -> Option<String> {
        (!self.rest.is_empty()).then(|| String::from_utf8_lossy(&self.rest).into_owned())
    }
}

impl From<&str> for Log {
    fn from(text: &str) -> Self {
        let mut log = Self::default();
        log.feed(text.as_bytes());
        log
    }
}

/// A log that follows the file it is written to.
#[derive(Debug)]
pub struct Tail {
    file: File,
    log: Log,
}

impl Tail {
    /// Follows `path`, which exists.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, log: Log::default() })
    }

    /// Reads on to what is the end of the file now.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn poll(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(()),
                n => self.log.feed(&buffer[..n]),
            }
        }
    }

    /// What was read so far.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const EVENT: &str = "{\"seq\":1,\"ts\":\"2023-11-14T22:13:20.000001Z\",\"mono_ns\":17,\
        \"level\":\"info\",\"kind\":\"event\",\"topic\":\"worker_ready\",\"run_id\":null,\
        \"attrs\":{\"epoch\":1}}";

    #[test]
    fn a_line_counts_only_once_it_is_complete() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tail = Tail::open(file.path()).unwrap();
        let (head, rest) = EVENT.split_at(40);
        let mut writer = file.as_file();
        for (text, lines, torn) in [(head, 0, true), (rest, 0, true), ("\n", 1, false)] {
            writer.write_all(text.as_bytes()).unwrap();
            tail.poll().unwrap();
            assert_eq!(tail.log().lines().len(), lines);
            assert_eq!(tail.log().torn().is_some(), torn);
        }
        assert_eq!(tail.log().events().count(), 1);
    }

    #[test]
    fn junk_is_kept_as_it_was_written_and_is_no_event() {
        let log = Log::from(format!("thread 'main' panicked at x\n{EVENT}\n\n").as_str());
        assert_eq!(log.lines().len(), 3);
        assert_eq!(log.events().count(), 1);
        assert!(log.lines()[0].raw.contains("panicked at") && log.lines()[0].event.is_err());
        assert!(log.lines()[2].event.is_err(), "an empty line is not an event");
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_its_lines_are_the_same(
            text in "[a-c\n]{0,60}", cuts in proptest::collection::vec(0usize..60, 0..6),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut log = Log::default();
            for pair in cuts.windows(2) {
                log.feed(&text.as_bytes()[pair[0]..pair[1]]);
            }
            let mut lines: Vec<_> = text.split('\n').map(str::to_owned).collect();
            let torn = lines.pop().filter(|rest| !rest.is_empty());
            prop_assert_eq!(log.torn(), torn);
            prop_assert_eq!(log.lines().iter().map(|l| l.raw.clone()).collect::<Vec<_>>(), lines);
        }
    }
}
