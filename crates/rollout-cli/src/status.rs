//! `rollout status`: who works, how far jobs are, and what is stuck.

mod table;

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rollout_transport::work::Status;
use rollout_transport::{Remote, Tls};

use crate::config::print;
use crate::error::CliError;
use crate::fleet_at::FleetAt;
use crate::run::args::StatusArgs;
use crate::run::dir::RunDir;
use crate::run::error::RunError;
use crate::run::own_tls;
use crate::signals::Signals;

/// How long the coordinator may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);

/// Whom to ask.
enum Source {
    Coordinator {
        address: String,
        tls: Tls,
    },
    /// Nothing runs there; this is how it ended.
    Report(serde_json::Value),
}

pub(crate) fn run(args: &StatusArgs) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    runtime.block_on(async {
        if !args.watch {
            return print(&once(args).await?);
        }
        let mut signals = Signals::listen().map_err(CliError::Runtime)?;
        loop {
            let text = once(args).await?;
            let clear = !args.json && io::stdout().is_terminal();
            print(&if clear { format!("\x1b[H\x1b[2J{text}") } else { text })?;
            tokio::select! {
                _ = signals.next() => return Ok(()),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    })
}

async fn once(args: &StatusArgs) -> Result<String, CliError> {
    match source(args)? {
        Source::Report(report) if args.json => Ok(format!("{report}\n")),
        Source::Report(report) => Ok(table::ended(&report)),
        Source::Coordinator { address, tls } => {
            let status = ask(&address, &tls).await?;
            if args.json {
                let line = serde_json::to_string(&status).unwrap_or_default();
                return Ok(format!("{line}\n"));
            }
            Ok(table::status(&address, &status))
        }
    }
}

async fn ask(address: &str, tls: &Tls) -> Result<Status, RunError> {
    let asked = async { Ok(Remote::open(address, tls, ANSWER).await?.status().await?) };
    tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| {
        let (addr, after) = (address.to_owned(), ANSWER);
        Err(rollout_transport::ConnectError::Timeout { addr, after }.into())
    })
}

fn source(args: &StatusArgs) -> Result<Source, CliError> {
    if let Some(fleet) = FleetAt::from_args(&args.fleet)? {
        let tls = fleet.certificate()?;
        return Ok(Source::Coordinator { address: fleet.coordinator, tls });
    }
    let shown = args.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    of_dir(&RunDir::new(&shown), &shown)
}

fn of_dir(dir: &RunDir, shown: &Path) -> Result<Source, CliError> {
    if dir.is_taken() {
        if let Ok(address) = fs::read_to_string(dir.address()) {
            return Ok(Source::Coordinator { address, tls: own_tls(dir)? });
        }
        if let Some(record) = dir.read_record()?
            && let Some(fleet) = record.request.fleet
        {
            let tls = fleet.certificate()?;
            return Ok(Source::Coordinator { address: fleet.coordinator, tls });
        }
        return Err(RunError::Starting(shown.to_owned()).into());
    }
    if let Some(report) = dir.read_report()? {
        return Ok(Source::Report(report));
    }
    match dir.read_record()? {
        Some(_) => Err(RunError::Killed(shown.to_owned()).into()),
        None => Err(RunError::NoRun(shown.to_owned()).into()),
    }
}
