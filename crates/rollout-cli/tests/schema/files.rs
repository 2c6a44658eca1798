//! Files with every key that there is, and those in the tree.

use std::fs;
use std::path::{Path, PathBuf};

use rollout_core::{CoordinatorConfig, JobFile, WorkerConfig};
use rollout_plugin_host::Manifest;
use serde_json::Value;

/// What has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Config,
    Job,
    Manifest,
    Event,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Config, Self::Job, Self::Manifest, Self::Event];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Job => "job",
            Self::Manifest => "manifest",
            Self::Event => "event",
        }
    }
}

/// A file with every key that it may have, and how it is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File {
    pub(crate) kind: Kind,
    text: &'static str,
    read: fn(&str) -> Result<(), String>,
}

impl File {
    pub(crate) fn value(&self) -> Value {
        json(self.text)
    }

    /// Whether the program takes this for such a file.
    pub(crate) fn is_read(&self, value: &Value) -> bool {
        let text = toml::Value::try_from(value).and_then(|value| toml::to_string(&value));
        text.is_ok_and(|text| (self.read)(&text).is_ok())
    }
}

/// A coordinator's, a worker's, a library's, a sidecar's and a job's.
pub(crate) const FILES: [File; 5] = [
    File {
        kind: Kind::Config,
        text: "listen = '127.0.0.1:0'\nstorage = 'c.db'\nrun_id = '01ARZ3NDEKTSV4RRFFQ69G5FAV'\n\
               tls_dir = 'tls'\n\
               [timing]\nheartbeat_interval = '500ms'\nworker_self_fence_timeout = '4s'\n\
               coordinator_failure_timeout = '5s'\nclock_skew_budget = '250ms'\n\
               [events]\nworker_heartbeat = 'first'\nworker_rejected_interval = '1s'\n\
               [limits]\nmax_connections = 9\nmax_connections_per_peer = 9\nmax_handshakes = 9\n\
               max_workers = 9\nmax_line = 2000\nhandshake_timeout = '1s'\nheader_timeout = '1s'\n\
               registration_interval = '1s'\n",
        read: |text| CoordinatorConfig::parse(text).map(drop).map_err(|error| error.to_string()),
    },
    File {
        kind: Kind::Config,
        text: "coordinator = 'localhost:50051'\nstorage = 'w.db'\nsidecar_dir = 's'\n\
               run_id = '01ARZ3NDEKTSV4RRFFQ69G5FAV'\nca = 'ca.pem'\ncert = 'w.pem'\nkey = 'w.key'\n\
               start_timeout = '1s'\ndrain_timeout = '1s'\n[timing]\nheartbeat_interval = '1s'\n",
        read: |text| WorkerConfig::parse(text).map(drop).map_err(|error| error.to_string()),
    },
    File {
        kind: Kind::Manifest,
        text: "[plugin]\nname = 'a'\nversion = '1'\n[entry.cdylib]\npath = 'a'\n\
               sha256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'\n\
               [probe]\nmethod = 'm'\nparams.a = 1\n\
               [limits]\nstart_timeout = '1s'\ncall_timeout = '1s'\ncancel_grace = '1s'\n\
               shutdown_grace = '1s'\nmax_in_flight = 9\nmax_frame = 100000\n\
               [restart]\nbackoff_max = '1s'\nmax_crashes = 3\nwindow = '1s'\n[config]\na.b = 1\n",
        read: manifest,
    },
    File {
        kind: Kind::Manifest,
        text: "[plugin]\nname = 'a'\nversion = '1'\n[entry.sidecar]\ncommand = ['a', 'b']\n\
               cwd = 'c'\nenv.A = 'a'\nenv_allow = ['B']\n[limits]\nmemory = 2000000\n\
               open_files = 99\n[restart]\nbackoff_initial = '50ms'\n",
        read: manifest,
    },
    File {
        kind: Kind::Job,
        text: "[job]\nname = 'n'\nplugin = 'p'\nmethod = 'm'\nitems = 3\nseed = 7\nbatch = 16\n\
               max_attempts = 2\nmax_losses = 4\nredispatch = 'failed'\nitem_timeout = '1m'\n\
               progress_timeout = '30s'\nstart_timeout = '5s'\n[config]\na.b = 1\n\
               [output]\ndir = 'out'\nformat = 'jsonl'\n[workers]\ncount = 3\n",
        read: |text| JobFile::parse(text).map(drop).map_err(|error| error.to_string()),
    },
];

fn manifest(text: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = dir.path().join("plugin.toml");
    fs::write(&path, text).map_err(|error| error.to_string())?;
    Manifest::load(&path).map(drop).map_err(|error| error.to_string())
}

/// TOML as JSON.
pub(crate) fn json(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

/// Every value in a value, itself first, with the pointer to it.
pub(crate) fn values(value: &Value) -> Vec<(String, Value)> {
    let mut found = vec![(String::new(), value.clone())];
    let inside: Vec<(String, &Value)> = match value {
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(n, v)| (n.to_string(), v)).collect(),
        _ => Vec::new(),
    };
    for (key, value) in inside {
        let below = values(value).into_iter();
        found.extend(below.map(|(place, value)| (format!("/{key}{place}"), value)));
    }
    found
}

/// The part of a schema that is about the value at a place, or nothing.
pub(crate) fn of_place(schema: &Value, place: &str) -> Value {
    let mut here = vec![schema];
    for key in place.split('/').skip(1) {
        let either = |schema: &&Value| schema["anyOf"].is_array();
        let mut all = here.clone();
        for schema in here.iter().filter(|schema| either(schema)) {
            all.extend(schema["anyOf"].as_array().into_iter().flatten());
        }
        here = all.into_iter().filter_map(|schema| schema["properties"].get(key)).collect();
    }
    let either = here.iter().flat_map(|schema| schema["anyOf"].as_array().into_iter().flatten());
    let mut all = here.iter().copied().chain(either);
    let bounded = all.clone().find(|schema| schema.get("minimum").is_some());
    bounded.or_else(|| all.next()).cloned().unwrap_or(Value::Null)
}

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Each configuration, job and manifest in the tree, with its kind.
pub(crate) fn in_tree() -> Vec<(PathBuf, Kind)> {
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found
}

fn walk(dir: &Path, found: &mut Vec<(PathBuf, Kind)>) {
    const NOT_OURS: [&str; 3] = ["target", "data", ".git"];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() && !NOT_OURS.contains(&&*name) {
            walk(&path, found);
        } else if name.ends_with(".toml") {
            let text = fs::read_to_string(&path).unwrap();
            found.extend(kind(&toml::from_str(&text).unwrap()).map(|kind| (path, kind)));
        }
    }
}

/// What a file is, by its keys.
fn kind(file: &toml::Table) -> Option<Kind> {
    let has = |key: &str| file.contains_key(key);
    if has("plugin") && has("entry") {
        Some(Kind::Manifest)
    } else if has("job") {
        Some(Kind::Job)
    } else if has("storage") && (has("listen") || has("coordinator")) {
        Some(Kind::Config)
    } else {
        None
    }
}

/// Whether a path, relative to the directory of `file`, is that of the schema of `kind`.
pub(crate) fn leads_to(file: &Path, named: &str, kind: Kind) -> bool {
    let schema = root().join(format!("docs/schemas/{}.json", kind.name()));
    let there = file.parent().map(|dir| dir.join(named));
    there.and_then(|path| path.canonicalize().ok()).is_some_and(|path| path == schema)
}
