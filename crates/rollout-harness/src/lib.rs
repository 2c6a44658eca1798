//! Runs real `rollout` processes, kills one of them, judges what the others wrote about it, and
//! reports.
//!
//! It judges from outside: it shares the words of `rollout-core` with what it judges (ids, events,
//! the deadline formula) and no code that decides anything. What it saw is [`Evidence`], a plain
//! value; [`judge()`] is a pure function of it, so that the judge itself is judged by made-up
//! evidence in the tests.
//!
//! Entry points: [`smoke::run`], [`scenario::run()`], [`work::run()`], [`judge()`], [`Fleet`], [`orphans::run`],
//! [`detection::run`], [`preflight::check`], [`report`].

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
pub use judge::{Check, Evidence, Measured, Outcome, Verdict, judge};
pub use record::Record;
pub use timeline::{Step, StepReport};
