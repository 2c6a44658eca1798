//! Whether an item of a large job costs what one of a small job does.

use super::loop_alone;
use super::stage::{Job, Jobs, nothing};
use crate::args::WorkArgs;
use crate::error::BenchError;
use crate::report::{Asked, Curve, Figure, Group, Points, Unit};

/// The sizes are these parts of the items that are asked for.
const PARTS: [(u64, &str); 4] =
    [(1000, "a thousandth"), (100, "a hundredth"), (10, "a tenth"), (1, "all of them")];
/// As large as a batch may be.
const BATCH: u32 = 4096;

/// What an item costs in jobs of several sizes, less what a job of one item costs.
pub(super) async fn measure(
    jobs: &Jobs<'_>,
    args: &WorkArgs,
) -> Result<(Group, Curve), BenchError> {
    let manifest = jobs.stage.library("rollout-plugin-host", &args.noop)?;
    let plugin = jobs.stage.start(&manifest).await?;
    let mut figures = Vec::new();
    let (mut ours, mut alone): (Points, Points) = (Vec::new(), Vec::new());
    for (part, name) in PARTS {
        let items = (args.items.get() / part).max(1);
        let job = Job { plugin: &manifest, items, batch: BATCH, workers: 1 };
        let (mut values, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..args.output.rounds.get() {
            let file = jobs.fresh("alone");
            let direct = loop_alone::measure(&plugin, &file, items, BATCH).await?;
            let start = jobs.run(Job { items: 1, ..job }, nothing).await?.0.took;
            let took = jobs.run(job, nothing).await?.0.took;
            values.push(took.saturating_sub(start).as_secs_f64() / items as f64);
            beside.push(direct.as_secs_f64() / items as f64);
        }
        ours.push((items as f64, values.clone()));
        alone.push((items as f64, beside.clone()));
        figures.push(Figure { name, unit: Unit::Time, values, beside, asked: Asked::Nothing });
    }
    plugin.shutdown().await?;
    let group = Group {
        title: format!("An item of jobs with parts of {} items, without start-up", args.items),
        beside: "the plugin called in one process, results synced after each batch",
        figures,
    };
    let series = vec![("rollout run", ours), ("one process", alone)];
    let curve =
        Curve { title: "An item, without start-up", sizes: "items", unit: Unit::Time, series };
    Ok((group, curve))
}
