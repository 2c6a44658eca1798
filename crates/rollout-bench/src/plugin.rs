//! The suite `plugin`: what a call costs through either boundary, and what a plugin that dies, hangs
//! or lies costs its callers and its neighbours.

mod calls;
mod death;
mod hang;
mod held;
mod memory;

use crate::args::PluginArgs;
use crate::error::BenchError;
use crate::report::Report;
use crate::say;

use crate::stage::Stage;

/// Measures everything, in turn with its baseline.
pub(crate) async fn measure(args: &PluginArgs) -> Result<Report, BenchError> {
    let stage = Stage::open()?;
    let rounds = args.output.rounds.get();
    let mut groups = Vec::new();
    say("calls");
    groups.extend(calls::measure(&stage, args).await?);
    say("deaths");
    groups.push(death::measure(&stage, rounds).await?);
    say("hanging neighbours");
    groups.push(hang::measure(&stage, &args.sleeper, rounds).await?);
    say("memory");
    groups.push(memory::measure(&stage, rounds).await?);
    Ok(Report { suite: "plugin", rounds, groups, notes: Vec::new(), curves: Vec::new() })
}
