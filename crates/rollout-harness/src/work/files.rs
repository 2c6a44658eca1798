//! The files of a run: the plugin's manifest and the job as they are given, and what is kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use toml::{Table, Value};

use super::judge::{Judgement, Seen};
use super::results::Job;
use super::run::Run;
use crate::binaries::workspace_root;
use crate::chaos::bundle::{TIMELINE, timeline};
use crate::fixtures::{FixtureError, Layout, on, write as write_file};

/// The plugin.
const PLUGIN: &str = "digests";
/// Where executions are noted, below a run's directory.
const EXECUTIONS: &str = "logs/executions";

/// How the plugin works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How many items each worker runs at a time.
    pub(super) in_flight: usize,
}

/// The file in which executions are noted.
pub(super) fn executions(layout: &Layout) -> PathBuf {
    absolute(&layout.root.join(layout.relative(EXECUTIONS)))
}

/// The directory of the results.
pub(super) fn output(layout: &Layout) -> PathBuf {
    layout.root.join(layout.relative("out"))
}

/// Writes the plugin's manifest, and gives it as the workers are to see it.
pub(super) fn write_plugin(layout: &Layout, pace: Pace) -> Result<PathBuf, FixtureError> {
    let dir = workspace_root().join("tests/work");
    let file = dir.join(format!("{PLUGIN}.toml"));
    let text = fs::read_to_string(&file).map_err(on("read", &file))?;
    let mut manifest: Table =
        text.parse().map_err(|source| FixtureError::Syntax { path: file, source })?;
    set(&mut manifest, &["entry", "sidecar", "cwd"], text_of(&dir));
    set(&mut manifest, &["config", "executions"], text_of(&executions(layout)));
    let in_flight = i64::try_from(pace.in_flight).unwrap_or(i64::MAX);
    set(&mut manifest, &["limits", "max_in_flight"], in_flight.into());
    let name = format!("{PLUGIN}.toml");
    write_file(&layout.manifest(&name), &manifest.to_string())?;
    // It is there from the start, so that a run in which nothing is executed shows as that.
    write_file(&executions(layout), "")?;
    Ok(layout.relative(&format!("plugins/{name}")))
}

/// Writes the job file, and gives it relative to the root.
pub(super) fn write_job(layout: &Layout, job: Job) -> Result<PathBuf, FixtureError> {
    let Job { items, seed } = job;
    let text = format!(
        "[job]\nname = \"work\"\nplugin = \"{PLUGIN}\"\nmethod = \"run\"\nitems = {items}\n\
         seed = {seed}\nbatch = 16\n"
    );
    let path = layout.relative("logs/job.toml");
    write_file(&layout.root.join(&path), &text)?;
    Ok(path)
}

/// Sets a value in a table of tables, made on the way where they are missing.
fn set(table: &mut Table, keys: &[&str], value: Value) {
    let Some((last, tables)) = keys.split_last() else { return };
    let mut table = table;
    for key in tables {
        let entry = table.entry(*key).or_insert_with(|| Table::new().into());
        let Some(inner) = entry.as_table_mut() else { return };
        table = inner;
    }
    table.insert((*last).to_owned(), value);
}

fn text_of(path: &Path) -> Value {
    path.to_string_lossy().into_owned().into()
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Keeps everything of a run in `dir`: for each of the two fleets its record with the logs, what was
/// said and done as one timeline, results and executions; the schedule, the checks, the figures.
///
/// # Errors
/// When a file cannot be written.
pub fn write(dir: &Path, run: &Run) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    write_seen(&dir.join("undisturbed"), &run.case.undisturbed)?;
    if let Some((schedule, seen)) = &run.case.disturbed {
        write_seen(&dir.join("disturbed"), seen)?;
        fs::write(dir.join("schedule.json"), schedule.text())?;
    }
    let Judgement { outcome, checks, figures } = &run.judgement;
    let text = json!({ "outcome": outcome, "checks": checks, "figures": figures });
    fs::write(dir.join("judgement.json"), format!("{text:#}\n"))
}

fn write_seen(dir: &Path, seen: &Seen) -> io::Result<()> {
    seen.record.write(dir)?;
    fs::write(dir.join(TIMELINE), timeline(&seen.record))?;
    fs::write(dir.join("client.stderr"), &seen.stderr)?;
    fs::write(dir.join("dead.jsonl"), &seen.dead)?;
    if let Some(results) = &seen.results {
        fs::write(dir.join("results.jsonl"), results)?;
    }
    let executions = seen.executions.as_deref().unwrap_or_default().iter();
    let lines = executions.map(|run| format!("{} {} {}\n", run.item, run.pid, run.at.0));
    fs::write(dir.join("executions"), lines.collect::<String>())
}
