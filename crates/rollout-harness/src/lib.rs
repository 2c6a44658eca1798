//! Runs real `rollout` processes, does them harm, judges what they wrote about it, and reports.
//!
//! It judges from outside: it shares the words of `rollout-core` with what it judges (ids, events,
//! the deadline formula) and no code that decides anything. What was seen of a run is a plain value,
//! a [`Record`] or [`smoke::Evidence`]; every judge is a pure function of it, so that the judges
//! themselves are judged by made-up runs in the tests.
//!
//! - [`smoke`] is the specification's run, [`scenario`] runs that are written down as data, [`chaos`]
//!   runs drawn from a seed, [`work`] one job done twice; [`orphans`] and [`detection`] kill workers
//!   by the hundred. Each has a `run` to begin with.
//! - [`fleet`] starts the processes and does to them what is to be done, [`link`] cuts them off,
//!   [`fixtures`] and [`binaries`] are what they are started from.
//! - [`judge`] is what the judges have in common, [`report`] shows a run to people and programs.

pub mod binaries;
pub mod chaos;
pub mod detection;
pub mod fixtures;
pub mod fleet;
pub mod interrupt;
pub mod judge;
mod leftovers;
pub mod link;
pub mod log;
pub mod orphans;
pub mod preflight;
pub mod processes;
pub mod record;
pub mod report;
pub mod scenario;
pub mod smoke;
pub mod timeline;
pub mod watch;
pub mod watchdog;
pub mod work;

pub use fleet::{Fleet, FleetError, FleetOptions};
pub use interrupt::Interrupt;
pub use judge::{Check, Outcome};
pub use record::Record;
pub use timeline::{Step, StepReport};
