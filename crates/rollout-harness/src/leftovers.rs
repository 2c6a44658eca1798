//! Looks for what a run must not leave behind: processes, sockets, locks, a listener.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::fixtures::{FixtureError, Layout, on};
use crate::processes::{Process, still_running};

/// What is said of a socket.
const SOCKET: &str = " is left";

/// Whether what was found is a socket. A worker that is killed while a sidecar of its starts leaves
/// one, which a later worker removes when it is a day old.
pub(crate) fn is_socket(found: &str) -> bool {
    found.ends_with(SOCKET)
}

/// What there is to look for.
#[derive(Debug)]
pub(crate) struct Traces {
    pub(crate) layout: Layout,
    /// The names of the run's processes.
    pub(crate) names: Vec<String>,
    /// Every process that was seen below one of the run's.
    pub(crate) processes: BTreeSet<Process>,
    /// Where the coordinator listened.
    pub(crate) address: Option<SocketAddr>,
}

impl Traces {
    /// What is still there now, in words.
    pub(crate) fn found(&self) -> Result<Vec<String>, FixtureError> {
        let running = still_running(&self.processes).map_err(on("read", "/proc"))?;
        let mut found: Vec<_> = running
            .into_iter()
            .map(|p| format!("process {} ({}) runs on", p.pid, p.name))
            .collect();
        found.extend(self.sockets()?);
        found.extend(self.names.iter().filter_map(|name| self.lock(name)));
        found.extend(self.listener());
        Ok(found)
    }

    fn sockets(&self) -> Result<Vec<String>, FixtureError> {
        let dir = self.layout.sidecars();
        if !dir.exists() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&dir).map_err(on("read", &dir))?;
        Ok(entries.flatten().map(|entry| format!("{}{SOCKET}", entry.path().display())).collect())
    }

    fn lock(&self, process: &str) -> Option<String> {
        let path = self.layout.database(process);
        match File::open(&path).ok()?.try_lock() {
            Err(TryLockError::WouldBlock) => Some(format!("{} is still locked", path.display())),
            _ => None,
        }
    }

    fn listener(&self) -> Option<String> {
        let address = self.address?;
        TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()?;
        Some(format!("something still listens on {address}"))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rollout_process::Spawn;

    use super::*;
    use crate::fixtures::Claim;
    use crate::processes::trees;

    #[test]
    fn a_process_a_socket_a_lock_and_a_listener_are_each_found_and_named() {
        let root = tempfile::tempdir().unwrap();
        let layout = Claim::take(root.path()).unwrap().layout;
        let child = Spawn::new("sleep").arg("60").spawn().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let traces = Traces {
            layout: layout.clone(),
            names: vec!["w1".into()],
            processes: trees(&[child.pid()]).unwrap(),
            address: listener.local_addr().ok(),
        };
        fs::create_dir(layout.sidecars()).unwrap();
        fs::write(layout.sidecars().join("a.sock"), "").unwrap();
        let database = File::create(layout.database("w1")).unwrap();
        database.try_lock().unwrap();
        let found = traces.found().unwrap();
        let due =
            ["(sleep) runs on", "a.sock is left", "w1.db is still locked", "still listens on"];
        assert_eq!(found.len(), due.len(), "{found:?}");
        for (found, due) in found.iter().zip(due) {
            assert!(found.contains(due), "{found}");
        }
        drop((child, listener, database));
        fs::remove_file(layout.sidecars().join("a.sock")).unwrap();
        assert_eq!(traces.found().unwrap(), Vec::<String>::new());
    }
}
