//! The words every other crate speaks: ids, the time budget and its one deadline formula, the
//! configuration files, the job, the event envelope, exit codes and the clock.
//!
//! It decides nothing and does no I/O: no async runtime, no socket, no file, no process. Files are
//! read elsewhere and handed in as text.
//!
//! Entry points: [`TimeBudget`], [`CoordinatorConfig`], [`WorkerConfig`], [`Event`].

pub mod attempts;
pub mod budget;
mod chain;
pub mod clock;
pub mod config;
pub mod duration;
pub mod event;
pub mod exit;
#[cfg(any(test, feature = "faults"))]
pub mod faults;
mod hex;
pub mod ids;
pub mod job;
pub mod pace;
mod percentile;
#[cfg(feature = "schema")]
pub mod schema;

pub use attempts::Attempts;
pub use budget::{BudgetError, TimeBudget};
pub use chain::chain;
pub use clock::{Clock, Mono, SystemClock};
pub use config::{ConfigError, CoordinatorConfig, WorkerConfig};
pub use event::{Body, Emit, Event, Level};
pub use exit::ExitCode;
pub use hex::hex;
pub use ids::{Incarnation, JobId, PluginId, RunId, WorkerId};
pub use job::JobSpec;
pub use job::file::JobFile;
pub use pace::Pace;
pub use percentile::percentile;
