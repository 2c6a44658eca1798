//! What calls cost: `rollout plugin bench`, again and again, which measures the plugin and its
//! baseline in turn.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use rollout_process::Spawn;
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::args::PluginArgs;
use crate::error::BenchError;
use crate::report::{Asked, Figure, Group, Unit};
use crate::stage::{Stage, sidecar};

/// A load on a plugin.
struct Load<'a> {
    manifest: &'a Path,
    method: &'static str,
    payload: &'static str,
}

/// What one run printed.
struct Run {
    command: String,
    rows: Vec<Value>,
}

/// A figure of a run: the row's name and how many calls at a time it had, and what of it counts.
#[derive(Clone, Copy)]
enum Pick {
    P50(&'static str, u64),
    P99(&'static str, u64),
    Rate(&'static str, u64),
    /// A call's share of the time.
    Share(&'static str, u64),
}

use Pick::{P50, P99, Rate, Share};

/// The figures of both boundaries.
pub(super) async fn measure(stage: &Stage, args: &PluginArgs) -> Result<[Group; 2], BenchError> {
    let library = stage.library("rust_cdylib_sample", &args.cdylib)?;
    let sidecar = sidecar();
    let loads = [
        Load { manifest: &library, method: "echo", payload: "0" },
        Load { manifest: &library, method: "echo", payload: "64" },
        Load { manifest: &sidecar, method: "echo", payload: "64" },
        Load { manifest: &sidecar, method: "aecho", payload: "64" },
        Load { manifest: &sidecar, method: "echo", payload: "1048576" },
    ];
    let mut runs = loads.each_ref().map(|_| Vec::new());
    for _ in 0..args.output.rounds.get() {
        for (load, runs) in loads.iter().zip(&mut runs) {
            runs.push(run(&args.rollout, load, stage.dir()).await?);
        }
    }
    let [empty, small, plain, on_loop, large] = runs;
    let function = Share("bare function", 1);
    let cdylib = vec![
        figure("no-op", &empty, Share("batches", 4096), function, Asked::AtMost(300e-9))?,
        figure("64 bytes", &small, Share("batches", 4096), function, Asked::AtMost(400e-9))?,
        figure(
            "64 bytes, batches of 64",
            &small,
            Share("batches", 64),
            function,
            Asked::AtMost(1e-6),
        )?,
        figure("64 bytes alone, p50", &small, P50("plugin", 1), function, Asked::Nothing)?,
    ];
    let (raw, many) = (P50("raw python", 1), Rate("raw python", 64));
    let sidecar = vec![
        figure("64 bytes, p50", &plain, P50("plugin", 1), raw, Asked::Times(2.0))?,
        figure("64 bytes, p99", &plain, P99("plugin", 1), P99("raw python", 1), Asked::Times(5.0))?,
        figure("64 at a time", &plain, Rate("plugin", 64), many, Asked::AtLeast(40e3))?,
        figure("64 at a time, asyncio", &on_loop, Rate("plugin", 64), many, Asked::AtLeast(15e3))?,
        figure("1 MiB, p50", &large, P50("plugin", 1), raw, Asked::AtMost(2e-3))?,
    ];
    Ok([
        Group {
            title: "An item's share of a cdylib's batch of 4096, delivery included".into(),
            beside: "a call through a function pointer",
            figures: cdylib,
        },
        Group {
            title: "A sidecar's round trip, Python SDK".into(),
            beside: "a raw socket to a Python process that sends back",
            figures: sidecar,
        },
    ])
}

/// Runs `rollout plugin bench` once.
async fn run(rollout: &Path, load: &Load<'_>, temporary: &Path) -> Result<Run, BenchError> {
    let Load { manifest, method, payload } = load;
    let args =
        ["--method", method, "--params", "null", "--payload-size", payload, "--seconds", "2"];
    let spawn = Spawn::new(rollout)
        .args(["plugin", "bench", "--json"])
        .arg(manifest)
        .args(args)
        // What it leaves when it is killed is removed with this process's own.
        .env("TMPDIR", AsRef::<OsStr>::as_ref(temporary));
    let command = format!("plugin bench --json {} {}", manifest.display(), args.join(" "));
    let output = spawn_blocking(|| spawn.output(Some(Duration::from_secs(60)))).await;
    let output = output.map_err(|lost| BenchError::io("a thread was lost")(lost.into()))??;
    if !output.exit.success() {
        return Err(BenchError::Rollout { command, exit: output.exit });
    }
    let mut printed: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let rows = match printed["rows"].take() {
        Value::Array(rows) => rows,
        _ => Vec::new(),
    };
    Ok(Run { command, rows })
}

impl Run {
    fn pick(&self, pick: Pick) -> Result<f64, BenchError> {
        let (P50(what, at_a_time)
        | P99(what, at_a_time)
        | Rate(what, at_a_time)
        | Share(what, at_a_time)) = pick;
        let key = match pick {
            P50(..) => "p50_us",
            P99(..) => "p99_us",
            Rate(..) | Share(..) => "calls_per_s",
        };
        let row = self.rows.iter().find(|row| row["what"] == what && row["in_flight"] == at_a_time);
        let value = row.and_then(|row| row[key].as_f64()).ok_or_else(|| BenchError::NoRow {
            command: self.command.clone(),
            row: format!("{what} {at_a_time}"),
        })?;
        Ok(match pick {
            P50(..) | P99(..) => value / 1e6,
            Rate(..) => value,
            Share(..) => 1.0 / value,
        })
    }
}

fn figure(
    name: &'static str,
    runs: &[Run],
    pick: Pick,
    beside: Pick,
    asked: Asked,
) -> Result<Figure, BenchError> {
    let all = |pick| runs.iter().map(|run| run.pick(pick)).collect::<Result<Vec<_>, _>>();
    let unit = if let Rate(..) = pick { Unit::Rate } else { Unit::Time };
    Ok(Figure { name, unit, values: all(pick)?, beside: all(beside)?, asked })
}
