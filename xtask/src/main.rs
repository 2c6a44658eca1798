//! The project's own commands, run as `cargo xtask <command>`: they read flags and call crates.

mod args;
mod bench;
mod book;
mod cargo;
mod chaos;
mod ci;
mod commits;
mod detection;
mod files;
mod generate;
mod orphans;
mod preflight;
mod prepare;
mod scenario;
mod simulate;
mod smoke;
mod tidy;
mod tree;
mod unused;
mod work;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use rollout_harness::Interrupt;

use args::{Args, Command};

/// Writes to standard output. Whoever closed it does not want to know, and the work goes on.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes a complaint to standard error.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "error: {text}");
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(message) => {
            // Whoever closed the stream does not want the message.
            let _ = message.print();
            let usage = rollout_core::ExitCode::Usage.code();
            return ExitCode::from(if message.use_stderr() { usage } else { 0 });
        }
    };
    // Before anything starts a thread: threads inherit the signals that are blocked here.
    let interrupt = match Interrupt::on_signals() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            complain(&format!("cannot take over SIGINT and SIGTERM: {error}"));
            return ExitCode::from(rollout_core::ExitCode::Internal.code());
        }
    };
    ExitCode::from(match args.command {
        Command::Smoke(args) => smoke::run(&args, &interrupt),
        Command::Scenario(args) => scenario::run(&args, &interrupt),
        Command::Orphans(args) => orphans::run(&args, &interrupt),
        Command::Bench(command) => bench::run(&command, &interrupt),
        Command::Detection(args) => detection::run(&args, &interrupt),
        Command::Simulate(args) => simulate::run(&args, &interrupt),
        Command::Chaos(args) => chaos::run(&args, &interrupt),
        Command::Work(args) => work::run(&args, &interrupt),
        Command::Judge(args) => chaos::judge(&args),
        Command::Preflight => preflight::run(),
        Command::Ci(args) => ci::run(&args, &interrupt),
        Command::Tidy => tidy::run(),
        Command::Generate(args) => generate::run(&args, &interrupt),
    })
}
