//! `cargo xtask tidy`: what people forget and neither the compiler nor clippy sees. Each check is a
//! function of the project's files, and a test shows it a file that it must complain of.

mod bans;
mod fixtures;
mod keys;
mod shape;
mod topics;
mod workflow;

use rollout_core::ExitCode;
use rollout_harness::binaries::workspace_root;

use crate::tree::{Complaint, Tree};
use crate::{complain, say};

/// All checks.
const CHECKS: [fn(&Tree) -> Vec<Complaint>; 8] = [
    shape::sizes,
    shape::documented,
    bans::calls,
    bans::unsafe_code,
    keys::read,
    topics::told_and_tried,
    fixtures::used,
    workflow::complete,
];

/// Runs all checks on the workspace; the exit code.
pub(crate) fn run() -> u8 {
    report(|tree| CHECKS.iter().flat_map(|check| check(tree)).collect())
}

/// Runs a check on the workspace and says what it complains of; the exit code.
pub(crate) fn report(check: impl FnOnce(&Tree) -> Vec<Complaint>) -> u8 {
    let tree = match Tree::read(&workspace_root()) {
        Ok(tree) => tree,
        Err(error) => {
            complain(&format!("cannot read the workspace: {error}"));
            return ExitCode::Io.code();
        }
    };
    let complaints = check(&tree);
    for complaint in &complaints {
        say(&format!("{complaint}\n"));
    }
    u8::from(!complaints.is_empty())
}

#[cfg(test)]
mod tests;
