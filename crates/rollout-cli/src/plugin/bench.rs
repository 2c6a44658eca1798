//! `rollout plugin bench`: how long a call takes and how many a second there are, beside what the
//! boundary costs without a plugin, measured in the same run.

mod baseline;
mod measured;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollout_core::{Clock, SystemClock};
use rollout_plugin_host::{Boundary, Manifest, Plugin, PluginError};
use serde_json::json;
use tokio::task::{JoinSet, spawn_blocking, yield_now};

use self::measured::{Measured, Taken};
use super::args::BenchArgs;
use super::sample::Sample;
use super::stage;
use crate::config::print;
use crate::error::CliError;

/// The bytes beside each call.
const PAYLOAD: [u8; 64] = [7; 64];
/// How many calls are made side by side, if the manifest allows as many.
const MANY: usize = 64;

pub(super) fn run(args: &BenchArgs) -> Result<(), CliError> {
    let manifest = Manifest::load(&args.manifest)?;
    if cfg!(debug_assertions) {
        eprintln!("rollout: this is a debug build; its figures say little");
    }
    stage::run(async |stage| {
        let plugin = Arc::new(Plugin::start(manifest.clone(), &stage.host).await?);
        let sample = match &args.method {
            Some(method) => Sample { method: method.clone(), params: args.params.clone() },
            None => Sample::of(&manifest, &plugin).ok_or(CliError::NoMethods)?,
        };
        let rows = measure(&plugin, &sample, &manifest, args).await?;
        let text = if args.json {
            format!("{}\n", object(&plugin, &sample, &rows))
        } else {
            table(&plugin, &sample, &rows)
        };
        plugin.shutdown().await?;
        print(&text)
    })
}

/// Plugin and baseline in turn, each for its part of the time.
async fn measure(
    plugin: &Arc<Plugin>,
    sample: &Sample,
    manifest: &Manifest,
    args: &BenchArgs,
) -> Result<Vec<Measured>, CliError> {
    let many = manifest.limits.max_in_flight.min(MANY);
    // What comes first is slower: it is not counted.
    calls(plugin, sample, many, Duration::from_millis(50)).await?;
    let part = Duration::from_secs(args.seconds) / 4;
    let mut rows = Vec::new();
    for in_flight in if many > 1 { vec![1, many] } else { vec![1] } {
        rows.push(calls(plugin, sample, in_flight, part).await?.measured("plugin", in_flight));
        let (what, taken) = match plugin.boundary() {
            // One at a time or many: the function is called the same.
            Boundary::Cdylib if in_flight > 1 => continue,
            Boundary::Cdylib => {
                let bare = spawn_blocking(move || baseline::function(part)).await;
                ("bare function", bare.map_err(thread_lost)?)
            }
            Boundary::Sidecar => {
                let raw = spawn_blocking(move || baseline::socket(in_flight, part)).await;
                ("raw socket", raw.map_err(thread_lost)?.map_err(CliError::Baseline)?)
            }
        };
        rows.push(taken.measured(what, in_flight));
    }
    Ok(rows)
}

fn thread_lost(error: tokio::task::JoinError) -> CliError {
    CliError::Baseline(error.into())
}

/// Calls, `in_flight` at a time, until the time is over.
async fn calls(
    plugin: &Arc<Plugin>,
    sample: &Sample,
    in_flight: usize,
    time: Duration,
) -> Result<Taken, CliError> {
    let start = SystemClock.now();
    let end = start + time;
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        let (plugin, sample) = (Arc::clone(plugin), sample.clone());
        callers.spawn(async move {
            let mut each = Vec::new();
            loop {
                let since = SystemClock.now();
                if since > end {
                    return Ok(each);
                }
                answered(&plugin, &sample).await?;
                each.push(SystemClock.now().since(since));
            }
        });
    }
    let mut taken = Taken::default();
    while let Some(ended) = callers.join_next().await {
        taken.each.extend(ended.map_err(thread_lost)?.map_err(CliError::Call)?);
    }
    taken.time = SystemClock.now().since(start);
    taken.calls = taken.each.len();
    Ok(taken)
}

/// Calls until there is an answer: a plugin may take fewer calls at once than its manifest allows, and
/// who comes too early waits like anybody else.
async fn answered(plugin: &Plugin, sample: &Sample) -> Result<(), PluginError> {
    loop {
        match sample.call(plugin, Bytes::from_static(&PAYLOAD), None).await {
            Err(error) if error.code() == "overloaded" => yield_now().await,
            ended => return ended.map(drop),
        }
    }
}

fn table(plugin: &Plugin, sample: &Sample, rows: &[Measured]) -> String {
    let mut table = format!(
        "{} {} ({}): `{}` with {} bytes beside it\n\n{:<14}{:>10}{:>14}{:>13}{:>13}\n",
        plugin.name(),
        plugin.version(),
        plugin.boundary().as_str(),
        sample.method,
        PAYLOAD.len(),
        "",
        "in flight",
        "calls/s",
        "p50 [us]",
        "p99 [us]",
    );
    table.extend(rows.iter().map(Measured::line));
    table
}

fn object(plugin: &Plugin, sample: &Sample, rows: &[Measured]) -> serde_json::Value {
    json!({
        "plugin": plugin.name(),
        "version": plugin.version(),
        "boundary": plugin.boundary().as_str(),
        "method": sample.method,
        "payload_bytes": PAYLOAD.len(),
        "rows": rows.iter().map(Measured::json).collect::<Vec<_>>(),
    })
}
