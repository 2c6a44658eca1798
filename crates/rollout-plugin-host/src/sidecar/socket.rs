//! The socket that a sidecar connects to: made before the process, gone as soon as it has connected.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;
use rollout_core::{Clock, SystemClock};
use tokio::net::{UnixListener, UnixStream};

/// How a directory begins that was made for one socket.
const OWN_DIR: &str = "rollout-";
/// What is older was left by a worker that was killed while its sidecar started.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// A socket that listens. Dropping it removes it.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// A directory made for this socket alone, because the configured one's path is too long.
    own_dir: Option<PathBuf>,
}

impl Socket {
    /// Listens in `dir`, or where a socket's address has room for the path.
    pub(super) fn listen(dir: &Path) -> io::Result<Self> {
        private_dir(dir)?;
        sweep(dir);
        let name = format!("{:012x}", rand::random::<u64>() >> 16);
        // The sidecar has a working directory of its own.
        let path = std::path::absolute(dir)?.join(&name);
        if SocketAddr::from_pathname(&path).is_ok() {
            return Self::bind(path, None);
        }
        sweep(&std::env::temp_dir());
        let own = std::env::temp_dir().join(format!("{OWN_DIR}{name}"));
        DirBuilder::new().mode(0o700).create(&own)?;
        Self::bind(own.join(&name), Some(own))
    }

    fn bind(path: PathBuf, own_dir: Option<PathBuf>) -> io::Result<Self> {
        let listener = UnixListener::bind(&path)?;
        let socket = Self { listener, path, own_dir };
        fs::set_permissions(&socket.path, Permissions::from_mode(0o600))?;
        Ok(socket)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the first peer of this process's own user, and stops listening.
    pub(super) async fn accept(self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            if stream.peer_cred()?.uid() == Uid::effective().as_raw() {
                return Ok(stream);
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A path that is gone already has served as well.
        let _ = fs::remove_file(&self.path);
        if let Some(dir) = &self.own_dir {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Removes what earlier workers of this user have left. What can't be removed does no harm.
fn sweep(dir: &Path) {
    let now = SystemClock.wall();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Some((name, found)) = name.to_str().zip(entry.metadata().ok()) else { continue };
        let age = found.modified().ok().and_then(|at| now.duration_since(at).ok());
        if found.uid() != Uid::effective().as_raw() || age.is_none_or(|age| age < STALE) {
            continue;
        }
        if found.file_type().is_socket() && is_name(name) {
            let _ = fs::remove_file(path);
        } else if let Some(name) = name.strip_prefix(OWN_DIR).filter(|name| is_name(name)) {
            let _ = fs::remove_file(path.join(name));
            let _ = fs::remove_dir(path);
        }
    }
}

/// Whether a socket of ours has such a name.
fn is_name(name: &str) -> bool {
    name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Makes the directory for sockets and private copies, or checks the one that is there.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mode = fs::metadata(dir)?.permissions().mode();
    let (others_write, sticky) = (mode & 0o022 != 0, mode & 0o1000 != 0);
    if others_write && !sticky {
        let message = "others may write in it: take that away, or name another `sidecar_dir`";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::fcntl::AT_FDCWD;
    use nix::sys::stat::{UtimensatFlags, utimensat};
    use nix::sys::time::TimeSpec;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_private_short_and_gone_when_it_is_dropped() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("a/sidecars");
        let socket = Socket::listen(&dir).unwrap();
        let path = socket.path().to_owned();
        assert_eq!((mode(&dir), mode(&path)), (0o700, 0o600));
        assert!(path.file_name().unwrap().len() <= 12);
        drop(socket);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_directory_too_long_for_an_address_is_replaced_and_the_replacement_removed() {
        let base = tempfile::tempdir().unwrap();
        let socket = Socket::listen(&base.path().join("d".repeat(120))).unwrap();
        let own = socket.path().parent().unwrap().to_owned();
        assert!(!own.starts_with(base.path()));
        assert_eq!(mode(&own), 0o700);
        let connected = std::os::unix::net::UnixStream::connect(socket.path());
        socket.accept().await.unwrap();
        drop(connected);
        assert!(!own.exists());
    }

    fn make_old(path: &Path) {
        let old = SystemClock.wall() - STALE - Duration::from_secs(60);
        let since = old.duration_since(std::time::UNIX_EPOCH).unwrap();
        let at = TimeSpec::from_duration(since);
        utimensat(AT_FDCWD, path, &at, &at, UtimensatFlags::NoFollowSymlink).unwrap();
    }

    #[test]
    fn what_killed_workers_left_is_swept_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path();
        let bind = |path: &Path| drop(std::os::unix::net::UnixListener::bind(path).unwrap());
        let (left, fresh) = (dir.join("00112233aabb"), dir.join("00112233aabc"));
        let (another, file) = (dir.join("another"), dir.join("00112233aabd"));
        let own = dir.join("rollout-00112233aabe");
        [&left, &fresh, &another].into_iter().for_each(|path| bind(path));
        fs::write(&file, "").unwrap();
        fs::create_dir(&own).unwrap();
        bind(&own.join("00112233aabe"));
        [&left, &another, &file, &own].into_iter().for_each(|path| make_old(path));
        sweep(dir);
        assert_eq!((left.exists(), own.exists()), (false, false));
        assert_eq!((fresh.exists(), another.exists(), file.exists()), (true, true, true));
    }

    #[test]
    fn a_directory_that_others_may_write_in_is_refused() {
        let base = tempfile::tempdir().unwrap();
        for (mode, good) in [(0o777, false), (0o720, false), (0o1777, true), (0o755, true)] {
            fs::set_permissions(base.path(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(private_dir(base.path()).is_ok(), good, "{mode:o}");
        }
    }
}
