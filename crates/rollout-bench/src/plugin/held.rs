//! Calls that a plugin has and does not answer.

use std::sync::Arc;

use bytes::Bytes;
use rollout_core::{Clock, Mono, SystemClock};
use rollout_plugin_host::{Plugin, PluginError, Update};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::BenchError;

/// Calls under way; dropped, they are cancelled.
pub(super) struct Held {
    pub(super) calls: JoinSet<Ended>,
    /// The process that has them.
    pub(super) pid: i32,
}

/// How a call ended, and when its caller knew.
pub(super) struct Ended {
    pub(super) error: Option<PluginError>,
    pub(super) at: Mono,
}

/// Makes so many calls of the bench's sidecar, and waits until it has them all.
pub(super) async fn hold(plugin: &Arc<Plugin>, count: usize) -> Result<Held, BenchError> {
    let (tell, mut begun) = mpsc::channel(count);
    let mut calls = JoinSet::new();
    for _ in 0..count {
        calls.spawn(call(Arc::clone(plugin), tell.clone()));
    }
    drop(tell);
    let mut pid = 0;
    for _ in 0..count {
        match begun.recv().await {
            Some(it) => pid = it,
            None => return Err(ended_early(calls).await),
        }
    }
    Ok(Held { calls, pid })
}

async fn call(plugin: Arc<Plugin>, begun: mpsc::Sender<i32>) -> Ended {
    let mut ongoing = plugin.stream("hold", RawValue::NULL, Bytes::new(), None);
    let mut error = None;
    while let Some(update) = ongoing.next().await {
        match update {
            Ok(Update::Part(part)) => {
                if let Ok(pid) = serde_json::from_str(part.result.get()) {
                    // There is room for one of each call.
                    let _ = begun.try_send(pid);
                }
            }
            Ok(_) => {}
            Err(it) => error = Some(it),
        }
    }
    Ended { error, at: SystemClock.now() }
}

async fn ended_early(mut calls: JoinSet<Ended>) -> BenchError {
    while let Some(ended) = calls.join_next().await {
        if let Ok(Ended { error: Some(error), .. }) = ended {
            return error.into();
        }
    }
    BenchError::Ending { want: "nothing", got: "an answer".into() }
}
