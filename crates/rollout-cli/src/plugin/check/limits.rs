//! Checks at the limits: the largest call, as many as are allowed at once, calls nobody waits for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollout_plugin_host::{Cause, PluginError, Reply};
use tokio::task::{JoinSet, yield_now};

use super::conduct::{Conduct, complaint};
use super::live::Live;
use super::report::Finding;

/// The largest payload that is tried, whatever `max_frame` allows.
const MOST_BYTES: usize = 64 << 20;
/// The most calls that are tried at once, whatever `max_in_flight` allows.
const MOST_CALLS: usize = 1024;
/// A payload that keeps any plugin busy for a moment.
const BUSY: usize = 1 << 20;

type Ended = Result<Reply, PluginError>;

fn zeros(length: usize) -> Bytes {
    vec![0; length].into()
}

/// The size of a call that was refused because of it.
fn refused_size(ended: &Ended) -> Option<u64> {
    match ended {
        Err(error) => match &*error.cause {
            Cause::TooLarge { got, what: "the call", .. } => Some(*got),
            _ => None,
        },
        Ok(_) => None,
    }
}

pub(super) async fn max_frame(live: &Live) -> Finding {
    let limit = live.manifest.limits.max_frame;
    let call =
        async |length| live.sample.call(&live.plugin, zeros(length), Some(live.timeout)).await;
    // The whole limit as payload is too much by what the call itself takes.
    let ended = call(limit).await;
    let Some(got) = refused_size(&ended) else {
        return complaint("a call over `limits.max_frame`", &ended)
            .unwrap_or_else(|| Finding::fail("a call over `limits.max_frame` was not refused"));
    };
    let around = usize::try_from(got).unwrap_or(usize::MAX).saturating_sub(limit);
    // The call's number may grow by a digit each time.
    let mut fits = limit.saturating_sub(around);
    let mut size = fits.min(MOST_BYTES);
    let mut ended = call(size).await;
    while let Some(got) = refused_size(&ended) {
        fits =
            fits.saturating_sub(usize::try_from(got).unwrap_or(usize::MAX).saturating_sub(limit));
        size = fits.min(MOST_BYTES);
        if size == 0 {
            return Finding::fail(format!("no call fits into `limits.max_frame` ({limit})"));
        }
        ended = call(size).await;
    }
    if let Some(found) = complaint(&format!("{size} bytes beside a call"), &ended) {
        return found;
    }
    let over = call(fits + 1).await;
    let how = if ended.is_ok() { "a result" } else { "a typed error" };
    match refused_size(&over) {
        Some(got) if got > limit as u64 => Finding::pass(format!(
            "{size} bytes beside a call: {how}; at {got} in all: `too_large`"
        )),
        _ => Finding::fail("a call over `limits.max_frame` was not refused"),
    }
}

/// Calls side by side, each with a number for a payload.
async fn together(
    live: &Live,
    count: usize,
    deadline: Duration,
    length: usize,
) -> JoinSet<(Bytes, Ended)> {
    let mut calls = JoinSet::new();
    for n in 0..count {
        let mut payload = n.to_be_bytes().to_vec();
        payload.resize(length.max(payload.len()), 0);
        let payload = Bytes::from(payload);
        let (plugin, sample) = (Arc::clone(&live.plugin), live.sample.clone());
        calls.spawn(async move {
            let ended = sample.call(&plugin, payload.clone(), Some(deadline)).await;
            (payload, ended)
        });
    }
    yield_now().await;
    calls
}

/// Whether the sample call gives back the bytes that come with it: then answers can be told apart.
async fn echoes(live: &Live) -> bool {
    let word = Bytes::from_static(b"rollout");
    let ended = live.sample.call(&live.plugin, word.clone(), Some(live.timeout)).await;
    ended.is_ok_and(|reply| reply.payload == word)
}

pub(super) async fn concurrency(live: &Live) -> Finding {
    let count = live.manifest.limits.max_in_flight.min(MOST_CALLS);
    let echoes = echoes(live).await;
    let mut calls = together(live, count, live.timeout, 0).await;
    let (mut answered, mut overloaded, mut worst) = (0, 0, None::<Finding>);
    while let Some(Ok((sent, ended))) = calls.join_next().await {
        if let Ok(reply) = &ended {
            answered += 1;
            if echoes && reply.payload != sent {
                return Finding::fail("a call was given another call's answer");
            }
        }
        overloaded += usize::from(matches!(&ended, Err(error) if error.code() == "overloaded"));
        worst = worst.or(complaint("one of many calls at once", &ended));
    }
    let own = if echoes { ", each its own" } else { "" };
    let rest = match count - answered - overloaded {
        0 => String::new(),
        errors => format!(", {errors} typed errors"),
    };
    let fewer = match overloaded {
        0 => String::new(),
        _ => format!("; {overloaded} `overloaded`: it takes fewer than the manifest allows"),
    };
    worst.unwrap_or_else(|| {
        Finding::pass(format!("{count} at once: {answered} answers{own}{rest}{fewer}"))
    })
}

pub(super) async fn deadline(live: &Live) -> Finding {
    let length = BUSY.min(live.manifest.limits.max_frame / 2);
    let count = live.manifest.limits.max_in_flight.min(8);
    let mut calls = together(live, count, Duration::from_millis(1), length).await;
    let (mut late, mut other) = (0, 0);
    while let Some(Ok((_, ended))) = calls.join_next().await {
        // A library that is past a deadline says so to whoever is next in its queue.
        let behind = matches!(&ended, Err(error) if error.code() == "wedged");
        match Conduct::of(&ended) {
            Conduct::Late => late += 1,
            Conduct::Lost if behind => late += 1,
            Conduct::Lost | Conduct::Unlisted => {
                if let Some(found) = complaint("a call with a short deadline", &ended) {
                    return found;
                }
            }
            Conduct::Good | Conduct::Panicked => other += 1,
        }
    }
    Finding::pass(format!(
        "of {count} with 1 ms each: {late} late, {other} in time; then as before"
    ))
}

pub(super) async fn cancel(live: &Live) -> Finding {
    let length = BUSY.min(live.manifest.limits.max_frame / 2);
    let count = live.manifest.limits.max_in_flight.min(8);
    let mut calls = together(live, count, live.timeout, length).await;
    // On their way to the plugin, not yet answered.
    yield_now().await;
    calls.abort_all();
    let mut cancelled = 0;
    while let Some(ended) = calls.join_next().await {
        cancelled += usize::from(ended.is_err());
    }
    Finding::pass(format!("{cancelled} of {count} calls given up on their way; then as before"))
}
