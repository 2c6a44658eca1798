//! `run.json`: what a run was and how it ended.

use rollout_core::{Clock, ExitCode, SystemClock, hex};
use rollout_transport::work::Standing;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::run::dir::Record;
use crate::run::output::Counts;

/// Everything that is not a result: times and attempts are here alone.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether every item has come to its end.
    pub(crate) finished: bool,
    /// The exit code of the process that wrote this.
    pub(crate) exit: u8,
    /// What it ended for, if not for the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    job: rollout_core::JobId,
    spec: rollout_core::JobSpec,
    /// SHA-256 of the job: of everything that its results depend on, and its limits.
    config_digest: String,
    counts: Numbers,
    versions: Versions,
    /// The coordinator, if it was a running fleet's.
    #[serde(skip_serializing_if = "Option::is_none")]
    coordinator: Option<String>,
    /// The coordinator's term when this was written.
    term: Option<u64>,
    /// The workers that could run it when this was written.
    workers: u64,
    began: String,
    ended: String,
    /// The time of all sessions that ended in good order.
    took_ms: f64,
}

#[derive(Debug, Serialize)]
struct Numbers {
    items: u64,
    done: u64,
    dead: u64,
    unfinished: u64,
    failures: u64,
    losses: u64,
    redispatched: u64,
    stale: u64,
}

#[derive(Debug, Serialize)]
struct Versions {
    rollout: &'static str,
}

/// How a session of a run ended.
pub(crate) struct End {
    pub(crate) exit: ExitCode,
    pub(crate) finished: bool,
    pub(crate) why: Option<String>,
}

impl Report {
    pub(crate) fn new(
        record: &Record,
        counts: Counts,
        standing: &Standing,
        term: Option<u64>,
        end: End,
    ) -> Self {
        let spec = record.spec.clone();
        // A job's keys are texts and its numbers finite: it is always JSON.
        let digest = Sha256::digest(serde_json::to_vec(&spec).unwrap_or_default());
        let counts = Numbers {
            items: spec.items,
            done: counts.done,
            dead: counts.dead,
            unfinished: spec.items.saturating_sub(counts.done + counts.dead),
            failures: standing.failures,
            losses: standing.losses,
            redispatched: standing.redispatched,
            stale: standing.stale,
        };
        Self {
            finished: end.finished,
            exit: end.exit.code(),
            why: end.why,
            job: record.job,
            spec,
            config_digest: hex(&digest),
            counts,
            versions: Versions { rollout: env!("CARGO_PKG_VERSION") },
            coordinator: record.request.fleet.as_ref().map(|fleet| fleet.coordinator.clone()),
            term,
            workers: standing.workers,
            began: record.began.clone(),
            ended: now(),
            took_ms: record.took_ms,
        }
    }
}

/// The time, for people.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(SystemClock.wall()).to_string()
}
