//! `cargo xtask smoke`: runs, shows, writes the reports.

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use rollout_core::chain;
use rollout_harness::report::{self, Look, Rows, Table};
use rollout_harness::smoke::{self, Options, Run};
use rollout_harness::{FleetError, Interrupt, Outcome, preflight};

use crate::args::SmokeArgs;
use crate::files::{self, write, wrote};
use crate::{complain, say};

/// Carries the runs through; the exit code.
pub(crate) fn run(args: &SmokeArgs, interrupt: &Interrupt) -> u8 {
    if !crate::preflight::passes() {
        return preflight::EXIT_CODE;
    }
    let options = options(args);
    let runs = match args.repeat {
        None => once(&options, interrupt).map(|run| vec![run]),
        Some(times) => many(&options, times.get(), interrupt),
    };
    let runs = match runs {
        Ok(runs) => runs,
        Err(error) => {
            say("\n");
            complain(&chain(&error));
            return error.exit_code();
        }
    };
    if let Err(code) = write_reports(args, &runs) {
        return code;
    }
    let outcome = runs.iter().map(|run| run.verdict.outcome).max();
    outcome.unwrap_or(Outcome::Inconclusive).exit_code()
}

fn options(args: &SmokeArgs) -> Options {
    let default = Options::default();
    Options {
        fixtures: args.fixtures.clone().unwrap_or(default.fixtures),
        root: args.run.root.clone().unwrap_or(default.root),
        port: args.port,
        keep: args.keep,
        profile: args.run.profile.profile(),
        ..default
    }
}

fn once(options: &Options, interrupt: &Interrupt) -> Result<Run, FleetError> {
    let look = Look::of_stdout();
    let run = smoke::run(options, &mut Table::new(io::stdout(), look), interrupt)?;
    say(&report::summary(&run, look));
    Ok(run)
}

fn many(options: &Options, times: usize, interrupt: &Interrupt) -> Result<Vec<Run>, FleetError> {
    let look = Look::of_stdout();
    let mut rows = Rows::new(io::stdout(), look);
    let mut runs: Vec<Run> = Vec::new();
    for number in 1..=times {
        let failed = runs.last().is_some_and(|run| run.verdict.outcome != Outcome::Pass);
        let options = Options { keep: options.keep || failed, ..options.clone() };
        let run = smoke::run(&options, &mut rows, interrupt)?;
        rows.finished(number, &run);
        if run.verdict.outcome != Outcome::Pass {
            say(&report::summary(&run, look));
        }
        runs.push(run);
    }
    say(&report::distribution(&runs, look));
    Ok(runs)
}

fn write_reports(args: &SmokeArgs, runs: &[Run]) -> Result<(), u8> {
    if let Some(path) = &args.run.json {
        write(path, &report::json(runs))?;
    }
    if let Some(path) = &args.junit {
        write(path, &report::junit(runs))?;
    }
    if let Some(run) = notable(runs) {
        files::page(&args.run.page, &run.record(), &run.verdict.checks)?;
    }
    if env::var_os("GITHUB_ACTIONS").is_some() {
        for run in runs {
            say(&report::annotations(run));
        }
        if let Some(path) = env::var_os("GITHUB_STEP_SUMMARY").map(PathBuf::from) {
            let text: String = runs.iter().map(report::step_summary).collect();
            let file = File::options().append(true).create(true).open(&path);
            wrote(&path, file.and_then(|mut file| file.write_all(text.as_bytes())))?;
        }
    }
    Ok(())
}

/// The run to look at: the first that did not pass, or the last.
fn notable(runs: &[Run]) -> Option<&Run> {
    runs.iter().find(|run| run.verdict.outcome != Outcome::Pass).or(runs.last())
}
