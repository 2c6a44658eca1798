//! `cargo xtask detection`: kills workers, shows how soon that was noticed.

use std::io::{self, IsTerminal};

use rollout_core::chain;
use rollout_harness::binaries::workspace_root;
use rollout_harness::detection::{self, DetectionError, Options, Report};
use rollout_harness::report::Spread;
use rollout_harness::watchdog::Watchdog;
use rollout_harness::{FleetError, Interrupt, interrupt};

use crate::args::DetectionArgs;
use crate::prepare::{Prepared, prepare};
use crate::{complain, say};

/// The bounds in milliseconds: the 99th percentile, and the greatest.
const OVERSHOOT: (f64, Option<f64>) = (10.0, Some(50.0));
const SUSPECTED: (f64, Option<f64>) = (100.0, None);

/// Carries the kills through; the exit code.
pub(crate) fn run(args: &DetectionArgs, interrupt: &Interrupt) -> u8 {
    let Prepared { binaries, root } = match prepare(args.profile.profile(), interrupt) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let options = Options {
        root: root.path().to_path_buf(),
        fixtures: workspace_root().join("tests/smoke"),
        binaries,
        workers: args.workers.into(),
        kills: args.kills,
        seed: args.seed,
    };
    let (wanted, watched, watchdog) = (args.kills, io::stdout().is_terminal(), Watchdog::start());
    let outcome = detection::run(&options, interrupt, |report| {
        if watched {
            let judged = report.overshoot_ms.len();
            say(&format!("\r  {judged} of {wanted} deaths judged, {} wrong ", report.wrong.len()));
        }
    });
    if watched {
        say("\n");
    }
    match outcome {
        Ok(report) => {
            let passed = verdict(&report);
            say(&format!("  harness late by at most {:.1?}\n", watchdog.stop()));
            u8::from(!passed)
        }
        Err(DetectionError::Fleet(FleetError::Interrupted(signal))) => interrupt::exit_code(signal),
        Err(error) => {
            complain(&chain(&error));
            1
        }
    }
}

fn verdict(report: &Report) -> bool {
    let heading = ["min", "median", "p99", "max"].map(|word| format!("{word:>12}")).concat();
    say(&format!("  {:<26}{heading}\n", ""));
    let none = (f64::INFINITY, None);
    let figures = [
        ("kill to worker_suspected", &report.suspected_ms, SUSPECTED),
        ("kill to worker_failed", &report.failed_ms, none),
        ("overshoot of the deadline", &report.overshoot_ms, OVERSHOOT),
    ];
    let held = figures.map(|(name, values, bounds)| row(name, values, bounds));
    for wrong in &report.wrong {
        say(&format!("  ✗ {wrong}\n"));
    }
    let all =
        report.overshoot_ms.len() == report.kills && report.suspected_ms.len() == report.kills;
    let passed = held == [true; 3] && all && report.wrong.is_empty();
    say(&format!(
        "  {} killed, each reported once and in its epoch: {}; {} stalls of the coordinator\n  {}\n",
        report.kills,
        if all && report.wrong.is_empty() { "yes" } else { "no" },
        report.stalls,
        if passed { "PASS" } else { "FAIL" }
    ));
    passed
}

/// Shows how a figure is distributed; whether it is within its bounds.
fn row(name: &str, values: &[f64], (p99, max): (f64, Option<f64>)) -> bool {
    let Some(spread) = Spread::of(values.to_vec()) else { return false };
    let cells = [spread.min, spread.median, spread.p99, spread.max];
    let cells = cells.map(|value| format!("{value:>9.2} ms")).concat();
    let held = spread.p99 <= p99 && max.is_none_or(|max| spread.max <= max);
    say(&format!("  {name:<26}{cells}  {}\n", if held { "✓" } else { "✗" }));
    held
}
