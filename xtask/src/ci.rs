//! `cargo xtask ci`: what continuous integration does, in its order, up to the first failure.

use std::time::{Duration, Instant};

use rollout_harness::binaries::cargo_command;
use rollout_harness::{Interrupt, interrupt};
use rollout_process::{Io, Ladder};

use crate::{complain, say};

/// The commands, each of which a person can type after `cargo`.
const STEPS: [&[&str]; 5] = [
    &["xtask", "preflight"],
    &["fmt", "--all", "--check"],
    &["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"],
    &["test", "--locked"],
    &["xtask", "smoke"],
];
/// How often it is looked whether someone asked to stop.
const POLL: Duration = Duration::from_millis(50);

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

/// Runs one command of cargo. Its failure is a failure, whatever code it gives that.
fn cargo(args: &[&str], interrupt: &Interrupt) -> u8 {
    let spawned = cargo_command().args(args).stdout(Io::Inherit).spawn();
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            complain(&error.to_string());
            return 1;
        }
    };
    loop {
        if let Some(exit) = child.wait_timeout(POLL) {
            return u8::from(!exit.success());
        }
        if let Some(signal) = interrupt.requested() {
            child.stop(Ladder { grace: Duration::from_secs(3) });
            return u8::try_from(interrupt::exit_code(signal)).unwrap_or(u8::MAX);
        }
    }
}
