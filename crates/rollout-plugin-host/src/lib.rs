//! Runs plugins for a worker, behind one interface for both boundaries: a Rust or C **cdylib** in
//! the worker's process, or a **sidecar** process in any language.
//!
//! [`Manifest::load`] reads what to run, [`Plugin::start`] runs it, [`Plugin::call`],
//! [`Plugin::stream`] and [`Plugin::call_batch`] ask it, and [`Plugin::shutdown`] ends it. Calls run
//! side by side and are cancelled by dropping them; calls to different plugins never wait for each
//! other. Whatever a plugin does ends in a [`PluginError`] within a stated time.
//!
//! A sidecar that ends unasked is started again, with growing pauses; a plugin that fails too often is
//! left alone for a while. It knows nothing of coordinators, leases or the network, and repeats no
//! call that a plugin may have had.

mod breaker;
mod call;
mod cdylib;
mod error;
mod event;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod inbox;
mod json;
mod manifest;
mod ongoing;
mod plugin;
#[cfg(feature = "schema")]
mod schema;
mod sidecar;
mod supervisor;

pub use call::{Item, Method, Reply};
pub use error::{Cause, Executed, Exited, PluginError};
pub use event::{HostConfig, HostEvent, OnEvent, Stream};
pub use manifest::{
    CdylibEntry, DEFAULT_CALL_TIMEOUT, Entry, Limits, Manifest, Probe, Restart, SidecarEntry,
};
pub use ongoing::{Ongoing, Update};
pub use plugin::{Boundary, Plugin, Probed};
