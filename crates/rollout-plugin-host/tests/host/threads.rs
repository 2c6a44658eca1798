//! A library that says that it may be called from several threads at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rollout_plugin_host::{HostEvent, Plugin, PluginError, Reply};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bench::{Bench, LONG, assert_alive, call, failure, failure_within, result};
use crate::cdylib::{threads, wedged};

fn dropped(event: &HostEvent) -> Option<()> {
    match event {
        HostEvent::Log { message, .. } if message == "dropped" => Some(()),
        _ => None,
    }
}

/// So many calls at the same time.
async fn at_once(
    plugin: &Arc<Plugin>,
    count: usize,
    method: &'static str,
    params: Value,
) -> Vec<Result<Reply, PluginError>> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let (plugin, params) = (Arc::clone(plugin), params.clone());
        calls.spawn(async move { call(&plugin, method, params).await });
    }
    calls.join_all().await
}

#[tokio::test]
async fn as_many_calls_as_may_be_in_flight_run_at_the_same_time() {
    let bench = Bench::new();
    let plugin = Arc::new(threads(&bench, "[limits]\nmax_in_flight = 5").await);
    let met = at_once(&plugin, 5, "meet", json!(5)).await;
    assert!(met.iter().all(Result::is_ok), "{met:?}");
    plugin.shutdown().await.unwrap();
    assert_eq!(bench.events().iter().filter_map(dropped).count(), 1);
}

#[tokio::test]
async fn a_panic_ends_its_instance_when_the_calls_that_it_has_are_done() {
    let bench = Bench::new();
    let plugin = threads(&bench, "[limits]\nmax_in_flight = 4").await;
    let (slow, others) = tokio::join!(call(&plugin, "sleep", json!(400)), async {
        let error = failure(&plugin, "panic", json!(null)).await;
        assert_eq!(error.code(), "panicked");
        assert_eq!(result(&plugin, "count", json!(null)).await, 1, "a new instance");
        bench.events().iter().filter_map(dropped).count()
    });
    assert_eq!(others, 0, "the old one has a call");
    slow.unwrap();
    bench.event(dropped).await;
    assert_eq!(result(&plugin, "count", json!(null)).await, 2);
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn it_is_wedged_when_no_thread_is_left() {
    let bench = Bench::new();
    let limits = "[limits]\nmax_in_flight = 2\ncancel_grace = \"100ms\"";
    let plugin = threads(&bench, limits).await;
    let start = Instant::now();
    let sleep = || failure_within(&plugin, "sleep", json!(1500), 50);
    assert_eq!(sleep().await.code(), "deadline");
    bench.event(wedged).await;
    assert_alive(&plugin).await;
    assert_eq!(sleep().await.code(), "deadline");
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(failure(&plugin, "echo", json!([1])).await.code(), "wedged");
    assert!(start.elapsed() < Duration::from_millis(1400));
    while call(&plugin, "echo", json!([1])).await.is_err() {
        assert!(start.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn shutdown_cancels_all_its_calls() {
    let bench = Bench::new();
    let plugin = Arc::new(threads(&bench, "[limits]\nmax_in_flight = 3").await);
    let waiting = at_once(&plugin, 3, "wait", json!(null));
    let (ended, shutdown) = tokio::join!(waiting, async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        plugin.shutdown().await
    });
    shutdown.unwrap();
    for ended in ended {
        assert_eq!(ended.unwrap_err().code(), "cancelled");
    }
    assert_eq!(bench.events().iter().filter_map(dropped).count(), 1);
}
