//! Servers and clients over real TLS on loopback, each test with a CA and a port of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod abuse;
mod closing;
mod identities;
mod limits;
mod lines;
mod requests;
mod support;
