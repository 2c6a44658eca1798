//! The output directory of a run: what is where, who holds it, what is recorded of the job.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rollout_core::{JobId, JobSpec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::run::error::RunError;
use crate::run::request::Request;

/// How long a directory may be held by what a killed run leaves behind for a moment.
const RELEASE: Duration = Duration::from_millis(500);

/// What is where.
#[derive(Debug, Clone)]
pub(crate) struct RunDir(PathBuf);

impl RunDir {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The results in the order of items.
    pub(crate) fn results(&self) -> PathBuf {
        self.0.join("results.jsonl")
    }

    /// The results in the order of commits.
    pub(crate) fn partial(&self) -> PathBuf {
        self.0.join("results.partial.jsonl")
    }

    pub(crate) fn dead(&self) -> PathBuf {
        self.0.join("dead.jsonl")
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.0.join("run.json")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.0.join("events")
    }

    /// What is needed to go on, and nothing else.
    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    pub(crate) fn dead_partial(&self) -> PathBuf {
        self.state().join("dead.partial.jsonl")
    }

    pub(crate) fn mark(&self) -> PathBuf {
        self.state().join("mark.json")
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.state().join("job.json")
    }

    pub(crate) fn tls(&self) -> PathBuf {
        self.state().join("tls")
    }

    /// Where the coordinator listens, as long as one runs.
    pub(crate) fn address(&self) -> PathBuf {
        self.state().join("address")
    }

    fn lock(&self) -> PathBuf {
        self.0.join(".lock")
    }

    /// Takes the directory for this process, until the lock is dropped.
    pub(crate) fn take(&self) -> Result<Lock, RunError> {
        let path = self.lock();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(RunError::file("make", &path))?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(fs::TryLockError::WouldBlock) if began.elapsed() < RELEASE => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(fs::TryLockError::WouldBlock) => return Err(RunError::Busy(self.0.clone())),
                Err(fs::TryLockError::Error(error)) => {
                    return Err(RunError::file("lock", path)(error));
                }
            }
        }
    }

    /// Whether a process has the directory.
    pub(crate) fn is_taken(&self) -> bool {
        let Ok(file) = File::open(self.lock()) else { return false };
        matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
    }

    /// What is recorded of the job; nothing if there is none.
    pub(crate) fn read_record(&self) -> Result<Option<Record>, RunError> {
        read_json(&self.record())
    }

    /// How the run ended, as far as it is written down.
    pub(crate) fn read_report(&self) -> Result<Option<serde_json::Value>, RunError> {
        read_json(&self.report())
    }

    /// Forgets how an earlier session ended.
    pub(crate) fn remove_report(&self) -> Result<(), RunError> {
        match fs::remove_file(self.report()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RunError::file("remove", self.report())(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes the directory that is to hold a new run.
    pub(crate) fn make(&self) -> Result<(), RunError> {
        // Which directories get a new entry: this one, and those above it up to one that is there.
        let there = self.0.ancestors().position(Path::exists).unwrap_or(0);
        for dir in [self.state(), self.events(), self.blobs()] {
            fs::create_dir_all(&dir).map_err(RunError::file("make", &dir))?;
        }
        self.0.ancestors().take(there + 1).try_for_each(sync_dir)
    }

    /// What holds a run has a report or a record.
    pub(crate) fn holds(&self) -> Result<Holds, RunError> {
        let report: Option<Ended> = read_json(&self.report())?;
        if report.is_some_and(|report| report.finished) {
            return Ok(Holds::Finished);
        }
        if self.record().exists() {
            return Ok(Holds::Unfinished);
        }
        let foreign = |entry: io::Result<fs::DirEntry>| {
            // What a run leaves that was stopped before it had recorded anything.
            let own = ["state", "events", "blobs", ".lock"];
            entry.is_ok_and(|entry| !own.iter().any(|name| entry.file_name() == *name))
        };
        match fs::read_dir(&self.0) {
            Ok(mut entries) => {
                Ok(if entries.any(foreign) { Holds::Foreign } else { Holds::Nothing })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Holds::Nothing),
            Err(error) => Err(RunError::file("read", &self.0)(error)),
        }
    }
}

/// What a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Nothing,
    Foreign,
    Unfinished,
    Finished,
}

/// As much of a report as tells whether there is more to do.
#[derive(Deserialize)]
struct Ended {
    finished: bool,
}

/// Held as long as this process works on the directory. The system gives it back, however the
/// process ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not used")] File);

/// What is recorded when a run begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) job: JobId,
    pub(crate) spec: JobSpec,
    /// What was asked for, to be read again.
    pub(crate) request: Request,
    /// When the run began, for people.
    pub(crate) began: String,
    /// How much time earlier sessions took.
    pub(crate) took_ms: f64,
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RunError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RunError::file("read", path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| RunError::Damaged { path: path.to_owned(), why: error.to_string() })
}

/// Writes a value as a file, whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RunError> {
    write_whole(path, |out| {
        let mut out = BufWriter::new(out);
        serde_json::to_writer_pretty(&mut out, value)?;
        out.write_all(b"\n")?;
        out.flush()
    })
}

/// Writes a file so that, whatever happens, the old one or the whole new one is there.
pub(crate) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), RunError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let all = || {
        let mut file = File::create(&part)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    };
    all().map_err(RunError::file("write", path))
}

/// Brings to the disk which files a directory holds.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), RunError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(RunError::file("write", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_below_ones_that_are_not_there_and_made_again() {
        let above = tempfile::tempdir().unwrap();
        let dir = RunDir::new(above.path().join("a/b"));
        assert!(dir.make().is_ok() && dir.make().is_ok());
        assert!(dir.blobs().is_dir() && dir.holds().is_ok_and(|holds| holds == Holds::Nothing));
    }
}
