//! Measures rollout and prints each figure beside a baseline that was taken in the same run, and
//! beside what is asked of it. It judges nothing: a figure says something about the machine as well.
//!
//! `cargo xtask bench` builds what is measured and runs it. It is never shipped.

mod args;
mod cold;
mod cost;
mod error;
mod fleet;
mod history;
mod ledger;
mod liveness;
mod machine;
mod plot;
mod plugin;
mod report;
mod restart;
mod stage;
mod work;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::args::{Args, Output, Suite};
use crate::error::BenchError;
use crate::machine::Machine;
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
            let _ = writeln!(io::stderr(), "error: {}", rollout_core::chain(&error));
            ExitCode::from(error.exit_code().code())
        }
    }
}

fn run(args: Args) -> Result<(), BenchError> {
    if cfg!(debug_assertions) {
        eprintln!("rollout-bench: this is a debug build; its figures say little");
    }
    let machine = Machine::here();
    // As a worker's and a command's own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::io("no runtime"))?;
    let measured = runtime.block_on(async {
        let listen = |kind| signal(kind).map_err(BenchError::io("cannot listen to signals"));
        let (mut term, mut int) =
            (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        tokio::select! {
            report = measure(args.suite) => report,
            _ = term.recv() => Err(BenchError::Interrupted("SIGTERM")),
            _ = int.recv() => Err(BenchError::Interrupted("SIGINT")),
        }
    });
    // A process that a thread still waits for ends with this one.
    runtime.shutdown_timeout(Duration::ZERO);
    match measured? {
        Some((report, output)) => show(&report, &machine, &output),
        None => Ok(()),
    }
}

/// The figures, and what becomes of them; nothing of a server that serves others.
async fn measure(suite: Suite) -> Result<Option<(Report, Output)>, BenchError> {
    Ok(Some(match suite {
        Suite::Plugin(args) => (plugin::measure(&args).await?, args.output),
        Suite::Work(args) => (work::measure(&args).await?, args.output),
        Suite::Fleet(args) => (fleet::measure(&args).await?, args.output),
        Suite::Restart(args) => (restart::measure(&args).await?, args.output),
        Suite::Liveness(args) => {
            aside(move || Ok((liveness::measure(&args)?, args.output))).await?
        }
        Suite::Ledger(args) => aside(move || Ok((ledger::measure(&args)?, args.output))).await?,
        Suite::Build(args) => aside(move || Ok((cold::measure(&args)?, args.output))).await?,
        Suite::Bare(args) => {
            fleet::bare::serve(&args).await?;
            return Ok(None);
        }
    }))
}

/// What waits without a runtime, on a thread of its own.
async fn aside<T: Send + 'static>(
    measure: impl FnOnce() -> Result<T, BenchError> + Send + 'static,
) -> Result<T, BenchError> {
    let measured = spawn_blocking(measure).await;
    measured.map_err(|lost| BenchError::io("a thread was lost")(lost.into()))?
}

fn show(report: &Report, machine: &Machine, output: &Output) -> Result<(), BenchError> {
    let mut out = io::stdout().lock();
    let table = report.table(machine);
    out.write_all(table.as_bytes()).map_err(BenchError::io("standard output"))?;
    let write = |path: &Path, text: String| {
        fs::write(path, text).map_err(|source| BenchError::File { path: path.to_owned(), source })
    };
    if let Some(path) = &output.json {
        write(path, format!("{:#}\n", report.json(machine)))?;
    }
    if let Some(path) = &output.svg {
        write(path, plot::svg(report, machine))?;
    }
    output.record.as_ref().map_or(Ok(()), |docs| history::record(docs, report, machine))
}

/// Says what is measured now, to a person.
fn say(what: &str) {
    if io::stderr().is_terminal() {
        eprintln!("measuring {what} ...");
    }
}
