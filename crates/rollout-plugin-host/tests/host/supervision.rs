//! What becomes of a sidecar that ends unasked, and of the calls to it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rollout_core::event::PluginRestarted;
use rollout_plugin_host::{Executed, HostEvent, Plugin};
use serde_json::{Value, json};

use crate::bench::{
    Bench, LONG, assert_alive, assert_gone, call, failure, failure_within, python, result,
};
use crate::raw::{exited, odd, odd_manifest, pid, start};

const CRASH: &str = "os._exit(3)";

fn restarted(event: &HostEvent) -> Option<PluginRestarted> {
    match event {
        HostEvent::Restarted(restarted) => Some(restarted.clone()),
        _ => None,
    }
}

fn opened(event: &HostEvent) -> Option<Duration> {
    match event {
        HostEvent::BreakerOpened { wait, .. } => Some(*wait),
        _ => None,
    }
}

/// Makes it crash in a call, which is told so.
async fn crash(plugin: &Plugin) {
    let error = failure(plugin, "odd", json!(null)).await;
    assert_eq!((error.code(), error.executed), ("crashed", Executed::Maybe), "{error}");
}

#[tokio::test]
async fn a_sidecar_that_ends_is_started_again_as_a_new_process_and_both_are_told() {
    let bench = Bench::new();
    let plugin = odd(&bench, CRASH, "").await;
    let first = pid(&plugin).await;
    crash(&plugin).await;
    let second = pid(&plugin).await;
    assert_ne!(first, second);
    assert_gone(first);
    let told: Vec<_> = bench.events().iter().map(|it| (exited(it), restarted(it))).collect();
    let [(Some(exited), None), (None, Some(restarted))] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert!(!exited.expected && exited.code == Some(3));
    assert_eq!((&*restarted.name, restarted.crashes), ("raw", 1));
    println!("from a crash to ready again: {} ms", restarted.down_ms);
    plugin.shutdown().await.unwrap();
    assert_gone(second);
}

#[tokio::test]
async fn killing_a_sidecar_fails_all_of_its_calls_at_once() {
    let bench = Bench::new();
    let plugin = odd(&bench, "time.sleep(60)", "").await;
    let process = Pid::from_raw(pid(&plugin).await);
    let odd = || failure(&plugin, "odd", json!(null));
    let (first, second, killed) = tokio::join!(odd(), odd(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill(process, Signal::SIGKILL).unwrap();
        Instant::now()
    });
    let took = killed.elapsed();
    println!("from SIGKILL to the last error: {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    for error in [first, second] {
        assert_eq!((error.code(), error.executed), ("crashed", Executed::Maybe));
        assert_eq!(error.detail()["signal"], 9);
    }
}

#[tokio::test]
async fn the_interpreter_is_looked_for_once_however_often_it_is_started() {
    let bench = Bench::new();
    let path = std::env::var("PATH").unwrap();
    let dir = bench.dir.path();
    let asked = dir.join("asked");
    let shim = format!("#!/bin/sh\necho x >> {}\nPATH={path} exec python3 \"$@\"", asked.display());
    let shim = bench.write("python3", &shim);
    std::fs::set_permissions(shim, Permissions::from_mode(0o755)).unwrap();
    let text = odd_manifest(&bench, CRASH, &format!("env.PATH = '{}:{path}'", dir.display()));
    let text = text.replace(&format!("{:?}", python()), "\"python3\"");
    let plugin = bench.start(&text).await.unwrap();
    crash(&plugin).await;
    assert_alive(&plugin).await;
    assert_eq!(std::fs::read_to_string(asked).unwrap(), "x\n");
}

#[tokio::test]
async fn a_call_made_while_it_restarts_waits_for_it_within_its_own_deadline() {
    let bench = Bench::new();
    let plugin = odd(&bench, CRASH, "[restart]\nbackoff_initial = \"600ms\"").await;
    crash(&plugin).await;
    let begin = Instant::now();
    let error = failure_within(&plugin, "echo", json!(null), 50).await;
    assert_eq!((error.code(), error.executed), ("deadline", Executed::No));
    assert!(begin.elapsed() < Duration::from_millis(300), "before it is started");
    assert_alive(&plugin).await;
    assert!(begin.elapsed() > Duration::from_millis(200), "half the pause, less what came before");
}

#[tokio::test]
async fn no_more_calls_wait_for_a_restart_than_may_be_in_flight() {
    let bench = Bench::new();
    let rest = "[limits]\nmax_in_flight = 2\n[restart]\nbackoff_initial = \"400ms\"";
    let plugin = odd(&bench, CRASH, rest).await;
    crash(&plugin).await;
    let echo = || call(&plugin, "echo", json!(null));
    let (first, second, third) = tokio::join!(echo(), echo(), echo());
    first.unwrap();
    second.unwrap();
    let third = third.unwrap_err();
    assert_eq!((third.code(), third.executed), ("overloaded", Executed::No));
}

#[tokio::test]
async fn a_call_that_was_not_sent_when_it_crashed_is_answered_by_the_next_process() {
    let bench = Bench::new();
    // Only the first process does not read.
    let script = "if os.path.exists('first'):
    s = connect(); ready(s); serve(s)
open('first', 'w').write(str(os.getpid()))
s = connect(); ready(s); read(s); time.sleep(60)";
    let plugin = start(&bench, script, "").await.unwrap();
    let first = std::fs::read_to_string(bench.dir.path().join("first")).unwrap();
    let process = Pid::from_raw(first.parse().unwrap());
    // More than any socket holds.
    let large = json!("x".repeat(8 << 20));
    let ((first, second), third, ()) = tokio::join!(
        async {
            tokio::join!(call(&plugin, "pid", json!(null)), call(&plugin, "echo", large.clone()))
        },
        call(&plugin, "echo", json!("third")),
        async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            kill(process, Signal::SIGKILL).unwrap();
        },
    );
    for sent in [first, second] {
        let error = sent.unwrap_err();
        assert_eq!((error.code(), error.executed), ("crashed", Executed::Maybe));
    }
    assert_eq!(third.unwrap().result.get(), "\"third\"");
}

#[tokio::test]
async fn too_many_crashes_open_the_breaker_and_an_answered_trial_closes_it() {
    let bench = Bench::new();
    let rest = "[restart]\nbackoff_initial = \"1ms\"\nbackoff_max = \"500ms\"\nmax_crashes = 3";
    let plugin = odd(&bench, CRASH, rest).await;
    for _ in 0..2 {
        crash(&plugin).await;
        assert_alive(&plugin).await;
    }
    crash(&plugin).await;
    let begin = Instant::now();
    assert_eq!(bench.event(opened).await, Duration::from_millis(500));
    let error = failure(&plugin, "echo", json!(null)).await;
    assert_eq!((error.code(), error.executed), ("breaker_open", Executed::No));
    assert!(error.retryable() && error.to_string().contains("is not called for"), "{error}");
    assert!(error.detail()["until_mono_ns"].is_u64());
    assert!(error.detail()["wait_ms"].as_f64().unwrap() <= 500.0);

    trial(&plugin).await;
    assert!(begin.elapsed() >= Duration::from_millis(400), "no sooner");
    crash(&plugin).await;
    assert_alive(&plugin).await;
    assert_eq!(bench.events().iter().filter_map(opened).count(), 1, "the crashes are forgotten");
}

/// Calls until the breaker lets a call through, which is answered.
async fn trial(plugin: &Plugin) {
    let end = Instant::now() + LONG;
    while let Err(error) = call(plugin, "echo", json!(null)).await {
        assert_eq!(error.code(), "breaker_open");
        assert!(Instant::now() < end, "{error}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_trial_is_one_call_alone_and_when_it_crashes_the_breaker_opens_at_once() {
    let bench = Bench::new();
    let rest = "[restart]\nbackoff_max = \"50ms\"\nmax_crashes = 1";
    let plugin = odd(&bench, "time.sleep(0.2); os._exit(3)", rest).await;
    crash(&plugin).await;
    bench.event(restarted).await;
    let (trial, other) =
        tokio::join!(call(&plugin, "odd", json!(null)), call(&plugin, "echo", json!(null)),);
    assert_eq!(trial.unwrap_err().code(), "crashed");
    let other = other.unwrap_err();
    assert_eq!((other.code(), other.executed), ("breaker_open", Executed::No));
    assert!(other.to_string().contains("tried with one call"), "{other}");
    assert_eq!(other.detail()["wait_ms"], json!(0.0));
    assert_eq!(failure(&plugin, "echo", json!(null)).await.code(), "breaker_open");
    assert_eq!(bench.events().iter().filter_map(opened).count(), 2);
}

#[tokio::test]
async fn crashes_that_are_further_apart_than_the_window_never_open_the_breaker() {
    let bench = Bench::new();
    let rest = "[restart]\nbackoff_initial = \"1ms\"\nmax_crashes = 2\nwindow = \"50ms\"";
    let plugin = odd(&bench, CRASH, rest).await;
    for _ in 0..3 {
        crash(&plugin).await;
        assert_alive(&plugin).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let told: Vec<_> = bench.events().iter().filter_map(restarted).collect();
    assert!(told.len() == 3 && told.iter().all(|it| it.crashes == 1), "{told:?}");
    assert!(!bench.events().iter().any(|event| opened(event).is_some()));
}

#[tokio::test]
async fn a_process_that_lacks_a_method_of_the_first_one_is_no_substitute_for_it() {
    let bench = Bench::new();
    let script = "if os.path.exists('first'):
    METHODS.pop(0)
open('first', 'w').close()
s = connect(); ready(s); serve(s, lambda s, call: os._exit(3))";
    let rest = "[restart]\nbackoff_initial = \"1ms\"\nmax_crashes = 3";
    let plugin = start(&bench, script, rest).await.unwrap();
    crash(&plugin).await;
    let error = bench
        .event(|event| match event {
            HostEvent::NotRestarted { error, .. } => Some(error.to_string()),
            _ => None,
        })
        .await;
    assert!(error.contains("no longer has the method `echo`"), "{error}");
    bench.event(opened).await;
}

#[tokio::test]
async fn a_restart_that_fails_is_told_and_counts_as_a_crash() {
    let bench = Bench::new();
    let script = "if os.path.exists('first'):
    print('no licence', file=sys.stderr); sys.exit(7)
open('first', 'w').close()
s = connect(); ready(s); serve(s, lambda s, call: os._exit(3))";
    let rest = "[restart]\nbackoff_initial = \"1ms\"\nmax_crashes = 3";
    let plugin = start(&bench, script, rest).await.unwrap();
    crash(&plugin).await;
    let error = failure(&plugin, "echo", json!(null)).await;
    assert_eq!((error.code(), error.executed), ("breaker_open", Executed::No), "while it waited");
    let failed = |event: &HostEvent| match event {
        HostEvent::NotRestarted { error, .. } => Some((error.code(), error.detail())),
        _ => None,
    };
    let want = json!({ "code": 7, "signal": null, "stderr_tail": "no licence" });
    let told: Vec<(_, Value)> = bench.events().iter().filter_map(failed).collect();
    assert_eq!(told, vec![("exited", want); 2]);
    plugin.shutdown().await.unwrap();
    assert_eq!(failure(&plugin, "echo", json!(null)).await.code(), "closed");
}

#[tokio::test]
async fn a_shutdown_or_a_drop_ends_a_restart_whatever_it_is_at() {
    // The second process hangs before it is ready.
    let script = "open('pid', 'a').write(f'{os.getpid()}\\n')
if os.path.exists('first'):
    time.sleep(60)
open('first', 'w').close()
s = connect(); ready(s); serve(s, lambda s, call: os._exit(3))";
    for (pause, orderly) in [("1ms", true), ("1ms", false), ("30s", true), ("30s", false)] {
        let bench = Bench::new();
        let rest = format!("[restart]\nbackoff_initial = \"{pause}\"\nbackoff_max = \"30s\"");
        let plugin = start(&bench, script, &rest).await.unwrap();
        crash(&plugin).await;
        let pids = || std::fs::read_to_string(bench.dir.path().join("pid")).unwrap();
        let started = if pause == "1ms" { 2 } else { 1 };
        let end = Instant::now() + LONG;
        while pids().lines().count() < started {
            assert!(Instant::now() < end);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let begin = Instant::now();
        if orderly {
            plugin.shutdown().await.unwrap();
            assert_eq!(failure(&plugin, "echo", json!(null)).await.code(), "closed");
        }
        drop(plugin);
        // The runtime drops the aborted task at its next chance.
        tokio::task::yield_now().await;
        assert!(begin.elapsed() < Duration::from_secs(3), "long before the pause is over");
        assert_eq!(pids().lines().count(), started, "nothing is started any more");
        pids().lines().for_each(|pid| assert_gone(pid.parse().unwrap()));
        assert_eq!(bench.leftovers(), [""; 0]);
    }
}

#[tokio::test]
async fn a_sidecar_that_goes_on_with_a_cancelled_call_is_killed_after_the_grace_and_not_before() {
    let bench = Bench::new();
    // Deaf to everything, and a child of it, too.
    let deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = os.fork()
    if child: open('child', 'w').write(str(child))
    time.sleep(60)";
    let plugin = odd(&bench, deaf, "[limits]\ncancel_grace = \"400ms\"").await;
    let process = pid(&plugin).await;
    let begin = Instant::now();
    let (given_up, other) = tokio::join!(
        failure_within(&plugin, "odd", json!(null), 100),
        failure(&plugin, "odd", json!(null)),
    );
    assert_eq!((given_up.code(), given_up.executed), ("deadline", Executed::Maybe));
    assert!(begin.elapsed() >= Duration::from_millis(500), "the deadline and the grace");
    assert!(begin.elapsed() < Duration::from_secs(10), "long before call_timeout");
    assert_eq!((other.code(), other.executed), ("crashed", Executed::Maybe));
    assert!(other.to_string().contains("`limits.cancel_grace` (400ms)"), "{other}");
    let exit = bench.event(exited).await;
    assert_eq!((exit.signal, exit.expected), (Some(9), false));
    assert_gone(process);
    let child = std::fs::read_to_string(bench.dir.path().join("child")).unwrap();
    assert_gone(child.parse().unwrap());
    assert_alive(&plugin).await;
}

#[tokio::test]
async fn a_sidecar_that_answers_a_cancelled_call_within_the_grace_lives_on() {
    let bench = Bench::new();
    let late = "time.sleep(0.2); send(s, {'t': 'reply', 'id': call['id']})";
    let plugin = odd(&bench, late, "[limits]\ncancel_grace = \"600ms\"").await;
    let process = pid(&plugin).await;
    for _ in 0..2 {
        let error = failure_within(&plugin, "odd", json!(null), 50).await;
        assert_eq!(error.code(), "deadline");
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert_eq!(pid(&plugin).await, process);
    assert!(bench.events().is_empty(), "{:?}", bench.events());
}

#[tokio::test]
async fn a_sidecar_over_its_memory_limit_fails_alone_and_is_started_again() {
    let bench = Bench::new();
    let plugin = odd(&bench, "bytearray(call['params'])", "[limits]\nmemory = 200_000_000").await;
    let within = failure_within(&plugin, "odd", json!(100_000_000), 200).await;
    assert_eq!(within.code(), "deadline", "there is room for that; it just does not answer");
    let error = failure(&plugin, "odd", json!(300_000_000)).await;
    assert_eq!((error.code(), error.executed), ("crashed", Executed::Maybe));
    assert!(error.to_string().contains("MemoryError"), "{error}");
    assert_alive(&plugin).await;
}

#[tokio::test]
async fn a_sidecar_over_its_limit_of_open_files_is_refused_more_of_them() {
    let bench = Bench::new();
    let open = "held = []
    try:
        while True: held.append(open('/dev/null'))
    except OSError as error:
        send(s, {'t': 'reply', 'id': call['id'], 'result': [len(held), error.strerror]})";
    let plugin = odd(&bench, open, "[limits]\nopen_files = 32").await;
    let told = result(&plugin, "odd", json!(null)).await;
    let held = told[0].as_u64().unwrap();
    // Three streams and the socket are open as well.
    assert!((20..=28).contains(&held), "{held}");
    assert_eq!(told[1], "Too many open files");
    assert_alive(&plugin).await;
}
