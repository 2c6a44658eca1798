//! One job twice: on a fleet that is left alone, and on one whose processes are killed and frozen
//! all the while. What comes out has to be the same, byte for byte.
//!
//! The first run's length says how long there is for the faults, which a [`Schedule`] draws from a
//! seed. What was seen of both runs is a [`Case`]; [`judge()`] is a pure function of it.

mod client;
mod executions;
mod files;
mod judge;
mod kills;
mod ledger;
mod play;
mod results;
mod run;
mod schedule;

pub use executions::Execution;
pub use files::write;
pub use judge::{Bounds, Case, Figures, Judgement, Seen, judge};
pub use kills::Kill;
pub use ledger::Ledger;
pub use play::Progress;
pub use results::{Job, expected};
pub use run::{Options, Run, WorkError, run};
pub use schedule::{Act, Counts, Faults, Plan, PlanError, Schedule, Step};

pub use crate::watch::{Unwatched, Watch};
