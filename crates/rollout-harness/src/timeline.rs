//! The specification's timeline as data: the steps, their names and their budgets.

use std::fmt;
use std::time::Duration;

/// The specification's bound on detection, counted from the kill. It does not follow the
/// configuration: a configuration whose deadline lies beyond it fails the gate.
pub const DETECTION_BOUND: Duration = Duration::from_secs(8);

/// A step of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Build the binary and the sample library.
    Build,
    /// Start the coordinator; its port is up.
    Coordinator,
    /// Start both workers; both are alive.
    Workers,
    /// Both workers beat and all their plugins have answered.
    Stable,
    /// SIGKILL the first worker.
    Kill,
    /// The coordinator says that it failed.
    Detect,
    /// SIGTERM the second worker; it deregisters and exits.
    StopWorker,
    /// SIGTERM the coordinator; it exits.
    StopCoordinator,
    /// No process, socket or lock is left.
    NothingLeft,
}

/// How long a step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Shown beside the measured time, not asserted.
    About(Duration),
    /// Asserted.
    Under(Duration),
    /// Asserted, and short enough that the table says "instant".
    Instant(Duration),
}

impl Budget {
    /// The time that must not be exceeded, if there is one.
    #[must_use]
    pub const fn limit(self) -> Option<Duration> {
        match self {
            Self::About(_) => None,
            Self::Under(limit) | Self::Instant(limit) => Some(limit),
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::About(time) => format!("~{} s", time.as_secs()),
            Self::Under(time) => format!("< {} s", time.as_secs()),
            Self::Instant(_) => "instant".to_owned(),
        };
        f.pad(&text)
    }
}

impl Step {
    /// The step's name, in the specification's words where it has some.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Build => "Build binaries + cdylib",
            Self::Coordinator => "Spawn coordinator",
            Self::Workers => "Spawn w1 + w2",
            Self::Stable => "Wait heartbeat-stable",
            Self::Kill => "kill -KILL w1",
            Self::Detect => "Detect worker_failed(w1)",
            Self::StopWorker => "kill -TERM w2",
            Self::StopCoordinator => "kill -TERM coordinator",
            Self::NothingLeft => "Nothing left behind",
        }
    }

    /// The step's budget.
    #[must_use]
    pub const fn budget(self) -> Budget {
        match self {
            Self::Build => Budget::About(Duration::from_secs(30)),
            Self::Coordinator | Self::Workers | Self::StopCoordinator | Self::NothingLeft => {
                Budget::Under(Duration::from_secs(1))
            }
            Self::Stable => Budget::Under(Duration::from_secs(5)),
            Self::Kill => Budget::Instant(Duration::from_secs(1)),
            Self::Detect => Budget::Under(DETECTION_BOUND),
            Self::StopWorker => Budget::Under(Duration::from_secs(2)),
        }
    }
}

/// How a step went.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// Which one.
    pub step: Step,
    /// How long it took.
    pub took: Duration,
    /// What was seen, or what went wrong.
    pub result: Result<String, String>,
}

impl StepReport {
    /// What is wrong with the step, if anything is: it failed, or it took longer than its budget.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        if let Err(problem) = &self.result {
            return Some(problem.clone());
        }
        let limit = self.step.budget().limit().filter(|limit| self.took > *limit)?;
        Some(format!("took {:.3} s of {} s", self.took.as_secs_f64(), limit.as_secs()))
    }
}

/// Hears of the steps as they go.
pub trait Progress {
    /// `step` begins.
    fn started(&mut self, step: Step);
    /// The current step is at this point.
    fn status(&mut self, text: &str);
    /// The current step is over.
    fn ended(&mut self, report: &StepReport);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn started(&mut self, _: Step) {}
    fn status(&mut self, _: &str) {}
    fn ended(&mut self, _: &StepReport) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_over_its_budget_is_complained_of_and_a_slow_build_is_not() {
        let slow = |step| StepReport { step, took: Duration::from_secs(60), result: Ok("".into()) };
        assert_eq!(slow(Step::Build).complaint(), None);
        assert_eq!(slow(Step::Coordinator).complaint().unwrap(), "took 60.000 s of 1 s");
        let failed = StepReport { result: Err("exited with 1".into()), ..slow(Step::Build) };
        assert_eq!(failed.complaint().unwrap(), "exited with 1");
    }
}
