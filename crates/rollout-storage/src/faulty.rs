//! A disk that stalls, is full or fails when a control file says so: the store's own, in a scenario.
//! Compiled with the feature `faults` alone.

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use redb::{BackendError, DatabaseError, StorageBackend, backends::FileBackend};

/// How often a stalled disk looks whether it is healed.
const LOOK: Duration = Duration::from_millis(2);

/// A file whose writes and syncs first ask the control file. Reads are never touched.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    file: FileBackend,
    control: PathBuf,
}

impl FaultyDisk {
    pub(crate) fn new(file: File, control: PathBuf) -> Result<Self, DatabaseError> {
        Ok(Self { file: FileBackend::new(file)?, control })
    }

    /// Returns when the disk is, or is again, healthy.
    fn ask(&self) -> io::Result<()> {
        loop {
            let word = match fs::read_to_string(&self.control) {
                Ok(word) => word,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            match word.trim() {
                "" => return Ok(()),
                "stall" => thread::sleep(LOOK),
                "full" => return Err(Errno::ENOSPC.into()),
                "error" => return Err(Errno::EIO.into()),
                other => {
                    let message = format!(
                        "`{other}` in `{}` is neither stall, full nor error",
                        self.control.display()
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
                }
            }
        }
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.ask()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.ask()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.ask()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;

    use super::*;
    use crate::{Priority, StorageError, Store, Table};

    const ROWS: Table<u64, u64> = Table::new("rows");

    struct Bench {
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> (Self, Store) {
            let bench = Self { dir: tempfile::tempdir().unwrap() };
            let store = Store::open_faulty(&bench.path(), &bench.control()).unwrap();
            store.write(|batch| batch.put(ROWS, &0, &0)).unwrap();
            (bench, store)
        }

        fn path(&self) -> std::path::PathBuf {
            self.dir.path().join("s.db")
        }

        fn control(&self) -> std::path::PathBuf {
            self.dir.path().join("disk")
        }

        fn say(&self, word: &str) {
            fs::write(self.control(), word).unwrap();
        }
    }

    fn rows(path: &Path) -> Vec<(u64, u64)> {
        Store::open(path).unwrap().scan(ROWS).unwrap()
    }

    #[test]
    fn a_stalled_disk_acknowledges_nothing_until_it_is_healed_and_then_everything() {
        let (bench, store) = Bench::new();
        bench.say("stall");
        let (done, outcomes) = mpsc::channel();
        for n in 1..=100 {
            let done = done.clone();
            store.submit(
                Priority::Control,
                move |batch| batch.put(ROWS, &n, &n),
                move |outcome| done.send(outcome.is_ok()).unwrap(),
            );
        }
        let early = outcomes.recv_timeout(Duration::from_millis(200));
        assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
        bench.say("");
        assert!((1..=100).all(|_| outcomes.recv().unwrap()));
        drop(store);
        assert_eq!(rows(&bench.path()).len(), 101);
    }

    #[test]
    fn a_full_or_broken_disk_refuses_with_the_systems_words_and_loses_nothing_acknowledged() {
        for (word, errno) in [("full", Errno::ENOSPC), ("error", Errno::EIO)] {
            let (bench, store) = Bench::new();
            store.write(|batch| batch.put(ROWS, &1, &1)).unwrap();
            bench.say(word);
            let refused = store.write(|batch| batch.put(ROWS, &2, &2)).unwrap_err();
            let StorageError::Io { path, source } = &*refused else { panic!("{refused:?}") };
            assert_eq!((path, source.raw_os_error()), (&bench.path(), Some(errno as i32)));
            // The disk may be well again: what it holds is not known any more.
            bench.say("");
            let refused = store.write(|batch| batch.put(ROWS, &3, &3)).unwrap_err();
            assert!(
                matches!(&*refused, StorageError::Io { source, .. } if source.raw_os_error() == Some(errno as i32)),
                "{refused:?}"
            );
            bench.say(word);
            drop(store);
            bench.say("");
            let found = rows(&bench.path());
            assert!(found.starts_with(&[(0, 0), (1, 1)]), "{found:?}");
            assert!(!found.contains(&(3, 3)), "{found:?}");
        }
    }

    #[test]
    fn a_disk_that_fails_while_the_file_is_opened_is_an_io_error_and_leaves_it_as_it_was() {
        for word in ["full", "error", "nonsense"] {
            let (bench, store) = Bench::new();
            drop(store);
            bench.say(word);
            let refused = Store::open_faulty(&bench.path(), &bench.control()).err();
            assert!(matches!(refused, None | Some(StorageError::Io { .. })), "{refused:?}");
            assert_eq!(rows(&bench.path()), [(0, 0)]);
        }
    }
}
