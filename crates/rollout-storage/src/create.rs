//! A new database gets its name only once it is whole: a process killed while it makes one leaves
//! nothing under that name that could not be opened.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use redb::{Database, DatabaseError};

use crate::StorageError;

/// Makes the database at `path` if there is none, with `open`, which makes and opens one.
pub(crate) fn if_missing(
    path: &Path,
    open: impl Fn(&Path) -> Result<Database, DatabaseError>,
) -> Result<(), StorageError> {
    // Whatever else is there is for the opening to judge.
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let failed = |source| StorageError::io(path, source);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let whole = tempfile::Builder::new()
        .prefix(".rollout-new-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .map_err(failed)?;
    drop(open(whole.path()).map_err(|e| StorageError::opening(path, e))?);
    match whole.persist_noclobber(path) {
        Ok(_) => {}
        // Another process was faster, and its database is as good.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error.error)),
    }
    // The name has to be on disk as well, before anything is acknowledged.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}
