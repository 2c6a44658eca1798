//! `rollout coordinator run`: from a configuration file to an orderly end.

use std::path::Path;
use std::sync::Arc;

use rollout_coordinator::{Coordinator, Port, Tail};
use rollout_core::config::Limits;
use rollout_core::{Clock, CoordinatorConfig};
use rollout_storage::Store;
use rollout_transport::Identity;

use crate::args::CoordinatorRun;
use crate::error::CliError;
use crate::signals::Signals;
use crate::stream::Voice;
use crate::{cert, config, process};

pub(crate) fn run(args: &CoordinatorRun) -> Result<(), CliError> {
    let mut config = config::coordinator(&args.config)?;
    config.run_id = args.run_id.or(config.run_id);
    // The port comes first: a second coordinator on it touches nothing else.
    let port = Port::bind(config.listen)?;
    process::run(|clock, voice| {
        let tail = Tail::default();
        voice.keep(tail.clone());
        fit_open_files(&mut config.limits);
        let config = config;
        async move { serve(&args.config, &config, port, clock, voice, tail).await }
    })
}

/// Descriptors that are not connections: the database, the streams, the runtime's own.
const OTHER_FILES: u64 = 64;

/// Takes all the descriptors there may be, and accepts no more connections than that: who finds
/// none would be kept waiting, and be refused by nobody.
fn fit_open_files(limits: &mut Limits) {
    let most = match rollout_process::raise_open_files() {
        Ok(most) => most,
        Err(error) => {
            tracing::warn!(%error, "it is not known how many files may be open");
            return;
        }
    };
    let room = usize::try_from(most.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(1);
    if room < limits.max_connections {
        let wanted = limits.max_connections;
        tracing::warn!(
            open_files = most,
            "only {room} connections fit, not `limits.max_connections` ({wanted}): raise the \
             limit of open files (RLIMIT_NOFILE, `ulimit -n`)"
        );
        limits.max_connections = room;
    } else {
        tracing::info!(open_files = most, "as many files may be open");
    }
}

async fn serve(
    path: &Path,
    config: &CoordinatorConfig,
    port: Port,
    clock: Arc<dyn Clock>,
    voice: Voice,
    tail: Tail,
) -> Result<(), CliError> {
    let mut signals = Signals::listen().map_err(CliError::Runtime)?;
    let source = config.tls().map_err(process::invalid(path))?;
    let store = Store::open(&config.storage)?;
    let tls = cert::own(&source, &Identity::Coordinator, &hosts(config))?;
    let emit = Arc::new(voice);
    let mut coordinator = Coordinator::start(config, port, store, tls, clock, emit, tail)?;
    let signal = tokio::select! {
        error = coordinator.failed() => return Err(error.into()),
        signal = signals.next() => signal,
    };
    tokio::select! {
        stopped = coordinator.stop(signal) => Ok(stopped?),
        _ = signals.next() => Err(CliError::Hurried),
    }
}

/// The names a development certificate carries beside the identity, which is what workers check.
fn hosts(config: &CoordinatorConfig) -> Vec<String> {
    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let listen = config.listen.ip();
    if !listen.is_unspecified() && !listen.is_loopback() {
        hosts.push(listen.to_string());
    }
    hosts
}
