//! The suite `liveness`: the coordinator's state machine alone, as `cargo xtask simulate` drives it,
//! beside an array in which each beat stores its instant, in the same run and order.

use std::time::Duration;

use rollout_process::Spawn;
use serde_json::Value;

use crate::args::LivenessArgs;
use crate::error::BenchError;
use crate::report::{Asked, Curve, Figure, Group, Report, Unit};
use crate::say;

/// Fleets.
const SIZES: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Beats that a size is measured with, at least.
const BEATS: u32 = 4_000_000;
/// Virtual seconds in which harm is done, and those that a simulation adds to them.
const SECONDS: [u32; 2] = [5, 16];

/// Seconds for a beat, bytes for a worker, seconds for the longest tick.
#[derive(Clone, Copy, Default)]
struct Point {
    beat: f64,
    memory: f64,
    tick: f64,
    bare: f64,
}

/// Measures each size.
pub(crate) fn measure(args: &LivenessArgs) -> Result<Report, BenchError> {
    let rounds = args.output.rounds.get();
    let mut sizes = Vec::new();
    for size in SIZES {
        say(&format!("{size} workers"));
        let one = |_| simulate(args, size);
        sizes.push((size, (0..rounds).map(one).collect::<Result<Vec<_>, BenchError>>()?));
    }
    let groups = sizes.iter().map(|(size, points)| group(*size, points)).collect();
    let of = |pick: fn(&Point) -> f64| {
        let point = |(size, points): &(u32, Vec<Point>)| {
            (f64::from(*size), points.iter().map(pick).collect())
        };
        sizes.iter().map(point).collect()
    };
    let beats = vec![("liveness", of(|p| p.beat)), ("an array", of(|p| p.bare))];
    let curve = |title, unit, series| Curve { title, sizes: "workers", unit, series };
    let curves = vec![
        curve("A beat, its share of the ticks included", Unit::Time, beats),
        curve("Memory a worker", Unit::Size, vec![("liveness", of(|p| p.memory))]),
    ];
    Ok(Report { suite: "liveness", rounds, groups, notes: Vec::new(), curves })
}

fn group(size: u32, points: &[Point]) -> Group {
    let largest = Some(&size) == SIZES.last();
    let figure = |name, unit, asked, pick: fn(&Point) -> f64| {
        let values = points.iter().map(pick).collect();
        Figure { name, unit, values, beside: Vec::new(), asked }
    };
    let rate = if largest { Asked::AtLeast(5e6) } else { Asked::Nothing };
    let mut beats = figure("beats", Unit::Rate, rate, |p| 1.0 / p.beat);
    beats.beside = points.iter().map(|p| 1.0 / p.bare).collect();
    let figures = vec![
        beats,
        figure("memory a worker", Unit::Size, Asked::Nothing, |p| p.memory),
        figure("longest tick", Unit::Time, Asked::Nothing, |p| p.tick),
    ];
    Group {
        title: format!("{size} workers in virtual time, on one core, ticks included"),
        beside: "an array that stores each beat's instant, in the same run",
        figures,
    }
}

/// One simulation; one that finds something wrong is no figure.
fn simulate(args: &LivenessArgs, size: u32) -> Result<Point, BenchError> {
    let [seconds, calm] = SECONDS;
    // Small fleets for longer, so that there is something to measure.
    let seconds = seconds.max((BEATS / size / 2).saturating_sub(calm));
    let (size, seconds) = (size.to_string(), seconds.to_string());
    let options = ["--json", "1", "--workers", &size, "--seconds", &seconds];
    let spawn = Spawn::new(&args.simulate).args(options);
    let output = spawn.output(Some(Duration::from_secs(300)))?;
    let command = format!("simulate {}", options.join(" "));
    if !output.exit.success() {
        return Err(BenchError::Rollout { command, exit: output.exit });
    }
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let number = |row: &str| {
        let value = printed[row].as_f64();
        value.ok_or_else(|| BenchError::NoRow { command: command.clone(), row: row.to_owned() })
    };
    Ok(Point {
        beat: (number("beating_s")? + number("ticking_s")?) / number("beats")?,
        memory: number("bytes_a_worker")?,
        tick: number("longest_tick_s")?,
        bare: number("storing_s")? / number("beats")?,
    })
}
