//! The one interface to a plugin, whichever its boundary.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollout_core::{Clock, PluginId, SystemClock};
use serde_json::value::RawValue;

use crate::call::{Call, Failed, Input, Item, Method, Reply};
use crate::cdylib::Library;
use crate::error::{Cause, Executed, PluginError};
use crate::event::HostConfig;
use crate::inbox::Inbox;
use crate::json;
use crate::manifest::{Entry, Limits, Manifest, Probe};
use crate::ongoing::Ongoing;
use crate::sidecar::Sidecar;

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

/// A probe that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// The method that was called.
    pub method: String,
    /// How long the answer took.
    pub took: Duration,
}

/// A plugin that runs. Dropping it ends it the hard way; see [`shutdown`](Self::shutdown).
pub struct Plugin {
    id: PluginId,
    name: String,
    version: String,
    digest: String,
    probe: Option<Probe>,
    limits: Limits,
    methods: Vec<Method>,
    running: Running,
}

enum Running {
    Cdylib(Library),
    Sidecar(Sidecar),
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
            Entry::Sidecar(entry) => Sidecar::start(entry, &manifest, host)
                .await
                .map(|(sidecar, methods)| (Running::Sidecar(sidecar), methods, entry.digest())),
        };
        let (running, methods, digest) = started.map_err(|cause| cause.at(&manifest.name))?;
        Ok(Self {
            id: PluginId::generate(),
            name: manifest.name,
            version: manifest.version,
            digest,
            probe: manifest.probe,
            limits: manifest.limits,
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

    /// How many calls it works on at the same time: `limits.max_in_flight` or the sidecar's own, and
    /// one for a library that has one thread.
    #[must_use]
    pub fn places(&self) -> usize {
        match &self.running {
            Running::Cdylib(library) => library.places(),
            Running::Sidecar(sidecar) => sidecar.places(),
        }
    }

    /// How many calls it is at work on, those that were given up and that it has not ended included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        match &self.running {
            Running::Cdylib(library) => library.in_flight(),
            Running::Sidecar(sidecar) => sidecar.in_flight(),
        }
    }

    /// Whether its process is being replaced: a call would wait for the next one.
    #[must_use]
    pub fn is_restarting(&self) -> bool {
        match &self.running {
            Running::Cdylib(_) => false,
            Running::Sidecar(sidecar) => sidecar.is_restarting(),
        }
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
    /// `limits.call_timeout` if the manifest gives it; without either,
    /// [`DEFAULT_CALL_TIMEOUT`](crate::DEFAULT_CALL_TIMEOUT). Dropping the future cancels the call. While a sidecar that ended unasked is
    /// started again, the call waits for it within the same time. Parts that the plugin sends before
    /// its answer are dropped.
    ///
    /// # Errors
    /// The plugin's own error, or why there is no answer. With `limits.max_in_flight` calls under
    /// way the next is refused at once with `overloaded`; a call that was given up counts until the
    /// plugin has answered it. A plugin that failed too often answers `breaker_open` for a while. A
    /// call that the plugin may have had is never repeated here.
    pub async fn call(
        &self,
        method: &str,
        params: &RawValue,
        payload: Bytes,
        deadline: Option<Duration>,
    ) -> Result<Reply, PluginError> {
        let item = Item { params: params.to_owned(), payload };
        let call = self.to_call(method, Input::One(item), Inbox::answer_only(), deadline);
        self.answer(call).await.map_err(|failed| failed.at(&self.name, method))
    }

    /// Calls `method`, as [`call`](Self::call) does, and takes what the plugin sends before its
    /// answer. A plugin that is more than a few parts ahead waits until they are taken, and keeps no
    /// other call waiting.
    pub fn stream(
        &self,
        method: &str,
        params: &RawValue,
        payload: Bytes,
        deadline: Option<Duration>,
    ) -> Ongoing<'_> {
        let item = Item { params: params.to_owned(), payload };
        self.ongoing(self.to_call(method, Input::One(item), Inbox::parts(), deadline))
    }

    /// Calls `method` once for each of the items, in one go: it counts as one call, and has one
    /// deadline. Each item has a result or an error of its own, which come in any order.
    pub fn call_batch(
        &self,
        method: &str,
        items: Vec<Item>,
        deadline: Option<Duration>,
    ) -> Ongoing<'_> {
        let inbox = Inbox::batch(items.len());
        self.ongoing(self.to_call(method, Input::Batch(items), inbox, deadline))
    }

    fn to_call(
        &self,
        method: &str,
        input: Input,
        inbox: Inbox,
        deadline: Option<Duration>,
    ) -> Call {
        let timeout = self.limits.call_timeout(deadline);
        Call { method: method.to_owned(), input, timeout, inbox: Arc::new(inbox) }
    }

    fn ongoing(&self, call: Call) -> Ongoing<'_> {
        let (method, inbox) = (call.method.clone(), Arc::clone(&call.inbox));
        Ongoing::new(&self.name, &method, inbox, Box::pin(self.answer(call)))
    }

    async fn answer(&self, call: Call) -> Result<Reply, Failed> {
        self.check_call(&call).map_err(|cause| Failed::new(cause, Executed::No))?;
        match &self.running {
            Running::Cdylib(library) => library.call(call).await,
            Running::Sidecar(sidecar) => sidecar.call(call).await,
        }
    }

    fn check_call(&self, call: &Call) -> Result<(), Cause> {
        if !self.methods.iter().any(|known| known.name == call.method) {
            let known = self.methods.iter().map(|method| method.name.clone()).collect();
            return Err(Cause::UnknownMethod { known });
        }
        call.input.items().iter().try_for_each(|item| {
            json::check_depth(item.params.get().as_bytes())
                .map_err(|wrong| Cause::BadParams { message: wrong.to_string() })
        })
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
            Running::Sidecar(sidecar) => sidecar.shutdown().await,
        };
        done.map_err(|cause| cause.at(&self.name))
    }
}
