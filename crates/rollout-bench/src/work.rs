//! The suite `work`: what `rollout run` costs an item, what it keeps in memory, and how soon it starts;
//! whole processes, seen from outside, each beside what one would have without it.

mod episodes;
mod items;
mod loop_alone;
mod memory;
mod rate;
mod run;
mod scale;
mod stage;
mod start;

use crate::args::{Part, WorkArgs};
use crate::error::BenchError;
use crate::report::Report;
use crate::say;

use self::stage::Jobs;

/// Measures everything, in turn with its peers.
pub(crate) async fn measure(args: &WorkArgs) -> Result<Report, BenchError> {
    let jobs = Jobs::open(&args.rollout)?;
    let rounds = args.output.rounds.get();
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    let (mut groups, mut notes) = (Vec::new(), Vec::new());
    if wanted(Part::Start) {
        say("start-up");
        groups.push(start::measure(&jobs, &args.noop, rounds).await?);
    }
    if wanted(Part::Cdylib) {
        say("a no-op library");
        groups.extend(items::cdylib(&jobs, args).await?);
    }
    if wanted(Part::Sidecar) {
        say("a no-op sidecar");
        groups.push(items::sidecar(&jobs, args).await?);
    }
    if wanted(Part::Episodes) {
        say("episodes");
        let (group, note) = episodes::measure(&jobs, args).await?;
        groups.push(group);
        notes.extend(note);
    }
    let mut curves = Vec::new();
    if wanted(Part::Scale) {
        say("jobs of several sizes");
        let (group, curve) = scale::measure(&jobs, args).await?;
        groups.push(group);
        curves.push(curve);
    }
    Ok(Report { suite: "work", rounds, groups, notes, curves })
}
