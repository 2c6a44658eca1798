//! What a plugin's calls cost while another plugin hangs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollout_core::{Clock, SystemClock, percentile};
use rollout_plugin_host::{Boundary, Plugin};
use serde_json::value::{RawValue, to_raw_value};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::held::hold;
use crate::error::BenchError;
use crate::report::{Asked, Figure, Group, Unit};
use crate::stage::{Stage, sidecar};

/// How long one side of a round takes.
const PART: Duration = Duration::from_millis(400);
/// How many calls hang: all that the plugin may have.
const HANGING: usize = 64;
const PAYLOAD: &[u8] = &[7; 64];
/// Longer than a plugin goes on with calls that were given up.
const LONG: Duration = Duration::from_secs(20);

/// One plugin's round trips, with the other idle and hanging in turn.
pub(super) async fn measure(
    stage: &Stage,
    sleeper: &Path,
    rounds: usize,
) -> Result<Group, BenchError> {
    let library = stage.library("rollout-plugin-host", sleeper)?;
    let plugin = stage.start(&sidecar()).await?;
    // What comes first is slower: it is not counted.
    p99(&plugin).await?;
    let mut figures = Vec::new();
    for (name, manifest) in [("a sidecar hangs, p99", sidecar()), ("a cdylib sleeps, p99", library)]
    {
        let other = stage.start(&manifest).await?;
        let (mut values, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            beside.push(p99(&plugin).await?);
            values.push(while_it_hangs(&plugin, &other).await?);
        }
        other.shutdown().await?;
        let asked = Asked::Times(1.2);
        figures.push(Figure { name, unit: Unit::Time, values, beside, asked });
    }
    plugin.shutdown().await?;
    Ok(Group {
        title: format!("A sidecar's round trip while another plugin has {HANGING} calls and hangs"),
        beside: "the same while the other has none",
        figures,
    })
}

async fn while_it_hangs(plugin: &Plugin, other: &Arc<Plugin>) -> Result<f64, BenchError> {
    let taken = match other.boundary() {
        Boundary::Sidecar => {
            let mut held = hold(other, HANGING).await?;
            let taken = p99(plugin).await?;
            held.calls.shutdown().await;
            taken
        }
        Boundary::Cdylib => {
            let mut calls = asleep(other);
            let taken = p99(plugin).await?;
            if calls.try_join_next().is_some() {
                return Err(BenchError::Late(PART, "calls, and the cdylib slept less long"));
            }
            calls.shutdown().await;
            taken
        }
    };
    timeout(LONG, answers(other))
        .await
        .map_err(|_| BenchError::Late(LONG, "a plugin whose calls were given up"))??;
    Ok(taken)
}

/// Calls of which one sleeps, longer than is measured, and the others wait for it.
fn asleep(other: &Arc<Plugin>) -> JoinSet<()> {
    let ms = (2 * PART).as_millis() as u64;
    let mut calls = JoinSet::new();
    for _ in 0..HANGING {
        let other = Arc::clone(other);
        calls.spawn(async move {
            let params = to_raw_value(&ms).unwrap_or_else(|_| RawValue::NULL.to_owned());
            // Whatever it is, it comes too early.
            let _ = other.call("sleep", &params, Bytes::new(), None).await;
        });
    }
    calls
}

/// Waits until the plugin has a place for a call, and answers it.
async fn answers(other: &Plugin) -> Result<(), BenchError> {
    loop {
        match other.call("echo", RawValue::NULL, Bytes::new(), None).await {
            Ok(_) => return Ok(()),
            Err(error) if error.code() == "overloaded" => sleep(Duration::from_millis(1)).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Round trips one after the other: the time that 99 of 100 do not exceed, in seconds.
async fn p99(plugin: &Plugin) -> Result<f64, BenchError> {
    let mut each = Vec::new();
    let end = SystemClock.now() + PART;
    loop {
        let since = SystemClock.now();
        if since > end {
            break;
        }
        plugin.call("echo", RawValue::NULL, Bytes::from_static(PAYLOAD), None).await?;
        each.push(SystemClock.now().since(since));
    }
    each.sort_unstable();
    Ok(percentile(&each, 99).unwrap_or_default().as_secs_f64())
}
