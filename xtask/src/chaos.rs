//! `cargo xtask chaos` and `cargo xtask judge`: faults on a fleet, and the judge over what it left.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use rollout_core::{ExitCode, TimeBudget, chain};
use rollout_harness::binaries::{self, BuildError, workspace_root};
use rollout_harness::chaos::{
    self, ChaosError, Options, Plan, Protection, Run, Schedule, bundle, short_timing,
};
use rollout_harness::report::{self, Look, Pulse};
use rollout_harness::{Interrupt, Outcome, Record, preflight};

use crate::args::{ChaosArgs, JudgeArgs, Timing, Without};
use crate::prepare::built;
use crate::{complain, files, say};

/// Where bundles go that nobody named a place for.
const BUNDLES: &str = "data/chaos-bundles";

/// Carries a run through; the exit code.
pub(crate) fn run(args: &ChaosArgs, interrupt: &Interrupt) -> u8 {
    let schedule = match schedule(args) {
        Ok(schedule) => schedule,
        Err(error) if args.schedule.is_none() => {
            complain(&error.to_string());
            return ExitCode::Usage.code();
        }
        Err(error) => {
            complain(&chain(&error));
            return ChaosError::from(error).exit_code();
        }
    };
    if !crate::preflight::passes() {
        return preflight::EXIT_CODE;
    }
    let (Ok(code) | Err(code)) = played(args, schedule, interrupt);
    code
}

/// The exit code; the error is one, too, and has been said.
fn played(args: &ChaosArgs, schedule: Schedule, interrupt: &Interrupt) -> Result<u8, u8> {
    let options = built(options(args, schedule, interrupt))?;
    let look = Look::of_stdout();
    let mut pulse = Pulse::new(io::stdout(), look);
    let run = chaos::run(&options, &mut pulse, interrupt).map_err(|error| {
        say("\n");
        complain(&chain(&error));
        error.exit_code()
    })?;
    say(&report::chaos(&run.record, &run.judgement, look));
    keep(args, &options, &run)?;
    if let Some(path) = &args.run.json {
        files::write(path, &report::chaos_json(&run.record, &run.judgement))?;
    }
    files::page(&args.run.page, &run.record, &run.judgement.checks)?;
    Ok(run.judgement.outcome.exit_code())
}

/// The schedule that was named, or one drawn from the seed.
fn schedule(args: &ChaosArgs) -> Result<Schedule, chaos::ScheduleError> {
    if let Some(file) = &args.schedule {
        return Schedule::read(file);
    }
    let plan = Plan {
        seed: args.seed,
        workers: args.workers,
        length: Duration::from_secs(args.seconds),
        timing: match args.timing {
            Timing::Short => short_timing(),
            Timing::Defaults => TimeBudget::default(),
        },
        disk: args.disk,
        sidecars: true,
    };
    plan.draw()
}

fn options(
    args: &ChaosArgs,
    schedule: Schedule,
    interrupt: &Interrupt,
) -> Result<Options, BuildError> {
    let profile = args.run.profile.profile();
    let binaries = binaries::build(profile, interrupt, &mut |_| {})?;
    let stalls = schedule.stalls_disks();
    let faulty = if stalls || args.without.is_some() {
        Some(binaries::build_faulty(profile, interrupt, &mut |_| {})?)
    } else {
        None
    };
    let without = args.without.map(|without| match without {
        Without::Fence => Protection::Fence,
        Without::EpochCheck => Protection::EpochCheck,
        Without::StallCredit => Protection::StallCredit,
    });
    let root = args.run.root.clone().unwrap_or_else(workspace_root);
    Ok(Options { root, binaries, faulty, schedule, without, plugins: true, keep: args.keep })
}

/// Writes the bundle, if there is one to be, and says where it is.
fn keep(args: &ChaosArgs, options: &Options, run: &Run) -> Result<(), u8> {
    let failed = run.judgement.outcome != Outcome::Pass;
    let dir = match &args.bundle {
        Some(dir) => dir.clone(),
        None if failed => options.root.join(BUNDLES).join(run.record.run.to_string()),
        None => return Ok(()),
    };
    let program = options.faulty.as_ref().unwrap_or(&options.binaries.rollout);
    files::wrote(&dir, bundle::write(&dir, run, &options.schedule, program))?;
    let dir = dir.display();
    say(&format!("\n  everything of it is in\n    {dir}\n  to judge it again\n    "));
    say(&format!("cargo xtask judge {dir}\n  to play it again\n    "));
    say(&format!("cargo xtask chaos --schedule {dir}/{}\n", bundle::SCHEDULE));
    Ok(())
}

/// Judges a bundle, or any other record, again; the exit code.
pub(crate) fn judge(args: &JudgeArgs) -> u8 {
    let record = match Record::read(&args.bundle) {
        Ok(record) => record,
        Err(error) => return unreadable(&args.bundle, &error),
    };
    let judgement = chaos::judge(&record);
    say(&report::chaos(&record, &judgement, Look { live: false, ..Look::of_stdout() }));
    let timeline = args.timeline.as_ref();
    let written = timeline.map_or(Ok(()), |path| files::write(path, &bundle::timeline(&record)));
    match written.and_then(|()| files::page(&args.page, &record, &judgement.checks)) {
        Ok(()) => judgement.outcome.exit_code(),
        Err(code) => code,
    }
}

fn unreadable(bundle: &Path, error: &io::Error) -> u8 {
    complain(&format!("{} is no bundle that can be read: {error}", bundle.display()));
    match error.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => ExitCode::BadData.code(),
        ErrorKind::NotFound => ExitCode::NoInput.code(),
        _ => ExitCode::Io.code(),
    }
}
