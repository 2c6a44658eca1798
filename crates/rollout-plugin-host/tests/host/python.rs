//! Sidecars written with the Python SDK.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rollout_core::Level;
use rollout_plugin_host::{Boundary, Executed, HostEvent, Plugin, Stream};
use serde_json::json;
use serde_json::value::RawValue;

use crate::bench::{
    Bench, assert_alive, assert_gone, call, failure, failure_within, python, raw, result,
};

/// A plugin on the SDK; the methods are indented by four spaces.
async fn start(bench: &Bench, methods: &str, rest: &str) -> Plugin {
    let source = format!(
        "import asyncio, logging, os, sys, threading, time
from rollout_plugin import BadParams, Call, Plugin, Reply, method, run

class Test(Plugin):
    name = 'test'
    version = '1'

    @method
    def echo(self, params, call):
        return Reply(params, call.payload)

    @method
    def pid(self, params, call):
        return os.getpid()

{methods}
run(Test)
"
    );
    bench.write("plugin.py", &source);
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
    let manifest = format!(
        "[plugin]\nname = \"test\"\nversion = \"1\"\n[entry.sidecar]\n\
         command = [{:?}, \"-S\", \"plugin.py\"]\nenv.PYTHONPATH = '{}'\n{rest}\n",
        python(),
        sdk.display()
    );
    bench.start(&manifest).await.unwrap()
}

#[tokio::test]
async fn the_sample_sidecar_answers_its_probe_and_leaves_nothing() {
    let bench = Bench::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let fixture = root.join("tests/smoke/plugins/sample_sidecar.toml");
    let text = std::fs::read_to_string(fixture).unwrap();
    // As the smoke run has it, but for the variable, which is not this process's to set.
    let paths = format!("{0}/python/examples:{0}/python", root.display());
    let env = format!("env = {{ PYTHONPATH = '{paths}' }}");
    let text = text.replace("env_allow = [\"PYTHONPATH\"]", &env);
    let plugin = bench.start(&text).await.unwrap();
    assert_eq!((plugin.name(), plugin.version()), ("sample_sidecar", "0.1.0"));
    assert_eq!(plugin.boundary(), Boundary::Sidecar);
    assert_eq!(plugin.digest().len(), 64);
    assert_eq!(plugin.probe().await.unwrap().unwrap().method, "echo");
    assert_eq!(bench.leftovers(), [""; 0], "the socket went when the sidecar connected");
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_call_brings_back_its_params_and_payload_unchanged() {
    let bench = Bench::new();
    let plugin = start(&bench, "", "").await;
    let params: Box<RawValue> = serde_json::from_str(r#"{"ü":[1.5,null,"\n"]}"#).unwrap();
    let payload = Bytes::from((0..300_000).map(|n| n as u8).collect::<Vec<_>>());
    let reply = plugin.call("echo", &params, payload.clone(), None).await.unwrap();
    assert_eq!((reply.result.get(), reply.payload), (params.get(), payload));
    assert_eq!(result(&plugin, "echo", json!(null)).await, json!(null));
}

#[tokio::test]
async fn calls_run_side_by_side_and_each_gets_its_own_answer() {
    let bench = Bench::new();
    let methods = "
    barrier = threading.Barrier(8)

    @method
    def together(self, params, call):
        self.barrier.wait(10)
        return params

    @method
    async def sleepy(self, params, call):
        await asyncio.sleep(params / 1000)
        return params
";
    let plugin = start(&bench, methods, "").await;
    let mut calls = tokio::task::JoinSet::new();
    let plugin = std::sync::Arc::new(plugin);
    for n in 0..8 {
        for method in ["together", "sleepy"] {
            let plugin = std::sync::Arc::clone(&plugin);
            calls.spawn(async move {
                assert_eq!(result(&plugin, method, json!(n)).await, json!(n));
            });
        }
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn what_a_handler_raises_comes_back_with_its_traceback() {
    let bench = Bench::new();
    let methods = "
    @method
    def wrong(self, params, call):
        raise ValueError('on purpose')

    @method
    async def wrong_too(self, params, call):
        raise BadParams('no such seed')

    @method
    def leave(self, params, call):
        sys.exit(3)

    @method
    def nan(self, params, call):
        return float('nan')
";
    let plugin = start(&bench, methods, "").await;
    let error = failure(&plugin, "wrong", json!(null)).await;
    assert_eq!(error.to_string(), "plugin `test`, method `wrong`: ValueError: on purpose");
    assert_eq!((error.code(), error.executed), ("user", Executed::Yes));
    let traceback = error.detail()["traceback"].to_string();
    assert!(traceback.contains("plugin.py") && traceback.contains("in wrong"), "{traceback}");
    let error = failure(&plugin, "wrong_too", json!(null)).await;
    assert_eq!(error.code(), "bad_params");
    assert!(error.to_string().ends_with("no such seed"), "{error}");
    assert_eq!(failure(&plugin, "leave", json!(null)).await.code(), "user");
    assert_eq!(failure(&plugin, "nan", json!(null)).await.code(), "user");
    assert_eq!(failure(&plugin, "nope", json!(null)).await.code(), "unknown_method");
    assert_alive(&plugin).await;
}

#[tokio::test]
async fn log_records_and_printed_lines_arrive_while_the_call_is_answered() {
    let bench = Bench::new();
    let methods = "
    @method
    def speak(self, params, call):
        print('{\"t\":\"reply\",\"id\":1}')
        print('to stderr', file=sys.stderr)
        logging.getLogger('my.part').warning('it is %d', 7)
        return 'said'
";
    let plugin = start(&bench, methods, "").await;
    assert_eq!(result(&plugin, "speak", json!(null)).await, "said");
    let lines = |want| {
        move |event: &HostEvent| match event {
            HostEvent::Output { stream, line, .. } => (*stream == want).then(|| line.clone()),
            _ => None,
        }
    };
    assert_eq!(bench.event(lines(Stream::Stdout)).await, r#"{"t":"reply","id":1}"#);
    assert_eq!(bench.event(lines(Stream::Stderr)).await, "to stderr");
    let record = |event: &HostEvent| match event {
        HostEvent::Log { level, target, message, .. } => {
            Some((*level, target.clone(), message.clone()))
        }
        _ => None,
    };
    let record = bench.event(record).await;
    assert_eq!(record, (Level::Warn, "my.part".into(), "it is 7".into()));
    assert_alive(&plugin).await;
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_in_its_handler() {
    let bench = Bench::new();
    let methods = "
    @method
    def wait(self, params, call):
        while not call.cancelled:
            time.sleep(0.001)
        print('cancelled')

    @method
    async def wait_too(self, params, call):
        try:
            await asyncio.sleep(60)
        finally:
            print('cancelled too')
";
    let plugin = start(&bench, methods, "").await;
    for (method, word) in [("wait", "cancelled"), ("wait_too", "cancelled too")] {
        let params = raw(json!(null));
        let waiting = plugin.call(method, &params, Bytes::new(), None);
        assert!(tokio::time::timeout(Duration::from_millis(100), waiting).await.is_err());
        let said = |event: &HostEvent| match event {
            HostEvent::Output { line, .. } => (line == word).then_some(()),
            _ => None,
        };
        bench.event(said).await;
    }
    assert_alive(&plugin).await;
}

#[tokio::test]
async fn a_deadline_holds_and_the_late_answer_is_dropped() {
    let bench = Bench::new();
    let methods = "
    @method
    def slow(self, params, call):
        time.sleep(params / 1000)
        print('slow is done')
        return 'late'
";
    let plugin = start(&bench, methods, "[limits]\ncall_timeout = \"5s\"").await;
    let begin = Instant::now();
    let error = failure_within(&plugin, "slow", json!(400), 100).await;
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(100) && took < Duration::from_millis(400), "{took:?}");
    assert_eq!((error.code(), error.executed), ("deadline", Executed::Maybe));
    let said = |event: &HostEvent| matches!(event, HostEvent::Output { .. }).then_some(());
    bench.event(said).await;
    assert_alive(&plugin).await;
    assert!(
        !bench.events().iter().any(|event| matches!(event, HostEvent::Exited(_))),
        "a late answer is no offence"
    );
}

#[tokio::test]
async fn an_answer_over_max_frame_fails_its_own_call_alone() {
    let bench = Bench::new();
    let methods = "
    @method
    def large(self, params, call):
        return Reply(None, bytes(params))

    @method
    def loud(self, params, call):
        logging.error('x' * 100_000)
        raise ValueError('y' * 100_000)
";
    let plugin = start(&bench, methods, "[limits]\nmax_frame = 4096").await;
    let error = failure(&plugin, "large", json!(10_000)).await;
    assert_eq!((error.code(), error.executed), ("too_large", Executed::Yes));
    let detail = error.detail();
    assert_eq!((&detail["limit"], &detail["key"]), (&json!(4096), &json!("limits.max_frame")));
    assert!(detail["got"].as_u64().unwrap() > 10_000, "{detail}");
    assert_eq!(failure(&plugin, "loud", json!(null)).await.code(), "user");
    let error = failure(&plugin, "echo", json!("x".repeat(4096))).await;
    assert_eq!((error.code(), error.executed), ("too_large", Executed::No));
    assert_alive(&plugin).await;
}

#[tokio::test]
async fn the_smaller_max_frame_holds_whoever_set_it() {
    for (class, manifest, key) in [
        ("max_frame = 5000", 100_000, "max_frame of `ready`"),
        ("max_frame = 100_000", 5000, "limits.max_frame"),
    ] {
        let bench = Bench::new();
        let methods = format!(
            "
    {class}

    @method
    def large(self, params, call):
        return Reply(None, bytes(params))
"
        );
        let plugin = start(&bench, &methods, &format!("[limits]\nmax_frame = {manifest}")).await;
        let failures = [
            (failure(&plugin, "echo", json!("x".repeat(5000))).await, Executed::No),
            (failure(&plugin, "large", json!(5000)).await, Executed::Yes),
        ];
        for (error, executed) in failures {
            assert_eq!((error.code(), error.executed), ("too_large", executed), "{error}");
            let detail = error.detail();
            assert_eq!((&detail["limit"], &detail["key"]), (&json!(5000), &json!(key)));
            assert!(error.to_string().contains("5000 bytes"), "{error}");
        }
        assert_alive(&plugin).await;
    }
}

#[tokio::test]
async fn more_calls_than_either_side_takes_are_refused_at_once() {
    for (class, manifest) in [("max_in_flight = 2", 64), ("", 2)] {
        let bench = Bench::new();
        let methods = format!(
            "    {class}

    @method
    def slow(self, params, call):
        time.sleep(0.1)
"
        );
        let rest = format!("[limits]\nmax_in_flight = {manifest}");
        let plugin = start(&bench, &methods, &rest).await;
        let slow = || call(&plugin, "slow", json!(null));
        let (a, b, c) = tokio::join!(slow(), slow(), slow());
        a.unwrap();
        b.unwrap();
        let error = c.unwrap_err();
        assert_eq!((error.code(), error.executed), ("overloaded", Executed::No));
        assert!(error.to_string().contains("2 calls in flight"), "{error}");
        assert_alive(&plugin).await;
    }
}

#[tokio::test]
async fn shutdown_lets_the_plugin_put_things_in_order_and_fails_the_calls_under_way() {
    let bench = Bench::new();
    let methods = "
    def shutdown(self):
        logging.info('put in order')

    @method
    def wait(self, params, call):
        time.sleep(60)
";
    let plugin = start(&bench, methods, "").await;
    let pid = result(&plugin, "pid", json!(null)).await.as_i64().unwrap();
    let (waiting, ended) = tokio::join!(call(&plugin, "wait", json!(null)), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begin = Instant::now();
        plugin.shutdown().await.map(|()| begin.elapsed())
    });
    let waiting = waiting.unwrap_err();
    assert_eq!((waiting.code(), waiting.executed), ("closed", Executed::Maybe));
    assert!(ended.unwrap() < Duration::from_millis(1000), "no part of the ladder but the first");
    assert_gone(pid as i32);
    let exited = |event: &HostEvent| match event {
        HostEvent::Exited(exited) => Some(exited.clone()),
        _ => None,
    };
    let exited = bench.event(exited).await;
    assert_eq!((exited.code, exited.signal, exited.expected), (Some(0), None, true));
    let logged = |event: &HostEvent| match event {
        HostEvent::Log { message, .. } => (message == "put in order").then_some(()),
        _ => None,
    };
    bench.event(logged).await;
    plugin.shutdown().await.unwrap();
    assert_eq!(failure(&plugin, "echo", json!(null)).await.code(), "closed");
}

#[tokio::test]
async fn a_sidecar_leaves_by_itself_when_its_socket_ends() {
    let bench = Bench::new();
    let methods = "
    @method
    def hang_up(self, params, call):
        import socket
        for fd in range(3, 64):
            try:
                socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
";
    let plugin = start(&bench, methods, "").await;
    let error = failure(&plugin, "hang_up", json!(null)).await;
    assert_eq!((error.code(), error.executed), ("crashed", Executed::Maybe));
    assert!(error.to_string().contains("it exited with 0"), "{error}");
}

#[tokio::test]
async fn a_constructor_that_fails_refuses_with_its_reason() {
    let bench = Bench::new();
    let source = "
from rollout_plugin import Plugin, run
class Test(Plugin):
    name, version = 'test', '1'
    def __init__(self, config):
        raise KeyError(config['key'])
run(Test)
";
    bench.write("plugin.py", source);
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
    let manifest = format!(
        "[plugin]\nname = \"test\"\nversion = \"1\"\n[entry.sidecar]\n\
         command = [\"python3\", \"-S\", \"plugin.py\"]\nenv.PYTHONPATH = '{}'\n[config]\nkey = 5",
        sdk.display()
    );
    let error = bench.start(&manifest).await.err().unwrap();
    assert_eq!(error.to_string(), "plugin `test`: it was refused: KeyError: 5");
}
