//! A worker: it loads its plugins, registers with the coordinator, beats, fences itself when it is
//! not acknowledged, and leaves in good order when asked to.
//!
//! It knows the coordinator by its messages alone. The heart beats on a thread of its own; plugins
//! run elsewhere.
//!
//! Entry point: [`run`].

mod fence;
mod heart;
mod memory;
mod plugins;
mod pulse;
mod work;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rollout_core::event::{Body, Emit};
use rollout_core::{Clock, WorkerConfig, WorkerId};
use rollout_plugin_host::{Manifest, Plugin, PluginError};
use rollout_storage::{StorageError, Store};
use rollout_transport::{ConnectError, RejectReason, Tls};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

pub use memory::remembered_id;

use crate::heart::{Heart, Intent, Parts};
use crate::memory::{Memory, PluginRow};

/// Why a worker does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A plugin does not load or answer.
    #[error("a plugin does not work")]
    Plugin(#[source] PluginError),
    /// Starting a plugin panicked: a defect of rollout.
    #[error("starting a plugin failed unexpectedly")]
    Task(#[source] tokio::task::JoinError),
    /// The database is another worker's.
    #[error("the database is worker {found}'s, not {wanted}'s: name another `storage`")]
    OtherWorker {
        /// The worker in the database.
        found: WorkerId,
        /// This one.
        wanted: WorkerId,
    },
    /// The worker's own database failed.
    #[error("the worker's database failed")]
    Memory(#[source] Arc<StorageError>),
    /// Not registered within the start time-out.
    #[error(
        "not registered within `start_timeout` ({}): is the coordinator running, and is \
         `coordinator` its address?",
        humantime::format_duration(*after)
    )]
    Unreachable {
        /// The time-out.
        after: Duration,
        /// Why the last attempt did not connect; nothing when it did, and was not answered.
        #[source]
        source: Option<ConnectError>,
    },
    /// A certificate was refused, by either side.
    #[error("the coordinator and this worker do not accept each other's certificates")]
    Refused(#[source] ConnectError),
    /// The coordinator refused the registration.
    #[error("the coordinator refused this worker: {detail}")]
    Rejected {
        /// Why, for programs.
        reason: RejectReason,
        /// Why, for people.
        detail: String,
    },
    /// A newer process has this worker's id.
    #[error("a newer process has this worker's id; this one ends")]
    Superseded,
    /// A library's call does not return.
    #[error(
        "`{method}` of plugin `{plugin}` does not return and cannot be stopped: this process ends; \
         run the plugin as a sidecar"
    )]
    Wedged {
        /// The plugin.
        plugin: String,
        /// The method.
        method: String,
    },
    /// A thread or runtime cannot be started.
    #[error("cannot start the heartbeat thread")]
    Thread(#[source] io::Error),
    /// The heart is gone: a defect of rollout.
    #[error("the heartbeat thread ended unexpectedly; its panic is on standard error")]
    HeartLost,
}

impl WorkerError {
    /// Whether the refusal is about who the worker is, rather than what it asked for.
    #[must_use]
    pub const fn is_identity(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Superseded => true,
            Self::Rejected { reason, .. } => heart::is_identity(*reason),
            _ => false,
        }
    }
}

/// How a worker says what happens to it.
#[derive(Clone)]
pub(crate) struct Voice {
    pub(crate) worker: WorkerId,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) emit: Arc<dyn Emit>,
}

impl Voice {
    pub(crate) fn say(&self, body: impl Into<Body>) {
        self.emit.emit(self.clock.now(), Some(self.worker), body.into());
    }
}

/// Everything a worker starts from.
pub struct Setup {
    /// Its configuration.
    pub config: WorkerConfig,
    /// Its id, the one in its certificate.
    pub worker: WorkerId,
    /// Its certificate.
    pub tls: Tls,
    /// Its database, open.
    pub store: Store,
    /// Its plugins.
    pub plugins: Vec<Manifest>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Its event stream.
    pub emit: Arc<dyn Emit>,
}

/// Runs a worker until `stop` ends or it cannot go on. Every plugin has then been shut down.
///
/// To be called within a tokio runtime, on which plugins are spoken to.
///
/// # Errors
/// Before it registers: when the database is another's, or a plugin does not work. Later: when the
/// coordinator refuses it, is not there, or its own database fails.
pub async fn run(setup: Setup, stop: impl Future<Output = ()>) -> Result<(), WorkerError> {
    let Setup { config, worker, tls, store, plugins, clock, emit } = setup;
    let voice = Voice { worker, clock, emit };
    let memory = Memory::new(store);
    if let Some(found) = memory.claim(worker).map_err(WorkerError::Memory)? {
        return Err(WorkerError::OtherWorker { found, wanted: worker });
    }
    let (wedged_tx, wedged) = watch::channel(None);
    let host = plugins::host(&voice, config.sidecar_dir.clone(), wedged_tx);
    let mut stop = pin!(stop);
    let plugins = tokio::select! {
        plugins = plugins::start(plugins, &host, &voice) => plugins?,
        () = &mut stop => return Ok(()),
    };
    let rows = plugins.iter().map(|p| {
        let (version, digest) = (p.version().to_owned(), p.digest().to_owned());
        (p.name().to_owned(), PluginRow { version, digest })
    });
    if let Err(error) = memory.loaded(rows.collect()) {
        plugins::shutdown(plugins).await;
        return Err(WorkerError::Memory(error));
    }
    let (wish, intent) = watch::channel(Intent::Serve);
    let drain_timeout = config.drain_timeout;
    let reconnect = config.timing.reconnect();
    let heart = Heart::new(Parts {
        coordinator: config.coordinator.clone(),
        run_id: config.run_id,
        budget: config.timing,
        start_timeout: config.start_timeout,
        plugins: plugins.iter().map(|p| format!("{} {}", p.name(), p.version())).collect(),
        tls: tls.clone(),
        memory,
        voice,
        intent,
    });
    let (leave, left) = watch::channel(None);
    let work = work::run(work::Parts {
        coordinator: config.coordinator,
        reconnect,
        tls,
        plugins: plugins.clone(),
        worker,
        pulse: heart.pulse(),
        leave: left,
        wedged,
    });
    let ended = match spawn(heart) {
        Ok(ended) => ended,
        Err(error) => {
            plugins::shutdown(plugins).await;
            return Err(error);
        }
    };
    serve(ended, work, plugins, stop, (wish, leave, drain_timeout)).await
}

/// Beats and works until `stop` ends, and then leaves in good order.
async fn serve(
    mut ended: oneshot::Receiver<Result<(), WorkerError>>,
    work: impl Future<Output = Result<(), WorkerError>>,
    plugins: Vec<Arc<Plugin>>,
    stop: impl Future<Output = ()>,
    (wish, leave, drain_timeout): (watch::Sender<Intent>, watch::Sender<Option<Drain>>, Duration),
) -> Result<(), WorkerError> {
    let mut work = pin!(work);
    let mut heart = None;
    let early = tokio::select! {
        outcome = &mut ended => {
            heart = Some(outcome);
            None
        }
        outcome = &mut work => Some(outcome),
        () = stop => None,
    };
    // The heart goes on beating while what runs is finished, and the plugins end.
    wish.send_replace(Intent::Drain);
    let end = Instant::now() + drain_timeout;
    let drain = Drain::within(drain_timeout);
    leave.send_replace(Some(drain));
    let worked = match (early, &heart) {
        (Some(outcome), _) => outcome,
        (None, Some(_)) => Ok(()),
        (None, None) => tokio::select! {
            outcome = &mut work => outcome,
            outcome = &mut ended => {
                heart = Some(outcome);
                Ok(())
            }
        },
    };
    plugins::shutdown(plugins).await;
    if let Some(outcome) = heart {
        return outcome.unwrap_or(Err(WorkerError::HeartLost));
    }
    wish.send_replace(Intent::Leave);
    // The plugins' shutdown has a limit of its own.
    let end = end.max(Instant::now() + drain.last_words);
    let left = match timeout_at(end, ended).await {
        Ok(outcome) => outcome.unwrap_or(Err(WorkerError::HeartLost)),
        Err(_) => {
            tracing::warn!("not deregistered within `drain_timeout`: left all the same");
            Ok(())
        }
    };
    worked.and(left)
}

/// How the time of a drain is divided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    /// How long what runs may go on.
    pub(crate) running: Duration,
    /// How long it may take then to say what has become of it, and how long to deregister.
    pub(crate) last_words: Duration,
}

impl Drain {
    fn within(drain_timeout: Duration) -> Self {
        let last_words = (drain_timeout / 5).min(work::LAST_WORDS);
        Self { running: drain_timeout - 2 * last_words, last_words }
    }
}

/// Runs the heart on a thread of its own. The thread ends with the heart, or with the process.
fn spawn(heart: Heart) -> Result<oneshot::Receiver<Result<(), WorkerError>>, WorkerError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(WorkerError::Thread)?;
    let (report, ended) = oneshot::channel();
    thread::Builder::new()
        .name("heart".into())
        .spawn(move || {
            let outcome = runtime.block_on(heart.run());
            // Whoever would have listened has given the worker up.
            let _ = report.send(outcome);
        })
        .map_err(WorkerError::Thread)?;
    Ok(ended)
}
