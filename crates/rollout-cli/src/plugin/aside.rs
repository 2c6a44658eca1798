//! What plugins say while they are tried, on standard error.
//!
//! Plugins are listened to on threads that must not wait, so a thread of its own writes. A reader
//! that does not keep up costs lines, which are counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rollout_core::Level;
use rollout_plugin_host::{HostEvent, Stream};

use crate::error::plain;

/// The most lines that wait.
const QUEUE: usize = 4_096;
/// How long the last lines may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Takes lines; cheap to clone.
#[derive(Clone)]
pub(super) struct Aside {
    lines: SyncSender<Option<String>>,
    dropped: Arc<AtomicU64>,
}

/// The thread behind it.
pub(super) struct Writer {
    aside: Aside,
    written: Receiver<()>,
}

/// Starts the thread.
pub(super) fn open() -> io::Result<(Aside, Writer)> {
    let (lines, inbox) = sync_channel::<Option<String>>(QUEUE);
    let (done, written) = sync_channel(1);
    thread::Builder::new().name("aside".into()).spawn(move || {
        while let Ok(Some(line)) = inbox.recv() {
            // Nobody is left to be told that standard error is gone.
            let _ = io::stderr().write_all(line.as_bytes());
        }
        let _ = done.send(());
    })?;
    let aside = Aside { lines, dropped: Arc::default() };
    Ok((aside.clone(), Writer { aside, written }))
}

impl Aside {
    pub(super) fn say(&self, event: &HostEvent) {
        let line = match event {
            HostEvent::Output { plugin, stream, line } => {
                let stream = match stream {
                    Stream::Stdout => "stdout",
                    Stream::Stderr => "stderr",
                };
                format!("[{plugin}] {stream}: {}\n", plain(line))
            }
            HostEvent::Log { plugin, level, target, message } => {
                let level = word(*level);
                format!("[{plugin}] {level}: {}\n", plain(&format!("{target}: {message}")))
            }
            // What it did, the outcome of the command says.
            _ => return,
        };
        if self.lines.try_send(Some(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

impl Writer {
    /// Waits until what was said is written, a second at most, and says what was lost.
    pub(super) fn close(self) {
        // A full queue is a reader that takes nothing: its lines are lost with the process.
        let _ = self.aside.lines.try_send(None);
        let _ = self.written.recv_timeout(LAST_WORDS);
        let dropped = self.aside.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            eprintln!("rollout: {dropped} lines of the plugin were not shown");
        }
    }
}
