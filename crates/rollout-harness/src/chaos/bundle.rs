//! What is kept of a run, so that it can be understood and judged again elsewhere: the record with
//! its logs, the schedule, the configurations, the versions, and all of it as one timeline.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rollout_core::{Event, Mono, WorkerId};
use rollout_process::{Io, Spawn};
use serde_json::Value;

use super::{Judgement, Run, Schedule};
use crate::binaries::workspace_root;
use crate::record::{Process, Record};

/// The file with the schedule.
pub const SCHEDULE: &str = "schedule.json";
/// The file with the merged timeline.
pub const TIMELINE: &str = "timeline.txt";
/// The file with the versions of what was run, and where.
const VERSIONS: &str = "versions.txt";
/// The file with the checks.
const CHECKS: &str = "checks.txt";
/// The directory with the configurations.
const CONFIG: &str = "config";
/// How long a tool may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes a bundle of a run into `dir`.
///
/// # Errors
/// When a file cannot be written, or a configuration not be read.
pub fn write(dir: &Path, run: &Run, schedule: &Schedule, program: &Path) -> io::Result<()> {
    run.record.write(dir)?;
    fs::write(dir.join(SCHEDULE), schedule.text())?;
    fs::write(dir.join(TIMELINE), timeline(&run.record))?;
    fs::write(dir.join(VERSIONS), versions(program))?;
    fs::write(dir.join(CHECKS), checks(&run.judgement))?;
    let config = dir.join(CONFIG);
    fs::create_dir_all(&config)?;
    for file in configurations(run)? {
        if let Some(name) = file.file_name() {
            fs::copy(&file, config.join(name))?;
        }
    }
    Ok(())
}

/// The configuration files that the processes were started with.
fn configurations(run: &Run) -> io::Result<Vec<PathBuf>> {
    let coordinator = run.layout.config("coord");
    let Some(dir) = coordinator.parent() else { return Ok(Vec::new()) };
    let entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    let files = entries.into_iter().map(|entry| entry.path());
    Ok(files.filter(|file| file.extension() == Some(OsStr::new("toml"))).collect())
}

/// The checks as text, one a line.
fn checks(judgement: &Judgement) -> String {
    let line = |check: &crate::Check| {
        format!("{:<13} {:<18} {}\n", check.outcome.word(), check.name, check.detail)
    };
    judgement.checks.iter().map(line).collect()
}

/// What was run, by whom, on what.
fn versions(program: &Path) -> String {
    let said = |program: &OsStr, args: &[&str]| {
        let spawn = Spawn::new(program).args(args).current_dir(workspace_root()).stderr(Io::Null);
        match spawn.output(Some(PATIENCE)) {
            Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let [git, rustc, uname] = ["git", "rustc", "uname"].map(OsStr::new);
    format!(
        "rollout  {}\nsource   {}\nrustc    {}\nkernel   {}\n",
        said(program.as_os_str(), &["--version"]),
        said(git, &["describe", "--always", "--dirty", "--tags"]),
        said(rustc, &["--version"]),
        said(uname, &["-srvm"]),
    )
}

/// Everything that was said and done, in the order in which it happened: seconds since the record
/// began, who, what.
#[must_use]
pub fn timeline(record: &Record) -> String {
    let mut entries: Vec<(Mono, &str, String)> = Vec::new();
    for process in &record.processes {
        lives(process, &mut entries);
        said(record, process, &mut entries);
    }
    for fault in &record.faults {
        let what = fault.what.word();
        entries.push((fault.began, &fault.target, format!("=== {what}")));
        if let Some(ended) = fault.ended {
            entries.push((ended, &fault.target, format!("=== {what} is over")));
        }
    }
    entries.sort_by_key(|(at, _, _)| *at);
    let mut text = format!("{}\nrun {}\n\n", record.title, record.run);
    for (at, who, what) in entries {
        let seconds = at.since(record.began).as_secs_f64();
        // Writing to memory cannot fail.
        let _ = writeln!(text, "{seconds:>10.4}  {who:<6} {what}");
    }
    text
}

fn lives<'a>(process: &'a Process, entries: &mut Vec<(Mono, &'a str, String)>) {
    for life in &process.lives {
        entries.push((life.began, &process.name, format!("--- pid {} is started", life.pid)));
        if let Some(ended) = &life.ended {
            let what = format!("--- pid {} has ended: {}", life.pid, ended.exit());
            entries.push((ended.at, &process.name, what));
        }
    }
}

fn said<'a>(record: &Record, process: &'a Process, entries: &mut Vec<(Mono, &'a str, String)>) {
    let mut last = record.began;
    for line in process.log.lines() {
        let text = match &line.event {
            Ok(event) => {
                last = event.mono;
                compact(record, process, event)
            }
            Err(_) => format!("??? {}", line.raw),
        };
        entries.push((last, &process.name, text));
    }
    if let Some(torn) = process.log.torn() {
        entries.push((last, &process.name, format!("??? {torn}")));
    }
}

/// An event in one short line: topic, whom it is about if not its own process, attributes.
fn compact(record: &Record, process: &Process, event: &Event) -> String {
    let name = |id: WorkerId| {
        let mut workers = record.workers();
        let named = workers.find(|(_, other)| *other == id);
        named.map_or_else(|| id.to_string(), |(worker, _)| worker.name.clone())
    };
    let about = event.worker_id.filter(|id| process.worker() != Some(*id));
    let about = about.map(|id| format!("({})", name(id))).unwrap_or_default();
    let message = event.message.as_deref().map(|text| format!(" {text}")).unwrap_or_default();
    let value = serde_json::to_value(event).unwrap_or_default();
    let attributes: String = match value.get("attrs") {
        Some(Value::Object(attrs)) => {
            attrs.iter().map(|(key, value)| format!(" {key}={value}")).collect()
        }
        _ => String::new(),
    };
    format!("{}{about}{message}{attributes}", event.body.topic())
}
