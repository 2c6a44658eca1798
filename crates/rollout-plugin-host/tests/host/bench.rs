//! A temp dir, manifests in it, and what the plugins say.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use std::{fs, thread};

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rollout_plugin_host::{HostConfig, HostEvent, Manifest, Plugin, PluginError, Reply};
use rollout_process::Spawn;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than anything takes here that takes place at all.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// The interpreter itself, for a manifest. What a version manager puts in front of it is asked for it
/// at each start, which takes longer than most of what is tried here.
pub(crate) fn python() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        let ask = ["-I", "-S", "-c", "import sys; print(sys.executable)"];
        let told = Spawn::new("python3").args(ask).output(Some(LONG)).unwrap();
        assert!(told.exit.success(), "python3: {}", told.exit);
        String::from_utf8(told.stdout).unwrap().trim().to_owned()
    })
}

pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) host: HostConfig,
    events: Arc<Mutex<Vec<HostEvent>>>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&events);
        let host = HostConfig {
            sidecar_dir: dir.path().join("sidecars"),
            on_event: Arc::new(move |event| told.lock().unwrap().push(event)),
        };
        Self { dir, host, events }
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn manifest(&self, text: &str) -> Manifest {
        Manifest::load(&self.write("plugin.toml", text)).unwrap()
    }

    pub(crate) async fn start(&self, text: &str) -> Result<Plugin, PluginError> {
        Plugin::start(self.manifest(text), &self.host).await
    }

    pub(crate) fn events(&self) -> Vec<HostEvent> {
        self.events.lock().unwrap().clone()
    }

    /// Waits for an event for which `pick` gives something.
    pub(crate) async fn event<T>(&self, mut pick: impl FnMut(&HostEvent) -> Option<T>) -> T {
        let end = Instant::now() + LONG;
        loop {
            if let Some(found) = self.events().iter().find_map(&mut pick) {
                return found;
            }
            assert!(Instant::now() < end, "no such event in {:#?}", self.events());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The names of what is in the sidecar directory.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.host.sidecar_dir) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

pub(crate) fn raw(value: Value) -> Box<RawValue> {
    to_raw_value(&value).unwrap()
}

pub(crate) async fn call(
    plugin: &Plugin,
    method: &str,
    params: Value,
) -> Result<Reply, PluginError> {
    plugin.call(method, &raw(params), Bytes::new(), None).await
}

/// Calls and expects a result.
pub(crate) async fn result(plugin: &Plugin, method: &str, params: Value) -> Value {
    serde_json::from_str(call(plugin, method, params).await.unwrap().result.get()).unwrap()
}

/// Calls and expects an error.
pub(crate) async fn failure(plugin: &Plugin, method: &str, params: Value) -> PluginError {
    call(plugin, method, params).await.unwrap_err()
}

/// Calls with a deadline of so many milliseconds, and expects an error.
pub(crate) async fn failure_within(
    plugin: &Plugin,
    method: &str,
    params: Value,
    ms: u64,
) -> PluginError {
    let deadline = Some(Duration::from_millis(ms));
    plugin.call(method, &raw(params), Bytes::new(), deadline).await.unwrap_err()
}

/// The plugin answers as if nothing had happened.
pub(crate) async fn assert_alive(plugin: &Plugin) {
    assert_eq!(result(plugin, "echo", json!([1])).await, json!([1]));
}

/// Whether a process has this pid.
pub(crate) fn exists(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// Waits until no process has this pid.
pub(crate) fn assert_gone(pid: i32) {
    let end = Instant::now() + LONG;
    while exists(pid) {
        assert!(Instant::now() < end, "process {pid} lives on");
        thread::sleep(Duration::from_millis(2));
    }
}
