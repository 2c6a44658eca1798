//! Sidecars that speak the wire by hand, and some that don't.

use std::time::{Duration, Instant};

use rollout_core::chain;
use rollout_plugin_host::Executed;
use serde_json::json;

use crate::bench::{
    Bench, assert_alive, assert_gone, call, exists, failure, failure_within, result,
};
use crate::raw::{exited, manifest, odd, pid, start};

#[tokio::test]
async fn what_ends_before_it_is_ready_shows_its_exit_and_its_last_words() {
    let bench = Bench::new();
    for script in [
        "print('no licence', file=sys.stderr); sys.exit(7)",
        "s = connect(); print('no licence', file=sys.stderr); sys.exit(7)",
        "s = connect(); read(s); s.close(); print('no licence', file=sys.stderr); sys.exit(7)",
    ] {
        let error = start(&bench, script, "").await.err().unwrap();
        assert_eq!(error.code(), "exited", "{error}");
        let want = json!({ "code": 7, "signal": null, "stderr_tail": "no licence" });
        assert_eq!(error.detail(), want);
        assert!(error.to_string().contains("exited with 7"), "{error}");
        assert_eq!(bench.leftovers(), [""; 0]);
    }
}

#[tokio::test]
async fn what_hangs_at_start_ends_at_start_timeout_with_its_last_words() {
    for how in ["", "s = connect()", "s = connect(); read(s); s.sendall(b'\\0')"] {
        let bench = Bench::new();
        let script = format!(
            "open('pid', 'w').write(str(os.getpid())); print('thinking', file=sys.stderr)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
{how}\ntime.sleep(60)"
        );
        let begin = Instant::now();
        let limits = "[limits]\nstart_timeout = \"1500ms\"";
        let error = start(&bench, &script, limits).await.err().unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(1_500));
        assert!(begin.elapsed() < Duration::from_secs(10));
        assert_eq!(error.code(), "timeout", "{error}");
        assert!(error.to_string().contains("thinking"), "{error}");
        assert_eq!(bench.leftovers(), [""; 0]);
        let pid = std::fs::read_to_string(bench.dir.path().join("pid")).unwrap();
        assert_gone(pid.parse().unwrap());
    }
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing() {
    let bench = Bench::new();
    let script = "open('pid', 'w').write(str(os.getpid())); time.sleep(60)";
    let text = manifest(&bench, script, "");
    let path = bench.dir.path().join("pid");
    {
        let start = bench.start(&text);
        tokio::pin!(start);
        while std::fs::read_to_string(&path).is_ok_and(|pid| !pid.is_empty()).eq(&false) {
            assert!(
                tokio::time::timeout(Duration::from_millis(5), &mut start).await.is_err(),
                "it can't be ready"
            );
        }
    }
    assert_gone(std::fs::read_to_string(&path).unwrap().parse().unwrap());
    assert_eq!(bench.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_handshake_that_is_wrong_is_refused_each_in_its_own_words() {
    let bench = Bench::new();
    for (script, code, text) in [
        ("ready(s, token='guess')", "refused", "ROLLOUT_PLUGIN_TOKEN"),
        ("ready(s, proto=9)", "abi_mismatch", "version 9 of the wire, this worker 1"),
        ("ready(s, version='2')", "refused", "the manifest names `raw 1`"),
        ("read(s); send(s, {'t': 'refuse', 'message': 'no GPU'})", "refused", "no GPU"),
        (
            "read(s); send(s, {'t': 'refuse', 'message': 'no GPU'}); sys.exit(1)",
            "refused",
            "no GPU",
        ),
        ("read(s); send(s, {'t': 'reply', 'id': 1})", "malformed", "before it was ready"),
        ("read(s); send(s, {'t': 'ready'})", "malformed", "lacks one of its keys"),
        ("ready(s, max_frame=4095)", "malformed", "its max_frame (4095 bytes) is less than 4096"),
        ("read(s); s.sendall(b'HTTP/1.1 200 OK')", "too_large", "limits.max_frame"),
        ("s.close()", "closed", "before it was ready"),
    ] {
        let script = format!("s = connect()\n{script}\ntime.sleep(60)");
        let begin = Instant::now();
        let error = start(&bench, &script, "").await.err().unwrap();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(5), "long before start_timeout");
        assert_eq!(bench.leftovers(), [""; 0]);
    }
}

#[tokio::test]
async fn what_cannot_be_started_names_the_program_or_the_directory() {
    let bench = Bench::new();
    let entry = |command: &str| {
        format!("[plugin]\nname = \"raw\"\nversion = \"1\"\n[entry.sidecar]\ncommand = {command}\n")
    };
    for (text, want) in [
        (entry("[\"no-such-program\"]"), "`no-such-program`"),
        (entry("[\"./no-such-file\"]"), "no-such-file`"),
        (entry("[\"sh\"]\ncwd = \"no-such-dir\""), "no-such-dir"),
    ] {
        let error = bench.start(&text).await.err().unwrap();
        assert_eq!(error.code(), "spawn");
        assert!(chain(&error).contains(want), "{}", chain(&error));
        assert_eq!(bench.leftovers(), [""; 0]);
    }
}

#[tokio::test]
async fn a_sidecar_sees_only_the_variables_that_its_manifest_gives_it() {
    let bench = Bench::new();
    // Cargo sets this one for every test.
    let rest = "env = { SET = \"7\" }\nenv_allow = [\"CARGO_PKG_NAME\", \"NOT_THERE\"]";
    let script = "s = connect(); ready(s, max_in_flight=3)
os.environ.pop('LC_CTYPE', None)
def odd(s, call):
    send(s, {'t': 'reply', 'id': call['id'], 'result': dict(os.environ)})
serve(s, odd)";
    let plugin = start(&bench, script, rest).await.unwrap();
    let found = result(&plugin, "odd", json!(null)).await;
    let mut names: Vec<_> = found.as_object().unwrap().keys().map(String::as_str).collect();
    names.retain(|name| *name != "__CF_USER_TEXT_ENCODING");
    let want =
        ["CARGO_PKG_NAME", "HOME", "PATH", "ROLLOUT_PLUGIN_SOCKET", "ROLLOUT_PLUGIN_TOKEN", "SET"];
    names.sort_unstable();
    assert_eq!(names, want);
    assert_eq!(
        (&found["SET"], &found["CARGO_PKG_NAME"]),
        (&json!("7"), &json!("rollout-plugin-host"))
    );
}

#[tokio::test]
async fn breaking_the_protocol_fails_the_calls_under_way_and_stops_the_sidecar() {
    for (offence, code, text) in [
        ("send(s, {'t': 'reply', 'id': 99, 'result': 1})", "malformed", "call 99"),
        (
            "[send(s, {'t': 'reply', 'id': call['id'] - 1}) for _ in range(2)]",
            "malformed",
            "not under way",
        ),
        ("send(s, b'nonsense')", "malformed", "no message"),
        ("send(s, b'[' * 100000)", "malformed", "nested deeper"),
        (
            "send(s, b'{\"t\":\"reply\",\"id\":%d,\"result\":%s%s}' % (call['id'], b'[' * 100, b']' * 100))",
            "malformed",
            "nested deeper than 100",
        ),
        (
            "send(s, b'{\"t\":\"reply\",\"id\":%d,\"result\":NaN}' % call['id'])",
            "malformed",
            "no message",
        ),
        (
            "send(s, b'{\"t\":\"reply\",\"id\":%d,\"result\":[-Infinity]}' % call['id'])",
            "malformed",
            "no message",
        ),
        (
            "send(s, b'{\"t\":\"reply\",\"id\":%d,\"result\":\"\\xff\"}' % call['id'])",
            "malformed",
            "no message",
        ),
        ("send(s, {'t': 'parts', 'id': call['id']})", "malformed", "unknown kind `parts`"),
        ("send(s, {'t': 'ready'})", "malformed", "lacks"),
        (
            "s.sendall(b'\\xff' * 8)",
            "too_large",
            "8589934590 bytes is over `limits.max_frame` (16777216 bytes)",
        ),
        ("s.sendall(struct.pack('>II', 0xffffffff, 0) + b'x' * 10000)", "too_large", "4294967295"),
    ] {
        let bench = Bench::new();
        let plugin =
            odd(&bench, &format!("{offence}; time.sleep(60)"), "[limits]\nshutdown_grace = \"2s\"")
                .await;
        let process = pid(&plugin).await;
        let error = failure(&plugin, "odd", json!(null)).await;
        assert_eq!((error.code(), error.executed), (code, Executed::Maybe), "{error}");
        assert!(error.to_string().contains(text), "{error}");
        let exit = bench.event(exited).await;
        assert!(!exit.expected && exit.signal == Some(15), "{exit:?}");
        assert_gone(process);
        assert_alive(&plugin).await;
    }
}

#[tokio::test]
async fn an_answer_that_was_given_twice_is_an_offence() {
    let bench = Bench::new();
    let twice = "[send(s, {'t': 'reply', 'id': call['id'], 'result': 1}) for _ in range(2)]";
    let plugin = odd(&bench, twice, "").await;
    assert_eq!(result(&plugin, "odd", json!(null)).await, 1);
    assert!(!bench.event(exited).await.expected);
}

#[tokio::test]
async fn a_crash_fails_the_calls_under_way_at_once_with_its_exit_and_last_words() {
    for (crash, code, signal) in [
        ("print('out of cheese', file=sys.stderr); sys.stderr.flush(); os._exit(9)", Some(9), None),
        (
            "print('out of cheese', file=sys.stderr); sys.stderr.flush(); os.kill(os.getpid(), 11)",
            None,
            Some(11),
        ),
        (
            "print('out of cheese', file=sys.stderr); sys.stderr.flush(); s.sendall(b'\\0\\0\\1'); os._exit(9)",
            Some(9),
            None,
        ),
    ] {
        let bench = Bench::new();
        let plugin = odd(&bench, crash, "").await;
        let begin = Instant::now();
        let error = failure(&plugin, "odd", json!(null)).await;
        assert!(begin.elapsed() < Duration::from_secs(5), "long before call_timeout");
        assert_eq!((error.code(), error.executed), ("crashed", Executed::Maybe));
        let want = json!({ "code": code, "signal": signal, "stderr_tail": "out of cheese" });
        assert_eq!(error.detail(), want);
        let exit = bench.event(exited).await;
        assert_eq!((exit.code, exit.signal, exit.expected), (code, signal, false));
        plugin.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_answered_before_a_crash_is_not_lost() {
    let bench = Bench::new();
    let last = "send(s, {'t': 'reply', 'id': call['id'], 'result': 'last'}); os._exit(1)";
    let plugin = odd(&bench, last, "").await;
    assert_eq!(result(&plugin, "odd", json!(null)).await, "last");
}

#[tokio::test]
async fn a_closed_socket_fails_the_calls_and_the_process_is_stopped() {
    let bench = Bench::new();
    let plugin = odd(&bench, "s.shutdown(socket.SHUT_RDWR); time.sleep(60)", "").await;
    let process = pid(&plugin).await;
    let error = failure(&plugin, "odd", json!(null)).await;
    assert_eq!((error.code(), error.executed), ("closed", Executed::Maybe));
    assert_eq!(bench.event(exited).await.signal, Some(15));
    assert_gone(process);
}

#[tokio::test]
async fn a_call_that_is_never_answered_ends_at_its_deadline_and_keeps_its_place() {
    let bench = Bench::new();
    let plugin = odd(&bench, "pass", "[limits]\nmax_in_flight = 1\ncall_timeout = \"150ms\"").await;
    let begin = Instant::now();
    let error = failure(&plugin, "odd", json!(null)).await;
    assert!(begin.elapsed() >= Duration::from_millis(150));
    assert_eq!((error.code(), error.executed), ("deadline", Executed::Maybe));
    assert_eq!(failure(&plugin, "echo", json!(null)).await.code(), "overloaded");
}

#[tokio::test]
async fn who_waits_for_each_answer_is_never_refused_for_having_one_call_too_many() {
    let bench = Bench::new();
    let plugin = odd(&bench, "pass", "[limits]\nmax_in_flight = 1").await;
    for n in 0..2_000 {
        assert_eq!(result(&plugin, "echo", json!(n)).await, json!(n));
    }
}

#[tokio::test]
async fn a_sidecar_that_does_not_read_costs_a_deadline_and_no_more() {
    let bench = Bench::new();
    let plugin = odd(&bench, "time.sleep(60)", "[limits]\nshutdown_grace = \"300ms\"").await;
    let odd = failure_within(&plugin, "odd", json!(null), 50).await;
    assert_eq!((odd.code(), odd.executed), ("deadline", Executed::Maybe));
    // More than any socket holds.
    let large = json!("x".repeat(8 << 20));
    let error = failure_within(&plugin, "echo", large.clone(), 50).await;
    assert_eq!((error.code(), error.executed), ("deadline", Executed::Maybe));
    let error = failure_within(&plugin, "echo", large, 50).await;
    assert_eq!((error.code(), error.executed), ("deadline", Executed::No), "never sent");
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_slow_call_on_one_plugin_does_not_delay_another() {
    let (slow_bench, bench) = (Bench::new(), Bench::new());
    let slow = odd(&slow_bench, "time.sleep(60)", "").await;
    let quick = odd(&bench, "pass", "").await;
    tokio::select! {
        _ = call(&slow, "odd", json!(null)) => panic!("it sleeps for a minute"),
        () = async {
            for _ in 0..20 {
                assert_alive(&quick).await;
            }
        } => {}
    }
}

#[tokio::test]
async fn shutdown_climbs_the_ladder_within_its_grace() {
    for (deaf, signal) in [("", 15), ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", 9)] {
        let bench = Bench::new();
        let script = format!(
            "s = connect(); ready(s); {deaf}
read(s); time.sleep(60)"
        );
        let rest = "[limits]\nshutdown_grace = \"400ms\"";
        let plugin = start(&bench, &script, rest).await.unwrap();
        let _ = failure_within(&plugin, "echo", json!(null), 20).await;
        let begin = Instant::now();
        plugin.shutdown().await.unwrap();
        let (took, least) = (begin.elapsed(), if signal == 15 { 200 } else { 400 });
        assert!(took >= Duration::from_millis(least), "{took:?}");
        assert!(took < Duration::from_millis(1500), "{took:?}");
        let exit = bench.event(exited).await;
        assert_eq!((exit.signal, exit.expected), (Some(signal), true));
    }
}

#[tokio::test]
async fn a_plugin_that_is_dropped_leaves_no_process_not_even_a_grandchild() {
    let bench = Bench::new();
    // Outside Linux a process that leaves its group escapes.
    let fork = "child = os.fork()
    if child == 0:
        if sys.platform == 'linux': os.setsid()
        time.sleep(60); os._exit(0)
    send(s, {'t': 'reply', 'id': call['id'], 'result': child})";
    let plugin = odd(&bench, fork, "").await;
    let grandchild = result(&plugin, "odd", json!(null)).await.as_i64().unwrap() as i32;
    let child = pid(&plugin).await;
    assert!(exists(grandchild));
    drop(plugin);
    // The runtime drops the aborted task at its next chance.
    tokio::task::yield_now().await;
    assert_gone(child);
    assert_gone(grandchild);
    assert_eq!(bench.leftovers(), [""; 0]);
}
