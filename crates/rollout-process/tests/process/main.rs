//! Real processes, real signals.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod parent_death;
mod spawn;
mod support;
mod tree;
mod watch;
