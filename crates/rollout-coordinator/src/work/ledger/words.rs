//! The words of the work ledger: what goes in, and what comes out of it.

use std::time::Duration;

use rollout_core::{JobId, WorkerId};

/// How long a worker may be suspected before what it holds goes to another.
pub const HOLD: Duration = Duration::from_secs(1);
/// What is added to a job's `progress_timeout` here: the worker, which is nearer, goes first.
pub const PROGRESS_GRACE: Duration = Duration::from_secs(5);

/// Where a worker stands, as liveness has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has not beaten yet: known, and granted nothing.
    Registered,
    /// It may be granted work.
    Ready,
    /// It is not heard of.
    Suspected,
    /// It was asked to end: it finishes or gives back what it has.
    Draining,
    /// Its deadline has passed.
    Failed,
    /// It left in good order.
    Left,
}

impl Standing {
    /// The word of a status report.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Ready => "ready",
            Self::Suspected => "suspected",
            Self::Draining => "draining",
            Self::Failed => "failed",
            Self::Left => "deregistered",
        }
    }
}

/// How far an item is suspected of crashing what runs it.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Suspect {
    /// Not at all.
    #[default]
    No,
    /// A crash took it along with others: it is retried with nothing else in the plugin's hands.
    Alone,
    /// So it was when a whole worker crashed with several leases: it is retried as a worker's only
    /// lease, so that the next crash is its own.
    Single,
}

/// What an item has been through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Trouble {
    /// Typed errors, and leases without progress.
    pub failures: u32,
    /// Crashes under it.
    pub losses: u32,
    /// How far it is suspected.
    #[serde(default)]
    pub suspect: Suspect,
}

/// What a job has been through so far, ended items included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// Typed errors, and leases without progress.
    pub failures: u64,
    /// Crashes that counted against an item.
    pub losses: u64,
    /// Leases that were taken from workers that were lost, or seemed to be.
    pub redispatched: u64,
    /// Outcomes that were refused.
    pub stale: u64,
}

/// What a worker says has become of an item; the payload stays outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// There is a result.
    Result,
    /// The plugin reported an error, or the item made no progress.
    Failed,
    /// The plugin crashed.
    Lost {
        /// With nothing else in its hands.
        alone: bool,
    },
}

/// What an accepted outcome has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The item is done.
    Done,
    /// It will be tried again.
    Again(Trouble),
    /// It is a dead letter.
    Dead(Trouble),
}

/// Why items are given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Their worker has been suspected for [`HOLD`].
    Suspected,
    /// Their worker has failed.
    Failed,
    /// Their worker's process was replaced by a newer one.
    Superseded,
    /// Nothing was heard of them for the job's `progress_timeout`.
    NoProgress,
    /// Their worker gave them back, or left.
    Returned,
    /// An attempt came to nothing: the plugin reported an error or crashed.
    Tried,
}

impl Cause {
    /// The word of an event.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Suspected => "worker_suspected",
            Self::Failed => "worker_failed",
            Self::Superseded => "worker_superseded",
            Self::NoProgress => "no_progress",
            Self::Returned => "returned",
            Self::Tried => "tried",
        }
    }

    /// Whether something may have crashed, and one of the items be the reason. A suspicion is none:
    /// whether there was a crash turns out when the epoch ends.
    #[must_use]
    pub const fn is_crash(self) -> bool {
        matches!(self, Self::Failed | Self::Superseded)
    }
}

/// Leases of neighbouring items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The job.
    pub job: JobId,
    /// Who may run them.
    pub worker: WorkerId,
    /// Its epoch.
    pub epoch: u64,
    /// The fencing token of all of them.
    pub attempt: u32,
    /// The first item.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// Whether each is to be run with nothing else in the plugin's hands.
    pub alone: bool,
}

/// What a job's log of leases has come to: it may begin anew with this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The first item that was never granted.
    pub fresh: u64,
    /// The last grant of each item that is open.
    pub grants: Vec<Grant>,
    /// Which of them wait again.
    pub waiting: Vec<u64>,
    /// What was taken from workers while they were suspected, with their epochs, which go on.
    pub taken: Vec<(WorkerId, u64, Vec<u64>)>,
}

/// What the ledger wants done; all of it is recorded before it is said to anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Leases for a worker.
    Granted(Grant),
    /// Leases are over without an outcome; the items are pending again, save those that an
    /// [`Effect::Dead`] of the same moment names.
    Released {
        /// The job.
        job: JobId,
        /// Who had them.
        worker: WorkerId,
        /// The items with their attempts, in order.
        leases: Vec<(u64, u32)>,
        /// Why.
        cause: Cause,
    },
    /// An item's record of failures and losses has changed.
    Troubled {
        /// The job.
        job: JobId,
        /// The item.
        item: u64,
        /// Its record.
        trouble: Trouble,
    },
    /// Whatever was taken from the worker while it was suspected in this epoch has been dealt with.
    Settled {
        /// The job that it was taken of.
        job: JobId,
        /// Who had it.
        worker: WorkerId,
        /// The epoch, which is over.
        epoch: u64,
    },
    /// An item has become a dead letter without a word from a worker.
    Dead {
        /// The job.
        job: JobId,
        /// The item.
        item: u64,
        /// Who had it.
        worker: WorkerId,
        /// What the last straw was.
        cause: Cause,
        /// Its record.
        trouble: Trouble,
    },
}
