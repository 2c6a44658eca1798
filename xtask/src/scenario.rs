//! `cargo xtask scenario`: plays scenarios, shows them, writes the report.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rollout_core::chain;
use rollout_harness::binaries::{self, BuildError, workspace_root};
use rollout_harness::report::{
    Look, Steps, scenario, scenario_distribution, scenario_json, scenario_row,
};
use rollout_harness::scenario::{self as scenes, Options, Run, Scenario, ScenarioError};
use rollout_harness::{Interrupt, Outcome, preflight};

use crate::args::ScenarioArgs;
use crate::prepare::built;
use crate::{complain, files, say};

/// Plays what is asked for; the exit code.
pub(crate) fn run(args: &ScenarioArgs, interrupt: &Interrupt) -> u8 {
    let scenarios = match chosen(args) {
        Ok(scenarios) => scenarios,
        Err(error) => return failed(&error),
    };
    if args.list {
        for scenario in &scenarios {
            say(&format!("  {:<24} {}\n", scenario.name, scenario.about));
        }
        return 0;
    }
    if !crate::preflight::passes() {
        return preflight::EXIT_CODE;
    }
    let faulty = scenarios.iter().any(Scenario::is_faulty);
    let options = match built(options(args, faulty, interrupt)) {
        Ok(options) => options,
        Err(code) => return code,
    };
    let runs = match play(args, &scenarios, &options, interrupt) {
        Ok(runs) => runs,
        Err(error) => {
            say("\n");
            return failed(&error);
        }
    };
    if let Err(code) = write_reports(args, &runs) {
        return code;
    }
    let outcome = runs.iter().map(|run| run.verdict.outcome).max();
    outcome.unwrap_or(Outcome::Inconclusive).exit_code()
}

/// Writes what is wanted of the runs; the exit code if something cannot be written.
fn write_reports(args: &ScenarioArgs, runs: &[Run]) -> Result<(), u8> {
    if let Some(path) = &args.run.json {
        files::write(path, &scenario_json(runs))?;
    }
    let shown = runs.iter().find(|run| run.verdict.outcome != Outcome::Pass).or(runs.last());
    if let Some(run) = shown {
        files::page(&args.run.page, &run.seen.record, &run.verdict.checks)?;
    }
    Ok(())
}

fn failed(error: &ScenarioError) -> u8 {
    complain(&chain(error));
    error.exit_code()
}

/// All scenarios, in the order of their names.
pub(crate) fn all() -> Result<Vec<Scenario>, ScenarioError> {
    let known = scenes::list(&workspace_root().join("tests/scenarios"))?;
    known.values().map(|path| Ok(Scenario::read(path)?)).collect()
}

/// The scenarios that are asked for, read and checked before anything is built.
fn chosen(args: &ScenarioArgs) -> Result<Vec<Scenario>, ScenarioError> {
    let Some(name) = &args.name else { return all() };
    let known = scenes::list(&workspace_root().join("tests/scenarios"))?;
    Ok(vec![Scenario::read(&path(name, &known)?)?])
}

/// The file of a name, or the file it is.
fn path(name: &str, known: &BTreeMap<String, PathBuf>) -> Result<PathBuf, ScenarioError> {
    let file = Path::new(name);
    if file.extension().is_some_and(|extension| extension == "toml") {
        return Ok(file.to_owned());
    }
    let unknown = || ScenarioError::Unknown {
        name: name.to_owned(),
        known: known.keys().cloned().collect::<Vec<_>>().join(", "),
    };
    known.get(name).cloned().ok_or_else(unknown)
}

fn options(
    args: &ScenarioArgs,
    faulty: bool,
    interrupt: &Interrupt,
) -> Result<Options, BuildError> {
    let profile = args.run.profile.profile();
    let binaries = binaries::build(profile, interrupt, &mut |_| {})?;
    let faulty = faulty.then(|| binaries::build_faulty(profile, interrupt, &mut |_| {}));
    let workspace = workspace_root();
    Ok(Options {
        root: args.run.root.clone().unwrap_or_else(|| workspace.clone()),
        fixtures: workspace.join("tests/smoke"),
        binaries,
        faulty: faulty.transpose()?,
        timing: None,
        keep: args.keep,
    })
}

fn play(
    args: &ScenarioArgs,
    scenarios: &[Scenario],
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Vec<Run>, ScenarioError> {
    let look = Look::of_stdout();
    let many = scenarios.len() > 1 || args.repeat.get() > 1;
    let mut runs: Vec<Run> = Vec::new();
    for scene in scenarios {
        let first = runs.len();
        for _ in 0..args.repeat.get() {
            let failed =
                runs[first..].last().is_some_and(|run| run.verdict.outcome != Outcome::Pass);
            let options = Options { keep: options.keep || failed, ..options.clone() };
            if !many {
                say(&format!("  {}\n\n", scene.about));
            }
            let mut steps = Steps::new(io::stdout(), look, many);
            let run = scenes::run(scene, &options, &mut steps, interrupt)?;
            if many {
                say(&scenario_row(&run, look));
            }
            if !many || run.verdict.outcome != Outcome::Pass {
                say(&scenario(&run, &format!("cargo xtask scenario {}", scene.name), look));
            }
            runs.push(run);
        }
        if args.repeat.get() > 1 {
            say(&scenario_distribution(&runs[first..], look));
        }
    }
    Ok(runs)
}
