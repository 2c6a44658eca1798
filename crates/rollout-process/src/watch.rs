//! Reading what a child writes: one thread for its outputs and its end.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::child::{Child, Handle, Ladder, Tree};
use crate::exit::Exit;
use crate::lines::{Lines, Tail};
use crate::poll;
use crate::spawn::SpawnError;

/// Which output a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How much of a child's output is held in memory.
#[derive(Debug, Clone, Copy)]
pub struct WatchConfig {
    /// The longest line handed out, in bytes; a longer one loses its end. 64 KiB by default.
    pub max_line: usize,
    /// How many of the last lines of standard error are kept for the end. 20 by default.
    pub tail_lines: usize,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self { max_line: 64 * 1024, tail_lines: 20 }
    }
}

/// The reading ends of a child's piped outputs.
pub(crate) struct Outputs {
    stdout: Option<File>,
    stderr: Option<File>,
    buffer: Vec<u8>,
}

impl Outputs {
    const BUFFER: usize = 8 * 1024;

    /// How much is still read once the tree is gone: more than any pipe holds by default, so that
    /// only a process outside the tree, having got hold of the pipe, can exceed it.
    const REST: usize = 1024 * 1024;

    /// Takes them from the child, and ends its standard input if nobody took that: nobody can any
    /// more.
    pub(crate) fn of(child: &mut Child) -> Self {
        child.stdin = None;
        Self {
            stdout: child.stdout.take().map(File::from),
            stderr: child.stderr.take().map(File::from),
            buffer: vec![0; Self::BUFFER],
        }
    }

    /// Hands out what the child writes until the whole tree is gone and its outputs are empty, or
    /// until the deadline, which gives `None`.
    pub(crate) fn read(
        &mut self,
        tree: &Tree,
        deadline: Option<Instant>,
        mut on_bytes: impl FnMut(Stream, &[u8]),
    ) -> Option<Exit> {
        let mut rest = Self::REST;
        loop {
            // Looked at before the outputs: all that a dead tree ever wrote is in them by now.
            let exit = tree.try_wait();
            let now = Instant::now();
            let until = if exit.is_some() { Some(now) } else { deadline };
            let socket = exit.is_none().then(|| tree.socket());
            let stdout = self.stdout.as_ref().map(AsFd::as_fd);
            let stderr = self.stderr.as_ref().map(AsFd::as_fd);
            let [_, stdout, stderr] = poll::readable([socket, stdout, stderr], until);
            let mut count = 0;
            if stdout {
                count += take(&mut self.stdout, &mut self.buffer, |b| on_bytes(Stream::Stdout, b));
            }
            if stderr {
                count += take(&mut self.stderr, &mut self.buffer, |b| on_bytes(Stream::Stderr, b));
            }
            if exit.is_some() {
                rest = rest.saturating_sub(count);
                if rest == 0 || !(stdout || stderr) {
                    return exit;
                }
            } else if deadline.is_some_and(|deadline| now >= deadline) {
                return None;
            }
        }
    }
}

/// One read of an output that has something; at its end it is closed. Tells how much it had.
fn take(output: &mut Option<File>, buffer: &mut [u8], on_bytes: impl FnOnce(&[u8])) -> usize {
    match output.as_mut().map(|output| output.read(buffer)) {
        Some(Ok(count @ 1..)) => {
            buffer.get(..count).map(on_bytes);
            count
        }
        Some(Err(error)) if error.kind() == ErrorKind::Interrupted => 0,
        _ => {
            *output = None;
            0
        }
    }
}

/// A child whose output is being read by a thread. Dropping it kills the tree and waits for that
/// thread.
#[derive(Debug)]
pub struct Watched {
    handle: Handle,
    done: Arc<Latch>,
    thread: Option<JoinHandle<()>>,
}

impl Child {
    /// Reads the piped outputs in a thread of their own, a line at a time, until the tree is gone;
    /// then calls `on_exit` once, with the last lines of standard error.
    ///
    /// Both are called in that thread. While `on_line` takes its time nothing is read, and the
    /// child waits as soon as its pipe is full. Neither may wait for this child's end.
    ///
    /// # Errors
    /// [`SpawnError::Thread`] if the system has no thread to give; the child is killed.
    pub fn watch(
        mut self,
        config: WatchConfig,
        on_line: impl FnMut(Stream, &str) + Send + 'static,
        on_exit: impl FnOnce(Exit, String) + Send + 'static,
    ) -> Result<Watched, SpawnError> {
        let handle = self.handle();
        let done = Arc::new(Latch::default());
        let opener = Opener(Arc::clone(&done));
        let thread = thread::Builder::new()
            .name(format!("watch-{}", handle.pid()))
            .spawn(move || {
                let _opener = opener;
                let (exit, tail) = read_lines(&mut self, config, on_line);
                on_exit(exit, tail);
            })
            .map_err(|source| SpawnError::Thread { pid: handle.pid(), source })?;
        Ok(Watched { handle, done, thread: Some(thread) })
    }
}

fn read_lines(
    child: &mut Child,
    config: WatchConfig,
    mut on_line: impl FnMut(Stream, &str),
) -> (Exit, String) {
    let mut tail = Tail::new(config.tail_lines);
    let mut on_line = |stream, line: &str| {
        if stream == Stream::Stderr {
            tail.push(line);
        }
        on_line(stream, line);
    };
    let mut stdout = Lines::new(config.max_line);
    let mut stderr = Lines::new(config.max_line);
    let exit = Outputs::of(child).read(child.tree(), None, |stream, bytes| {
        let lines = match stream {
            Stream::Stdout => &mut stdout,
            Stream::Stderr => &mut stderr,
        };
        lines.push(bytes, |line| on_line(stream, line));
    });
    stdout.finish(|line| on_line(Stream::Stdout, line));
    stderr.finish(|line| on_line(Stream::Stderr, line));
    // Without a deadline there is always an end.
    (exit.unwrap_or(Exit::LOST), tail.into_text())
}

impl Watched {
    /// The pid of the main process, which is also its group's.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.handle.pid()
    }

    /// Something to signal the tree with, from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// How the main process ended, if the tree is gone and `on_exit` has returned.
    #[must_use]
    pub fn try_wait(&self) -> Option<Exit> {
        self.wait_timeout(Duration::ZERO)
    }

    /// Waits until the tree is gone and `on_exit` has returned.
    pub fn wait(&self) -> Exit {
        self.done.wait();
        self.handle.0.wait()
    }

    /// Like [`wait`](Self::wait), but gives up after `timeout`.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Exit> {
        self.done.wait_timeout(timeout).then(|| self.handle.0.wait())
    }

    /// Sends SIGTERM to the main process's group, kills the tree when the grace is over, and waits
    /// until `on_exit` has returned.
    pub fn stop(&self, ladder: Ladder) -> Exit {
        self.handle.0.stop(ladder);
        self.wait()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.handle.kill();
        // A callback may hold the last reference to this very value.
        let thread = self.thread.take().filter(|it| it.thread().id() != thread::current().id());
        if let Some(thread) = thread {
            // A callback's panic was told by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Shut until the thread is done, be it by a panic.
#[derive(Debug, Default)]
struct Latch {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Latch {
    fn wait(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = self.opened.wait_while(open, |open| !*open);
        drop(open.unwrap_or_else(PoisonError::into_inner));
    }

    fn wait_timeout(&self, timeout: Duration) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = self.opened.wait_timeout_while(open, timeout, |open| !*open);
        *open.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Opens the latch when dropped.
struct Opener(Arc<Latch>);

impl Drop for Opener {
    fn drop(&mut self) {
        *self.0.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.opened.notify_all();
    }
}
