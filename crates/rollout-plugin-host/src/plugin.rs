//! The one interface to a plugin, whichever its boundary.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollout_core::event::PluginExited;
use rollout_core::{Clock, Level, PluginId, SystemClock};
pub use rollout_process::Stream;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cdylib::Library;
use crate::error::{Cause, Executed, PluginError};
use crate::json;
use crate::manifest::{Entry, Limits, Manifest, Probe};
use crate::sidecar::Process;

/// Told what plugins say and do. Called from any thread; must not block.
pub type OnEvent = Arc<dyn Fn(HostEvent) + Send + Sync>;

/// What the host needs from whoever runs it.
#[derive(Clone)]
pub struct HostConfig {
    /// Where sidecars' sockets are made; created with mode 0700 if it is missing.
    pub sidecar_dir: PathBuf,
    /// Who is told what plugins say and do.
    pub on_event: OnEvent,
}

/// Something a plugin said or did outside a call.
#[derive(Debug, Clone)]
pub enum HostEvent {
    /// A sidecar wrote a line to its standard output or error.
    Output {
        /// The plugin's name.
        plugin: Arc<str>,
        /// Which of the two.
        stream: Stream,
        /// The line, without its end, cut at a limit.
        line: String,
    },
    /// A plugin logged a record.
    Log {
        /// The plugin's name.
        plugin: Arc<str>,
        /// How much it matters.
        level: Level,
        /// The logger's name.
        target: String,
        /// The text.
        message: String,
    },
    /// The process of a sidecar that had been ready ended, and all that it had started. Nothing
    /// comes from it after this.
    Exited(PluginExited),
    /// A cdylib's call outlived its deadline and occupies its thread; it can't be killed. The plugin
    /// answers `wedged` until the call returns. Reported once a call.
    Wedged {
        /// The plugin's name.
        plugin: Arc<str>,
        /// The method that does not return.
        method: String,
    },
}

/// How a plugin is separated from the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// A library in the worker's process.
    Cdylib,
    /// A process of its own.
    Sidecar,
}

impl Boundary {
    /// The boundary as events name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cdylib => "cdylib",
            Self::Sidecar => "sidecar",
        }
    }
}

/// What a call brought back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The result, byte for byte as the plugin wrote it.
    pub result: Box<RawValue>,
    /// The bytes beside it; empty when there are none.
    pub payload: Bytes,
}

/// A probe that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// The method that was called.
    pub method: String,
    /// How long the answer took.
    pub took: Duration,
}

/// A method, as a plugin lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Method {
    /// Its name.
    pub name: String,
}

/// A call on its way to a plugin.
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) params: Box<RawValue>,
    pub(crate) payload: Bytes,
    pub(crate) timeout: Duration,
}

/// A call that failed, before it is known to the caller as a [`PluginError`].
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) cause: Cause,
    pub(crate) executed: Executed,
}

impl Failed {
    pub(crate) fn new(cause: Cause, executed: Executed) -> Self {
        Self { cause, executed }
    }

    /// The error for a call of `method`.
    pub(crate) fn at(self, plugin: &str, method: &str) -> PluginError {
        let Self { cause, executed } = self;
        PluginError { executed, method: Some(method.to_owned()), ..cause.at(plugin) }
    }
}

/// The longest text of a plugin that is passed on: a log record's, an error's, a traceback's.
const MAX_TEXT: usize = 16 * 1024;

/// A plugin's text, without what is beyond the limit.
pub(crate) fn clip(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}

/// What a plugin says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Confirmed {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) methods: Vec<Method>,
}

impl Confirmed {
    /// Refuses a plugin that is not the one that its manifest names.
    pub(crate) fn check(&self, manifest: &Manifest) -> Result<(), Cause> {
        let Self { name, version, .. } = self;
        if (name, version) == (&manifest.name, &manifest.version) {
            return Ok(());
        }
        let message = format!(
            "the manifest names `{} {}`, but it says that it is `{name} {version}`",
            manifest.name, manifest.version
        );
        Err(Cause::Refused { message })
    }
}

/// Refuses what is larger than `limits.max_frame`.
pub(crate) fn check_size(what: &'static str, got: usize, limits: &Limits) -> Result<(), Cause> {
    let limit = limits.max_frame;
    if got <= limit {
        return Ok(());
    }
    Err(Cause::TooLarge { what, limit, got: got as u64, key: "limits.max_frame" })
}

/// A plugin that runs. Dropping it ends it the hard way; see [`shutdown`](Self::shutdown).
pub struct Plugin {
    id: PluginId,
    name: String,
    version: String,
    digest: String,
    probe: Option<Probe>,
    call_timeout: Duration,
    methods: Vec<Method>,
    running: Running,
}

enum Running {
    Cdylib(Library),
    Sidecar(Process),
}

impl Plugin {
    /// Loads a library or starts a sidecar, and waits until it is ready.
    ///
    /// # Errors
    /// When it can't be loaded or started, is not what the manifest says, or is not ready within
    /// `limits.start_timeout`. Nothing of it is left then, save a library's thread that does not
    /// return.
    pub async fn start(manifest: Manifest, host: &HostConfig) -> Result<Self, PluginError> {
        let started = match &manifest.entry {
            Entry::Cdylib(entry) => Library::start(entry, &manifest, host)
                .await
                .map(|(library, methods, digest)| (Running::Cdylib(library), methods, digest)),
            Entry::Sidecar(entry) => Process::start(entry, &manifest, host)
                .await
                .map(|(process, methods)| (Running::Sidecar(process), methods, entry.digest())),
        };
        let (running, methods, digest) = started.map_err(|cause| cause.at(&manifest.name))?;
        Ok(Self {
            id: PluginId::generate(),
            name: manifest.name,
            version: manifest.version,
            digest,
            probe: manifest.probe,
            call_timeout: manifest.limits.call_timeout,
            methods,
            running,
        })
    }

    /// Its id in this process.
    #[must_use]
    pub const fn id(&self) -> PluginId {
        self.id
    }

    /// Its name, from the manifest; the plugin has confirmed it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version, from the manifest; the plugin has confirmed it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How it is separated from the worker.
    #[must_use]
    pub const fn boundary(&self) -> Boundary {
        match self.running {
            Running::Cdylib(_) => Boundary::Cdylib,
            Running::Sidecar(_) => Boundary::Sidecar,
        }
    }

    /// SHA-256, in hex: of the library's bytes, or of the sidecar's command line.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The methods it answers.
    #[must_use]
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// Calls the method of the manifest's `[probe]`, if it has one.
    ///
    /// # Errors
    /// Those of [`call`](Self::call).
    pub async fn probe(&self) -> Result<Option<Probed>, PluginError> {
        let Some(Probe { method, params }) = &self.probe else { return Ok(None) };
        let start = SystemClock.now();
        self.call(method, params, Bytes::new(), None).await?;
        Ok(Some(Probed { method: method.clone(), took: SystemClock.now().since(start) }))
    }

    /// Calls `method` and waits for the answer: `deadline` long, and never longer than
    /// `limits.call_timeout`. Dropping the future cancels the call.
    ///
    /// # Errors
    /// The plugin's own error, or why there is no answer. With `limits.max_in_flight` calls under
    /// way the next is refused at once with `overloaded`; a call that was given up counts until the
    /// plugin has answered it.
    pub async fn call(
        &self,
        method: &str,
        params: &RawValue,
        payload: Bytes,
        deadline: Option<Duration>,
    ) -> Result<Reply, PluginError> {
        let timeout = deadline.map_or(self.call_timeout, |wanted| wanted.min(self.call_timeout));
        let done = match self.check_call(method, params) {
            Err(cause) => Err(Failed::new(cause, Executed::No)),
            Ok(()) => {
                let (method, params) = (method.to_owned(), params.to_owned());
                let call = Call { method, params, payload, timeout };
                match &self.running {
                    Running::Cdylib(library) => library.call(call).await,
                    Running::Sidecar(process) => process.call(call).await,
                }
            }
        };
        done.map_err(|failed| failed.at(&self.name, method))
    }

    fn check_call(&self, method: &str, params: &RawValue) -> Result<(), Cause> {
        if !self.methods.iter().any(|known| known.name == method) {
            let known = self.methods.iter().map(|method| method.name.clone()).collect();
            return Err(Cause::UnknownMethod { known });
        }
        json::check_depth(params.get().as_bytes())
            .map_err(|wrong| Cause::BadParams { message: wrong.to_string() })
    }

    /// Ends the plugin within `limits.shutdown_grace`; new calls fail with `closed`. A sidecar is
    /// asked, then sent SIGTERM, then killed; its calls in flight fail at once, and nothing of it is
    /// left. A library's call under way is cancelled and has the grace to return. Shutting down twice
    /// is one shutdown.
    ///
    /// # Errors
    /// When a library reports one, or does not return in time.
    pub async fn shutdown(&self) -> Result<(), PluginError> {
        let done = match &self.running {
            Running::Cdylib(library) => library.shutdown().await,
            Running::Sidecar(process) => process.shutdown().await,
        };
        done.map_err(|cause| cause.at(&self.name))
    }
}
