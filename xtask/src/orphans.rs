//! `cargo xtask orphans`: kills workers, shows what they leave.

use std::io::{self, IsTerminal};

use rollout_core::chain;
use rollout_core::duration::as_ms;
use rollout_harness::binaries::workspace_root;
use rollout_harness::orphans::{self, GONE_WITHIN, Options, OrphansError, Report};
use rollout_harness::{FleetError, Interrupt, interrupt};

use crate::args::OrphansArgs;
use crate::prepare::{Prepared, prepare};
use crate::{complain, say};

/// Carries the kills through; the exit code.
pub(crate) fn run(args: &OrphansArgs, interrupt: &Interrupt) -> u8 {
    let Prepared { binaries, root } = match prepare(args.profile.profile(), interrupt) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let options = Options {
        root: root.path().to_path_buf(),
        fixtures: workspace_root().join("tests/smoke"),
        binaries,
        kills: args.kills,
        seed: args.seed,
    };
    let wanted = args.kills;
    let watched = io::stdout().is_terminal();
    let progress = |report: &Report| {
        if !watched {
            return;
        }
        say(&format!(
            "\r  {} of {wanted} workers killed, {} left behind ",
            report.kills,
            report.left.len()
        ));
    };
    let outcome = orphans::run(&options, interrupt, progress);
    if watched {
        say("\n");
    }
    match outcome {
        Ok(report) => verdict(&report),
        Err(OrphansError::Fleet(FleetError::Interrupted(signal))) => interrupt::exit_code(signal),
        Err(error) => {
            complain(&chain(&error));
            1
        }
    }
}

fn verdict(report: &Report) -> u8 {
    for left in &report.left {
        say(&format!("  ✗ {left}\n"));
    }
    say(&format!(
        "  {} processes below {} killed workers; the last was gone {:.1} ms after its kill \
         (bound {} ms)\n  {}\n",
        report.processes,
        report.kills,
        as_ms(report.slowest),
        GONE_WITHIN.as_millis(),
        if report.left.is_empty() { "PASS" } else { "FAIL" }
    ));
    u8::from(!report.left.is_empty())
}
