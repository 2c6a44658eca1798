//! Runs plugins for a worker, behind one interface for both boundaries: a Rust or C **cdylib** in
//! the worker's process, or a **sidecar** process in any language.
//!
//! [`Manifest::load`] reads what to run, [`Plugin::start`] runs it, [`Plugin::call`] asks it and
//! [`Plugin::shutdown`] ends it. Calls run side by side and are cancelled by dropping them; calls to
//! different plugins never wait for each other. Whatever a plugin does ends in a [`PluginError`]
//! within a stated time.
//!
//! It knows nothing of coordinators, leases or the network, and it restarts nothing: a plugin that
//! has ended stays ended, and says so in every call.

mod cdylib;
mod error;
mod json;
mod manifest;
mod plugin;
mod sidecar;

pub use error::{Cause, Executed, Exited, PluginError};
pub use manifest::{CdylibEntry, Entry, Limits, Manifest, Probe, SidecarEntry};
pub use plugin::{Boundary, HostConfig, HostEvent, Method, OnEvent, Plugin, Probed, Reply, Stream};
