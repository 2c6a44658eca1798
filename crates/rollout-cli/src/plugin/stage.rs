//! Where a plugin is tried: a private directory that is removed, its words on standard error, an
//! orderly end on SIGTERM and Ctrl-C.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rollout_core::event::PluginExited;
use rollout_plugin_host::{HostConfig, HostEvent};

use super::aside;
use crate::error::CliError;
use crate::signals::Signals;

/// What plugins are started on.
pub(super) struct Stage {
    pub(super) host: HostConfig,
    exits: Arc<Mutex<Vec<PluginExited>>>,
}

impl Stage {
    /// How sidecars that had been ready have ended so far.
    pub(super) fn exits(&self) -> Vec<PluginExited> {
        self.exits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is in the directory for sockets.
    pub(super) fn leftovers(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.host.sidecar_dir) else { return Vec::new() };
        entries.filter_map(Result::ok).map(|entry| entry.path()).collect()
    }
}

/// Runs `act` on a runtime of this thread. A signal drops it, and with it the plugins it has started.
pub(super) fn run(act: impl AsyncFnOnce(&Stage) -> Result<(), CliError>) -> Result<(), CliError> {
    let private = Permissions::from_mode(0o700);
    let dir = tempfile::Builder::new().prefix("rollout-").permissions(private).tempdir();
    let dir = dir.map_err(CliError::Temporary)?;
    let (aside, writer) = aside::open().map_err(CliError::Runtime)?;
    let exits = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&exits);
    let on_event = move |event: HostEvent| {
        aside.say(&event);
        if let HostEvent::Exited(exited) = event {
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(exited);
        }
    };
    let host =
        HostConfig { sidecar_dir: dir.path().join("sidecars"), on_event: Arc::new(on_event) };
    let stage = Stage { host, exits };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(CliError::Runtime).and_then(|runtime| {
        runtime.block_on(async {
            let mut signals = Signals::listen().map_err(CliError::Runtime)?;
            tokio::select! {
                outcome = act(&stage) => outcome,
                signal = signals.next() => Err(CliError::Interrupted(signal)),
            }
        })
    });
    writer.close();
    outcome
}
