//! The suite `build`: how long the binary takes to build from nothing, and how large it is.

use std::path::Path;
use std::time::Duration;

use rollout_core::{Clock, SystemClock};
use rollout_process::Spawn;

use crate::args::BuildArgs;
use crate::error::BenchError;
use crate::report::{Asked, Figure, Group, Report, Unit};
use crate::say;

/// More than any of this takes.
const LONG: Duration = Duration::from_secs(1800);

/// Builds into an empty directory, each round anew, and then once more with nothing to do.
pub(crate) fn measure(args: &BuildArgs) -> Result<Report, BenchError> {
    let rounds = args.output.rounds.get();
    let (mut cold, mut warm, mut size) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        say(&format!("cold build {}", round + 1));
        let dir = tempfile::Builder::new().prefix("rollout-").tempdir();
        let dir = dir.map_err(BenchError::io("no temporary directory"))?;
        cold.push(build(dir.path())?);
        warm.push(build(dir.path())?);
        let binary = std::fs::metadata(dir.path().join("release/rollout"));
        size.push(binary.map_err(BenchError::io("the build made no binary"))?.len() as f64);
    }
    let figure = |name, unit, values, beside, asked| Figure { name, unit, values, beside, asked };
    let mib = 1024.0 * 1024.0;
    let figures = vec![
        figure("build from nothing", Unit::Time, cold, warm, Asked::AtMost(90.0)),
        figure("binary", Unit::Size, size, Vec::new(), Asked::AtMost(12.0 * mib)),
    ];
    let groups = vec![Group {
        title: "cargo build --release of `rollout`, its dependencies included".into(),
        beside: "the same again, with nothing to do",
        figures,
    }];
    Ok(Report { suite: "build", rounds, groups, notes: Vec::new(), curves: Vec::new() })
}

/// Seconds that cargo took.
fn build(target: &Path) -> Result<f64, BenchError> {
    let since = SystemClock.now();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let spawn = Spawn::new(cargo)
        .args(["build", "--quiet", "--release", "--locked", "--package", "rollout-cli"])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = spawn.output(Some(LONG))?;
    if !output.exit.success() {
        return Err(BenchError::Cargo(output.exit));
    }
    Ok(SystemClock.now().since(since).as_secs_f64())
}
