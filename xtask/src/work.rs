//! `cargo xtask work`: one job twice, once undisturbed, once on a fleet that is killed meanwhile.

use std::io;
use std::time::Duration;

use rollout_core::{TimeBudget, chain};
use rollout_harness::binaries::{self, workspace_root};
use rollout_harness::report::{self, Look, Pulse};
use rollout_harness::work::{self, Bounds, Faults, Options, Run};
use rollout_harness::{Interrupt, Outcome, preflight};

use crate::args::{FaultsArg, WorkArgs};
use crate::prepare::built;
use crate::{complain, files, say};

/// Where bundles go that nobody named a place for.
const BUNDLES: &str = "data/work-bundles";
/// From a kill until the items run elsewhere.
const RAN_P99: Duration = Duration::from_millis(1_500);
/// What one kill may cost a run of a minute.
const COST_PERCENT: f64 = 5.0;

/// Carries the runs through; the exit code.
pub(crate) fn run(args: &WorkArgs, interrupt: &Interrupt) -> u8 {
    if !crate::preflight::passes() {
        return preflight::EXIT_CODE;
    }
    let profile = args.run.profile.profile();
    let binaries = match built(binaries::build(profile, interrupt, &mut |_| {})) {
        Ok(binaries) => binaries,
        Err(code) => return code,
    };
    let (mut worst, mut passed, mut reports) = (Outcome::Pass, 0, Vec::new());
    for seed in (args.seed..).take(args.seeds.get()) {
        let options = options(args, seed, binaries.rollout.clone());
        let outcome = match one(args, &options, interrupt, &mut reports) {
            Ok(outcome) => outcome,
            Err(code) => return code,
        };
        worst = worst.max(outcome);
        passed += usize::from(outcome == Outcome::Pass);
    }
    if args.seeds.get() > 1 {
        say(&format!("\n  {passed} of {} seeds passed\n", args.seeds));
    }
    if let Some(path) = &args.run.json
        && let Err(code) = files::write(path, &reports.concat())
    {
        return code;
    }
    worst.exit_code()
}

fn options(args: &WorkArgs, seed: u64, program: std::path::PathBuf) -> Options {
    let (faults, bounds) = match args.faults {
        FaultsArg::All => (Some(Faults::all()), Bounds::default()),
        FaultsArg::Kills => {
            (Some(Faults::kills()), Bounds { ran_p99: Some(RAN_P99), ..Bounds::default() })
        }
        FaultsArg::OneKill => {
            let cost_percent = Some(COST_PERCENT);
            (Some(Faults::one_kill()), Bounds { cost_percent, ..Bounds::default() })
        }
        FaultsArg::None => (None, Bounds::default()),
    };
    Options {
        root: args.run.root.clone().unwrap_or_else(workspace_root),
        program,
        seed,
        items: args.items,
        workers: args.workers.into(),
        in_flight: args.in_flight.into(),
        timing: TimeBudget::default(),
        faults,
        bounds,
    }
}

/// One seed; the exit code if there is no outcome, which has been said.
fn one(
    args: &WorkArgs,
    options: &Options,
    interrupt: &Interrupt,
    reports: &mut Vec<String>,
) -> Result<Outcome, u8> {
    let look = Look::of_stdout();
    let mut shown = Pulse::new(io::stdout(), look);
    let run = work::run(options, &mut shown, interrupt).map_err(|error| {
        say("\n");
        complain(&chain(&error));
        error.exit_code()
    })?;
    say(&report::work(&run.case, &run.judgement, look));
    reports.push(report::work_json(&run.case, &run.judgement));
    keep(args, options, &run)?;
    let last = run.case.disturbed.as_ref().map_or(&run.case.undisturbed, |(_, seen)| seen);
    files::page(&args.run.page, &last.record, &run.judgement.checks)?;
    Ok(run.judgement.outcome)
}

/// Keeps the run, if it is to be, and says where it is.
fn keep(args: &WorkArgs, options: &Options, run: &Run) -> Result<(), u8> {
    let dir = match &args.bundle {
        Some(dir) => dir.clone(),
        None if run.judgement.outcome != Outcome::Pass => {
            options.root.join(BUNDLES).join(run.case.undisturbed.record.run.to_string())
        }
        None => return Ok(()),
    };
    files::wrote(&dir, work::write(&dir, run))?;
    say(&format!("\n  everything of it is in\n    {}\n", dir.display()));
    Ok(())
}
