//! Jobs to run, in a directory that is removed.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use rollout_core::job::item_seed;
use rollout_process::Spawn;

use super::run::{self, Run};
use crate::error::BenchError;
use crate::stage::{Stage, in_workspace};

/// All jobs have this seed.
pub(super) const SEED: u64 = 7;

/// A job, run on this machine alone.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) plugin: &'a Path,
    pub(super) items: u64,
    pub(super) batch: u32,
    pub(super) workers: u32,
}

/// What is run instead, without `rollout`.
#[derive(Clone, Copy)]
pub(super) struct Pool {
    /// As the script names it.
    pub(super) work: &'static str,
    pub(super) items: u64,
    pub(super) processes: u32,
    pub(super) chunk: u32,
}

/// Where they are run.
pub(super) struct Jobs<'a> {
    pub(super) stage: Stage,
    rollout: &'a Path,
    runs: Cell<u32>,
}

impl<'a> Jobs<'a> {
    pub(super) fn open(rollout: &'a Path) -> Result<Self, BenchError> {
        Ok(Self { stage: Stage::on_disk()?, rollout, runs: Cell::new(0) })
    }

    /// Runs a job to its end, looks whether it has all results, and hands those on before they are
    /// removed.
    pub(super) async fn run<T>(
        &self,
        job: Job<'_>,
        take: impl FnOnce(&Path) -> Result<T, BenchError>,
    ) -> Result<(Run, T), BenchError> {
        let out = self.fresh("job");
        let file = out.with_extension("toml");
        fs::write(&file, job.text()).map_err(BenchError::io("cannot write a job"))?;
        let spawn = Spawn::new(self.rollout)
            .arg("run")
            .arg(&file)
            .args(["--workers", &job.workers.to_string(), "--out"])
            .arg(&out);
        let spawn = spawn.env("TMPDIR", AsRef::<OsStr>::as_ref(self.stage.dir()));
        let partial = out.join("results.partial.jsonl");
        let run = run::run(spawn, "rollout run", &partial).await?;
        let results = out.join("results.jsonl");
        all_there(&results, job.items)?;
        let taken = take(&results)?;
        fs::remove_dir_all(&out).map_err(BenchError::io("cannot remove a job's files"))?;
        Ok((run, taken))
    }

    /// Does the same work in `multiprocessing.Pool`.
    pub(super) async fn pool<T>(
        &self,
        pool: Pool,
        take: impl FnOnce(&Path) -> Result<T, BenchError>,
    ) -> Result<(Run, T), BenchError> {
        let out = self.fresh("pool").with_extension("jsonl");
        let Pool { work, items, processes, chunk } = pool;
        let numbers =
            [items, processes.into(), chunk.into(), SEED].map(|number: u64| number.to_string());
        let path = ["python", "python/examples"].map(in_workspace);
        let path = std::env::join_paths(path).unwrap_or_default();
        let spawn = Spawn::new("python3")
            .arg(in_workspace("crates/rollout-bench/peers/pool.py"))
            .arg(work)
            .args(numbers)
            .arg(&out)
            .env("PYTHONPATH", path);
        let run = run::run(spawn, "python3 pool.py", &out).await?;
        all_there(&out, items)?;
        let taken = take(&out)?;
        fs::remove_file(&out).map_err(BenchError::io("cannot remove results"))?;
        Ok((run, taken))
    }

    /// A name that was not used yet.
    pub(super) fn fresh(&self, name: &str) -> PathBuf {
        self.runs.set(self.runs.get() + 1);
        self.stage.dir().join(format!("{name}-{}", self.runs.get()))
    }
}

impl Job<'_> {
    fn text(&self) -> String {
        let Self { plugin, items, batch, .. } = self;
        let plugin = plugin.display().to_string();
        format!(
            "[job]\nname = \"bench\"\nplugin = {plugin:?}\nmethod = \"run\"\nitems = {items}\n\
             seed = {SEED}\nbatch = {batch}\n"
        )
    }
}

/// The parameters of an item, as a worker gives them to its plugin.
pub(super) fn params(item: u64) -> String {
    format!("{{\"item\":{item},\"seed\":{}}}", item_seed(SEED, item))
}

/// Wants nothing of the results.
pub(super) fn nothing(_: &Path) -> Result<(), BenchError> {
    Ok(())
}

fn all_there(results: &Path, items: u64) -> Result<(), BenchError> {
    let found = run::count(results)?;
    if found == items { Ok(()) } else { Err(BenchError::Results { found, items }) }
}
