//! The call that stands for all when a plugin is checked or measured.

use std::time::Duration;

use bytes::Bytes;
use rollout_plugin_host::{Manifest, Plugin, PluginError, Reply};
use serde_json::value::RawValue;

/// A method and parameters.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) method: String,
    pub(super) params: Box<RawValue>,
}

impl Sample {
    /// The manifest's probe; without one, the plugin's first method and an empty object.
    pub(super) fn of(manifest: &Manifest, plugin: &Plugin) -> Option<Self> {
        if let Some(probe) = &manifest.probe {
            return Some(Self { method: probe.method.clone(), params: probe.params.clone() });
        }
        let method = plugin.methods().first()?.name.clone();
        Some(Self { method, params: empty_object() })
    }

    pub(super) async fn call(
        &self,
        plugin: &Plugin,
        payload: Bytes,
        within: Option<Duration>,
    ) -> Result<Reply, PluginError> {
        plugin.call(&self.method, &self.params, payload, within).await
    }
}

fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".into()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
