//! Libraries in the worker's process: the async side, which hands calls to the plugin's own thread
//! and keeps their deadlines.

mod executor;
mod instance;
mod load;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rollout_core::{Clock, Mono, SystemClock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use crate::call::{Call, Failed, Method, Reply, check_size};
use crate::error::{Cause, Executed};
use crate::event::{HostConfig, HostEvent, OnEvent};
use crate::manifest::{CdylibEntry, Limits, Manifest};

/// A library that is loaded and has an instance.
pub(crate) struct Library {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    in_flight: Arc<Semaphore>,
    /// Taken by the first shutdown.
    thread: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// What the executor thread is made of.
struct Setup {
    manifest: Manifest,
    entry: CdylibEntry,
    private_dir: PathBuf,
    shared: Arc<Shared>,
}

/// A library that has become ready.
struct Ready {
    methods: Vec<Method>,
    digest: String,
}

enum Command {
    Call(Job),
    Stop { deadline: Mono, done: oneshot::Sender<Result<(), Cause>> },
}

/// A call on its way through the executor, which owns the call's memory until it returns.
struct Job {
    call: Call,
    deadline: Mono,
    ticket: Arc<Ticket>,
    reply: oneshot::Sender<Result<Reply, Failed>>,
    /// Given back when the call has returned, or with a job that is dropped.
    place: OwnedSemaphorePermit,
}

/// What a caller and the executor both know of a call.
#[derive(Default)]
struct Ticket {
    stage: AtomicU8,
    cancelled: AtomicU32,
}

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const ABANDONED: u8 = 2;

impl Ticket {
    /// The executor takes the call up, unless it was abandoned.
    fn begin(&self) -> bool {
        self.leave_queue(RUNNING)
    }

    /// The caller gives the call up; whether it will never run.
    fn abandon(&self) -> bool {
        self.cancelled.store(1, Ordering::Release);
        self.leave_queue(ABANDONED)
    }

    fn leave_queue(&self, to: u8) -> bool {
        self.stage.compare_exchange(QUEUED, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Gives a call up when its caller stops waiting, for whatever reason.
struct Waiting(Arc<Ticket>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// What the async side and the executor share.
struct Shared {
    name: Arc<str>,
    limits: Limits,
    on_event: OnEvent,
    stopping: AtomicBool,
    running: Mutex<Option<Running>>,
}

/// The call that occupies the thread.
struct Running {
    method: String,
    deadline: Mono,
    ticket: Arc<Ticket>,
    reported: bool,
}

impl Shared {
    fn set_running(&self, running: Option<Running>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }

    /// The method that has outlived its deadline and still occupies the thread; reported once.
    fn stuck(&self) -> Option<String> {
        let now = SystemClock.now();
        let mut guard = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = guard.as_mut().filter(|running| running.deadline <= now)?;
        let method = running.method.clone();
        let report = !std::mem::replace(&mut running.reported, true);
        drop(guard);
        if report {
            let event =
                HostEvent::Wedged { plugin: Arc::clone(&self.name), method: method.clone() };
            (self.on_event)(event);
        }
        Some(method)
    }

    /// Tells the running call that nobody waits for it any more.
    fn cancel_running(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*running {
            running.ticket.abandon();
        }
    }
}

impl Library {
    /// Loads the library on its own thread and creates an instance.
    pub(crate) async fn start(
        entry: &CdylibEntry,
        manifest: &Manifest,
        host: &HostConfig,
    ) -> Result<(Self, Vec<Method>, String), Cause> {
        let limits = manifest.limits.clone();
        let shared = Arc::new(Shared {
            name: manifest.name.as_str().into(),
            limits: limits.clone(),
            on_event: Arc::clone(&host.on_event),
            stopping: AtomicBool::new(false),
            running: Mutex::new(None),
        });
        let setup = Setup {
            manifest: manifest.clone(),
            entry: entry.clone(),
            private_dir: host.sidecar_dir.clone(),
            shared: Arc::clone(&shared),
        };
        let (commands, received) = mpsc::channel();
        let (tell, ready) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(format!("plugin-{}", manifest.name))
            .spawn(move || executor::run(&setup, tell, &received))
            .map_err(|source| Cause::Spawn {
                doing: "the system has no thread to give".into(),
                source: source.into(),
            })?;
        let ready = timeout(limits.start_timeout, ready)
            .await
            .map_err(|_| Cause::Timeout { limit: limits.start_timeout, stderr_tail: None })?;
        let Ready { methods, digest } = ready.unwrap_or_else(|_| Err(gone()))?;
        let in_flight = Arc::new(Semaphore::new(limits.max_in_flight));
        let thread = tokio::sync::Mutex::new(Some(thread));
        Ok((Self { commands, shared, in_flight, thread }, methods, digest))
    }

    /// Hands a call to the thread and waits for its answer.
    pub(crate) async fn call(&self, call: Call) -> Result<Reply, Failed> {
        let no = |cause| Failed::new(cause, Executed::No);
        check_size("the call", call.input.size(), &self.shared.limits).map_err(no)?;
        if let Some(stuck) = self.shared.stuck() {
            return Err(no(Cause::Wedged { stuck }));
        }
        let limit = self.shared.limits.max_in_flight;
        let place = Arc::clone(&self.in_flight).try_acquire_owned();
        let place = place.map_err(|_| no(self.refusal(limit)))?;
        let (reply, answer) = oneshot::channel();
        let within = call.timeout;
        let waiting = Waiting(Arc::default());
        let job = Job {
            call,
            deadline: SystemClock.now() + within,
            ticket: Arc::clone(&waiting.0),
            reply,
            place,
        };
        self.commands.send(Command::Call(job)).map_err(|_| no(gone()))?;
        match timeout(within, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(no(gone()))),
            Err(_) => Err(self.expired(&waiting, within)),
        }
    }

    fn refusal(&self, limit: usize) -> Cause {
        if self.in_flight.is_closed() {
            return Cause::Closed { message: "it was shut down" };
        }
        Cause::Overloaded { limit }
    }

    /// What a caller is told whose deadline has passed.
    fn expired(&self, waiting: &Waiting, limit: Duration) -> Failed {
        let never_ran = waiting.0.abandon();
        let stuck = self.shared.stuck();
        match (never_ran, stuck) {
            (true, Some(stuck)) => Failed::new(Cause::Wedged { stuck }, Executed::No),
            (true, None) => Failed::new(Cause::Deadline { limit }, Executed::No),
            (false, _) => Failed::new(Cause::Deadline { limit }, Executed::Maybe),
        }
    }

    /// Ends the instance and its thread.
    pub(crate) async fn shutdown(&self) -> Result<(), Cause> {
        // Held to the end: a second shutdown returns when the first one has.
        let mut thread = self.thread.lock().await;
        let Some(thread) = thread.take() else { return Ok(()) };
        let grace = self.shared.limits.shutdown_grace;
        self.in_flight.close();
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.cancel_running();
        let (tell, done) = oneshot::channel();
        let stop = Command::Stop { deadline: SystemClock.now() + grace, done: tell };
        self.commands.send(stop).map_err(|_| gone())?;
        match timeout(grace, done).await {
            Ok(done) => {
                // It has done its last; nothing of it can block.
                let _ = thread.join();
                done.unwrap_or_else(|_| Err(gone()))
            }
            Err(_) => Err(Cause::Wedged { stuck: self.occupant() }),
        }
    }

    fn occupant(&self) -> String {
        let running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map_or_else(|| "shutdown".into(), |running| running.method.clone())
    }
}

/// The executor ends only when it is told to, so this is not seen unless it has a defect.
fn gone() -> Cause {
    Cause::Crashed { message: "its thread has ended".into(), exited: None }
}
