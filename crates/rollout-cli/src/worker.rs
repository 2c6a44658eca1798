//! `rollout worker run`: from a configuration file to an orderly end.

use std::sync::Arc;

use rollout_core::config::TlsSource;
use rollout_core::{Clock, WorkerConfig, WorkerId};
use rollout_plugin_host::Manifest;
use rollout_storage::Store;
use rollout_transport::Identity;
use rollout_worker::{Setup, remembered_id};

use crate::args::WorkerRun;
use crate::error::CliError;
use crate::signals::Signals;
use crate::stream::Voice;
use crate::{cert, config, process};

pub(crate) fn run(args: &WorkerRun) -> Result<(), CliError> {
    let config = config::worker(&args.config)?;
    let plugins = args.plugins.iter().map(|path| Manifest::load(path));
    let plugins = plugins.collect::<Result<Vec<_>, _>>()?;
    process::run(|clock, voice| serve(config, args, plugins, clock, voice))
}

async fn serve(
    config: WorkerConfig,
    args: &WorkerRun,
    plugins: Vec<Manifest>,
    clock: Arc<dyn Clock>,
    voice: Voice,
) -> Result<(), CliError> {
    let mut signals = Signals::listen().map_err(CliError::Runtime)?;
    let source =
        config.tls().map_err(|source| CliError::Config { path: args.config.clone(), source })?;
    let store = Store::open(&config.storage)?;
    let worker = id(args.worker_id, &source, &store)?;
    let tls = cert::own(&source, &Identity::Worker(worker), &[])?;
    let emit = Arc::new(voice);
    let setup = Setup { config, worker, tls, store, plugins, clock, emit };
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let ends = async {
        // The sender lives as long as the select below.
        let _ = stopped.await;
    };
    let worker = rollout_worker::run(setup, ends);
    let hurry = async {
        signals.next().await;
        let _ = stop.send(());
        signals.next().await;
    };
    tokio::select! {
        outcome = worker => Ok(outcome?),
        () = hurry => Err(CliError::Hurried),
    }
}

/// The flag's id, the certificate's, the database's, or a new one: the first there is.
fn id(flag: Option<WorkerId>, source: &TlsSource, store: &Store) -> Result<WorkerId, CliError> {
    if let Some(id) = flag {
        return Ok(id);
    }
    match (cert::configured_identity(source)?, source) {
        (Some(Identity::Worker(id)), _) => return Ok(id),
        (found, TlsSource::Files { cert, .. }) => {
            return Err(CliError::WrongIdentity {
                path: cert.clone(),
                found: found.map_or_else(|| "nobody".to_owned(), |found| found.to_string()),
                wanted: "worker".to_owned(),
            });
        }
        _ => {}
    }
    Ok(remembered_id(store)?.unwrap_or_else(WorkerId::generate))
}
