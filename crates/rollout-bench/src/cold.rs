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

/// Builds into an empty directory, each round anew, and then once more with nothing to do. What has
/// to be downloaded is there before.
pub(crate) fn measure(args: &BuildArgs) -> Result<Report, BenchError> {
    let rounds = args.output.rounds.get();
    let (mut cold, mut warm, mut size) = (Vec::new(), Vec::new(), Vec::new());
    cargo(&["fetch", "--quiet", "--locked"], None)?;
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

/// Seconds that a build took, two jobs at a time on however many cores.
fn build(target: &Path) -> Result<f64, BenchError> {
    let since = SystemClock.now();
    let what = ["--quiet", "--release", "--locked", "--package", "rollout-cli", "--jobs", "2"];
    cargo(&[&["build"], &what[..]].concat(), Some(target))?;
    Ok(SystemClock.now().since(since).as_secs_f64())
}

/// Runs cargo without a wrapper around the compiler: one that keeps results would build nothing.
fn cargo(args: &[&str], target: Option<&Path>) -> Result<(), BenchError> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut spawn = Spawn::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    for wrapper in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        spawn = spawn.env(wrapper, "");
    }
    if let Some(target) = target {
        spawn = spawn.arg("--target-dir").arg(target);
    }
    let output = spawn.output(Some(LONG))?;
    if output.exit.success() { Ok(()) } else { Err(BenchError::Cargo(output.exit)) }
}
