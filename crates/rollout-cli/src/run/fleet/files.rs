//! The files of a fleet's processes: configurations, databases, certificates, what they write.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rollout_core::ids::WorkerId;
use toml::Value;

use super::Make;
use super::journal::Journal;
use crate::run::dir::{RunDir, write_json, write_whole};
use crate::run::error::RunError;

/// Where a process's two outputs go.
pub(super) struct Journals {
    pub(super) events: Journal,
    pub(super) errors: Journal,
}

pub(super) struct Files {
    dir: RunDir,
    manifest: PathBuf,
    drain_timeout: Duration,
    /// Where the coordinator listens, once it does: there it listens again.
    listen: String,
}

impl Files {
    pub(super) fn new(make: Make) -> Result<Self, RunError> {
        let Make { dir, manifest, drain_timeout, .. } = make;
        Ok(Self { dir, manifest, drain_timeout, listen: "127.0.0.1:0".to_owned() })
    }

    fn state(&self, name: &str) -> PathBuf {
        self.dir.state().join(name)
    }

    pub(super) fn journal(&self, place: usize) -> Journals {
        let name = match place {
            0 => "coordinator".to_owned(),
            n => format!("worker-{n}"),
        };
        let file = |ending: &str| Journal(self.dir.events().join(format!("{name}.{ending}")));
        Journals { events: file("ndjson"), errors: file("stderr") }
    }

    pub(super) fn coordinator_args(&self) -> Vec<OsString> {
        let config = self.state("coordinator.toml").into_os_string();
        vec!["coordinator".into(), "run".into(), "--config".into(), config]
    }

    pub(super) fn worker_args(&self, place: usize, id: Option<WorkerId>) -> Vec<OsString> {
        let config = self.state(&format!("worker-{place}.toml")).into_os_string();
        let mut args = vec!["worker".into(), "run".into(), "--config".into(), config];
        args.extend(id.into_iter().flat_map(|id| ["--worker-id".into(), id.to_string().into()]));
        args.extend(["--plugin".into(), self.manifest.clone().into_os_string()]);
        args
    }

    pub(super) fn write_coordinator(&self) -> Result<(), RunError> {
        let mut events = toml::Table::new();
        events.insert("worker_heartbeat".to_owned(), "first".into());
        write(
            &self.state("coordinator.toml"),
            [
                ("listen", self.listen.clone().into()),
                ("storage", path(&self.state("coordinator.db"))),
                ("tls_dir", path(&self.dir.tls())),
                ("events", events.into()),
            ],
        )
    }

    /// The coordinator has a port: it keeps it, and everybody is told.
    pub(super) fn listens(&mut self, address: &str, workers: usize) -> Result<(), RunError> {
        if self.listen == address {
            return Ok(());
        }
        self.listen = address.to_owned();
        self.write_coordinator()?;
        for place in 1..=workers {
            self.write_worker(place)?;
        }
        write_whole(&self.dir.address(), |out| out.write_all(address.as_bytes()))
    }

    fn write_worker(&self, place: usize) -> Result<(), RunError> {
        let drain = humantime::format_duration(self.drain_timeout).to_string();
        write(
            &self.state(&format!("worker-{place}.toml")),
            [
                ("coordinator", self.listen.clone().into()),
                ("storage", path(&self.state(&format!("worker-{place}.db")))),
                ("tls_dir", path(&self.dir.tls())),
                ("sidecar_dir", path(&self.state("sidecars"))),
                ("drain_timeout", drain.into()),
            ],
        )
    }

    /// Nobody listens any more.
    pub(super) fn closed(&self) {
        // One that stays is no harm: whether something runs is told by the directory's lock.
        let _ = fs::remove_file(self.dir.address());
    }
}

fn path(path: &Path) -> Value {
    path.to_string_lossy().into_owned().into()
}

fn write<const N: usize>(file: &Path, keys: [(&str, Value); N]) -> Result<(), RunError> {
    let table: toml::Table = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    write_whole(file, |out| out.write_all(table.to_string().as_bytes()))
}

/// The workers' ids, which stay theirs when a run is resumed: whoever comes back is known at once, and
/// what it had is given to others.
pub(super) fn worker_ids(dir: &RunDir, workers: usize) -> Result<Vec<WorkerId>, RunError> {
    let path = dir.state().join("workers.json");
    let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut ids: Vec<WorkerId> = known.unwrap_or_default();
    if ids.len() < workers {
        ids.resize_with(workers, WorkerId::generate);
        write_json(&path, &ids)?;
    }
    ids.truncate(workers);
    Ok(ids)
}
