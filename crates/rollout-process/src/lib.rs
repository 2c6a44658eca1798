//! The one place that starts processes. No process started here outlives its parent, however the
//! parent ends.
//!
//! Each child runs under a **guard**, a small process forked along with it. The guard alone is the
//! main process's parent: it reaps it, passes signals on to it, and so no signal ever goes to a pid
//! that has been given away. When the main process ends, when it is told to, or when its line to
//! this process breaks (by SIGKILL, too), the guard kills the main process's group and everything
//! that left the group, reaps all of it, and goes. Trees nest: a child may guard children of its
//! own.
//!
//! What it cannot do: if the guard itself is killed, the main process dies with it
//! ([`Exit::guard_lost`]), but what descends from that is adopted by the next guard above, or by
//! init, and lives on there. Outside Linux a process that leaves its group is not adopted and
//! escapes, and the main process survives a killed guard.
//!
//! What it costs: starting and ending a child takes some 0.4 ms more. The guard shares its parent's
//! memory as of the fork; what the parent overwrites later is held once more for each guard, so
//! long-lived children are best started before the parent grows.
//!
//! It knows no async runtime: a thread waits for a child, or [`Child::watch`] starts one that does.
//! Unix only.
//!
//! Entry points: [`Spawn`] starts a [`Child`]; [`Child::watch`] hands out what it writes.

mod child;
mod exit;
mod files;
mod guard;
mod lines;
mod poll;
mod spawn;
mod watch;

pub use child::{Child, Handle, Ladder};
pub use exit::Exit;
pub use files::raise_open_files;
pub use nix::sys::resource::Resource;
pub use nix::sys::signal::Signal;
pub use spawn::{Io, Output, Spawn, SpawnError};
pub use watch::{Stream, WatchConfig, Watched};
