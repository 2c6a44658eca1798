//! Libraries in the worker's process: the async side, which hands calls to the plugin's own threads
//! and keeps their deadlines.

mod callbacks;
mod executor;
mod instance;
mod load;
mod occupants;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rollout_core::{Clock, Mono, SystemClock};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::occupants::Occupants;
use crate::call::{Call, Failed, Input, Method, Reply};
use crate::error::{Cause, Executed};
use crate::event::{HostConfig, OnEvent};
use crate::inbox::Inbox;
use crate::manifest::{CdylibEntry, Limits, Manifest};

/// A library that is loaded and has an instance.
pub(crate) struct Library {
    /// None once it is shut down, so that the threads end when they have emptied the queue.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    shared: Arc<Shared>,
    in_flight: Arc<Semaphore>,
    /// Taken by the first shutdown.
    thread: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    /// Reports calls that do not return.
    _watch: JoinSet<()>,
}

/// What the executor is made of.
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

/// A call on its way through the executor, which owns the call's memory until it returns.
struct Job {
    input: Input,
    ticket: Arc<Ticket>,
    reply: oneshot::Sender<Result<Reply, Failed>>,
    /// Given back when the call has returned, or with a job that is dropped.
    place: OwnedSemaphorePermit,
}

/// What a caller and the executor both know of a call.
struct Ticket {
    method: String,
    /// How long its caller waits, and until when.
    within: Duration,
    deadline: Mono,
    /// When its caller gave it up, in nanoseconds of the clock; the end of time while it waits.
    given_up: AtomicU64,
    inbox: Arc<Inbox>,
    stage: AtomicU8,
    cancelled: AtomicU32,
}

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const ABANDONED: u8 = 2;

impl Ticket {
    fn new(method: String, within: Duration, inbox: Arc<Inbox>) -> Self {
        let deadline = SystemClock.now() + within;
        let (stage, cancelled) = (AtomicU8::new(QUEUED), AtomicU32::new(0));
        let given_up = AtomicU64::new(u64::MAX);
        Self { method, within, deadline, given_up, inbox, stage, cancelled }
    }

    /// The executor takes the call up, unless it was abandoned.
    fn begin(&self) -> bool {
        self.leave_queue(RUNNING)
    }

    /// The caller gives the call up; whether it will never run.
    fn abandon(&self) -> bool {
        self.given_up.fetch_min(SystemClock.now().0, Ordering::AcqRel);
        self.cancelled.store(1, Ordering::Release);
        self.leave_queue(ABANDONED)
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) != 0
    }

    /// When nobody waits for it any more, at the latest.
    fn over(&self) -> Mono {
        self.deadline.min(Mono(self.given_up.load(Ordering::Acquire)))
    }

    fn leave_queue(&self, to: u8) -> bool {
        self.stage.compare_exchange(QUEUED, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Gives a call up when its caller stops waiting, for whatever reason.
struct Waiting<'a> {
    ticket: Arc<Ticket>,
    shared: &'a Shared,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered && !self.ticket.abandon() {
            self.shared.abandoned.notify_one();
        }
    }
}

/// What the async side and the executor share.
struct Shared {
    name: Arc<str>,
    limits: Limits,
    on_event: OnEvent,
    stopping: AtomicBool,
    /// Set before the queue is closed: until when the instance has time to end, and who is told.
    stop: Mutex<Option<Stop>>,
    occupants: Mutex<Occupants>,
    /// Told when somebody gives up a call that runs.
    abandoned: Notify,
}

struct Stop {
    deadline: Mono,
    done: oneshot::Sender<Result<(), Cause>>,
}

impl Shared {
    fn occupants(&self) -> MutexGuard<'_, Occupants> {
        self.occupants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The method that does not return, when no thread is left to call another.
    fn stuck(&self) -> Option<String> {
        self.occupants().stuck(SystemClock.now())
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
            stop: Mutex::new(None),
            occupants: Mutex::new(Occupants::new(limits.cancel_grace)),
            abandoned: Notify::new(),
        });
        let setup = Setup {
            manifest: manifest.clone(),
            entry: entry.clone(),
            private_dir: host.sidecar_dir.clone(),
            shared: Arc::clone(&shared),
        };
        let (jobs, received) = mpsc::channel();
        let (tell, ready) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(format!("plugin-{}", manifest.name))
            .spawn(move || executor::run(setup, tell, received))
            .map_err(|source| Cause::Spawn {
                doing: "the system has no thread to give".into(),
                source: source.into(),
            })?;
        let ready = timeout(limits.start_timeout, ready)
            .await
            .map_err(|_| Cause::Timeout { limit: limits.start_timeout, stderr_tail: None })?;
        let Ready { methods, digest } = ready.unwrap_or_else(|_| Err(gone()))?;
        let in_flight = Arc::new(Semaphore::new(limits.max_in_flight));
        let (jobs, thread) = (Mutex::new(Some(jobs)), tokio::sync::Mutex::new(Some(thread)));
        let mut watch = JoinSet::new();
        watch.spawn(occupants::watch(Arc::clone(&shared)));
        Ok((Self { jobs, shared, in_flight, thread, _watch: watch }, methods, digest))
    }

    /// Hands a call to the threads and waits for its answer.
    pub(crate) async fn call(&self, call: Call) -> Result<Reply, Failed> {
        let no = |cause| Failed::new(cause, Executed::No);
        let Call { method, input, timeout: within, inbox } = call;
        self.shared.limits.frame().check("the call", input.size()).map_err(no)?;
        if let Some(stuck) = self.shared.stuck() {
            return Err(no(Cause::Wedged { stuck }));
        }
        let place = Arc::clone(&self.in_flight).try_acquire_owned();
        let place = place.map_err(|_| no(self.refusal()))?;
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::new(method, within, inbox));
        let mut waiting =
            Waiting { ticket: Arc::clone(&ticket), shared: &self.shared, answered: false };
        self.enqueue(Job { input, ticket, reply, place }).map_err(no)?;
        match timeout(within, answer).await {
            Ok(answer) => {
                waiting.answered = true;
                let late = waiting.ticket.deadline <= SystemClock.now();
                match answer.unwrap_or_else(|_| Err(no(gone()))) {
                    // A plugin that saw the deadline pass before its caller was awake.
                    Err(Failed { cause: Cause::Cancelled { .. }, executed }) if late => {
                        Err(Failed::new(Cause::Deadline { limit: within }, executed))
                    }
                    answer => answer,
                }
            }
            Err(_) => {
                let never_ran = waiting.ticket.abandon();
                Err(match self.shared.stuck().filter(|_| never_ran) {
                    Some(stuck) => no(Cause::Wedged { stuck }),
                    None if never_ran => no(Cause::Deadline { limit: within }),
                    None => Failed::new(Cause::Deadline { limit: within }, Executed::Maybe),
                })
            }
        }
    }

    /// How many calls run at the same time.
    pub(crate) fn places(&self) -> usize {
        self.shared.occupants().threads().min(self.shared.limits.max_in_flight)
    }

    /// How many calls are queued or run.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.limits.max_in_flight.saturating_sub(self.in_flight.available_permits())
    }

    fn enqueue(&self, job: Job) -> Result<(), Cause> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(jobs) = &*jobs else { return Err(CLOSED) };
        jobs.send(job).map_err(|_| gone())
    }

    fn refusal(&self) -> Cause {
        if self.in_flight.is_closed() {
            return CLOSED;
        }
        Cause::Overloaded { limit: self.shared.limits.max_in_flight }
    }

    /// Ends the instance and its threads.
    pub(crate) async fn shutdown(&self) -> Result<(), Cause> {
        // Held to the end: a second shutdown returns when the first one has.
        let mut thread = self.thread.lock().await;
        let Some(thread) = thread.take() else { return Ok(()) };
        let grace = self.shared.limits.shutdown_grace;
        self.in_flight.close();
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.occupants().cancel();
        let (tell, done) = oneshot::channel();
        let stop = Stop { deadline: SystemClock.now() + grace, done: tell };
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop);
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        match timeout(grace, done).await {
            Ok(done) => {
                // It has done its last; nothing of it can block.
                let _ = thread.join();
                done.unwrap_or_else(|_| Err(gone()))
            }
            Err(_) => {
                let stuck = self.shared.occupants().any().unwrap_or_else(|| "shutdown".into());
                Err(Cause::Wedged { stuck })
            }
        }
    }
}

const CLOSED: Cause = Cause::Closed { message: "it was shut down" };

/// The executor ends only when it is told to, so this is not seen unless it has a defect.
fn gone() -> Cause {
    Cause::Crashed { message: "its thread has ended".into(), exited: None }
}
