//! The host with real plugins: libraries, Python sidecars, and some that break every rule.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod cdylib;
mod library_streams;
mod panics;
mod python;
mod raw;
mod sidecar;
mod streams;
mod supervision;
mod threads;
mod zoo;
