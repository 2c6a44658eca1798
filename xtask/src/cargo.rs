//! Running cargo and other programs, with their output as it comes.

use std::time::Duration;

use rollout_harness::binaries::cargo_command;
use rollout_harness::{Interrupt, interrupt};
use rollout_process::{Io, Ladder, Spawn};

use crate::complain;

/// How often it is looked whether someone asked to stop.
const POLL: Duration = Duration::from_millis(50);

/// Runs one command of cargo. Its failure is a failure, whatever code it gives that.
pub(crate) fn cargo(args: &[&str], interrupt: &Interrupt) -> u8 {
    run(cargo_command().args(args), interrupt)
}

/// Runs any program likewise.
pub(crate) fn run(spawn: Spawn, interrupt: &Interrupt) -> u8 {
    let child = match spawn.stdout(Io::Inherit).spawn() {
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
            return interrupt::exit_code(signal);
        }
    }
}
