//! How workers and jobs stand, as a text for people. Pure.

use std::fmt::Write;
use std::time::Duration;

use rollout_transport::work::{JobStatus, Oldest, Status, WorkerStatus};
use serde_json::Value;

use crate::error::plain;
use crate::run::{count, span};

/// A worker that beats is heard of far more often than this.
const SILENT_MS: f64 = 2_000.0;

/// A table whose columns are as wide as what is in them.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Everything that the coordinator says.
pub(super) fn status(address: &str, status: &Status) -> String {
    let name = |oldest: &Oldest| {
        let job = status.jobs.iter().find(|job| job.job == oldest.job);
        job.map_or_else(|| oldest.job.to_string(), |job| plain(&job.spec.name))
    };
    let mut text =
        format!("run {}, term {}, coordinator {address}\n\n", status.run_id, status.term);
    let mut workers = vec![row(["WORKER", "STATE", "BEAT", "ITEMS", "OLDEST"])];
    for worker in &status.workers {
        let oldest = worker.oldest.as_ref().map_or_else(String::new, |oldest| {
            format!("{} {}, {}", name(oldest), oldest.item, ago(oldest.since_ms))
        });
        let beat = format!("{} ago", ago(worker.last_beat_ms));
        let id = worker.worker_id.to_string();
        workers.push(row([&id, &worker.state, &beat, &count(worker.leased), &oldest]));
    }
    let mut jobs =
        vec![row(["JOB", "ITEMS", "DONE", "DEAD", "IN HAND", "WAITING", "RETRIES", "WORKERS"])];
    for job in &status.jobs {
        let s = &job.standing;
        let retries = s.failures + s.losses + s.redispatched;
        let numbers = [job.spec.items, s.done, s.dead, s.leased, s.pending, retries, s.workers];
        let mut cells = vec![plain(&job.spec.name)];
        cells.extend(numbers.map(count));
        jobs.push(cells);
    }
    let _ = writeln!(text, "{}", table(&workers));
    text.push_str(&table(&jobs));
    let stuck = stuck(status);
    if !stuck.is_empty() {
        text.push('\n');
    }
    for line in stuck {
        let _ = writeln!(text, "! {line}");
    }
    text
}

/// What keeps work from going on, a sentence each.
fn stuck(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    for worker in &status.workers {
        lines.extend(silent(worker));
        lines.extend(held(worker, &status.jobs));
    }
    lines.extend(status.jobs.iter().filter_map(|job| waiting(job, &status.workers)));
    lines
}

fn silent(worker: &WorkerStatus) -> Option<String> {
    let live = ["registered", "ready", "suspected", "draining"].contains(&worker.state.as_str());
    let silent = worker.state == "suspected" || worker.last_beat_ms > SILENT_MS;
    (live && silent).then(|| {
        format!(
            "worker {} has not been heard of for {} and has {} items",
            worker.worker_id,
            ago(worker.last_beat_ms),
            count(worker.leased)
        )
    })
}

/// An item that has used up half of the time that it may go without progress.
fn held(worker: &WorkerStatus, jobs: &[JobStatus]) -> Option<String> {
    let oldest = worker.oldest.as_ref()?;
    let job = jobs.iter().find(|job| job.job == oldest.job)?;
    let limit = job.spec.limits.progress_timeout;
    (oldest.since_ms > limit.as_secs_f64() * 500.0).then(|| {
        format!(
            "item {} of {} shows no progress on worker {} for {}, of a progress_timeout of {}",
            oldest.item,
            plain(&job.spec.name),
            worker.worker_id,
            ago(oldest.since_ms),
            humantime::format_duration(limit)
        )
    })
}

fn waiting(job: &JobStatus, workers: &[WorkerStatus]) -> Option<String> {
    let (name, standing) = (plain(&job.spec.name), &job.standing);
    if standing.done + standing.dead == job.spec.items {
        return None;
    }
    if standing.paused {
        return Some(format!("{name} is paused: `rollout resume` with its directory goes on"));
    }
    if standing.workers > 0 {
        return None;
    }
    let mut plugins: Vec<&str> =
        workers.iter().flat_map(|worker| &worker.plugins).map(String::as_str).collect();
    plugins.sort_unstable();
    plugins.dedup();
    let plugins = if plugins.is_empty() { "none".to_owned() } else { plugins.join(", ") };
    Some(plain(&format!(
        "{name} waits: no worker that is ready has plugin `{}` (workers' plugins: {plugins})",
        job.spec.plugin
    )))
}

fn ago(ms: f64) -> String {
    if ms < 1_000.0 {
        return format!("{ms:.0} ms");
    }
    span(Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default())
}

/// A run that nothing works on.
pub(super) fn ended(report: &Value) -> String {
    let text = |at: &str| report.pointer(at).and_then(Value::as_str).map_or("?".to_owned(), plain);
    let number = |at: &str| report.pointer(at).and_then(Value::as_u64).unwrap_or(0);
    let counts =
        ["items", "done", "dead", "unfinished"].map(|key| number(&format!("/counts/{key}")));
    let finished = report.get("finished").and_then(Value::as_bool).unwrap_or(false);
    let [items, done, dead, unfinished] = counts.map(count);
    format!(
        "{} {}, exit {}: {done} of {items} items done, {dead} dead, {unfinished} left\n\
         nothing is running; it ended at {}{}\n",
        text("/spec/name"),
        if finished { "is finished" } else { "is not finished" },
        number("/exit"),
        text("/ended"),
        match report.get("why").and_then(Value::as_str) {
            Some(why) => format!(" ({})", plain(why)),
            None => String::new(),
        }
    )
}

#[cfg(test)]
mod tests;
