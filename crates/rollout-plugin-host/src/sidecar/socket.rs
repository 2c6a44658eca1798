//! The socket that a sidecar connects to: made before the process, gone as soon as it has connected.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use tokio::net::{UnixListener, UnixStream};

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
        let name = format!("{:012x}", rand::random::<u64>() >> 16);
        // The sidecar has a working directory of its own.
        let path = std::path::absolute(dir)?.join(&name);
        if SocketAddr::from_pathname(&path).is_ok() {
            return Self::bind(path, None);
        }
        let own = std::env::temp_dir().join(format!("rollout-{name}"));
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

    #[test]
    fn a_directory_that_others_may_write_in_is_refused() {
        let base = tempfile::tempdir().unwrap();
        for (mode, good) in [(0o777, false), (0o720, false), (0o1777, true), (0o755, true)] {
            fs::set_permissions(base.path(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(private_dir(base.path()).is_ok(), good, "{mode:o}");
        }
    }
}
