//! What is done to whom and when: drawn from a seed, written down, and played again.

mod draw;

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use rollout_core::TimeBudget;
use rollout_core::budget::BudgetError;
use serde::{Deserialize, Serialize};

pub use draw::Plan;

/// The most workers a schedule may have.
pub const MAX_WORKERS: usize = 64;
/// The longest schedule.
pub const MAX_LENGTH: Duration = Duration::from_secs(24 * 60 * 60);

/// Short durations, so that many deadlines pass in two minutes, yet each of them more than a busy
/// machine's scheduler costs.
#[must_use]
pub const fn short_timing() -> TimeBudget {
    TimeBudget {
        heartbeat_interval: Duration::from_millis(200),
        worker_self_fence_timeout: Duration::from_millis(1_200),
        coordinator_failure_timeout: Duration::from_millis(1_500),
        clock_skew_budget: Duration::from_millis(100),
    }
}

/// Whom something is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Target {
    /// The coordinator: `coord`.
    Coordinator,
    /// A worker, from 1: `w1`.
    Worker(usize),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator => f.write_str("coord"),
            Self::Worker(number) => write!(f, "w{number}"),
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let number = name.strip_prefix('w').and_then(|number| number.parse().ok());
        match (name, number) {
            ("coord", _) => Ok(Self::Coordinator),
            (_, Some(number)) if number > 0 => Ok(Self::Worker(number)),
            _ => Err(format!("`{name}` is neither `coord` nor a worker such as `w1`")),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

/// Something that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
    /// Start it again on the same files: a worker is then a new process with the same id.
    Start,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
    /// Reset its connections to the coordinator, and refuse new ones.
    Cut,
    /// Take everything on its link and pass nothing on.
    BlackHole,
    /// Let everything on its link be late.
    Delay {
        /// By how much, in each direction.
        #[serde(with = "rollout_core::duration")]
        by: Duration,
    },
    /// Let its link pass everything again.
    Heal,
    /// Let its disk neither fail nor finish.
    StallDisk,
    /// Let its disk go on.
    FreeDisk,
    /// SIGKILL to its sidecars.
    KillSidecars,
}

impl Act {
    /// Whether this undoes something.
    #[must_use]
    pub const fn undoes(self) -> bool {
        matches!(self, Self::Start | Self::Continue | Self::Heal | Self::FreeDisk)
    }

    /// What undoes it, if anything does.
    const fn undone_by(self) -> Option<Self> {
        match self {
            Self::Kill | Self::Terminate => Some(Self::Start),
            Self::Stop => Some(Self::Continue),
            Self::Cut | Self::BlackHole | Self::Delay { .. } => Some(Self::Heal),
            Self::StallDisk => Some(Self::FreeDisk),
            _ => None,
        }
    }
}

/// One thing, done once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When, counted from the instant at which the whole fleet beats.
    #[serde(with = "rollout_core::duration")]
    pub at: Duration,
    /// To whom.
    pub target: Target,
    /// What.
    pub act: Act,
}

/// Everything that is done in a run, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// What it was drawn from.
    pub seed: u64,
    /// How many workers there are.
    pub workers: usize,
    /// How long the run lasts, from the instant at which the whole fleet beats until it is asked to
    /// end.
    #[serde(with = "rollout_core::duration")]
    pub length: Duration,
    /// Everybody's time budget.
    pub timing: TimeBudget,
    /// What is done.
    pub steps: Vec<Step>,
}

/// Why a schedule cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// Its file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Its file is no schedule.
    #[error("{path} is no schedule")]
    Syntax {
        /// The file.
        path: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A number is out of its range.
    #[error("{what} must be {must}")]
    Range {
        /// What.
        what: &'static str,
        /// What would be accepted.
        must: String,
    },
    /// Its time budget is not sound.
    #[error(transparent)]
    Timing(#[from] BudgetError),
    /// A step is impossible.
    #[error("step {number} ({} {:?} at {:?}): {why}", .step.target, .step.act, .step.at)]
    Step {
        /// Which one, from 1.
        number: usize,
        /// The step.
        step: Step,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Schedule {
    /// Reads a schedule that was written down.
    ///
    /// # Errors
    /// When the file cannot be read, is no schedule, or one that cannot be played.
    pub fn read(path: &Path) -> Result<Self, ScheduleError> {
        let name = || path.display().to_string();
        let text = fs::read(path).map_err(|source| ScheduleError::File { path: name(), source })?;
        let schedule: Self = serde_json::from_slice(&text)
            .map_err(|source| ScheduleError::Syntax { path: name(), source })?;
        schedule.check()?;
        Ok(schedule)
    }

    /// The text that [`read`](Self::read) reads.
    #[must_use]
    pub fn text(&self) -> String {
        // A value of numbers, names and durations always has a text.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Checks that it can be played and leaves everybody as it found them: steps in order, inside
    /// its length, on workers that there are, and everything undone again.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn check(&self) -> Result<(), ScheduleError> {
        let range = |what, ok: bool, must: String| {
            if ok { Ok(()) } else { Err(ScheduleError::Range { what, must }) }
        };
        let workers = (1..=MAX_WORKERS).contains(&self.workers);
        range("the number of workers", workers, format!("1 to {MAX_WORKERS}"))?;
        let length = (1..=MAX_LENGTH.as_secs()).contains(&self.length.as_secs());
        range("the length", length, "one second to a day".to_owned())?;
        self.timing.validate_cross_fields()?;
        for (index, step) in self.steps.iter().enumerate() {
            if let Some(why) = self.wrong_with(index, step) {
                return Err(ScheduleError::Step { number: index + 1, step: *step, why });
            }
        }
        Ok(())
    }

    fn wrong_with(&self, index: usize, step: &Step) -> Option<&'static str> {
        if index > 0 && self.steps[index - 1].at > step.at {
            return Some("it comes before the step above it");
        }
        if step.at > self.length {
            return Some("it comes after the end");
        }
        let of_link = matches!(step.act, Act::Cut | Act::BlackHole | Act::Delay { .. } | Act::Heal);
        match step.target {
            Target::Worker(number) if number > self.workers => {
                return Some("there is no such worker");
            }
            Target::Coordinator if of_link || step.act == Act::KillSidecars => {
                return Some("the coordinator has neither a link of its own nor a sidecar");
            }
            _ => {}
        }
        let undo = step.act.undone_by()?;
        let later = &self.steps[index + 1..];
        let undone = later.iter().any(|other| other.target == step.target && other.act == undo);
        // Who is killed needs no SIGCONT.
        let ended = step.act == Act::Stop
            && later.iter().any(|other| other.target == step.target && other.act == Act::Kill);
        (!undone && !ended).then_some("it is never undone")
    }

    /// Whether it needs disks that can be stalled.
    #[must_use]
    pub fn stalls_disks(&self) -> bool {
        self.steps.iter().any(|step| step.act == Act::StallDisk)
    }

    /// How many things are done, what undoes them not counted.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.steps.iter().filter(|step| !step.act.undoes()).count()
    }
}

#[cfg(test)]
mod tests;
