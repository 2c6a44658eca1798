//! What can go wrong with the store; every message names the file.

use std::io;
use std::path::{Path, PathBuf};

use redb::DatabaseError;

use crate::holder;

/// Why the store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has the file open.
    #[error(
        "database `{}` is in use by {}: stop it, or give this process a file of its own",
        path.display(),
        holder.as_deref().unwrap_or("another process")
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// The process that has it open, where the system tells.
        holder: Option<String>,
    },
    /// The file is no database, or is damaged.
    #[error(
        "database `{}` is damaged or not a rollout database: restore it, or move it away to start \
         empty",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What redb says.
        #[source]
        source: Box<redb::Error>,
    },
    /// A row is not of its table's type: written by another version, or damaged.
    #[error("a row of table `{table}` in database `{}` cannot be read", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The table.
        table: &'static str,
        /// What JSON says of the value; nothing when it is the key.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// A value cannot be written as JSON.
    #[error("a value for table `{table}` cannot be encoded")]
    Encode {
        /// The table.
        table: &'static str,
        /// What JSON says.
        #[source]
        source: serde_json::Error,
    },
    /// The file system failed.
    #[error("database `{}` cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// redb failed otherwise.
    #[error("database `{}` failed", path.display())]
    Engine {
        /// The file.
        path: PathBuf,
        /// What redb says.
        #[source]
        source: Box<redb::Error>,
    },
    /// Too many writes are queued.
    #[error("database `{}` has {queued} writes queued and takes no more", path.display())]
    Overloaded {
        /// The file.
        path: PathBuf,
        /// How many are queued.
        queued: usize,
    },
    /// A write was based on what does not hold any more.
    #[error("database `{}` refuses a write: {detail}", path.display())]
    Fenced {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        detail: String,
    },
    /// The writer has ended, as the store was closed or a write of it panicked.
    #[error("database `{}` is closed", path.display())]
    Closed {
        /// The file.
        path: PathBuf,
    },
}

impl StorageError {
    pub(crate) fn opening(path: &Path, source: DatabaseError) -> Self {
        match source {
            DatabaseError::DatabaseAlreadyOpen => {
                Self::Locked { path: path.to_owned(), holder: holder::of(path) }
            }
            other => Self::redb(path, other.into()),
        }
    }

    pub(crate) fn redb(path: &Path, source: redb::Error) -> Self {
        match source {
            redb::Error::Io(e) if e.kind() != io::ErrorKind::InvalidData => Self::io(path, e),
            redb::Error::Io(_) | redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => {
                Self::Damaged { path: path.to_owned(), source: Box::new(source) }
            }
            other => Self::Engine { path: path.to_owned(), source: Box::new(other) },
        }
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn closed(path: &Path) -> Self {
        Self::Closed { path: path.to_owned() }
    }
}
