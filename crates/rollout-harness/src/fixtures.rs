//! The fixtures of a run: read once, and written into the run's directory with the names, paths
//! and addresses of this run.
//!
//! What is written differs from what was read only in the keys named here. A key that nobody knows
//! stays, so that a broken fixture reaches the binary, whose business it is to refuse it.

mod layout;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rollout_core::{RunId, TimeBudget, WorkerId};
use toml::{Table, Value};

pub use layout::{Claim, Layout};

/// Why a fixture cannot be used, or the run's directory not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// A file or directory cannot be read, written, moved or removed.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A fixture is not TOML at all.
    #[error("{} is not TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// Another run works in the same directory.
    #[error("another run is at work in {}; wait for it, or give --root another directory", dir.display())]
    Taken {
        /// The directory.
        dir: PathBuf,
    },
}

/// Turns an I/O error into one that says what was tried on which file.
pub(crate) fn on(
    doing: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> FixtureError {
    let path = path.into();
    move |source| FixtureError::File { doing, path, source }
}

/// The fixtures as read.
#[derive(Debug, Clone)]
pub struct Fixtures {
    coordinator: Table,
    worker: Table,
    /// The manifests with their file names, in the order of these.
    manifests: Vec<(String, Table)>,
    /// The directory that relative paths in a manifest are relative to.
    plugins: PathBuf,
}

impl Fixtures {
    /// Reads `coordinator.toml`, `worker.toml` and `plugins/*.toml` in `dir`.
    ///
    /// # Errors
    /// When a file cannot be read or is not TOML.
    pub fn read(dir: &Path) -> Result<Self, FixtureError> {
        let dir = dir.canonicalize().map_err(on("find", dir))?;
        let plugins = dir.join("plugins");
        let mut files: Vec<_> = fs::read_dir(&plugins)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>())
            .map_err(on("read", &plugins))?;
        files.retain(|file| file.extension() == Some(OsStr::new("toml")));
        files.sort();
        let name =
            |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let manifests = files.iter().map(|file| Ok((name(file), table(file)?)));
        Ok(Self {
            coordinator: table(&dir.join("coordinator.toml"))?,
            worker: table(&dir.join("worker.toml"))?,
            manifests: manifests.collect::<Result<_, FixtureError>>()?,
            plugins,
        })
    }

    /// The coordinator's time budget. One that is malformed reads as the default: the binary
    /// refuses it, and the run never comes to a deadline.
    #[must_use]
    pub fn timing(&self) -> TimeBudget {
        let timing = self.coordinator.get("timing").cloned();
        timing.and_then(|table| table.try_into().ok()).unwrap_or_default()
    }

    /// The line that announces the CA which the coordinator makes in its `tls_dir`, if it has one.
    #[must_use]
    pub fn ca_line(&self) -> Option<String> {
        let dir = self.coordinator.get("tls_dir")?.as_str()?;
        Some(format!("Generated dev CA at {}", Path::new(dir).join("ca.pem").display()))
    }

    /// The plugins' names.
    #[must_use]
    pub fn plugin_names(&self) -> Vec<String> {
        let name = |table: &Table| Some(table.get("plugin")?.get("name")?.as_str()?.to_owned());
        self.manifests
            .iter()
            .map(|(file, table)| name(table).unwrap_or_else(|| file.clone()))
            .collect()
    }

    /// The coordinator's file: the run's id, and another port if one is asked for.
    #[must_use]
    pub fn coordinator(&self, run: RunId, port: Option<u16>) -> Table {
        let mut file = self.coordinator.clone();
        file.insert("run_id".into(), run.to_string().into());
        let listen = file.get("listen").and_then(Value::as_str);
        let listen: Option<SocketAddr> = listen.and_then(|listen| listen.parse().ok());
        if let (Some(mut listen), Some(port)) = (listen, port) {
            listen.set_port(port);
            file.insert("listen".into(), listen.to_string().into());
        }
        file
    }

    /// Writes the manifests with absolute paths: the library that cargo built, and the directory
    /// each sidecar starts in.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_plugins(&self, layout: &Layout, cdylib: &Path) -> Result<(), FixtureError> {
        for (name, manifest) in &self.manifests {
            let mut manifest = manifest.clone();
            if let Some(entry) = entry(&mut manifest, "cdylib") {
                self.rewrite_cdylib(entry, cdylib);
            }
            if let Some(entry) = entry(&mut manifest, "sidecar") {
                self.rewrite_sidecar(entry);
            }
            write(&layout.manifest(name), &manifest.to_string())?;
        }
        Ok(())
    }

    /// A library of the built one's name is the built one, wherever the fixture expected it.
    fn rewrite_cdylib(&self, entry: &mut Table, built: &Path) {
        let Some(path) = entry.get("path").and_then(Value::as_str).map(PathBuf::from) else {
            return;
        };
        let stem = built.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let stem = stem.strip_prefix(std::env::consts::DLL_PREFIX).unwrap_or(&stem).to_owned();
        let path = if path.file_name() == Some(OsStr::new(&stem)) {
            built.with_file_name(&stem)
        } else {
            self.plugins.join(path)
        };
        entry.insert("path".into(), text(&path));
    }

    fn rewrite_sidecar(&self, entry: &mut Table) {
        let cwd = entry.get("cwd").and_then(Value::as_str).unwrap_or_default();
        let cwd = self.plugins.join(cwd);
        entry.insert("cwd".into(), text(&cwd));
        let command = entry.get_mut("command").and_then(Value::as_array_mut);
        if let Some(program) = command.and_then(|command| command.first_mut())
            && let Some(path) = program.as_str().filter(|path| path.contains('/'))
        {
            *program = text(&self.plugins.join(path));
        }
    }

    /// The manifests as written, relative to the run's root.
    #[must_use]
    pub fn manifests(&self, layout: &Layout) -> Vec<PathBuf> {
        self.manifests.iter().map(|(name, _)| layout.relative(&format!("plugins/{name}"))).collect()
    }

    /// A worker's file: the run's id, a database of its own beside the fixture's, and the
    /// coordinator's address if that was not known before.
    #[must_use]
    pub fn worker(&self, name: &str, run: RunId, coordinator: Option<&str>) -> Table {
        let mut file = self.worker.clone();
        file.insert("run_id".into(), run.to_string().into());
        if let Some(storage) = file.get("storage").and_then(Value::as_str) {
            let own = Path::new(storage).with_file_name(format!("{name}.db"));
            file.insert("storage".into(), text(&own));
        }
        if let Some(address) = coordinator {
            file.insert("coordinator".into(), address.into());
        }
        file
    }

    /// Writes a worker's file and its id.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_worker(
        &self,
        layout: &Layout,
        name: &str,
        (run, id): (RunId, WorkerId),
        coordinator: Option<&str>,
    ) -> Result<(), FixtureError> {
        write(&layout.config(name), &self.worker(name, run, coordinator).to_string())?;
        write(&layout.id(name), &format!("{id}\n"))
    }
}

fn entry<'a>(manifest: &'a mut Table, boundary: &str) -> Option<&'a mut Table> {
    manifest.get_mut("entry")?.as_table_mut()?.get_mut(boundary)?.as_table_mut()
}

fn text(path: &Path) -> Value {
    path.to_string_lossy().into_owned().into()
}

fn table(file: &Path) -> Result<Table, FixtureError> {
    let text = fs::read_to_string(file).map_err(on("read", file))?;
    text.parse().map_err(|source| FixtureError::Syntax { path: file.into(), source })
}

pub(crate) fn write(file: &Path, text: &str) -> Result<(), FixtureError> {
    fs::write(file, text).map_err(on("write", file))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    const COORDINATOR: &str = "listen = \"127.0.0.1:50051\"\nstorage = \"./data/smoke/coord.db\"\n\
        tls_dir = \"./data/smoke/tls\"\nsurprise = 1\n\
        [timing]\nheartbeat_interval = \"100ms\"\n";
    const WORKER: &str = "coordinator = \"127.0.0.1:50051\"\nstorage = \"./data/smoke/worker.db\"\n\
        [timing]\nsurprise = true\n";
    const CDYLIB: &str = "[plugin]\nname = \"a\"\n[entry.cdylib]\npath = \"../../t/sample\"\n";
    const SIDECAR: &str =
        "[plugin]\nname = \"b\"\n[entry.sidecar]\ncommand = [\"./run\", \"x\"]\ncwd = \"sub\"\n";

    fn fixtures() -> (TempDir, Claim, Fixtures) {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("fixtures");
        fs::create_dir_all(from.join("plugins")).unwrap();
        for (name, text) in [
            ("coordinator.toml", COORDINATOR),
            ("worker.toml", WORKER),
            ("plugins/2.toml", SIDECAR),
            ("plugins/1.toml", CDYLIB),
            ("plugins/readme.md", "not a manifest"),
        ] {
            fs::write(from.join(name), text).unwrap();
        }
        let claim = Claim::take(dir.path()).unwrap();
        claim.clear(false).unwrap();
        let fixtures = Fixtures::read(&from).unwrap();
        (dir, claim, fixtures)
    }

    fn read(file: &Path) -> Table {
        fs::read_to_string(file).unwrap().parse().unwrap()
    }

    #[test]
    fn the_coordinator_gets_the_run_and_the_port_and_keeps_every_other_key() {
        let (_dir, _claim, fixtures) = fixtures();
        let run = RunId::generate();
        let written = fixtures.coordinator(run, Some(0));
        assert_eq!(written["listen"].as_str(), Some("127.0.0.1:0"));
        assert_eq!(written["run_id"].as_str(), Some(run.to_string().as_str()));
        assert_eq!(written["surprise"].as_integer(), Some(1));
        assert_eq!(written["timing"], fixtures.coordinator["timing"]);
        let written = fixtures.coordinator(run, None);
        assert_eq!(written["listen"], fixtures.coordinator["listen"]);
    }

    #[test]
    fn each_worker_gets_a_database_an_id_and_the_address_and_keeps_every_other_key() {
        let (_dir, claim, fixtures) = fixtures();
        let ids = (RunId::generate(), WorkerId::generate());
        fixtures.write_worker(&claim.layout, "w2", ids, Some("127.0.0.1:7")).unwrap();
        let written = read(&claim.layout.config("w2"));
        assert_eq!(written["storage"].as_str(), Some("./data/smoke/w2.db"));
        assert_eq!(written["coordinator"].as_str(), Some("127.0.0.1:7"));
        assert_eq!(written["timing"]["surprise"].as_bool(), Some(true));
        assert_eq!(fs::read_to_string(claim.layout.id("w2")).unwrap().trim(), ids.1.to_string());
    }

    #[test]
    fn manifests_get_absolute_paths_and_the_library_that_was_built() {
        let (dir, claim, fixtures) = fixtures();
        let built = Path::new("/t/libsample").with_extension(std::env::consts::DLL_EXTENSION);
        fixtures.write_plugins(&claim.layout, &built).unwrap();
        let cdylib = read(&claim.layout.manifest("1.toml"));
        assert_eq!(cdylib["entry"]["cdylib"]["path"].as_str(), Some("/t/sample"));
        let sidecar = read(&claim.layout.manifest("2.toml"));
        let plugins = dir.path().canonicalize().unwrap().join("fixtures/plugins");
        let sidecar = &sidecar["entry"]["sidecar"];
        assert_eq!(sidecar["cwd"].as_str().map(Path::new), Some(plugins.join("sub").as_path()));
        assert_eq!(sidecar["command"][0].as_str().map(Path::new), Some(&*plugins.join("./run")));
        assert_eq!(sidecar["command"][1].as_str(), Some("x"));
        assert_eq!(fixtures.plugin_names(), ["a", "b"]);
        assert_eq!(fixtures.manifests(&claim.layout)[1], Path::new("data/smoke/plugins/2.toml"));
        let other = Path::new("/t/libother.so");
        fixtures.write_plugins(&claim.layout, other).unwrap();
        let path = read(&claim.layout.manifest("1.toml"))["entry"]["cdylib"]["path"].clone();
        assert_eq!(path.as_str().map(Path::new), Some(&*plugins.join("../../t/sample")));
    }

    #[test]
    fn the_judge_is_given_the_budget_of_the_file_and_a_malformed_one_is_left_to_the_binary() {
        let (_dir, _claim, mut fixtures) = fixtures();
        assert_eq!(fixtures.timing().heartbeat_interval, Duration::from_millis(100));
        assert_eq!(fixtures.ca_line().unwrap(), "Generated dev CA at ./data/smoke/tls/ca.pem");
        fixtures.coordinator.insert("timing".into(), "soon".into());
        assert_eq!(fixtures.timing(), TimeBudget::default());
    }

    #[test]
    fn a_fixture_that_is_missing_or_no_toml_is_named() {
        let (dir, _claim, _) = fixtures();
        let from = dir.path().join("fixtures");
        fs::write(from.join("worker.toml"), "= 1").unwrap();
        let error = Fixtures::read(&from).unwrap_err();
        assert!(matches!(error, FixtureError::Syntax { .. }));
        assert!(error.to_string().contains("worker.toml is not TOML"), "{error}");
        fs::remove_file(from.join("worker.toml")).unwrap();
        let error = Fixtures::read(&from).unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains("worker.toml"), "{error}");
    }
}
