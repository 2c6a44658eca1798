//! Libraries that panic.

use std::fs;
use std::time::{Duration, Instant};

use rollout_core::Level;
use rollout_plugin_host::{Executed, HostEvent};
use serde_json::json;

use crate::bench::{Bench, LONG, assert_alive, call, failure, result};
use crate::cdylib::started;

#[tokio::test]
async fn a_panic_is_an_error_and_the_plugin_goes_on_with_a_new_instance() {
    let bench = Bench::new();
    let plugin = started(&bench, "").await;
    for (method, text) in [("panic", "on purpose"), ("bomb", "a panic without a text")] {
        assert_eq!(result(&plugin, "count", json!(null)).await, 1, "a fresh instance");
        let error = failure(&plugin, method, json!(null)).await;
        assert_eq!((error.code(), error.executed), ("panicked", Executed::Maybe));
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.to_string().contains("hostile.rs:"), "{error}");
    }
    assert_eq!(result(&plugin, "count", json!(null)).await, 1);
}

#[tokio::test]
async fn repeated_panics_open_the_breaker_until_a_trial_is_answered() {
    let bench = Bench::new();
    let rest = "[restart]\nmax_crashes = 2\nbackoff_max = \"300ms\"";
    let (plugin, other) = (started(&bench, rest).await, started(&bench, rest).await);
    let opened = || {
        let open = |event: &HostEvent| matches!(event, HostEvent::BreakerOpened { .. });
        bench.events().into_iter().filter(open).count()
    };
    let panics = async || failure(&plugin, "panic", json!(null)).await.code();
    assert_eq!(panics().await, "panicked");
    assert_alive(&plugin).await;
    assert_eq!((panics().await, opened()), ("panicked", 1));
    for trial in ["panic", "echo"] {
        let begin = Instant::now();
        let mut error = failure(&plugin, trial, json!([1])).await;
        assert_eq!((error.code(), error.executed), ("breaker_open", Executed::No));
        assert_alive(&other).await;
        while error.code() == "breaker_open" {
            assert!(begin.elapsed() < LONG);
            tokio::time::sleep(Duration::from_millis(2)).await;
            let Err(next) = call(&plugin, trial, json!([1])).await else { break };
            error = next;
        }
        assert!(begin.elapsed() >= Duration::from_millis(200), "no sooner");
        assert_eq!(opened(), 2, "the trial that panics opens it at once");
    }
    assert_eq!((panics().await, opened()), ("panicked", 2), "the panics before are forgotten");
    assert_alive(&plugin).await;
}

#[tokio::test]
async fn an_instance_that_cannot_be_made_anew_says_why_until_it_can() {
    let bench = Bench::new();
    let file = bench.dir.path().join("obstacle");
    let plugin = started(&bench, &format!("[config]\ncreate = '{}'", file.display())).await;
    fs::write(&file, "").unwrap();
    assert_eq!(failure(&plugin, "panic", json!(null)).await.code(), "panicked");
    let error = failure(&plugin, "echo", json!(null)).await;
    assert_eq!((error.code(), error.executed), ("crashed", Executed::No));
    assert!(error.to_string().contains("made anew: it was refused: the file is there"), "{error}");
    fs::remove_file(&file).unwrap();
    assert_alive(&plugin).await;
}

#[tokio::test]
async fn a_panic_in_drop_spoils_neither_a_shutdown_nor_a_replacement() {
    let bench = Bench::new();
    let plugin = started(&bench, "[config]\ndrop = \"panic\"").await;
    assert_eq!(failure(&plugin, "panic", json!(null)).await.code(), "panicked");
    assert_alive(&plugin).await;
    plugin.shutdown().await.unwrap();
    let panics = bench.events().into_iter().filter(|event| match event {
        HostEvent::Log { level, message, .. } => {
            *level == Level::Error && message.contains("on purpose")
        }
        _ => false,
    });
    assert_eq!(panics.count(), 2);
}
