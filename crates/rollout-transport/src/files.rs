//! Files that several processes may make at once: an exclusive lock on the directory itself, and
//! content that appears whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A directory that no other process (or holder in this one) can change through this type.
/// The lock goes with the value, or with the process.
#[derive(Debug)]
pub(crate) struct LockedDir {
    path: PathBuf,
    handle: File,
}

impl LockedDir {
    /// Makes the directory if it is missing, for its owner alone, and waits for the lock.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match make(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let handle = File::open(path)?;
        handle.lock()?;
        Ok(Self { path: path.to_owned(), handle })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write_private(&self, name: &str, content: &str) -> io::Result<()> {
        self.write(name, content, 0o600)
    }

    /// Writes a file that everybody may read.
    pub(crate) fn write_public(&self, name: &str, content: &str) -> io::Result<()> {
        self.write(name, content, 0o644)
    }

    /// A name that is left over is from a process that died here: only the lock's holder gets this
    /// far.
    fn write(&self, name: &str, content: &str, mode: u32) -> io::Result<()> {
        let fresh = self.path.join(format!(".{name}.new"));
        if let Err(e) = fs::remove_file(&fresh)
            && e.kind() != io::ErrorKind::NotFound
        {
            return Err(e);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, self.path.join(name))?;
        self.handle.sync_all()
    }
}

fn make(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    DirBuilder::new().mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_writer_left_is_replaced_and_nothing_else_remains() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let dir = LockedDir::open(&path).unwrap();
        fs::write(path.join(".k.new"), "half").unwrap();
        dir.write_private("k", "whole").unwrap();
        dir.write_private("k", "anew").unwrap();
        assert_eq!(fs::read_to_string(path.join("k")).unwrap(), "anew");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("k"))), (0o700, 0o600));
        assert_ne!(mode(&parent.path().join("a")) & 0o055, 0, "parents are made as usual");
    }

    #[test]
    fn a_second_holder_waits_for_the_first() {
        let parent = tempfile::tempdir().unwrap();
        let first = LockedDir::open(parent.path()).unwrap();
        assert!(File::open(parent.path()).unwrap().try_lock().is_err());
        drop(first);
        assert!(File::open(parent.path()).unwrap().try_lock().is_ok());
    }
}
