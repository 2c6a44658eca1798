//! Large results: files named by the SHA-256 of what is in them, in a directory beside the database.
//!
//! A file is complete and on disk, under its name, before a commit may refer to it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rollout_core::{Clock, SystemClock, hex};
use sha2::{Digest, Sha256};

/// Why a blob is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Not the name of a blob.
    #[error("`{0}` is not a SHA-256: 64 digits of lower-case hex")]
    Name(String),
    /// The bytes have another digest than the name says.
    #[error("the bytes' SHA-256 is {found}, not {named}")]
    Digest {
        /// What the name says.
        named: String,
        /// What the bytes say.
        found: String,
    },
    /// The file system failed.
    #[error("blob `{}` cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// The directory of large results. Its functions block.
#[derive(Debug, Clone)]
pub struct Blobs {
    dir: Arc<PathBuf>,
    next: Arc<AtomicU64>,
}

impl Blobs {
    /// The directory beside the database, made if it is not there; what an upload that was cut off
    /// has left is removed.
    pub(crate) fn open(database: &Path) -> Result<Self, BlobError> {
        let dir = database.with_extension("blobs");
        let failed = |source| BlobError::Io { path: dir.clone(), source };
        fs::create_dir_all(&dir).map_err(failed)?;
        // Its name has to be on disk as well, before a commit refers to what is in it.
        let parent = dir.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new("."))).and_then(|p| p.sync_all()).map_err(failed)?;
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|ending| ending == "part") {
                fs::remove_file(&path).map_err(|source| BlobError::Io { path, source })?;
            }
        }
        Ok(Self { dir: Arc::new(dir), next: Arc::new(AtomicU64::new(1)) })
    }

    /// Begins an upload under the name that its bytes must turn out to have.
    ///
    /// # Errors
    /// When that is no name, or the file cannot be made.
    pub fn begin(&self, sha256: &str) -> Result<Upload, BlobError> {
        let path = self.path(sha256)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let part = self.dir.join(format!("{number}.part"));
        let file =
            File::create(&part).map_err(|source| BlobError::Io { path: part.clone(), source })?;
        let named = sha256.to_owned();
        Ok(Upload { file, digest: Sha256::new(), named, part, path, bytes: 0 })
    }

    /// Whether the blob is there, with this size.
    #[must_use]
    pub fn has(&self, sha256: &str, bytes: u64) -> bool {
        self.path(sha256)
            .and_then(|path| fs::metadata(&path).map_err(|source| BlobError::Io { path, source }))
            .is_ok_and(|found| found.is_file() && found.len() == bytes)
    }

    /// The size of the blob, if it is there. Whoever asks is about to refer to it: it counts as new.
    ///
    /// # Errors
    /// When that is no name, or the file cannot be looked at or touched.
    pub fn keep(&self, sha256: &str) -> Result<Option<u64>, BlobError> {
        let Some(file) = self.read(sha256)? else { return Ok(None) };
        let touched = file.set_modified(SystemClock.wall()).and_then(|()| file.metadata());
        match touched {
            Ok(found) => Ok(Some(found.len())),
            Err(source) => Err(BlobError::Io { path: self.path(sha256)?, source }),
        }
    }

    /// Opens the blob for reading, if it is there.
    ///
    /// # Errors
    /// When that is no name, or the file cannot be opened.
    pub fn read(&self, sha256: &str) -> Result<Option<File>, BlobError> {
        let path = self.path(sha256)?;
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BlobError::Io { path, source }),
        }
    }

    /// Removes every blob that is not `referenced` and was complete before `before`: a commit that
    /// refers to a younger one may be on its way.
    pub(crate) fn sweep(
        &self,
        referenced: &HashSet<String>,
        before: SystemTime,
    ) -> Result<u64, BlobError> {
        let failed = |source| BlobError::Io { path: self.dir.to_path_buf(), source };
        let mut removed = 0;
        for entry in fs::read_dir(&*self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_digest(name)) else { continue };
            let changed = entry.metadata().and_then(|found| found.modified()).map_err(failed)?;
            if !referenced.contains(name) && changed < before {
                let path = entry.path();
                fs::remove_file(&path).map_err(|source| BlobError::Io { path, source })?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn path(&self, sha256: &str) -> Result<PathBuf, BlobError> {
        if is_digest(sha256) {
            return Ok(self.dir.join(sha256));
        }
        Err(BlobError::Name(sha256.chars().take(80).collect()))
    }
}

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A blob on its way. Dropping it unfinished leaves nothing.
#[derive(Debug)]
pub struct Upload {
    file: File,
    digest: Sha256,
    named: String,
    part: PathBuf,
    path: PathBuf,
    bytes: u64,
}

impl Upload {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file
            .write_all(bytes)
            .map_err(|source| BlobError::Io { path: self.part.clone(), source })
    }

    /// Makes the blob durable under its name; its size.
    ///
    /// # Errors
    /// When the bytes are not those of the name, or cannot be made durable.
    pub fn finish(mut self) -> Result<u64, BlobError> {
        let found = hex(&std::mem::take(&mut self.digest).finalize());
        if found != self.named {
            return Err(BlobError::Digest { named: self.named.clone(), found });
        }
        let publish = || {
            self.file.sync_all()?;
            fs::rename(&self.part, &self.path)?;
            let dir = self.path.parent().unwrap_or(Path::new("."));
            File::open(dir)?.sync_all()
        };
        publish().map_err(|source| BlobError::Io { path: self.path.clone(), source })?;
        Ok(self.bytes)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Gone already once it is finished; what remains is swept at the next start.
        let _ = fs::remove_file(&self.part);
    }
}
