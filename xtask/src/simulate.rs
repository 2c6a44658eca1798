//! `cargo xtask simulate`: the coordinator's liveness and a large fleet in virtual time.
//!
//! The simulation is an example of `rollout-coordinator`, which nothing here depends on.

use rollout_harness::Interrupt;

use crate::args::SimulateArgs;
use crate::cargo::cargo;

/// Builds and runs it; the exit code.
pub(crate) fn run(args: &SimulateArgs, interrupt: &Interrupt) -> u8 {
    let numbers = [args.workers.into(), args.seconds, args.seed].map(|n: u64| n.to_string());
    let [workers, seconds, seed] = &numbers;
    let build = ["run", "--quiet", "--release", "--locked", "--package", "rollout-coordinator"];
    let run = ["--example", "simulate", "--", "--workers", workers, "--seconds", seconds];
    cargo(&[&build[..], &run, &["--seed", seed]].concat(), interrupt)
}
