//! `cargo xtask bench`: builds with the release profile, then runs `rollout-bench`.

use std::path::{Path, PathBuf, absolute};

use rollout_core::ExitCode;
use rollout_harness::binaries::{self, BuildError, Profile};
use rollout_harness::smoke::chain;
use rollout_harness::{Interrupt, preflight};

use crate::args::{BenchCommand, BenchPluginArgs, BenchWorkArgs};
use crate::cargo::cargo;
use crate::complain;

/// Runs a suite; the exit code.
pub(crate) fn run(command: &BenchCommand, interrupt: &Interrupt) -> u8 {
    if !crate::preflight::passes() {
        return preflight::EXIT_CODE;
    }
    let (built, json) = match command {
        BenchCommand::Plugin(args) => (plugin(args, interrupt), args.json.as_deref()),
        BenchCommand::Work(args) => (work(args, interrupt), args.json.as_deref()),
    };
    match built {
        Ok(suite) => measure(suite, json, interrupt),
        Err(error) => {
            complain(&chain(&error));
            1
        }
    }
}

fn measure(suite: Vec<String>, json: Option<&Path>, interrupt: &Interrupt) -> u8 {
    let mut run = words("run --quiet --release --locked --package rollout-bench --");
    run.extend(suite);
    if let Some(file) = json {
        // Cargo is run in the workspace, wherever this was started.
        let Ok(file) = absolute(file) else {
            complain("--json has no file");
            return ExitCode::Usage.code();
        };
        run.extend(["--json".into(), text(file)]);
    }
    let run: Vec<_> = run.iter().map(String::as_str).collect();
    cargo(&run, interrupt)
}

/// Builds what the suite `plugin` needs, and gives its arguments.
fn plugin(args: &BenchPluginArgs, interrupt: &Interrupt) -> Result<Vec<String>, BuildError> {
    let built = binaries::build(Profile::Release, interrupt, &mut |_| {})?;
    let sleeper = example("hostile", interrupt)?;
    Ok([
        words("plugin --rounds"),
        vec![args.rounds.to_string()],
        vec!["--rollout".into(), text(built.rollout)],
        vec!["--cdylib".into(), text(built.cdylib)],
        vec!["--sleeper".into(), text(sleeper)],
    ]
    .concat())
}

/// Builds what the suite `work` needs, and gives its arguments.
fn work(args: &BenchWorkArgs, interrupt: &Interrupt) -> Result<Vec<String>, BuildError> {
    let built = binaries::build(Profile::Release, interrupt, &mut |_| {})?;
    let noop = example("noop", interrupt)?;
    let only = args.only.iter().flat_map(|part| ["--only".to_owned(), part.clone()]).collect();
    Ok([
        words("work --rounds"),
        vec![args.rounds.to_string()],
        vec!["--items".into(), args.items.to_string()],
        vec!["--rollout".into(), text(built.rollout)],
        vec!["--noop".into(), text(noop)],
        only,
    ]
    .concat())
}

fn example(name: &str, interrupt: &Interrupt) -> Result<PathBuf, BuildError> {
    let package = "rollout-plugin-host";
    binaries::example_library(package, name, Profile::Release, interrupt, &mut |_| {})
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
