//! Loads a worker's plugins side by side, probes each once, and says so.

use std::path::PathBuf;
use std::sync::Arc;

use rollout_core::duration::as_ms;
use rollout_core::event::{PluginLoaded, PluginProbed};
use rollout_core::{Level, PluginId, chain};
use rollout_plugin_host::{HostConfig, HostEvent, Manifest, Plugin, PluginError, Stream};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::work::Wedged;
use crate::{Voice, WorkerError};

/// The host's configuration: what plugins say and do goes to the event stream.
pub(crate) fn host(
    voice: &Voice,
    sidecar_dir: PathBuf,
    wedged: watch::Sender<Wedged>,
) -> HostConfig {
    let voice = voice.clone();
    let on_event = move |event| {
        if let HostEvent::Wedged { plugin, method } = &event {
            wedged.send_replace(Some((plugin.to_string(), method.clone())));
        }
        say(&voice, event);
    };
    HostConfig { sidecar_dir, on_event: Arc::new(on_event) }
}

fn say(voice: &Voice, event: HostEvent) {
    let log = |level, message, plugin: &str, key: &str, value: &str| {
        let attrs = [("plugin", plugin), (key, value)];
        let attrs = attrs.map(|(key, value)| (key.to_owned(), Value::String(value.to_owned())));
        let attrs = attrs.into_iter().collect();
        voice.emit.log(voice.clock.now(), Some(voice.worker), level, message, attrs);
    };
    match event {
        HostEvent::Output { plugin, stream: Stream::Stdout, line } => {
            log(Level::Info, line, &plugin, "stream", "stdout");
        }
        HostEvent::Output { plugin, stream: Stream::Stderr, line } => {
            log(Level::Info, line, &plugin, "stream", "stderr");
        }
        HostEvent::Log { plugin, level, target, message } => {
            log(level, message, &plugin, "target", &target);
        }
        HostEvent::Exited(exited) => voice.say(exited),
        HostEvent::Restarted(restarted) => voice.say(restarted),
        HostEvent::NotRestarted { plugin, error } => {
            let message = "it ended and could not be started again; the next attempt follows";
            log(Level::Error, message.to_owned(), &plugin, "error", &chain(&*error));
        }
        HostEvent::BreakerOpened { plugin, wait } => {
            let message = "it failed too often: its calls fail until it is tried again";
            log(Level::Error, message.to_owned(), &plugin, "wait", &format!("{wait:?}"));
        }
        HostEvent::Wedged { plugin, method } => {
            let message = "a call outlived its deadline and cannot be stopped: run it as a sidecar";
            log(Level::Error, message.to_owned(), &plugin, "method", &method);
        }
    }
}

/// Starts and probes every plugin, all at once; in the order of the manifests. If one fails, the
/// others are shut down.
pub(crate) async fn start(
    manifests: Vec<Manifest>,
    host: &HostConfig,
    voice: &Voice,
) -> Result<Vec<Arc<Plugin>>, WorkerError> {
    let mut starting = JoinSet::new();
    for (place, manifest) in manifests.into_iter().enumerate() {
        let (host, voice) = (host.clone(), voice.clone());
        starting.spawn(async move { (place, start_one(manifest, &host, &voice).await) });
    }
    let (mut started, mut failure) = (Vec::new(), None);
    while let Some(ended) = starting.join_next().await {
        match ended {
            Ok((place, Ok(plugin))) => started.push((place, plugin)),
            Ok((_, Err(error))) => failure = failure.or(Some(WorkerError::Plugin(error))),
            Err(panic) => failure = failure.or(Some(WorkerError::Task(panic))),
        }
    }
    started.sort_by_key(|(place, _)| *place);
    let plugins: Vec<_> = started.into_iter().map(|(_, plugin)| Arc::new(plugin)).collect();
    match failure {
        None => Ok(plugins),
        Some(error) => {
            shutdown(plugins).await;
            Err(error)
        }
    }
}

async fn start_one(
    manifest: Manifest,
    host: &HostConfig,
    voice: &Voice,
) -> Result<Plugin, PluginError> {
    let plugin = Plugin::start(manifest, host).await?;
    let (plugin_id, name): (PluginId, _) = (plugin.id(), plugin.name().to_owned());
    voice.say(PluginLoaded {
        plugin_id,
        name: name.clone(),
        version: plugin.version().to_owned(),
        boundary: plugin.boundary().as_str().to_owned(),
        digest: plugin.digest().to_owned(),
    });
    if let Some(probed) = plugin.probe().await? {
        let (method, took_ms) = (probed.method, as_ms(probed.took));
        voice.say(PluginProbed { plugin_id, name, method, took_ms });
    }
    Ok(plugin)
}

/// Shuts every plugin down, all at once; one that fails to has been ended the hard way.
pub(crate) async fn shutdown(plugins: Vec<Arc<Plugin>>) {
    let mut ending = JoinSet::new();
    for plugin in plugins {
        ending.spawn(async move {
            if let Err(error) = plugin.shutdown().await {
                tracing::warn!(plugin = plugin.name(), "shutdown: {error}");
            }
        });
    }
    while ending.join_next().await.is_some() {}
}
