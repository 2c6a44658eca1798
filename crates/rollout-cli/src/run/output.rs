//! The results as they grow: lines in the order of commits, and where each item's line is.
//!
//! What is written is only a cache of the coordinator's ledger. A mark says up to which commit the
//! files hold, and how long they are there: what is behind it after a kill is cut off and followed
//! again, so that nothing is missing and nothing is twice, wherever the kill fell.

mod lines;
mod order;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rollout_transport::work::Committed;
use serde::{Deserialize, Serialize};

use crate::run::dir::{RunDir, write_whole};
use crate::run::error::RunError;

/// How many items have come to which end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) done: u64,
    pub(crate) dead: u64,
}

/// What the files are known to hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    /// The newest commit in them.
    seq: u64,
    /// The length of the results.
    results: u64,
    /// The length of the dead letters.
    dead: u64,
}

/// Where an item's line begins, plus one, and in which file; nothing until it has come to its end.
/// Eight bytes an item.
#[derive(Debug, Default)]
struct Index(Vec<u64>);

const DEAD: u64 = 1 << 63;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Result(u64),
    Dead(u64),
}

impl Index {
    fn new(items: u64) -> Self {
        Self(vec![0; usize::try_from(items).unwrap_or(usize::MAX)])
    }

    fn get(&self, item: usize) -> Option<Place> {
        match self.0.get(item).copied()? {
            0 => None,
            entry if entry & DEAD != 0 => Some(Place::Dead((entry & !DEAD) - 1)),
            entry => Some(Place::Result(entry - 1)),
        }
    }

    /// Whether it was free.
    fn put(&mut self, item: u64, place: Place) -> bool {
        let entry = usize::try_from(item).ok().and_then(|item| self.0.get_mut(item));
        let Some(entry @ 0) = entry else { return false };
        *entry = match place {
            Place::Result(at) => at + 1,
            Place::Dead(at) => (at + 1) | DEAD,
        };
        true
    }
}

/// A file that grows, and what is not written to it yet.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: File,
    /// With what waits.
    len: u64,
    waiting: Vec<u8>,
}

impl Part {
    fn open(path: PathBuf) -> Result<Self, RunError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(RunError::file("make", &path))?;
        let len = file.metadata().map_err(RunError::file("read", &path))?.len();
        Ok(Self { path, file, len, waiting: Vec::new() })
    }

    fn cut(&mut self, len: u64) -> Result<(), RunError> {
        self.file.set_len(len).map_err(RunError::file("cut", &self.path))?;
        self.len = len;
        self.file.seek(SeekFrom::End(0)).map_err(RunError::file("cut", &self.path))?;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), RunError> {
        self.file.write_all(&self.waiting).map_err(RunError::file("write", &self.path))?;
        self.waiting.clear();
        Ok(())
    }

    fn sync(&self) -> Result<(), RunError> {
        self.file.sync_data().map_err(RunError::file("write", &self.path))
    }
}

/// The growing output of a run.
#[derive(Debug)]
pub(crate) struct Output {
    mark_path: PathBuf,
    results: Part,
    dead: Part,
    index: Index,
    marked: Mark,
    seq: u64,
    counts: Counts,
}

impl Output {
    /// Opens what there is, cut to its mark; empty if it is not what the mark says.
    pub(crate) fn open(dir: &RunDir, items: u64) -> Result<Self, RunError> {
        let mut output = Self {
            mark_path: dir.mark(),
            results: Part::open(dir.partial())?,
            dead: Part::open(dir.dead_partial())?,
            index: Index::new(items),
            marked: Mark::default(),
            seq: 0,
            counts: Counts::default(),
        };
        let mark = read_mark(&output.mark_path).unwrap_or_default();
        if !output.recover(mark)? {
            output.clear()?;
        }
        Ok(output)
    }

    /// Whether the files hold what the mark says.
    fn recover(&mut self, mark: Mark) -> Result<bool, RunError> {
        if self.results.len < mark.results || self.dead.len < mark.dead {
            return Ok(false);
        }
        self.results.cut(mark.results)?;
        self.dead.cut(mark.dead)?;
        let index = &mut self.index;
        let results = reread(&self.results, |item, at| index.put(item, Place::Result(at)))?;
        let dead = reread(&self.dead, |item, at| index.put(item, Place::Dead(at)))?;
        let (Some(done), Some(dead)) = (results, dead) else { return Ok(false) };
        (self.seq, self.marked, self.counts) = (mark.seq, mark, Counts { done, dead });
        Ok(true)
    }

    /// Begins again from the first commit.
    pub(crate) fn clear(&mut self) -> Result<(), RunError> {
        self.index.0.fill(0);
        (self.seq, self.counts, self.marked) = (0, Counts::default(), Mark::default());
        // The mark first: what it says is never more than there is.
        self.write_mark(Mark::default())?;
        self.results.waiting.clear();
        self.dead.waiting.clear();
        self.results.cut(0)?;
        self.dead.cut(0)
    }

    /// The newest commit taken.
    pub(crate) const fn seq(&self) -> u64 {
        self.seq
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes a commit, which is in the files afterwards, though perhaps not on the disk.
    pub(crate) fn take(&mut self, seq: u64, items: &[Committed]) -> Result<(), RunError> {
        if seq != self.seq + 1 {
            let why = format!("commit {seq} came after commit {}", self.seq);
            return Err(RunError::Disagree(why));
        }
        for item in items {
            self.take_item(item)?;
        }
        self.results.flush()?;
        self.dead.flush()?;
        self.seq = seq;
        Ok(())
    }

    fn take_item(&mut self, committed: &Committed) -> Result<(), RunError> {
        let item = committed.item;
        let is_dead = lines::is_dead(committed);
        let part = if is_dead { &mut self.dead } else { &mut self.results };
        let place = if is_dead { Place::Dead(part.len) } else { Place::Result(part.len) };
        if !self.index.put(item, place) {
            return Err(RunError::Disagree(format!("item {item} is none, or came twice")));
        }
        let before = part.waiting.len();
        lines::write(committed, &mut part.waiting);
        part.len += (part.waiting.len() - before) as u64;
        if is_dead {
            self.counts.dead += 1;
        } else {
            self.counts.done += 1;
        }
        Ok(())
    }

    /// Brings to the disk what is in the files, and marks it.
    pub(crate) fn mark(&mut self) -> Result<(), RunError> {
        let mark = Mark { seq: self.seq, results: self.results.len, dead: self.dead.len };
        if mark == self.marked {
            return Ok(());
        }
        self.results.sync()?;
        self.dead.sync()?;
        self.write_mark(mark)?;
        self.marked = mark;
        Ok(())
    }

    fn write_mark(&self, mark: Mark) -> Result<(), RunError> {
        // A mark is numbers, and numbers are always JSON.
        let text = serde_json::to_vec(&mark).unwrap_or_default();
        write_whole(&self.mark_path, |out| out.write_all(&text))
    }

    /// Writes the dead letters in the order of items.
    pub(crate) fn write_dead(&self, to: &Path) -> Result<(), RunError> {
        order::write(&self.index, &self.dead.file, to, |place| match place {
            Place::Dead(at) => Some(at),
            Place::Result(_) => None,
        })
    }

    /// Writes the results in the order of items.
    pub(crate) fn write_results(&self, to: &Path) -> Result<(), RunError> {
        order::write(&self.index, &self.results.file, to, |place| match place {
            Place::Result(at) => Some(at),
            Place::Dead(_) => None,
        })
    }
}

fn read_mark(path: &Path) -> Option<Mark> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Reads a part from its beginning, and hands out the item and the place of each line. How many there
/// are; nothing if one of them is not what it should be.
fn reread(part: &Part, mut line_of: impl FnMut(u64, u64) -> bool) -> Result<Option<u64>, RunError> {
    let failed = |error| RunError::file("read", &part.path)(error);
    let mut file = part.file.try_clone().map_err(failed)?;
    file.rewind().map_err(failed)?;
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let (mut line, mut at, mut count) = (Vec::new(), 0, 0);
    let good = loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 {
            break true;
        }
        let item = lines::item(&line);
        if !item.is_some_and(|item| line_of(item, at)) {
            break false;
        }
        at += read as u64;
        count += 1;
    };
    // The clone shares its position with the file that is written.
    let mut file: &File = &part.file;
    file.seek(SeekFrom::End(0)).map_err(failed)?;
    Ok(good.then_some(count))
}

#[cfg(test)]
mod tests;
