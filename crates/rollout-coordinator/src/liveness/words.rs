//! The words of liveness: states, effects, and the answers to beats and registrations.

use std::time::Duration;

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has registered and not yet beaten.
    Registered,
    /// It beats.
    Ready,
    /// Its connection is lost or it missed beats; it is given no more work.
    Suspected,
    /// It was asked to end.
    Draining,
    /// Its deadline passed.
    Failed,
    /// It left in good order.
    Deregistered,
}

impl State {
    /// Whether a deadline runs.
    #[must_use]
    pub const fn is_live(self) -> bool {
        !matches!(self, Self::Failed | Self::Deregistered)
    }
}

/// Why a worker is suspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// Its connection ended.
    ConnectionLost,
    /// [`MISSED_BEATS_TO_SUSPECT`](rollout_core::budget::MISSED_BEATS_TO_SUSPECT) in a row.
    MissedBeats,
}

/// What the passing of time, or a beat, has brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The first beat of an epoch.
    Ready,
    /// It is given no more work.
    Suspected(Suspicion),
    /// A suspected worker beats again.
    Recovered {
        /// Time since its last accepted beat.
        gap: Duration,
    },
    /// Its deadline has passed.
    Failed {
        /// Time since its next beat was due.
        overdue: Duration,
        /// Time since the credited deadline.
        overshoot: Duration,
        /// Time added to the deadline, for stalls of the coordinator and for a crowd at its door.
        credited: Duration,
    },
    /// It failed or left so long ago that it is forgotten.
    Forgotten,
}

/// Why a beat counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// The worker has been declared failed, or is not known.
    Failed,
    /// It has left; the beat was on its way.
    Left,
    /// A newer process has its id.
    Superseded,
}

/// How a registration ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// A new process: a new epoch, older leases are stale.
    New {
        /// The new epoch.
        epoch: u64,
    },
    /// The same process is back: its epoch and leases stay.
    Resumed {
        /// The epoch it keeps.
        epoch: u64,
    },
    /// It has been declared failed meanwhile and has to register anew.
    Failed,
    /// A newer process has its id.
    Superseded,
    /// The fleet is full.
    Full,
}
