//! Where plugins are measured: a private directory that is removed, and manifests.

use std::env::consts::DLL_PREFIX;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use rollout_core::{Clock, Mono, SystemClock};
use rollout_plugin_host::{HostConfig, HostEvent, Manifest, Plugin};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::error::BenchError;

/// What plugins are started on.
pub(crate) struct Stage {
    dir: TempDir,
    host: HostConfig,
    /// When a sidecar was last ready again.
    pub(crate) restarted: watch::Receiver<Mono>,
}

impl Stage {
    /// In a temporary directory of the system's, which may be in memory.
    pub(crate) fn open() -> Result<Self, BenchError> {
        Self::within(&env::temp_dir())
    }

    /// In a temporary directory in the workspace's `data`, so that what is synced goes to a disk.
    pub(crate) fn on_disk() -> Result<Self, BenchError> {
        let data = in_workspace("data");
        fs::create_dir_all(&data).map_err(BenchError::io("cannot create `data`"))?;
        Self::within(&data)
    }

    fn within(parent: &Path) -> Result<Self, BenchError> {
        let dir = tempfile::Builder::new().prefix("rollout-").tempdir_in(parent);
        let dir = dir.map_err(BenchError::io("no temporary directory"))?;
        let (tell, restarted) = watch::channel(Mono(0));
        let on_event = move |event: HostEvent| {
            if let HostEvent::Restarted(_) = event {
                tell.send_replace(SystemClock.now());
            }
        };
        let host =
            HostConfig { sidecar_dir: dir.path().join("sidecars"), on_event: Arc::new(on_event) };
        Ok(Self { dir, host, restarted })
    }

    /// A directory for temporary files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a manifest for a library of the workspace.
    pub(crate) fn library(&self, name: &str, library: &Path) -> Result<PathBuf, BenchError> {
        let stem = library.file_stem().unwrap_or_default().to_string_lossy();
        let stem = library.with_file_name(stem.strip_prefix(DLL_PREFIX).unwrap_or(&stem));
        let version = env!("CARGO_PKG_VERSION");
        let text = format!(
            "[plugin]\nname = \"{name}\"\nversion = \"{version}\"\n\n[entry.cdylib]\npath = {stem:?}\n"
        );
        let path = self.dir().join(format!("{name}.toml"));
        fs::write(&path, text).map_err(BenchError::io("cannot write a manifest"))?;
        Ok(path)
    }

    pub(crate) async fn start(&self, manifest: &Path) -> Result<Arc<Plugin>, BenchError> {
        Ok(Arc::new(Plugin::start(Manifest::load(manifest)?, &self.host).await?))
    }
}

/// A manifest in the workspace.
pub(crate) fn in_workspace(path: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).join(path)
}

/// The sidecar that is measured.
pub(crate) fn sidecar() -> PathBuf {
    in_workspace("crates/rollout-bench/plugins/bench_sidecar.toml")
}
