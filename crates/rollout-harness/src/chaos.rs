//! Chaos: random faults on a fleet of real workers, and a judge that reads the logs alone.
//!
//! A [`Schedule`] is drawn from a seed and says what is done to whom and when; [`run()`] carries it
//! out. What was seen is a [`Record`](crate::Record), and [`judge`] is a pure function of it, so
//! that a run can be judged again when it is long over: [`bundle`] keeps what that needs.

pub mod bundle;
mod invariants;
mod play;
mod run;
mod schedule;
mod spans;
mod story;
mod streams;
mod truth;

pub use invariants::{Figures, Judgement, SLACK, SUSPECTED_WITHIN, judge};
pub use play::Progress;
pub use run::{ChaosError, Options, Protection, Run, run};
pub use schedule::{
    Act, MAX_LENGTH, MAX_WORKERS, Plan, Schedule, ScheduleError, Step, Target, short_timing,
};

pub use crate::watch::{Unwatched, Watch};
