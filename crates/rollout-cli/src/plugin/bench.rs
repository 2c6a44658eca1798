//! `rollout plugin bench`: how long a call takes and how many a second there are, beside what the
//! boundary costs without a plugin, measured in the same run.

mod baseline;
mod measured;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollout_core::{Clock, SystemClock};
use rollout_plugin_host::{Boundary, Entry, Item, Manifest, Plugin, PluginError, Update};
use serde_json::json;
use tokio::task::{LocalSet, spawn_blocking, yield_now};

use self::measured::{Measured, Taken};
use super::args::BenchArgs;
use super::sample::Sample;
use super::stage;
use crate::config::print;
use crate::error::CliError;

/// How many calls are made side by side, if the manifest allows as many; and how many items make a
/// batch.
const MANY: usize = 64;
/// How many items make a batch so large that only the items cost.
const LARGE: usize = 4096;
/// About what a call takes on the wire beside its payload.
const AROUND: usize = 128;
/// How many bytes of messages are on their way through a raw socket at most, in both directions: with
/// more, two ends that write before they read may wait for each other.
const SOCKET_ROOM: usize = 16 * 1024;

/// What is asked of the plugin again and again.
#[derive(Clone)]
struct Load {
    plugin: Arc<Plugin>,
    sample: Sample,
    payload: Bytes,
}

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
        // Static, so that no call counts references to bytes that another has as well.
        let payload = Bytes::from_static(vec![7; args.payload_size as usize].leak());
        let load = Load { plugin, sample, payload };
        let rows = measure(&load, &manifest, Duration::from_secs(args.seconds)).await?;
        let text =
            if args.json { format!("{}\n", object(&load, &rows)) } else { table(&load, &rows) };
        load.plugin.shutdown().await?;
        print(&text)
    })
}

/// Plugin and baseline in turn, each for its part of the time.
async fn measure(
    load: &Load,
    manifest: &Manifest,
    time: Duration,
) -> Result<Vec<Measured>, CliError> {
    let message = load.payload.len() + AROUND;
    let many = manifest.limits.max_in_flight.min(MANY).min(SOCKET_ROOM / message);
    // What comes first is slower: it is not counted.
    calls(load, many.max(1), Duration::from_millis(50)).await?;
    let part = time / 8;
    let mut rows = Vec::new();
    for in_flight in if many > 1 { vec![1, many] } else { vec![1] } {
        rows.push(calls(load, in_flight, part).await?.measured("plugin", in_flight));
        // One at a time or many: a function is called the same.
        if load.plugin.boundary() == Boundary::Cdylib && in_flight > 1 {
            continue;
        }
        for (what, taken) in beside(manifest, message, in_flight, part).await? {
            rows.push(taken.measured(what, in_flight));
        }
    }
    let item = message + load.sample.params.get().len();
    for items in [MANY, LARGE] {
        if items * item <= manifest.limits.max_frame {
            rows.push(batches(load, items, part).await?.measured("batches", items));
        }
    }
    Ok(rows)
}

/// What the boundary costs without the plugin.
async fn beside(
    manifest: &Manifest,
    message: usize,
    in_flight: usize,
    part: Duration,
) -> Result<Vec<(&'static str, Taken)>, CliError> {
    let entry = manifest.entry.clone();
    let measured = spawn_blocking(move || {
        let Entry::Sidecar(entry) = entry else {
            return Ok(vec![("bare function", baseline::function(part))]);
        };
        let mut all = vec![("raw socket", baseline::socket(message, in_flight, part)?)];
        let program = entry.command.into_iter().next().unwrap_or_default();
        if is_python(&program) {
            all.push(("raw python", baseline::python(&program, message, in_flight, part)?));
        }
        Ok(all)
    });
    measured.await.map_err(thread_lost)?.map_err(CliError::Baseline)
}

fn is_python(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or_default();
    name.strip_prefix("python").is_some_and(|rest| rest.chars().all(|c| ".0123456789".contains(c)))
}

fn thread_lost(error: tokio::task::JoinError) -> CliError {
    CliError::Baseline(error.into())
}

/// Calls, `in_flight` at a time, until the time is over.
async fn calls(load: &Load, in_flight: usize, time: Duration) -> Result<Taken, CliError> {
    side_by_side(in_flight, time, || {
        let load = load.clone();
        async move || answered(&load).await
    })
    .await
}

/// Batches until the time is over, two at a time so that the plugin never waits for its caller; an
/// item's time is its share of its batch's.
async fn batches(load: &Load, items: usize, time: Duration) -> Result<Taken, CliError> {
    let mut taken = side_by_side(2, time, || {
        let load = load.clone();
        async move || batch(&load, items).await
    })
    .await?;
    let share = u32::try_from(items).unwrap_or(u32::MAX);
    taken.each.iter_mut().for_each(|each| *each /= share);
    taken.calls *= items;
    Ok(taken)
}

/// So many callers, each of which asks again until the time is over.
async fn side_by_side<Asked>(
    callers: usize,
    time: Duration,
    caller: impl Fn() -> Asked,
) -> Result<Taken, CliError>
where
    Asked: AsyncFn() -> Result<(), PluginError> + 'static,
{
    let start = SystemClock.now();
    let end = start + time;
    let asking = LocalSet::new();
    let tasks = (0..callers).map(|_| {
        let ask = caller();
        asking.spawn_local(async move {
            let mut each = Vec::new();
            loop {
                let since = SystemClock.now();
                if since > end {
                    return Ok(each);
                }
                ask().await?;
                each.push(SystemClock.now().since(since));
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    asking.await;
    let mut taken = Taken::default();
    for task in tasks {
        taken.each.extend(task.await.map_err(thread_lost)?.map_err(CliError::Call)?);
    }
    taken.time = SystemClock.now().since(start);
    taken.calls = taken.each.len();
    Ok(taken)
}

async fn batch(Load { plugin, sample, payload }: &Load, items: usize) -> Result<(), PluginError> {
    let item = || Item { params: sample.params.clone(), payload: payload.clone() };
    let items: Vec<_> = std::iter::repeat_with(item).take(items).collect();
    taken(async || {
        let mut ongoing = plugin.call_batch(&sample.method, items.clone(), None);
        while let Some(update) = ongoing.next().await {
            if let Update::Item(_, outcome) = update? {
                outcome?;
            }
        }
        Ok(())
    })
    .await
}

async fn answered(Load { plugin, sample, payload }: &Load) -> Result<(), PluginError> {
    taken(async || sample.call(plugin, payload.clone(), None).await.map(drop)).await
}

/// Asks until it is not refused: a plugin may take fewer calls at once than its manifest allows, and
/// who comes too early waits like anybody else.
async fn taken(ask: impl AsyncFn() -> Result<(), PluginError>) -> Result<(), PluginError> {
    loop {
        match ask().await {
            Err(error) if error.code() == "overloaded" => yield_now().await,
            ended => return ended,
        }
    }
}

fn table(Load { plugin, sample, payload }: &Load, rows: &[Measured]) -> String {
    let mut table = format!(
        "{} {} ({}): `{}` with {} bytes beside it\n\n{:<14}{:>10}{:>14}{:>13}{:>13}\n",
        plugin.name(),
        plugin.version(),
        plugin.boundary().as_str(),
        sample.method,
        payload.len(),
        "",
        "in flight",
        "calls/s",
        "p50 [us]",
        "p99 [us]",
    );
    table.extend(rows.iter().map(Measured::line));
    table
}

fn object(Load { plugin, sample, payload }: &Load, rows: &[Measured]) -> serde_json::Value {
    json!({
        "plugin": plugin.name(),
        "version": plugin.version(),
        "boundary": plugin.boundary().as_str(),
        "method": sample.method,
        "payload_bytes": payload.len(),
        "rows": rows.iter().map(Measured::json).collect::<Vec<_>>(),
    })
}
