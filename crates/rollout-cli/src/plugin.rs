//! `rollout plugin`: a plugin made, checked, called and measured by hand, without a worker.

pub(crate) mod args;
mod aside;
mod bench;
mod call;
mod check;
mod new;
mod sample;
mod stage;

use crate::error::CliError;
use crate::plugin::args::PluginCommand;

pub(crate) fn run(command: &PluginCommand) -> Result<(), CliError> {
    match command {
        PluginCommand::New(args) => new::run(args),
        PluginCommand::Check(args) => check::run(args),
        PluginCommand::Bench(args) => bench::run(args),
        PluginCommand::Call(args) => call::run(args),
    }
}
