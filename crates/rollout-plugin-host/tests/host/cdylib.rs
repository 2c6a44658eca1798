//! Real libraries: one written with the SDK, some written in C, some that are none.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bench::{Bench, LONG, assert_alive, call, failure, failure_within, raw, result};
use bytes::Bytes;
use rollout_core::{Level, chain};
use rollout_plugin_host::{Boundary, Cause, Executed, HostEvent, Plugin, PluginError};
use rollout_process::{Io, Spawn};
use serde_json::json;

/// An example, which cargo builds along with these tests.
fn example(name: &str) -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let stem = deps.parent().unwrap().parent().unwrap().join("examples").join(name);
    let library = file_of(&stem);
    assert!(library.exists(), "{} is built by `cargo test` without --test", library.display());
    stem
}

/// The library that a manifest's stem leads to.
fn file_of(stem: &Path) -> PathBuf {
    let name = stem.file_name().unwrap().to_str().unwrap();
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    stem.with_file_name(format!("{prefix}{name}{suffix}"))
}

fn manifest_of(stem: &Path, name: &str, rest: &str) -> String {
    let stem = stem.display();
    format!(
        "[plugin]\nname = \"{name}\"\nversion = \"0.1.0\"\n[entry.cdylib]\npath = \"{stem}\"\n{rest}\n"
    )
}

fn manifest(rest: &str) -> String {
    manifest_of(&example("hostile"), "rollout-plugin-host", rest)
}

/// The example that is called from several threads.
pub(crate) async fn threads(bench: &Bench, rest: &str) -> Plugin {
    let manifest = manifest_of(&example("threads"), "rollout-plugin-host", rest);
    bench.start(&manifest).await.unwrap()
}

pub(crate) async fn started(bench: &Bench, rest: &str) -> Plugin {
    bench.start(&manifest(rest)).await.unwrap()
}

/// Compiles `plugin.c` with these definitions; the stem of the library.
fn c_plugin(bench: &Bench, definitions: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/plugin.c");
    let stem = bench.dir.path().join(format!("c{}", definitions.join("_")));
    let built = Spawn::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
        .arg(file_of(&stem))
        .arg(source)
        .args(definitions.iter().map(|name| format!("-D{name}")))
        .stderr(Io::Inherit)
        .output(Some(LONG))
        .unwrap();
    assert!(built.exit.success());
    stem
}

pub(crate) async fn start_c(bench: &Bench, definitions: &[&str]) -> Result<Plugin, PluginError> {
    bench.start(&manifest_of(&c_plugin(bench, definitions), "c_plugin", "")).await
}

pub(crate) fn wedged(event: &HostEvent) -> Option<String> {
    match event {
        HostEvent::Wedged { method, .. } => Some(method.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn a_call_brings_back_its_params_and_payload_unchanged() {
    let bench = Bench::new();
    let plugin = started(&bench, "[probe]\nmethod = \"echo\"").await;
    assert_eq!((plugin.name(), plugin.version()), ("rollout-plugin-host", "0.1.0"));
    assert_eq!(plugin.boundary(), Boundary::Cdylib);
    assert_eq!(plugin.methods()[0].name, "echo");
    assert_eq!(plugin.probe().await.unwrap().unwrap().method, "echo");

    let params = serde_json::from_str(r#"{"a" : 1.0,  "ü":null}"#).unwrap();
    let params: Box<serde_json::value::RawValue> = params;
    let payload = Bytes::from(vec![0, 255, b'\n', 128]);
    let reply = plugin.call("echo", &params, payload.clone(), None).await.unwrap();
    assert_eq!((reply.result.get(), &reply.payload), (params.get(), &payload));
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn errors_say_which_method_why_and_whether_it_was_executed() {
    let bench = Bench::new();
    let plugin = started(&bench, "").await;
    let error = failure(&plugin, "fail", json!(null)).await;
    assert_eq!(
        error.to_string(),
        "plugin `rollout-plugin-host`, method `fail`: invalid digit found in string"
    );
    assert_eq!((error.code(), error.executed), ("user", Executed::Yes));
    assert_eq!(failure(&plugin, "sleep", json!("long")).await.code(), "bad_params");
    let error = failure(&plugin, "nope", json!(null)).await;
    assert_eq!((error.code(), error.executed), ("unknown_method", Executed::No));
    assert!(error.to_string().contains("it has: echo, count"), "{error}");
    assert_eq!(failure(&plugin, "forgotten", json!(null)).await.code(), "unknown_method");
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let error = failure(&plugin, "echo", deep).await;
    assert_eq!((error.code(), error.executed), ("bad_params", Executed::No));
    assert_alive(&plugin).await;
}

#[tokio::test]
async fn create_may_fail_panic_or_take_too_long() {
    let bench = Bench::new();
    for (limit, how, code, text) in [
        ("10s", "create = \"error\"", "refused", "on purpose"),
        ("10s", "create = \"panic\"", "panicked", "on purpose"),
        ("10s", "creat = 1", "refused", "unknown field `creat`"),
        ("300ms", "create = \"hang\"", "timeout", "limits.start_timeout"),
    ] {
        let rest = format!("[limits]\nstart_timeout = \"{limit}\"\n[config]\n{how}");
        let start = Instant::now();
        let error = bench.start(&manifest(&rest)).await.err().unwrap();
        assert!(start.elapsed() < Duration::from_millis(1400));
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn shutdown_reports_an_error_a_panic_and_a_hang() {
    for (how, code) in [("error", "user"), ("panic", "panicked"), ("hang", "wedged")] {
        let bench = Bench::new();
        let rest = format!("[limits]\nshutdown_grace = \"300ms\"\n[config]\nshutdown = \"{how}\"");
        let plugin = started(&bench, &rest).await;
        let start = Instant::now();
        assert_eq!(plugin.shutdown().await.unwrap_err().code(), code);
        assert!(start.elapsed() < Duration::from_millis(1400));
        plugin.shutdown().await.unwrap();
        let error = failure(&plugin, "echo", json!(null)).await;
        assert_eq!((error.code(), error.executed), ("closed", Executed::No));
    }
}

#[tokio::test]
async fn shutdown_cancels_the_running_call_and_refuses_the_queued_ones() {
    let bench = Bench::new();
    let plugin = started(&bench, "").await;
    let (running, queued, ended) = tokio::join!(
        call(&plugin, "wait", json!(null)),
        call(&plugin, "count", json!(null)),
        async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            plugin.shutdown().await
        }
    );
    ended.unwrap();
    assert_eq!(running.unwrap_err().code(), "cancelled");
    let queued = queued.unwrap_err();
    assert_eq!((queued.code(), queued.executed), ("closed", Executed::No));
    let log = |event: &HostEvent| match event {
        HostEvent::Log { message, target, .. } => (message == "shutdown").then(|| target.clone()),
        _ => None,
    };
    assert_eq!(bench.event(log).await, "hostile");
}

#[tokio::test]
async fn a_call_past_its_deadline_wedges_its_own_plugin_alone_until_it_returns() {
    let bench = Bench::new();
    let grace = "[limits]\ncancel_grace = \"200ms\"";
    let (stuck, other) = (started(&bench, grace).await, started(&bench, grace).await);
    let start = Instant::now();
    let error = failure_within(&stuck, "sleep", json!(1500), 100).await;
    assert!(start.elapsed() >= Duration::from_millis(100), "not before the deadline");
    assert!(start.elapsed() < Duration::from_millis(1400));
    assert_eq!((error.code(), error.executed), ("deadline", Executed::Maybe));
    assert_eq!(bench.event(wedged).await, "sleep", "without another call");
    assert!(start.elapsed() >= Duration::from_millis(300), "not before the grace is over");

    let error = failure(&stuck, "echo", json!(null)).await;
    assert_eq!((error.code(), error.executed), ("wedged", Executed::No));
    assert!(error.to_string().contains("run it as a sidecar"), "{error}");
    assert_alive(&other).await;
    assert!(start.elapsed() < Duration::from_millis(1400), "nobody waited for the stuck call");

    while call(&stuck, "echo", json!([1])).await.is_err() {
        assert!(start.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_alive(&stuck).await;
    assert_eq!(bench.events().iter().filter_map(wedged).count(), 1, "reported once");
}

#[tokio::test]
async fn a_call_that_returns_within_its_grace_wedges_nothing() {
    let bench = Bench::new();
    let plugin = started(&bench, "[limits]\ncancel_grace = \"60s\"").await;
    let error = failure_within(&plugin, "sleep", json!(300), 50).await;
    assert_eq!(error.code(), "deadline");
    assert_alive(&plugin).await;
    assert!(bench.events().is_empty(), "{:?}", bench.events());
}

#[tokio::test]
async fn a_call_that_waits_past_its_deadline_is_never_executed() {
    let bench = Bench::new();
    let plugin = started(&bench, "").await;
    let (slow, late) = tokio::join!(
        call(&plugin, "sleep", json!(300)),
        failure_within(&plugin, "count", json!(null), 50),
    );
    slow.unwrap();
    assert_eq!((late.code(), late.executed), ("deadline", Executed::No));
    assert_eq!(result(&plugin, "count", json!(null)).await, 2, "sleep and this one");
    assert!(bench.events().is_empty(), "{:?}", bench.events());
}

#[tokio::test]
async fn call_timeout_caps_every_deadline() {
    let bench = Bench::new();
    let plugin = started(&bench, "[limits]\ncall_timeout = \"100ms\"").await;
    let error = failure_within(&plugin, "wait", json!(null), 60_000).await;
    assert_eq!(error.code(), "deadline");
    assert!(error.to_string().contains("100ms"), "{error}");
}

#[tokio::test]
async fn dropping_a_call_cancels_it() {
    let bench = Bench::new();
    let plugin = started(&bench, "").await;
    let params = raw(json!(null));
    let waiting = plugin.call("wait", &params, Bytes::new(), None);
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
    let cancelled = |event: &HostEvent| match event {
        HostEvent::Log { level, target, message, .. } => {
            (message == "cancelled").then(|| (*level, target.clone()))
        }
        _ => None,
    };
    assert_eq!(bench.event(cancelled).await, (Level::Warn, "hostile::wait".into()));
    assert_alive(&plugin).await;
}

#[tokio::test]
async fn more_calls_than_max_in_flight_are_refused_at_once_and_no_others() {
    let bench = Bench::new();
    let plugin = started(&bench, "[limits]\nmax_in_flight = 2").await;
    let (first, second, third) = tokio::join!(
        call(&plugin, "sleep", json!(100)),
        call(&plugin, "count", json!(null)),
        call(&plugin, "count", json!(null)),
    );
    first.unwrap();
    second.unwrap();
    let third = third.unwrap_err();
    assert_eq!((third.code(), third.executed), ("overloaded", Executed::No));
    assert!(third.retryable() && third.to_string().contains("limits.max_in_flight"), "{third}");
    assert_alive(&plugin).await;
}

#[tokio::test]
async fn who_waits_for_each_answer_is_never_refused_for_having_one_call_too_many() {
    let bench = Bench::new();
    let plugin = started(&bench, "[limits]\nmax_in_flight = 1").await;
    for _ in 0..5_000 {
        call(&plugin, "count", json!(null)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_over_max_frame_is_refused_with_the_key_and_both_sizes() {
    let bench = Bench::new();
    let plugin = started(&bench, "[limits]\nmax_frame = 4096").await;
    let error = failure(&plugin, "echo", json!("x".repeat(5000))).await;
    assert_eq!((error.code(), error.executed), ("too_large", Executed::No));
    assert_eq!(error.detail(), json!({ "limit": 4096, "got": 5002, "key": "limits.max_frame" }));
    let error = failure(&plugin, "large", json!(4093)).await;
    assert_eq!((error.code(), error.executed), ("too_large", Executed::Yes));
    assert!(error.to_string().contains("4097"), "{error}");
    assert_eq!(call(&plugin, "large", json!(4092)).await.unwrap().payload.len(), 4092);
}

#[tokio::test]
async fn a_pin_loads_exactly_the_pinned_bytes() {
    let bench = Bench::new();
    let plugin = started(&bench, "").await;
    let digest = plugin.digest().to_owned();
    assert_eq!(digest.len(), 64);
    let pin = |hex: &str| manifest(&format!("sha256 = \"{hex}\""));
    let pinned = bench.start(&pin(&digest.to_uppercase())).await.unwrap();
    assert_eq!(pinned.digest(), digest);
    assert_alive(&pinned).await;
    assert_eq!(bench.leftovers(), [""; 0], "the copy that was loaded is gone");

    let error = bench.start(&pin(&"0".repeat(64))).await.err().unwrap();
    assert_eq!(error.code(), "hash_mismatch");
    assert!(error.to_string().contains(&digest), "{error}");
}

#[tokio::test]
async fn a_plugin_in_plain_c_works() {
    let bench = Bench::new();
    let plugin = start_c(&bench, &[]).await.unwrap();
    assert_eq!(result(&plugin, "echo", json!({ "a": [1] })).await, json!({ "a": [1] }));
    let error = failure(&plugin, "fail", json!(null)).await;
    assert_eq!(error.detail(), json!({ "traceback": "plugin.c" }));
    assert_eq!(failure(&plugin, "garbage", json!(null)).await.code(), "malformed");
    assert_eq!(failure(&plugin, "code", json!(null)).await.code(), "malformed");
    let released = result(&plugin, "released", json!(null)).await;
    assert_eq!(released, json!(4), "every buffer was given back once, whatever the code");
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_result_that_is_no_json_or_nested_too_deep_is_malformed_and_harms_nothing() {
    let bench = Bench::new();
    let plugin = start_c(&bench, &[]).await.unwrap();
    let null = raw(json!(null));
    let answer =
        async |text: &[u8]| plugin.call("payload", &null, Bytes::copy_from_slice(text), None).await;
    let nested = |levels: usize| ["[".repeat(levels), "]".repeat(levels)].concat();
    for (bad, reason) in [
        (&b"NaN"[..], "not JSON"),
        (b"[Infinity]", "not JSON"),
        (b"{\"a\":-Infinity}", "not JSON"),
        (b"\"\xff\"", "not JSON"),
        (b"\"\xed\xa0\x80\"", "not JSON"),
        (b"1 2", "not JSON"),
        (nested(101).as_bytes(), "nested deeper than 100"),
        (&[b'['; 1_000_000], "nested deeper than 100"),
    ] {
        let error = answer(bad).await.unwrap_err();
        assert_eq!((error.code(), error.executed), ("malformed", Executed::Yes), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert_eq!(answer(nested(100).as_bytes()).await.unwrap().result.get(), nested(100));
}

#[tokio::test]
async fn a_library_that_is_not_this_plugin_is_refused_each_in_its_own_words() {
    let bench = Bench::new();
    for (definition, code, text) in [
        ("NO_SYMBOL", "missing_symbol", "rollout_plugin_v1"),
        ("WRONG_MAJOR", "abi_mismatch", "2.7 of the C ABI"),
        ("NULL_DESCRIPTOR", "bad_descriptor", "null"),
        ("WRONG_MAGIC", "bad_descriptor", "magic"),
        ("SHORT", "bad_descriptor", "struct_size is 96"),
        ("NULL_FUNCTION", "bad_descriptor", "a function is null"),
        ("BAD_METHODS", "bad_descriptor", "methods_json"),
        ("OTHER_NAME", "refused", "`c_plugin 0.1.0`, but it says that it is `other 0.1.0`"),
        ("UNRESOLVED", "unloadable", "nowhere_to_be_found"),
    ] {
        if definition == "UNRESOLVED" && cfg!(target_os = "macos") {
            // There the linker refuses it already.
            continue;
        }
        let error = start_c(&bench, &[definition]).await.err().unwrap();
        assert_eq!(error.code(), code, "{}", chain(&error));
        assert!(chain(&error).contains(text), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_file_that_is_no_library_of_this_machine_is_refused_before_it_is_loaded() {
    let bench = Bench::new();
    let stem = bench.dir.path().join("fake");
    let text = manifest_of(&stem, "fake", "");
    let start = || bench.start(&text);
    assert_eq!(start().await.err().unwrap().code(), "not_found");
    fs::write(file_of(&stem), "#!/bin/sh\n").unwrap();
    assert_eq!(start().await.err().unwrap().code(), "not_a_library");
    if cfg!(target_os = "linux") {
        let mut elf = fs::read(file_of(&example("hostile"))).unwrap();
        elf.truncate(4096);
        // The machine, at offset 18: one that nobody has built since 1990.
        elf[18..20].copy_from_slice(&1u16.to_ne_bytes());
        fs::write(file_of(&stem), elf).unwrap();
        let error = start().await.err().unwrap();
        assert!(matches!(*error.cause, Cause::WrongArch { .. }), "{error}");
    }
}
