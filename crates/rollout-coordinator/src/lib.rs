//! The coordinator: knows every worker of a run, and says when one has failed.
//!
//! [`liveness`] decides (a pure state machine), the engine carries out, the ledger remembers, the
//! sessions listen. [`work`] does the same for the items of jobs, on a thread of its own, and is
//! reached by workers' streams and clients' requests. No plugin, and so no user code, ever runs in this crate; workers are known to
//! it by their messages alone.
//!
//! Entry point: [`Coordinator::start`].

mod engine;
mod gate;
mod ledger;
pub mod liveness;
mod mailbox;
mod own_thread;
mod refusals;
mod registrar;
mod requests;
mod rush;
mod sessions;
mod skew;
mod streams;
mod tail;
pub mod watchdog;
pub mod work;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use rollout_core::event::{CoordinatorStarted, CoordinatorStopping, Emit};
use rollout_core::{Clock, CoordinatorConfig, Mono, RunId, WorkerId};
use rollout_storage::{StorageError, Store};
use rollout_transport::{Server, Tls, TransportError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep;

use crate::engine::Engine;
use crate::ledger::{Ledger, Meta, Standing, WorkerRecord};
use crate::liveness::{Liveness, State};
use crate::mailbox::Message;
use crate::own_thread::Outcome;
use crate::refusals::Refusals;
use crate::registrar::Registrar;
use crate::requests::Requests;
use crate::rush::Rush;
use crate::sessions::Sessions;
use crate::skew::{Skews, Wall};
pub use crate::tail::Tail;
use crate::watchdog::Watchdog;
pub use crate::work::{Hello, Work, WorkError, WorkSink};
use crate::work::{Outside, WorkThread};

/// How long open sessions may take to hear that the coordinator ends.
const GRACE: Duration = Duration::from_millis(500);

/// Why a coordinator does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: is another coordinator running there?")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The database belongs to another run.
    #[error("the database holds run {found}, not {wanted}: name another `storage`, or that run")]
    OtherRun {
        /// The run in the database.
        found: RunId,
        /// The run asked for.
        wanted: RunId,
    },
    /// The ledger cannot be read or written: nothing more can be promised.
    #[error("the ledger failed")]
    Ledger(#[source] Arc<StorageError>),
    /// The server cannot start.
    #[error("the server cannot start")]
    Transport(#[from] TransportError),
    /// The directory of large results cannot be read or written.
    #[error("the directory of large results cannot be used")]
    Blobs(#[from] work::BlobError),
    /// A thread cannot be started.
    #[error("cannot start the engine")]
    Thread(#[source] io::Error),
    /// The engine is gone: a defect of rollout.
    #[error("the engine ended unexpectedly; its panic is on standard error")]
    EngineLost,
}

/// A bound port that is not served yet: taken first, so that a second coordinator on the same
/// address touches nothing else.
pub struct Port(TcpListener);

impl Port {
    /// Takes the address.
    ///
    /// # Errors
    /// [`CoordinatorError::Listen`] when it is taken or not this host's.
    pub fn bind(addr: SocketAddr) -> Result<Self, CoordinatorError> {
        let bound = TcpListener::bind(addr).and_then(|port| {
            port.set_nonblocking(true)?;
            Ok(port)
        });
        bound.map(Self).map_err(|source| CoordinatorError::Listen { addr, source })
    }
}

/// A running coordinator. Dropping it ends it without a word to the workers.
pub struct Coordinator {
    server: Server,
    /// Shows the engine that connections are being served.
    pulse: JoinSet<()>,
    engine: mpsc::Sender<Message>,
    ended: oneshot::Receiver<Outcome>,
    thread: thread::JoinHandle<()>,
    work: WorkThread,
    run_id: RunId,
    clock: Arc<dyn Clock>,
    emit: Arc<dyn Emit>,
    refusals: Arc<Refusals>,
    tail: Tail,
}

impl Coordinator {
    /// Opens a new term on `store`, and serves `port`. Clients that read events are sent what is
    /// put into `tail`, which is to be what `emit` makes lines of.
    ///
    /// To be called within a tokio runtime, which then serves the connections; deadlines are
    /// watched on a thread of their own.
    ///
    /// # Errors
    /// When the database belongs to another run or fails, or a thread or server cannot start.
    pub fn start(
        config: &CoordinatorConfig,
        port: Port,
        store: Store,
        tls: Tls,
        clock: Arc<dyn Clock>,
        emit: Arc<dyn Emit>,
        tail: Tail,
    ) -> Result<Self, CoordinatorError> {
        let store = Arc::new(store);
        let ledger = Ledger::new(Arc::clone(&store));
        let meta = begin_term(&ledger, config.run_id)?;
        emit.lead(meta.run_id);
        let (engine, inbox) = mpsc::channel(mailbox::QUEUE);
        let outbox = engine.downgrade();
        let interval = config.events.worker_rejected_interval;
        let refusals = Arc::new(Refusals::new(interval, Arc::clone(&emit)));
        let unread = |error| CoordinatorError::Ledger(Arc::new(error));
        let known = ledger.workers().map_err(unread)?;
        let floor = ledger.floor().map_err(unread)?;
        let outside = Outside { clock: Arc::clone(&clock), emit: Arc::clone(&emit) };
        let work = WorkThread::start(store, meta.term, &known, outside)?;
        let sessions = Sessions {
            run_id: meta.run_id,
            budget: config.timing,
            registration_timeout: config.limits.header_timeout,
            engine: engine.clone(),
            clock: Arc::clone(&clock),
            refusals: Arc::clone(&refusals),
            next: AtomicU64::new(1),
            requests: Requests::new(work.handle().clone(), meta.run_id, meta.term),
            tail: tail.clone(),
        };
        let server = Server::start(port.0, tls, config.limits, Arc::new(sessions))?;
        let now = clock.now();
        let mut liveness = restore(config, &known, now);
        liveness.restore_floor(floor);
        let started = started(meta.term, server.local_addr(), liveness.live());
        emit.emit(now, None, started.into());
        let runner = Engine {
            run_id: meta.run_id,
            term: meta.term,
            liveness,
            watchdog: Watchdog::new(now),
            rush: Rush::new(now),
            queue: server.queue(),
            ledger,
            broken: Arc::new(OnceLock::new()),
            skews: Skews::new(&config.timing),
            wall: Wall::read(&*clock),
            registrar: Registrar::new(config.limits.registration_interval),
            refusals: Arc::clone(&refusals),
            heartbeats: config.events.worker_heartbeat,
            clock: Arc::clone(&clock),
            emit: Arc::clone(&emit),
            inbox,
            outbox,
            sessions: HashMap::default(),
            board: work.board(),
        };
        let (thread, ended) = own_thread::spawn("engine", move || runner.run())?;
        let mut pulse = JoinSet::new();
        pulse.spawn(send_pulses(engine.clone(), Arc::clone(&clock)));
        let run_id = meta.run_id;
        Ok(Self { server, pulse, engine, ended, thread, work, run_id, clock, emit, refusals, tail })
    }

    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// The run it leads.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        self.run_id
    }

    /// The work ledger, to be served.
    #[must_use]
    pub fn work(&self) -> &Work {
        self.work.handle()
    }

    /// Waits until it cannot go on; never ends on a healthy disk.
    pub async fn failed(&mut self) -> CoordinatorError {
        let ended = tokio::select! {
            ended = &mut self.ended => ended,
            ended = self.work.ended() => ended,
        };
        match ended {
            Ok(Err(error)) => CoordinatorError::Ledger(error),
            Ok(Ok(())) | Err(_) => CoordinatorError::EngineLost,
        }
    }

    /// Ends in good order: no more verdicts, every session is told, the ledger is on disk.
    ///
    /// # Errors
    /// When what was submitted cannot be written any more.
    pub async fn stop(mut self, signal: &str) -> Result<(), CoordinatorError> {
        let stopping = CoordinatorStopping { signal: signal.to_owned() };
        self.emit.emit(self.clock.now(), None, stopping.into());
        // Work first: what it has taken in is on disk before the store is closed.
        let work = self.work.stop().await;
        // An engine that has ended already says so through `ended`.
        let _ = self.engine.send(Message::Stop).await;
        self.pulse.shutdown().await;
        drop(self.engine);
        self.tail.end();
        self.server.close(GRACE).await;
        self.refusals.end(self.clock.now());
        let outcome = self.ended.await;
        // The engine's last act is its answer: the thread is about to end, or has panicked.
        let _ = self.thread.join();
        match outcome {
            Ok(outcome) => outcome.and(work?).map_err(CoordinatorError::Ledger),
            Err(_) => Err(CoordinatorError::EngineLost),
        }
    }
}

fn started(term: u64, listen_addr: SocketAddr, known_workers: usize) -> CoordinatorStarted {
    CoordinatorStarted {
        term,
        listen_addr: listen_addr.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        known_workers: known_workers as u64,
    }
}

/// The next term of the run that is asked for, if it is the one in the database.
fn begin_term(ledger: &Ledger, wanted: Option<RunId>) -> Result<Meta, CoordinatorError> {
    let meta = ledger.begin_term(wanted).map_err(CoordinatorError::Ledger)?;
    match wanted {
        Some(wanted) if wanted != meta.run_id => {
            Err(CoordinatorError::OtherRun { found: meta.run_id, wanted })
        }
        _ => Ok(meta),
    }
}

/// Liveness as the registry has it; everybody live gets a full deadline from now.
fn restore(config: &CoordinatorConfig, known: &[(WorkerId, WorkerRecord)], now: Mono) -> Liveness {
    let mut liveness = Liveness::new(config.timing, config.limits.max_workers);
    for (id, record) in known {
        let state = match record.standing {
            Standing::Live => State::Ready,
            Standing::Failed => State::Failed,
            Standing::Deregistered => State::Deregistered,
        };
        liveness.restore(now, *id, record.epoch, record.incarnation, state);
    }
    liveness
}

/// Sends pulses by the way that beats take, until the engine has ended.
async fn send_pulses(engine: mpsc::Sender<Message>, clock: Arc<dyn Clock>) {
    loop {
        // Everything that is ready goes first: connections, their streams, their sessions.
        for _ in 0..3 {
            yield_now().await;
        }
        if engine.send(Message::Pulse { sent: clock.now() }).await.is_err() {
            return;
        }
        sleep(watchdog::TICK).await;
    }
}
