//! A library's own threads: the first loads it, then all of them answer calls. All of the plugin's code
//! runs here, so that whatever it does it can only stop its own calls.
//!
//! A plugin has one thread, which makes, calls and ends its instance. One that is thread-safe gets
//! another whenever all are busy, as many as it may have calls in flight.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rollout_core::{Clock, SystemClock};
use tokio::sync::oneshot;

use super::instance::Instance;
use super::load::Loaded;
use super::{CLOSED, Job, Ready, Setup, Stop, Ticket};
use crate::breaker::Breaker;
use crate::call::{Failed, Input, Reply};
use crate::error::{Cause, Executed};
use crate::event::HostEvent;

/// The first thread's whole life. It ends when told to, or when nobody can call it any more; the
/// others have ended then.
pub(super) fn run(setup: Setup, ready: oneshot::Sender<Result<Ready, Cause>>, jobs: Receiver<Job>) {
    let executor = match Executor::new(setup, jobs) {
        Ok((executor, told)) => {
            if ready.send(Ok(told)).is_err() {
                return;
            }
            Arc::new(executor)
        }
        Err(cause) => {
            let _ = ready.send(Err(cause));
            return;
        }
    };
    executor.serve(0);
    while let Some(other) = lock(&executor.others).pop() {
        // A thread that panicked has ended, too.
        let _ = other.join();
    }
    let instance = executor.take_instance();
    let stop = lock(&executor.setup.shared.stop).take();
    if let Some(Stop { deadline, done }) = stop {
        let ended = instance.map_or(Ok(()), |instance| instance.shutdown(deadline));
        let _ = done.send(ended);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Executor {
    setup: Setup,
    loaded: Loaded,
    /// Held by the one thread that waits for the next call.
    jobs: Mutex<Receiver<Job>>,
    calls: AtomicU64,
    breaker: Mutex<Breaker>,
    place: Mutex<Place>,
    /// Told when the place is `Making` no more.
    made: Condvar,
    /// How many threads there may be, are, and wait for a call.
    most: usize,
    threads: AtomicUsize,
    idle: AtomicUsize,
    others: Mutex<Vec<JoinHandle<()>>>,
}

/// Where the instance is.
enum Place {
    Ready(Arc<Instance>),
    /// It panicked, and is gone for new calls.
    Empty,
    /// A thread is at it.
    Making,
}

impl Executor {
    fn new(setup: Setup, jobs: Receiver<Job>) -> Result<(Self, Ready), Cause> {
        let loaded = Loaded::open(&setup.entry, &setup.private_dir)?;
        loaded.confirmed.check(&setup.manifest)?;
        let ready =
            Ready { methods: loaded.confirmed.methods.clone(), digest: loaded.digest.clone() };
        let most = if loaded.thread_safe { setup.shared.limits.max_in_flight } else { 1 };
        setup.shared.occupants().set_threads(most);
        let breaker = Mutex::new(Breaker::new(setup.manifest.restart.clone()));
        let executor = Self {
            place: Mutex::new(Place::Ready(Arc::new(instantiate(&setup, &loaded)?))),
            setup,
            loaded,
            jobs: Mutex::new(jobs),
            calls: AtomicU64::new(1),
            breaker,
            made: Condvar::new(),
            most,
            threads: AtomicUsize::new(1),
            idle: AtomicUsize::new(0),
            others: Mutex::new(Vec::new()),
        };
        Ok((executor, ready))
    }

    /// A thread's life: one call after the other.
    fn serve(self: &Arc<Self>, thread: usize) {
        while let Some(job) = self.next() {
            self.grow();
            self.answer(thread, job);
        }
    }

    fn next(&self) -> Option<Job> {
        self.idle.fetch_add(1, Ordering::AcqRel);
        let job = lock(&self.jobs).recv().ok();
        self.idle.fetch_sub(1, Ordering::AcqRel);
        job
    }

    /// Starts a thread if none is left to take the next call, and there may be another.
    fn grow(self: &Arc<Self>) {
        if self.idle.load(Ordering::Acquire) > 0 {
            return;
        }
        let more = |threads| (threads < self.most).then_some(threads + 1);
        let Ok(thread) = self.threads.fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
        else {
            return;
        };
        let executor = Arc::clone(self);
        let name = format!("plugin-{}-{thread}", self.setup.shared.name);
        match thread::Builder::new().name(name).spawn(move || executor.serve(thread)) {
            Ok(other) => lock(&self.others).push(other),
            // The threads that there are go on; the next call tries again.
            Err(_) => drop(self.threads.fetch_sub(1, Ordering::AcqRel)),
        }
    }

    fn answer(&self, thread: usize, job: Job) {
        let shared = &self.setup.shared;
        let Job { input, ticket, reply, place } = job;
        if shared.stopping.load(Ordering::Acquire) {
            let _ = reply.send(Err(Failed::new(CLOSED, Executed::No)));
            return;
        }
        if !ticket.begin() {
            return;
        }
        shared.occupants().enter(thread, &ticket);
        let done = self.execute(&input, &ticket);
        shared.occupants().leave(thread);
        // First, so that whoever has the answer may call again.
        drop(place);
        // Nobody may wait for it any more.
        let _ = reply.send(done);
    }

    fn execute(&self, input: &Input, ticket: &Arc<Ticket>) -> Result<Reply, Failed> {
        let no = |cause| Failed::new(cause, Executed::No);
        self.admit().map_err(no)?;
        let instance = self.instance().map_err(no)?;
        let first = self.calls.fetch_add(input.items().len() as u64, Ordering::Relaxed);
        let done = instance.answer(first, input, ticket);
        if let Err(Failed { cause: Cause::Panicked { .. }, .. }) = done {
            self.broken(instance);
        } else {
            lock(&self.breaker).answered();
        }
        done
    }

    fn admit(&self) -> Result<(), Cause> {
        let mut breaker = lock(&self.breaker);
        if breaker.is_closed() {
            return Ok(());
        }
        breaker.admit(SystemClock.now()).map_err(Cause::breaker_open)
    }

    /// The instance to call, made anew if need be.
    fn instance(&self) -> Result<Arc<Instance>, Cause> {
        let mut place = lock(&self.place);
        loop {
            match &*place {
                Place::Ready(instance) => return Ok(Arc::clone(instance)),
                Place::Empty => break,
                Place::Making => {
                    place = self.made.wait(place).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        *place = Place::Making;
        drop(place);
        let made = instantiate(&self.setup, &self.loaded).map(Arc::new);
        let made = made.inspect_err(|_| self.crashed());
        let is = made.as_ref().map_or(Place::Empty, |made| Place::Ready(Arc::clone(made)));
        *lock(&self.place) = is;
        self.made.notify_all();
        made.map_err(|cause| {
            let message = format!("it panicked and could not be made anew: {cause}");
            Cause::Crashed { message, exited: None }
        })
    }

    /// The instance has panicked: it ends with the last call that it has, and a new one takes its
    /// place.
    fn broken(&self, instance: Arc<Instance>) {
        let mut place = lock(&self.place);
        let current = matches!(&*place, Place::Ready(current) if Arc::ptr_eq(current, &instance));
        let old = current.then(|| std::mem::replace(&mut *place, Place::Empty));
        drop(place);
        // With one thread the two never live at the same time.
        drop(instance);
        drop(old);
        self.crashed();
        if current {
            // If that fails the next call tries again, and says why not.
            let _ = self.instance();
        }
    }

    fn take_instance(&self) -> Option<Instance> {
        match std::mem::replace(&mut *lock(&self.place), Place::Empty) {
            // All threads have ended, and nobody else has it.
            Place::Ready(instance) => Arc::into_inner(instance),
            Place::Empty | Place::Making => None,
        }
    }

    fn crashed(&self) {
        let now = SystemClock.now();
        let opened = lock(&self.breaker).crashed(now);
        if let Some(until) = opened {
            let plugin = Arc::clone(&self.setup.shared.name);
            let event = HostEvent::BreakerOpened { plugin, wait: until.since(now) };
            (self.setup.shared.on_event)(event);
        }
    }
}

fn instantiate(setup: &Setup, loaded: &Loaded) -> Result<Instance, Cause> {
    let config = serde_json::Value::Object(setup.manifest.config.clone()).to_string();
    Instance::create(loaded.functions, &config, &setup.shared)
}
