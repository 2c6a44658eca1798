//! A running tree of processes: waiting for it, signalling it, ending it.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::exit::Exit;
use crate::guard::WHOLE_GROUP;
use crate::poll;

/// How a tree is asked to end, and when it is made to.
#[derive(Debug, Clone, Copy)]
pub struct Ladder {
    /// The time from SIGTERM to SIGKILL.
    pub grace: Duration,
}

/// What all who deal with one tree share: the line to its guard.
#[derive(Debug)]
pub(crate) struct Tree {
    pid: i32,
    /// Does not block.
    guard: UnixStream,
    end: Mutex<End>,
}

#[derive(Debug)]
enum End {
    /// The guard, to be reaped, and what of the main process's wait status has arrived.
    Ahead { guard: process::Child, status: Vec<u8> },
    /// Nothing is left.
    Reached(Exit),
}

impl Tree {
    pub(crate) fn new(pid: i32, guard: process::Child, socket: UnixStream) -> Self {
        let end = End::Ahead { guard, status: Vec::new() };
        Self { pid, guard: socket, end: Mutex::new(end) }
    }

    /// How the main process ended, once the whole tree is gone.
    pub(crate) fn try_wait(&self) -> Option<Exit> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, status) = match &mut *end {
            End::Ahead { guard, status } => (guard, status),
            End::Reached(exit) => return Some(*exit),
        };
        let mut bytes = [0; 4];
        loop {
            match (&self.guard).read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => status.extend(bytes.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The guard left without reading the last command.
                Err(_) => break,
            }
        }
        // The guard hung up, so it has ended. It exits with 0 only when nothing is left; if it
        // cannot be asked, because this process ignores SIGCHLD, its report is all there is.
        let done = guard.wait().map_or(true, |status| status.success());
        let exit = match <[u8; 4]>::try_from(status.as_slice()) {
            Ok(status) if done => Exit::from_raw(i32::from_ne_bytes(status)),
            _ => Exit::LOST,
        };
        *end = End::Reached(exit);
        Some(exit)
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Option<Exit> {
        loop {
            let exit = self.try_wait();
            if exit.is_some() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return exit;
            }
            poll::readable([Some(self.socket())], deadline);
        }
    }

    pub(crate) fn wait(&self) -> Exit {
        // Without a deadline there is always an end.
        self.wait_until(None).unwrap_or(Exit::LOST)
    }

    /// A timeout too long for the clock is none.
    pub(crate) fn wait_timeout(&self, timeout: Duration) -> Option<Exit> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    pub(crate) fn stop(&self, ladder: Ladder) -> Exit {
        self.signal(Signal::SIGTERM, WHOLE_GROUP);
        self.wait_timeout(ladder.grace).unwrap_or_else(|| {
            self.kill();
            self.wait()
        })
    }

    /// Readable whenever [`try_wait`](Self::try_wait) is worth a call.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.guard.as_fd()
    }

    pub(crate) fn kill(&self) {
        // A tree that is gone has no guard to hang up on.
        let _ = self.guard.shutdown(Shutdown::Write);
    }

    fn signal(&self, signal: Signal, scope: u8) {
        // Numbers end at 64. The write fails if the tree is gone, or its guard so far behind that
        // hundreds of signals wait for it.
        let _ = (&self.guard).write(&[signal as u8 | scope]);
    }
}

/// Signals a tree of processes from anywhere, as often as wanted. The guard passes the signals on,
/// in order; to a tree that is gone nothing happens, and no other process is ever hit.
#[derive(Debug, Clone)]
pub struct Handle(pub(crate) Arc<Tree>);

impl Handle {
    /// The pid of the main process, which is also its group's.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    /// Sends a signal to the main process's whole group.
    pub fn signal(&self, signal: Signal) {
        self.0.signal(signal, WHOLE_GROUP);
    }

    /// Sends a signal to the main process alone.
    pub fn signal_main(&self, signal: Signal) {
        self.0.signal(signal, 0);
    }

    /// Kills the whole tree, including those who left the group.
    pub fn kill(&self) {
        self.0.kill();
    }
}

/// A tree of processes that was started here. Dropping it kills the tree and waits until it is
/// gone.
///
/// The `wait` family returns only when the whole tree is gone. What the main process leaves behind
/// when it ends is killed. As with any child, a piped output that nobody reads can fill up and
/// keep it from ending, and so can a piped input that nobody takes and closes.
#[derive(Debug)]
pub struct Child {
    tree: Arc<Tree>,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

impl Child {
    pub(crate) fn new(pid: i32, mut guard: process::Child, socket: UnixStream) -> Self {
        let stdin = guard.stdin.take().map(OwnedFd::from);
        let stdout = guard.stdout.take().map(OwnedFd::from);
        let stderr = guard.stderr.take().map(OwnedFd::from);
        Self { tree: Arc::new(Tree::new(pid, guard, socket)), stdin, stdout, stderr }
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The pid of the main process, which is also its group's.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.tree.pid
    }

    /// Something to signal the tree with, from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.tree))
    }

    /// How the main process ended, if the whole tree is gone.
    #[must_use]
    pub fn try_wait(&self) -> Option<Exit> {
        self.tree.try_wait()
    }

    /// Waits until the whole tree is gone and tells how the main process ended.
    pub fn wait(&self) -> Exit {
        self.tree.wait()
    }

    /// Like [`wait`](Self::wait), but gives up after `timeout`.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Exit> {
        self.tree.wait_timeout(timeout)
    }

    /// Sends SIGTERM to the main process's group and kills the tree when the grace is over.
    pub fn stop(&self, ladder: Ladder) -> Exit {
        self.tree.stop(ladder)
    }

    /// The writing end of the child's standard input, if it was to be a pipe; once.
    #[must_use]
    pub fn take_stdin(&mut self) -> Option<OwnedFd> {
        self.stdin.take()
    }

    /// The reading end of the child's standard output, if it was to be a pipe; once.
    #[must_use]
    pub fn take_stdout(&mut self) -> Option<OwnedFd> {
        self.stdout.take()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.tree.kill();
        self.tree.wait();
    }
}
