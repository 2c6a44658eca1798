//! How many results there were when, from a look at their file now and then.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// The growth of a file of lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Growth {
    /// When, and how many lines there were.
    seen: Vec<(Duration, u64)>,
}

/// Counts a file's lines while it grows.
pub(super) struct Counter<'a> {
    path: &'a Path,
    /// Open once it is there; it may be removed or renamed then.
    file: Option<File>,
    buffer: Vec<u8>,
    lines: u64,
    growth: Growth,
}

impl<'a> Counter<'a> {
    pub(super) fn of(path: &'a Path) -> Self {
        let growth = Growth::default();
        Self { path, file: None, buffer: vec![0; 1 << 16], lines: 0, growth }
    }

    /// Reads what there is.
    pub(super) fn look(&mut self, since: Duration) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => match File::open(self.path) {
                Ok(file) => none.insert(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        let before = self.lines;
        loop {
            let count = file.read(&mut self.buffer)?;
            let read = self.buffer.get(..count).unwrap_or_default();
            self.lines += read.iter().filter(|byte| **byte == b'\n').count() as u64;
            if count < self.buffer.len() {
                break;
            }
        }
        if self.lines > before {
            self.growth.seen.push((since, self.lines));
        }
        Ok(())
    }

    pub(super) fn growth(self) -> Growth {
        self.growth
    }
}

impl Growth {
    /// How many lines there were in the end.
    pub(super) fn lines(&self) -> u64 {
        self.seen.last().map_or(0, |(_, lines)| *lines)
    }

    /// When the first lines were seen.
    pub(super) fn first(&self) -> Option<Duration> {
        self.seen.first().map(|(at, _)| *at)
    }

    /// When the last lines were seen.
    pub(super) fn last(&self) -> Option<Duration> {
        self.seen.last().map(|(at, _)| *at)
    }

    /// Lines a second in each tenth of those that came after the first look at some.
    pub(super) fn tenths(&self) -> Option<[f64; 10]> {
        let (first, last) = (self.seen.first()?.1, self.lines());
        let part = (last - first) as f64 / 10.0;
        let mut at = [0.0; 11];
        for (tenth, at) in at.iter_mut().enumerate() {
            *at = self.reached(first as f64 + part * tenth as f64)?;
        }
        let mut rates = [0.0; 10];
        for (rate, pair) in rates.iter_mut().zip(at.windows(2)) {
            let &[from, to] = pair else { return None };
            if to <= from {
                return None;
            }
            *rate = part / (to - from);
        }
        Some(rates)
    }

    /// Lines a second after the first look at some.
    pub(super) fn rate(&self) -> Option<f64> {
        let (&(from, first), &(to, last)) = (self.seen.first()?, self.seen.last()?);
        let seconds = to.saturating_sub(from).as_secs_f64();
        (seconds > 0.0).then(|| (last - first) as f64 / seconds)
    }

    /// When there were so many lines, in seconds; between two looks on a straight line.
    fn reached(&self, lines: f64) -> Option<f64> {
        let after = self.seen.iter().position(|(_, seen)| *seen as f64 >= lines)?;
        let &(to, high) = self.seen.get(after)?;
        let Some(&(from, low)) = after.checked_sub(1).and_then(|before| self.seen.get(before))
        else {
            return Some(to.as_secs_f64());
        };
        let share = (lines - low as f64) / (high - low) as f64;
        Some(from.as_secs_f64() + share * (to - from).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn growth(seen: impl IntoIterator<Item = (u64, u64)>) -> Growth {
        Growth { seen: seen.into_iter().map(|(ms, n)| (Duration::from_millis(ms), n)).collect() }
    }

    #[test]
    fn a_steady_rate_is_the_same_in_every_tenth_and_one_that_falls_is_seen_where_it_falls() {
        let steady = growth((1..=7).map(|n| (100 + 10 * n, 1_000 * n)));
        assert_eq!(steady.rate().unwrap().round(), 100_000.0);
        for rate in steady.tenths().unwrap() {
            assert!((rate - 100_000.0).abs() < 1.0, "{rate}");
        }
        let falls = growth([(0, 10), (900, 910), (2_900, 1_010)]);
        let tenths = falls.tenths().unwrap().map(f64::round);
        assert_eq!(tenths, [1e3, 1e3, 1e3, 1e3, 1e3, 1e3, 1e3, 1e3, 1e3, 50.0]);
    }

    #[test]
    fn one_look_has_no_rate() {
        assert!(growth([]).tenths().is_none() && growth([(5, 10)]).tenths().is_none());
        assert!(growth([(5, 10)]).rate().is_none());
    }

    #[test]
    fn lines_are_counted_when_they_are_whole_and_of_a_file_that_is_gone_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        let mut counter = Counter::of(&path);
        let look = |counter: &mut Counter, ms| counter.look(Duration::from_millis(ms)).unwrap();
        look(&mut counter, 1);
        let mut file = File::create(&path).unwrap();
        file.write_all(b"a\nb").unwrap();
        look(&mut counter, 2);
        std::fs::remove_file(&path).unwrap();
        file.write_all(b"b\nc\n").unwrap();
        look(&mut counter, 3);
        look(&mut counter, 4);
        let seen = counter.growth().seen;
        assert_eq!(seen, growth([(2, 1), (3, 3)]).seen);
    }
}
