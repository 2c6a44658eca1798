//! One process of the fleet: started, listened to, ended, started again.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use rollout_core::event::{Body, Event};
use rollout_core::ids::WorkerId;
use rollout_process::{Exit, Io, Signal, Spawn, Stream, WatchConfig, Watched};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::files::Journals;
use crate::run::error::RunError;

/// What a process has said or done.
#[derive(Debug)]
pub(super) struct Said {
    /// Which one: 0 is the coordinator, the others are workers.
    pub(super) place: usize,
    pub(super) word: Word,
}

#[derive(Debug)]
pub(super) enum Word {
    /// The coordinator listens at this address.
    Listens(String),
    /// A worker registered.
    Registered(WorkerId),
    /// The process is gone, with the last it wrote to standard error.
    Ended(Exit, String),
}

/// One process, and how it fares.
pub(super) struct Member {
    pub(super) place: usize,
    /// For people.
    pub(super) name: String,
    pub(super) id: Option<WorkerId>,
    /// When it is to be started.
    pub(super) due: Option<Instant>,
    journals: Journals,
    process: Option<Watched>,
    /// Since when this process works.
    working: Option<Instant>,
    /// It was started before.
    started: bool,
    /// How often in a row it ended before it worked.
    failed: u32,
    worked: Option<Duration>,
    backoff: Backoff,
}

impl Member {
    pub(super) fn new(
        place: usize,
        name: String,
        id: Option<WorkerId>,
        journals: Journals,
    ) -> Self {
        Self {
            place,
            name,
            id,
            due: None,
            journals,
            process: None,
            working: None,
            started: false,
            failed: 0,
            worked: None,
            backoff: Backoff::default(),
        }
    }

    /// Starts it: this very program, with other arguments.
    pub(super) fn start(
        &mut self,
        args: &[OsString],
        outbox: &mpsc::UnboundedSender<Said>,
    ) -> Result<(), RunError> {
        self.due = None;
        self.started = true;
        let spawned = Spawn::new(program()?).args(args).stdout(Io::Pipe).stderr(Io::Pipe).spawn();
        let spawned = spawned.and_then(|child| {
            let (mut events, mut errors) =
                (self.journals.events.open(), self.journals.errors.open());
            let (place, says, ends) = (self.place, outbox.clone(), outbox.clone());
            let on_line = move |stream, line: &str| match stream {
                Stream::Stderr => errors.line(line),
                Stream::Stdout => {
                    events.line(line);
                    if let Some(word) = word(line) {
                        // Nobody listens any more when the run ends.
                        let _ = says.send(Said { place, word });
                    }
                }
            };
            let on_exit = move |exit, tail| {
                let _ = ends.send(Said { place, word: Word::Ended(exit, tail) });
            };
            child.watch(WatchConfig::default(), on_line, on_exit)
        });
        let what = if self.place == 0 { "the coordinator" } else { "a worker" };
        self.process = Some(spawned.map_err(|error| RunError::Spawn(what, error))?);
        Ok(())
    }

    /// It does what it is there for.
    pub(super) fn works(&mut self) {
        self.working.get_or_insert_with(Instant::now);
        self.failed = 0;
    }

    /// It is gone. How often in a row it has failed to start.
    pub(super) fn ended(&mut self) -> u32 {
        self.process = None;
        self.worked = self.working.take().map(|since| since.elapsed());
        if self.worked.is_none() {
            self.failed += 1;
        }
        self.failed
    }

    /// It will be started again, after so long.
    pub(super) fn again(&mut self) -> Duration {
        let wait = self.backoff.next(self.worked);
        self.due = Some(Instant::now() + wait);
        wait
    }

    pub(super) const fn runs(&self) -> bool {
        self.process.is_some()
    }

    pub(super) const fn is_new(&self) -> bool {
        !self.started
    }

    /// Signals the process alone: what it has started is its own to end.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.handle().signal_main(signal);
        }
    }
}

/// This very program, under the name it was started by; one that has been replaced since has none.
fn program() -> Result<PathBuf, RunError> {
    let named = std::env::current_exe().map_err(RunError::file("find", "this program"))?;
    let running = PathBuf::from("/proc/self/exe");
    Ok(if !named.exists() && running.exists() { running } else { named })
}

/// What a line of an event stream means for the fleet, if anything.
fn word(line: &str) -> Option<Word> {
    let topics = ["\"topic\":\"coordinator_started\"", "\"topic\":\"worker_registered\""];
    if !topics.iter().any(|topic| line.contains(topic)) {
        return None;
    }
    let event: Event = serde_json::from_str(line).ok()?;
    match event.body {
        Body::CoordinatorStarted(started) => Some(Word::Listens(started.listen_addr)),
        Body::WorkerRegistered(_) => event.worker_id.map(Word::Registered),
        _ => None,
    }
}
