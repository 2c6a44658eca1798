//! What a process of the fleet writes, kept in files of bounded size.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

/// A file larger than this becomes the older one of two.
const MOST: u64 = 64 * 1024 * 1024;

/// A file that is appended to; the older half is dropped when there is too much.
///
/// A disk that does not take it costs lines, and not the run.
#[derive(Debug, Clone)]
pub(super) struct Journal(pub(super) PathBuf);

/// A journal that is open.
pub(super) struct Open {
    path: PathBuf,
    file: Option<File>,
    len: u64,
    most: u64,
}

impl Journal {
    pub(super) fn open(&self) -> Open {
        self.open_with(MOST)
    }

    fn open_with(&self, most: u64) -> Open {
        let mut open = Open { path: self.0.clone(), file: None, len: 0, most };
        open.reopen();
        open
    }
}

impl Open {
    fn reopen(&mut self) {
        self.file = OpenOptions::new().append(true).create(true).open(&self.path).ok();
        let len = self.file.as_ref().and_then(|file| file.metadata().ok());
        self.len = len.map_or(0, |meta| meta.len());
    }

    pub(super) fn line(&mut self, line: &str) {
        if self.len >= self.most {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            let _ = fs::rename(&self.path, older);
            self.reopen();
        }
        let Some(file) = &mut self.file else { return };
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        if file.write_all(&bytes).is_ok() {
            self.len += bytes.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_bounded_and_its_newest_lines_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal(dir.path().join("a.ndjson"));
        let mut open = journal.open_with(40);
        for n in 10..60 {
            open.line(&format!("line {n}"));
        }
        let now = fs::read_to_string(&journal.0).unwrap();
        let older = fs::read_to_string(dir.path().join("a.ndjson.1")).unwrap();
        assert!(now.len() <= 48 && older.len() <= 48, "{now} {older}");
        assert!(format!("{older}{now}").ends_with("line 58\nline 59\n"));
        drop(open);
        journal.open().line("more");
        assert!(fs::read_to_string(&journal.0).unwrap().ends_with("line 59\nmore\n"));
    }
}
