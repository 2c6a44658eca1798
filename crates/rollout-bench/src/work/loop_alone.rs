//! The least that a durable item can cost: a plugin called in this process, its results written to a
//! file that is synced after each batch.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rollout_core::{Clock, SystemClock};
use rollout_plugin_host::{Item, Plugin, Update};
use serde_json::value::RawValue;

use super::stage::params;
use crate::error::BenchError;

/// How long it takes.
pub(super) async fn measure(
    plugin: &Plugin,
    file: &Path,
    items: u64,
    batch: u32,
) -> Result<Duration, BenchError> {
    let odd = BenchError::io("cannot write results");
    let since = SystemClock.now();
    let mut lines = File::create(file).map_err(&odd)?;
    let mut text = Vec::new();
    for first in (0..items).step_by(batch as usize) {
        let numbers = first..items.min(first + u64::from(batch));
        call(plugin, numbers.clone().map(params), first, &mut text).await?;
        lines.write_all(&text).and_then(|()| lines.sync_data()).map_err(&odd)?;
        text.clear();
    }
    let took = SystemClock.now().since(since);
    fs::remove_file(file).map_err(odd)?;
    Ok(took)
}

async fn call(
    plugin: &Plugin,
    params: impl Iterator<Item = String>,
    first: u64,
    text: &mut Vec<u8>,
) -> Result<(), BenchError> {
    let null = || RawValue::NULL.to_owned();
    let item = |params| Item {
        params: RawValue::from_string(params).unwrap_or_else(|_| null()),
        payload: Bytes::new(),
    };
    let mut batch = plugin.call_batch("run", params.map(item).collect(), None);
    while let Some(update) = batch.next().await {
        if let Update::Item(number, result) = update? {
            let (item, result) = (first + number as u64, result?.result);
            // Writing into memory does not fail.
            let _ = writeln!(text, "{{\"item\":{item},\"result\":{result}}}");
        }
    }
    Ok(())
}
