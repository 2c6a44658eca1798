//! Measures rollout and prints each figure beside a baseline that was taken in the same run, and
//! beside what is asked of it. It judges nothing: a figure says something about the machine as well.
//!
//! `cargo xtask bench` builds what is measured and runs it. It is never shipped.

mod args;
mod error;
mod plugin;
mod report;
mod stage;
mod work;

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Args, PluginArgs, Suite, WorkArgs};
use crate::error::BenchError;
use crate::report::Report;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(refusal) => {
            // Whoever closed the stream does not want the message.
            let _ = refusal.print();
            let usage = rollout_core::ExitCode::Usage.code();
            return ExitCode::from(if refusal.use_stderr() { usage } else { 0 });
        }
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", error::chain(&error));
            ExitCode::from(error.exit_code().code())
        }
    }
}

fn run(args: Args) -> Result<(), BenchError> {
    if cfg!(debug_assertions) {
        eprintln!("rollout-bench: this is a debug build; its figures say little");
    }
    // As a worker's and a command's own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::io("no runtime"))?;
    let report = runtime.block_on(async {
        let listen = |kind| signal(kind).map_err(BenchError::io("cannot listen to signals"));
        let (mut term, mut int) =
            (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        tokio::select! {
            report = measure(&args.suite) => report,
            _ = term.recv() => Err(BenchError::Interrupted("SIGTERM")),
            _ = int.recv() => Err(BenchError::Interrupted("SIGINT")),
        }
    });
    // A process that a thread still waits for ends with this one.
    runtime.shutdown_timeout(Duration::ZERO);
    let report = report?;
    let mut out = io::stdout().lock();
    out.write_all(report.table().as_bytes()).map_err(BenchError::io("standard output"))?;
    let (Suite::Plugin(PluginArgs { json, .. }) | Suite::Work(WorkArgs { json, .. })) = args.suite;
    if let Some(path) = json {
        let written = fs::write(&path, format!("{:#}\n", report.json()));
        written.map_err(|source| BenchError::Json { path, source })?;
    }
    Ok(())
}

async fn measure(suite: &Suite) -> Result<Report, BenchError> {
    match suite {
        Suite::Plugin(args) => plugin::measure(args).await,
        Suite::Work(args) => work::measure(args).await,
    }
}
