//! Lines in the order of commits, written in the order of items.
//!
//! Workers take items in ranges, so neighbours by number lie near each other in a few places at once:
//! a few windows of the file are held, and the one that was used longest ago is given up.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Index, Place};
use crate::run::dir::write_whole;
use crate::run::error::RunError;

const WINDOWS: usize = 64;
const WINDOW: usize = 32 * 1024;

/// Writes the lines that `wanted` finds, each once, whole or not at all.
pub(super) fn write(
    index: &Index,
    from: &File,
    to: &Path,
    wanted: impl Fn(Place) -> Option<u64>,
) -> Result<(), RunError> {
    let mut windows = Windows::new(from);
    write_whole(to, |out| {
        let mut out = BufWriter::with_capacity(1 << 20, out);
        for item in 0..index.0.len() {
            if let Some(at) = index.get(item).and_then(&wanted) {
                windows.copy_line(at, &mut out)?;
            }
        }
        out.flush()
    })
}

struct Window {
    start: u64,
    bytes: Vec<u8>,
    used: u64,
}

struct Windows<'a> {
    file: &'a File,
    held: Vec<Window>,
    uses: u64,
}

impl<'a> Windows<'a> {
    fn new(file: &'a File) -> Self {
        Self { file, held: Vec::new(), uses: 0 }
    }

    /// Copies the line that begins at `at`, with its newline.
    fn copy_line(&mut self, mut at: u64, to: &mut impl Write) -> io::Result<()> {
        loop {
            let window = self.at(at)?;
            let skipped = usize::try_from(at - window.start).unwrap_or(usize::MAX);
            let rest = window.bytes.get(skipped..).unwrap_or_default();
            if rest.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                return to.write_all(rest.get(..=end).unwrap_or_default());
            }
            to.write_all(rest)?;
            at += rest.len() as u64;
        }
    }

    /// A window that holds the byte at `at`, if the file has one.
    fn at(&mut self, at: u64) -> io::Result<&Window> {
        self.uses += 1;
        let uses = self.uses;
        let holds = |w: &Window| w.start <= at && at < w.start + w.bytes.len() as u64;
        let place = match self.held.iter().position(holds) {
            Some(place) => place,
            None => self.load(at)?,
        };
        let window = self.held.get_mut(place).ok_or(io::ErrorKind::NotFound)?;
        window.used = uses;
        Ok(window)
    }

    fn load(&mut self, at: u64) -> io::Result<usize> {
        let place = if self.held.len() < WINDOWS {
            self.held.push(Window { start: 0, bytes: Vec::new(), used: 0 });
            self.held.len() - 1
        } else {
            let oldest = self.held.iter().enumerate().min_by_key(|(_, window)| window.used);
            oldest.map_or(0, |(place, _)| place)
        };
        let window = self.held.get_mut(place).ok_or(io::ErrorKind::NotFound)?;
        window.start = at;
        window.bytes.resize(WINDOW, 0);
        let mut filled = 0;
        while let Some(room) = window.bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.file.read_at(room, at + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        window.bytes.truncate(filled);
        Ok(place)
    }
}
