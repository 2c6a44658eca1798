//! The messages of work: a worker's second stream, on which items are granted and their outcomes
//! committed, and what a client submits and follows. One JSON object a line.
//!
//! A reader ignores keys it does not know, so that a newer peer may add some. Enums are tagged from
//! outside and nothing is flattened: results pass through as the bytes they are.

use rollout_core::job::JobLimits;
use rollout_core::{Incarnation, JobId, JobSpec, WorkerId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::lines::Line;

/// The longest line of work, in bytes, either way.
pub const MAX_LINE: usize = 4 * 1024 * 1024;
/// A sender cuts a [`Done`](WorkUp::Done) or [`Grant`](WorkDown::Grant) at about this size, in bytes.
pub const LINE_TARGET: usize = 256 * 1024;
/// The longest parameters of one item, in bytes.
pub const MAX_PARAMS: usize = 1024 * 1024;
/// The largest blob, in bytes.
pub const MAX_BLOB: u64 = 1024 * 1024 * 1024;

impl Line for WorkUp {}
impl Line for WorkDown {}
impl Line for Followed {}
impl Line for JobSpec {}

/// From the worker to the coordinator, on `POST /v1/work`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkUp {
    /// The first line: who speaks. The epoch is the one that its session was given.
    Hello {
        /// The id in the certificate.
        worker_id: WorkerId,
        /// The process that speaks.
        incarnation: Incarnation,
        /// Its epoch.
        epoch: u64,
        /// The names of the plugins that it can run.
        plugins: Vec<String>,
    },
    /// It has room for so many more items than it was granted so far on this stream. The credit of a
    /// new stream is nothing; leases that are said again on it use none. How much it holds is up to
    /// the worker, which knows how many items it runs at a time and how long they take.
    Want {
        /// How many more.
        items: u32,
    },
    /// What has become of items. Answered with an [`Ack`](WorkDown::Ack) of this number once it is
    /// durable; until then it is sent again on each new stream of the same epoch.
    Done {
        /// Counts up from 1 within an epoch.
        seq: u64,
        /// The job.
        job: JobId,
        /// The outcomes.
        outcomes: Vec<Outcome>,
    },
    /// These items are not stuck: they run, or wait in the worker for their turn. An item of which
    /// nothing is heard for the job's `progress_timeout` and five seconds more has failed once.
    Progress {
        /// The job.
        job: JobId,
        /// The items.
        items: Vec<u64>,
    },
    /// Leases given back: the items were not begun, or nothing came of them that counts.
    Return {
        /// The job.
        job: JobId,
        /// The leases.
        leases: Vec<Lease>,
    },
}

/// An item in the hands of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The item.
    pub item: u64,
    /// The fencing token: grows by one with each grant of the item.
    pub attempt: u32,
}

/// What has become of one item.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// The lease under which it was run.
    pub lease: Lease,
    /// What came of it.
    pub end: End,
}

/// What came of an item.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The result, byte for byte as the plugin gave it.
    Result(Box<RawValue>),
    /// A result that is in a file of its own, which was uploaded before.
    Blob(Blob),
    /// The plugin reported an error, or made no progress: counts against `max_attempts`.
    Failed(Failure),
    /// The plugin crashed under it, perhaps because of it: counts against `max_losses`, if it was
    /// alone.
    Lost {
        /// What happened.
        failure: Failure,
        /// Whether no other item was in the plugin's hands at that moment.
        alone: bool,
    },
}

/// A large result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// SHA-256 of its bytes, in hex: its name.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The plugin error's code.
    pub code: String,
    /// The error.
    pub message: String,
    /// Where it was raised, if the plugin says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceback: Option<String>,
    /// The last that the plugin's process wrote to its standard error, if it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_tail: Option<String>,
}

/// From the coordinator to the worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkDown {
    /// A job of which grants follow; once a stream, and again when its limits have changed.
    Job {
        /// Its id.
        job: JobId,
        /// The plugin.
        plugin: String,
        /// The method.
        method: String,
        /// What the items' seeds are made from.
        seed: u64,
        /// Its limits.
        limits: JobLimits,
    },
    /// Leases: the items from `first` on, all with this attempt. On a new stream all that the worker
    /// still has is said first, for the old one may have lost it: a worker passes over the leases that
    /// it knows, running or done.
    Grant {
        /// The job.
        job: JobId,
        /// The fencing token.
        attempt: u32,
        /// The first item.
        first: u64,
        /// How many.
        count: u32,
        /// Whether nothing else may be in the plugin's hands meanwhile: a crash took it along
        /// before, and it is to be seen whether it was the cause.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        alone: bool,
        /// Their parameters, if the job's items have some.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        params: Option<Vec<Box<RawValue>>>,
    },
    /// The outcomes up to this number are durable, or refused.
    Ack {
        /// The newest such [`Done`](WorkUp::Done).
        seq: u64,
        /// Which of its outcomes were refused.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stale: Vec<Stale>,
    },
    /// These leases are over: what comes of them will be refused, so that they may be dropped.
    Revoke {
        /// The job.
        job: JobId,
        /// The leases.
        leases: Vec<Lease>,
    },
    /// The stream is refused: the worker's epoch is not current.
    Refused {
        /// Why.
        detail: String,
    },
    /// The coordinator is about to end.
    Stopping,
}

/// An outcome that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stale {
    /// The lease.
    pub lease: Lease,
    /// Which token is not current.
    pub token: Token,
}

/// What a commit is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Token {
    /// The item has its result, or is a dead letter.
    State,
    /// The item was granted again since.
    Attempt,
    /// The worker's epoch is over.
    Epoch,
    /// There is no such job or item.
    Job,
}

/// A line that a client follows, on `GET /v1/jobs/<id>/follow?after=<seq>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Followed {
    /// A durable batch.
    Committed {
        /// Its number in the job's ledger, from 1, without gaps.
        seq: u64,
        /// The items that have come to their end with it.
        items: Vec<Committed>,
    },
    /// How the job stands; about once a second.
    Standing(Standing),
    /// Every item has come to its end, and every batch was sent.
    Finished(Standing),
    /// The coordinator is about to end; follow again.
    Stopping,
}

/// An item that has come to its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Committed {
    /// The item.
    pub item: u64,
    /// How.
    pub end: Final,
}

/// How an item has come to its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Final {
    /// With this result.
    Result(Box<RawValue>),
    /// With a result in a file.
    Blob(Blob),
    /// As a dead letter.
    Dead {
        /// The last failure.
        failure: Failure,
        /// How often it failed.
        failures: u32,
        /// How often something crashed under it.
        losses: u32,
    },
}

/// How a job stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Items that wait.
    pub pending: u64,
    /// Items in the hands of workers.
    pub leased: u64,
    /// Items with a result.
    pub done: u64,
    /// Dead letters.
    pub dead: u64,
    /// Typed errors and items without progress so far.
    pub failures: u64,
    /// Crashes under items so far.
    pub losses: u64,
    /// Leases so far that were taken from workers that were lost, or seemed to be. What a worker gave
    /// back is not among them.
    pub redispatched: u64,
    /// Outcomes that were refused so far.
    pub stale: u64,
    /// Workers that can run it now.
    pub workers: u64,
    /// Whether nothing is granted because the client asked so.
    pub paused: bool,
    /// The newest batch in the ledger.
    pub seq: u64,
}

/// The answer to `PUT /v1/jobs/<id>`, whose body is a [`JobSpec`] in one line and then, if it says so,
/// the parameters of its items, one a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Submitted {
    /// The job is durable.
    Accepted {
        /// Whether it was there before.
        resumed: bool,
        /// How it stands.
        standing: Standing,
    },
    /// There is a job of this id that is another one.
    Changed {
        /// What differs.
        differences: Vec<String>,
    },
    /// The job is not valid.
    Invalid {
        /// Why.
        detail: String,
    },
}

/// The answer to `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The run.
    pub run_id: rollout_core::RunId,
    /// The coordinator's term.
    pub term: u64,
    /// Its workers.
    pub workers: Vec<WorkerStatus>,
    /// Its jobs.
    pub jobs: Vec<JobStatus>,
}

/// A worker, for people who ask what is stuck.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its id.
    pub worker_id: WorkerId,
    /// Its epoch.
    pub epoch: u64,
    /// `registered`, `ready`, `suspected`, `draining`, `failed`, `deregistered`.
    pub state: String,
    /// Time since its last accepted beat, in milliseconds.
    pub last_beat_ms: f64,
    /// Its plugins.
    pub plugins: Vec<String>,
    /// How many items it has.
    pub leased: u64,
    /// The item that it has had longest without a sign of progress, and for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Oldest>,
}

/// An item that has been in a worker's hands for long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Oldest {
    /// The job.
    pub job: JobId,
    /// The item.
    pub item: u64,
    /// Since its grant or its last sign of progress, in milliseconds.
    pub since_ms: f64,
}

/// A job, for people who ask how far it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its id.
    pub job: JobId,
    /// What it is.
    pub spec: JobSpec,
    /// How it stands.
    pub standing: Standing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_passes_through_byte_for_byte_and_null_is_one() {
        for result in ["null", "{\"a\" : 1.0}", "[1e400]", "\"\\u00e9\""] {
            let raw = RawValue::from_string(result.into()).unwrap();
            let lease = Lease { item: 7, attempt: 2 };
            let outcomes = vec![Outcome { lease, end: End::Result(raw) }];
            let done = WorkUp::Done { seq: 1, job: JobId::generate(), outcomes };
            let line = serde_json::to_string(&done).unwrap();
            assert!(!line.contains('\n'));
            let WorkUp::Done { outcomes, .. } = serde_json::from_str(&line).unwrap() else {
                panic!("{line}");
            };
            assert_eq!(outcomes[0].lease, lease);
            let End::Result(read) = &outcomes[0].end else { panic!("{line}") };
            assert_eq!(read.get(), result);
        }
    }

    #[test]
    fn a_followed_line_reads_back() {
        let raw = RawValue::from_string("{}".into()).unwrap();
        let items = vec![
            Committed { item: 1, end: Final::Result(raw) },
            Committed { item: 2, end: Final::Blob(Blob { sha256: "ab".into(), bytes: 70_000 }) },
        ];
        let line = serde_json::to_string(&Followed::Committed { seq: 3, items }).unwrap();
        let again: Followed = serde_json::from_str(&line).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), line);
    }
}
