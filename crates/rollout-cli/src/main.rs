//! `rollout`, the one binary: parses the command line, runs one command, prints what went wrong
//! once, and exits with a documented code.

mod args;
mod cert;
mod config;
mod coordinator;
mod error;
mod events;
#[cfg(feature = "faults")]
mod faults;
mod fleet_at;
mod logging;
mod plugin;
mod process;
mod run;
mod schema;
mod signals;
mod status;
mod stream;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Args, CertCommand, Command, ConfigCommand, CoordinatorCommand, WorkerCommand};
use crate::error::CliError;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(refusal) => {
            // Help and version go to standard output and are no error.
            let _ = refusal.print();
            let usage = rollout_core::ExitCode::Usage.code();
            return ExitCode::from(if refusal.use_stderr() { usage } else { 0 });
        }
    };
    match carry_out(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.exit_code().code())
        }
    }
}

fn carry_out(command: Command) -> Result<(), CliError> {
    #[cfg(feature = "faults")]
    faults::install()?;
    match command {
        Command::Run(args) => run::run(&args),
        Command::Resume(args) => run::resume(&args),
        Command::Status(args) => status::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Coordinator(CoordinatorCommand::Run(args)) => coordinator::run(&args),
        Command::Worker(WorkerCommand::Run(args)) => worker::run(&args),
        Command::Plugin(command) => plugin::run(&command),
        Command::Config(ConfigCommand::Check { files }) => config::check(&files),
        Command::Cert(CertCommand::Init(args)) => cert::init(&args),
        Command::Cert(CertCommand::Issue(args)) => cert::issue(&args),
        Command::Cert(CertCommand::Show { files }) => cert::show(&files),
        Command::Schema { kind } => config::print(kind.schema()),
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "rollout", &mut out);
            config::print(&String::from_utf8_lossy(&out))
        }
    }
}
