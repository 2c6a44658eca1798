//! A fleet in virtual time: `cargo xtask simulate --workers 1000000`.
//!
//! The same liveness and the same watchdog as in the coordinator, driven as its engine drives them,
//! by workers that beat with jitter, are killed, cut off and come back, and a coordinator that is
//! stopped. Every verdict is checked against the formula and has to fall at the first look after its
//! deadline, every kill has to have its verdict, and nobody else may have one. Only the calls to
//! liveness are timed, beside an array in which each beat stores its instant.

mod meter;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use world::{Options, Report, World};

const USAGE: &str = "usage: simulate [--workers N] [--seconds S] [--seed X] [--json 1]";

fn main() -> ExitCode {
    let Some((options, json)) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    let report = World::new(&options).run();
    if json {
        println!("{}", figures(&options, &report));
    } else {
        print(&options, &report);
    }
    ExitCode::from(u8::from(!report.wrong.is_empty()))
}

/// What to simulate, and whether to print it for programs.
fn options() -> Option<(Options, bool)> {
    let mut json = false;
    let mut options = Options { workers: 1_000_000, seconds: 30, seed: 1 };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next()?.parse().ok()?;
        match flag.as_str() {
            "--workers" => options.workers = u32::try_from(value).ok()?,
            "--seconds" => options.seconds = value,
            "--seed" => options.seed = value,
            "--json" => json = value > 0,
            _ => return None,
        }
    }
    (1..=16_000_000).contains(&options.workers).then_some((options, json))
}

/// What liveness cost, for programs.
fn figures(options: &Options, report: &Report) -> serde_json::Value {
    serde_json::json!({
        "workers": options.workers,
        "beats": report.beats,
        "beating_s": report.beating.as_secs_f64(),
        "storing_s": report.storing.as_secs_f64(),
        "ticks": report.ticks,
        "ticking_s": report.ticking.as_secs_f64(),
        "longest_tick_s": report.longest_tick.as_secs_f64(),
        "bytes_a_worker": report.bytes / u64::from(options.workers.max(1)),
        "overshoot_s": report.overshoot.as_secs_f64(),
        "wrong": report.wrong,
    })
}

fn print(options: &Options, report: &Report) {
    let per = |spent: Duration, times: u64| spent.as_secs_f64() * 1e9 / times.max(1) as f64;
    let busy = report.registering + report.beating + report.ticking;
    let (beats, ticks) = (report.beats, report.ticks);
    println!(
        "  {} workers, {} s of virtual time, seed {}: {:.1} s, of it {:.1} s in liveness\n",
        options.workers,
        options.seconds,
        options.seed,
        report.took.as_secs_f64(),
        busy.as_secs_f64(),
    );
    println!("  register       {:>9.0} ns", per(report.registering, options.workers.into()));
    println!("  beat           {:>9.0} ns each, {beats} beats", per(report.beating, beats));
    println!("    stored       {:>9.0} ns each, in an array", per(report.storing, beats));
    println!("  tick           {:>9.0} ns each, {ticks} ticks", per(report.ticking, ticks));
    println!("    longest      {:>9.1} ms", report.longest_tick.as_secs_f64() * 1e3);
    let rate = beats as f64 / (report.beating + report.ticking).as_secs_f64() / 1e6;
    println!("  beats          {rate:>9.1} million/s on one core, ticks included");
    let bytes = report.bytes / u64::from(options.workers.max(1));
    println!("  memory         {bytes:>9} bytes a worker");
    println!("  overshoot      {:>9.1} ms at most", report.overshoot.as_secs_f64() * 1e3);
    let stopped = report.stopped_overshoot.as_secs_f64() * 1e3;
    println!("    in a stop    {stopped:>9.1} ms at most, where it was too short for a stall\n");
    println!(
        "  {} killed, {} failed; {} cut off, {} suspected, {} recovered; {} stalls, {} reported",
        report.killed,
        report.failed,
        report.cut,
        report.suspected,
        report.recovered,
        report.stops,
        report.stalls
    );
    for wrong in &report.wrong {
        println!("  ✗ {wrong}");
    }
    println!("  {}", if report.wrong.is_empty() { "PASS" } else { "FAIL" });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulate(workers: u32, seconds: u64, seed: u64) -> Report {
        let report = World::new(&Options { workers, seconds, seed }).run();
        assert_eq!(report.wrong, [""; 0], "seed {seed}");
        report
    }

    #[test]
    fn in_a_small_fleet_the_dead_fail_on_time_and_nobody_else() {
        for seed in 1..=3 {
            let report = simulate(2_000, 40, seed);
            let happened = [report.killed, report.cut, report.stops, report.recovered];
            assert!(happened.iter().all(|times| *times > 0), "seed {seed}: {happened:?}");
        }
    }

    /// Long enough for stops that are too short to be a stall, and for verdicts that fall into them.
    #[test]
    fn in_ten_minutes_no_stop_too_short_for_a_stall_is_taken_for_one_nor_costs_a_verdict() {
        let report = simulate(200, 600, 1);
        assert!(report.doubtful > 0 && report.stopped_overshoot > Duration::ZERO);
    }
}
