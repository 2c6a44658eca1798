//! `cargo xtask ci`: what continuous integration does, in its order, up to the first failure.

use std::time::Instant;

use rollout_harness::Interrupt;

use crate::cargo::cargo;
use crate::{complain, say};

/// The commands, each of which a person can type after `cargo`.
const STEPS: [&[&str]; 5] = [
    &["xtask", "preflight"],
    &["fmt", "--all", "--check"],
    &["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"],
    &["test", "--locked"],
    &["xtask", "smoke"],
];

/// Runs the steps with their output as it comes; the exit code.
pub(crate) fn run(interrupt: &Interrupt) -> u8 {
    let start = Instant::now();
    for step in STEPS {
        say(&format!("$ cargo {}\n", step.join(" ")));
        match cargo(step, interrupt) {
            0 => {}
            code => {
                complain(&format!(
                    "`cargo {}` failed; the steps after it were not run",
                    step.join(" ")
                ));
                return code;
            }
        }
    }
    say(&format!("ci passed in {:.0} s\n", start.elapsed().as_secs_f64()));
    0
}
