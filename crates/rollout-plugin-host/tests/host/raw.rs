//! Sidecars that speak the wire by hand, in a few lines of Python.

use rollout_core::event::PluginExited;
use rollout_plugin_host::{HostEvent, Plugin, PluginError};
use serde_json::json;

use crate::bench::{Bench, python, result};

/// Everything a sidecar needs, so that a test is only what is wrong with it.
const PRELUDE: &str = r#"
import json, os, signal, socket, struct, sys, time
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(os.environ["ROLLOUT_PLUGIN_SOCKET"])
    return s
def recv(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            sys.exit(0)
        data += more
    return data
def read(s):
    j, t = struct.unpack(">II", recv(s, 8))
    return json.loads(recv(s, j)), recv(s, t)
def send(s, message, tail=b""):
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    s.sendall(struct.pack(">II", len(data), len(tail)) + data + tail)
METHODS = [{"name": name} for name in ("echo", "pid", "odd")]
def ready(s, **more):
    read(s)
    send(s, {"t": "ready", "proto": 1, "token": os.environ["ROLLOUT_PLUGIN_TOKEN"],
             "name": "raw", "version": "1", "methods": METHODS} | more)
def serve(s, odd=lambda s, call: None):
    while True:
        message, tail = read(s)
        if message["t"] == "shutdown":
            sys.exit(0)
        if message["t"] != "call":
            continue
        if message["method"] == "odd":
            odd(s, message)
        else:
            result = os.getpid() if message["method"] == "pid" else message["params"]
            send(s, {"t": "reply", "id": message["id"], "result": result}, tail)
"#;

pub(crate) fn manifest(bench: &Bench, script: &str, rest: &str) -> String {
    bench.write("raw.py", &format!("{PRELUDE}\n{script}\n"));
    format!(
        "[plugin]\nname = \"raw\"\nversion = \"1\"\n[entry.sidecar]\n\
         command = [{:?}, \"-S\", \"raw.py\"]\n{rest}\n",
        python()
    )
}

pub(crate) async fn start(bench: &Bench, script: &str, rest: &str) -> Result<Plugin, PluginError> {
    bench.start(&manifest(bench, script, rest)).await
}

/// A sidecar that is right in everything but the method `odd`, a function of `s` and `call`.
pub(crate) async fn odd(bench: &Bench, odd: &str, rest: &str) -> Plugin {
    bench.start(&odd_manifest(bench, odd, rest)).await.unwrap()
}

pub(crate) fn odd_manifest(bench: &Bench, odd: &str, rest: &str) -> String {
    let script = format!("def odd(s, call):\n    {odd}\ns = connect(); ready(s); serve(s, odd)");
    manifest(bench, &script, rest)
}

pub(crate) fn exited(event: &HostEvent) -> Option<PluginExited> {
    match event {
        HostEvent::Exited(exited) => Some(exited.clone()),
        _ => None,
    }
}

pub(crate) async fn pid(plugin: &Plugin) -> i32 {
    result(plugin, "pid", json!(null)).await.as_i64().unwrap() as i32
}
