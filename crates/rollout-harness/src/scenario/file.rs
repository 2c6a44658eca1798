//! A scenario's file. Its keys are read first, unknown ones refused; what comes out here is checked:
//! every name means something, and every key belongs where it stands.

mod check;
mod raw;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rollout_core::TimeBudget;
use serde_json::Value;
use toml::Table;

/// The name of the instant at which every process that starts at once is up.
pub const READY: &str = "ready";
/// The name of the instant at which what still runs is asked to end.
pub const END: &str = "end";
/// The coordinator's name.
pub const COORD: &str = "coord";
/// How long a step waits, if it does not say.
pub const WITHIN: Duration = Duration::from_secs(10);

/// Why a file is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It is not TOML, or has a key that a scenario does not have.
    #[error("{} is no scenario", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// It makes no sense.
    #[error("{}: {at}: {why}", path.display())]
    Sense {
        /// The file.
        path: PathBuf,
        /// The key.
        at: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A scenario: processes, what is done to them, and what has to come of it.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name: that of its file.
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// Whether it takes too long for `cargo test`.
    pub by_hand: bool,
    /// The time budget of all; without one, the specification's.
    pub timing: Option<TimeBudget>,
    /// The coordinator.
    pub coordinator: Player,
    /// The workers.
    pub workers: Vec<Player>,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// What has to come of it.
    pub expect: Vec<Expect>,
}

/// A process of a scenario.
#[derive(Debug, Clone, Default)]
pub struct Player {
    /// Its name.
    pub name: String,
    /// Keys set over its configuration.
    pub config: Table,
    /// The keys of its file of faults.
    pub faults: Table,
    /// Whether its disk can be made to fail.
    pub disk: bool,
    /// Whether it is behind a link that can be cut.
    pub link: bool,
    /// The plugins it loads, by the names of their manifests.
    pub plugins: Vec<String>,
    /// The worker whose id it has, too.
    pub id_of: Option<String>,
    /// Whether a step starts it.
    pub late: bool,
}

/// Something that is waited for, or done, or both in this order.
#[derive(Debug, Clone)]
pub struct Step {
    /// The name of its instant.
    pub label: Option<String>,
    /// When.
    pub when: When,
    /// What is waited for then.
    pub wait: Option<Wait>,
    /// What is done then.
    pub action: Option<Action>,
}

/// When a step begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// After the step before.
    Next,
    /// At this time after the fleet was ready, if that is not over.
    At(Duration),
    /// At this time after the step before.
    After(Duration),
}

/// What a step waits for.
#[derive(Debug, Clone)]
pub struct Wait {
    /// What.
    pub what: Awaited,
    /// How long at most.
    pub within: Duration,
}

/// What can be waited for.
#[derive(Debug, Clone)]
pub enum Awaited {
    /// So many of these events since an instant, or since the step before.
    Event {
        /// Which.
        pattern: Pattern,
        /// How many.
        count: usize,
        /// The name of the instant.
        since: Option<String>,
    },
    /// The end of a process.
    Exit(String),
}

/// Something that is done to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// What.
    pub verb: Verb,
    /// To which process.
    pub to: String,
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Start it, or start it again.
    Start,
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
    /// SIGKILL to its sidecars.
    KillSidecars,
    /// Reset its link, and refuse it.
    Cut,
    /// Let nothing pass its link.
    BlackHole,
    /// Delay what passes its link.
    Delay(Duration),
    /// Let its link pass everything.
    Heal,
    /// Make its disk stall.
    DiskStall,
    /// Make its disk full.
    DiskFull,
    /// Make its disk fail.
    DiskError,
    /// Make its disk work.
    DiskHeal,
}

/// Which events.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// The process whose stream has them.
    pub from: String,
    /// Their topic.
    pub topic: String,
    /// The worker they are about.
    pub worker: Option<String>,
    /// What their attributes have to be.
    pub attrs: BTreeMap<String, Want>,
}

/// What an attribute has to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Want {
    /// This.
    Is(Value),
    /// A number between these.
    Between(Option<f64>, Option<f64>),
}

/// Something that has to come of it.
#[derive(Debug, Clone)]
pub struct Expect {
    /// Its name.
    pub name: String,
    /// What.
    pub claim: Claim,
}

/// What can be expected.
#[derive(Debug, Clone)]
pub enum Claim {
    /// Events.
    Event {
        /// Which.
        pattern: Pattern,
        /// How many.
        count: Count,
        /// When they count.
        window: Window,
        /// Not before this.
        not_before: Option<Bound>,
        /// Not after this much time from the beginning of the window.
        not_after: Option<Duration>,
    },
    /// No event.
    None {
        /// Which.
        pattern: Pattern,
        /// When they would count.
        window: Window,
    },
    /// How a process ends.
    Exit {
        /// The process.
        process: String,
        /// Which of its lives, from 1; the last one, if it is not said.
        life: Option<usize>,
        /// How.
        due: Due,
    },
    /// What a process says on its standard error.
    Stderr {
        /// The process.
        process: String,
        /// A part of it.
        contains: String,
    },
}

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many.
    Exactly(usize),
    /// So many or more.
    AtLeast(usize),
}

/// A part of the run, between two named instants; open where none is named.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// Its beginning.
    pub since: Option<String>,
    /// Its end.
    pub until: Option<String>,
}

/// What an event has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The deadline of its worker: by the time budget, from the last beat that was accepted before
    /// the event, or the coordinator's start if that is later, plus what the event credits.
    Deadline,
    /// This much time from the beginning of the window.
    After(Duration),
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// When the file cannot be read, or is no scenario.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(path)
            .map_err(|source| FileError::Read { path: path.into(), source })?;
        Self::parse(path, &text)
    }

    /// Reads a scenario from the text of the file at `path`.
    ///
    /// # Errors
    /// When it is no scenario.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let raw: raw::Scenario = toml::from_str(text)
            .map_err(|source| FileError::Syntax { path: path.into(), source })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        check::scenario(name, raw).map_err(|check::Wrong { at, why }| FileError::Sense {
            path: path.into(),
            at,
            why,
        })
    }

    /// The time budget.
    #[must_use]
    pub fn budget(&self) -> TimeBudget {
        self.timing.unwrap_or_default()
    }

    /// All its processes, the coordinator first.
    pub fn players(&self) -> impl Iterator<Item = &Player> {
        std::iter::once(&self.coordinator).chain(&self.workers)
    }

    /// Whether a process may end by itself: some expectation says how.
    #[must_use]
    pub fn may_exit(&self, name: &str) -> bool {
        let exits = |expect: &Expect| matches!(&expect.claim, Claim::Exit { process, .. } if process == name);
        self.expect.iter().any(exits)
    }

    /// Whether it needs the program that is built with the feature `faults`.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.players().any(|player| player.disk || !player.faults.is_empty())
    }
}

impl Claim {
    /// The events it is about, and when they count.
    #[must_use]
    pub fn events(&self) -> Option<(&Pattern, &Window)> {
        match self {
            Self::Event { pattern, window, .. } | Self::None { pattern, window } => {
                Some((pattern, window))
            }
            Self::Exit { .. } | Self::Stderr { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
