//! `cargo xtask bench`: builds with the release profile, then runs `rollout-bench`.

use std::path::absolute;

use rollout_core::ExitCode;
use rollout_harness::binaries::{self, BuildError, Profile};
use rollout_harness::smoke::chain;
use rollout_harness::{Interrupt, preflight};

use crate::args::{BenchCommand, BenchPluginArgs};
use crate::cargo::cargo;
use crate::complain;

/// Runs a suite; the exit code.
pub(crate) fn run(command: &BenchCommand, interrupt: &Interrupt) -> u8 {
    if !crate::preflight::passes() {
        return preflight::EXIT_CODE;
    }
    match command {
        BenchCommand::Plugin(args) => plugin(args, interrupt),
    }
}

fn plugin(args: &BenchPluginArgs, interrupt: &Interrupt) -> u8 {
    let given = match given(interrupt) {
        Ok(given) => given,
        Err(error) => {
            complain(&chain(&error));
            return 1;
        }
    };
    let mut run = words("run --quiet --release --locked --package rollout-bench -- plugin");
    run.extend(given);
    run.extend(["--rounds".into(), args.rounds.to_string()]);
    if let Some(file) = &args.json {
        // Cargo is run in the workspace, wherever this was started.
        let Ok(file) = absolute(file) else {
            complain("--json has no file");
            return ExitCode::Usage.code();
        };
        run.extend(["--json".into(), file.to_string_lossy().into_owned()]);
    }
    let run: Vec<_> = run.iter().map(String::as_str).collect();
    cargo(&run, interrupt)
}

/// The options that say where what is measured lies.
fn given(interrupt: &Interrupt) -> Result<Vec<String>, BuildError> {
    let profile = Profile::Release;
    let binaries = binaries::build(profile, interrupt, &mut |_| {})?;
    let (package, name) = ("rollout-plugin-host", "hostile");
    let sleeper = binaries::example_library(package, name, profile, interrupt, &mut |_| {})?;
    let options =
        [("--rollout", binaries.rollout), ("--cdylib", binaries.cdylib), ("--sleeper", sleeper)];
    let text = |(option, path): (&str, std::path::PathBuf)| {
        [option.to_owned(), path.to_string_lossy().into_owned()]
    };
    Ok(options.into_iter().flat_map(text).collect())
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
