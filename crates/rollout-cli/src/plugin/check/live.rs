//! The plugin that is checked, while it runs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollout_core::{Clock, SystemClock};
use rollout_plugin_host::{Manifest, Plugin, PluginError};
use tokio::time::sleep;

use super::super::sample::Sample;
use super::conduct::complaint;
use super::report::Finding;

/// A plugin that runs, and how to call it.
pub(super) struct Live {
    pub(super) plugin: Arc<Plugin>,
    pub(super) sample: Sample,
    pub(super) manifest: Manifest,
    pub(super) timeout: Duration,
    /// The methods to be called with bad parameters.
    pub(super) methods: Vec<String>,
}

impl Live {
    /// What is wrong with the sample call, once there is a place for it: calls that were given up may
    /// still hold theirs, and a library's thread.
    pub(super) async fn settled(&self) -> Option<Finding> {
        let end = SystemClock.now() + self.timeout;
        loop {
            let ended = self.sample.call(&self.plugin, Bytes::new(), Some(self.timeout)).await;
            let over = SystemClock.now() > end;
            match ended.as_ref().map_err(PluginError::code) {
                Err("overloaded" | "wedged") if !over => sleep(Duration::from_millis(5)).await,
                Err("overloaded") => {
                    return Some(Finding::fail("calls that were given up keep their places"));
                }
                Err("deadline") => {
                    return Some(Finding::fail(format!(
                        "the next call: no answer within {:?} (--timeout waits longer)",
                        self.timeout
                    )));
                }
                Err("panicked") => return None,
                _ => return complaint("the next call", &ended),
            }
        }
    }
}
