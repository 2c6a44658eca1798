//! How soon the smallest job is done: coordinator, worker and all.

use std::path::Path;

use super::stage::{Job, Jobs, Pool, nothing};
use crate::error::BenchError;
use crate::report::{Asked, Figure, Group, Unit};
use crate::stage::in_workspace;

/// Jobs a round.
const EACH: usize = 5;

/// Whole processes, with a library and with a sidecar, beside a pool.
pub(super) async fn measure(
    jobs: &Jobs<'_>,
    library: &Path,
    rounds: usize,
) -> Result<Group, BenchError> {
    let library = jobs.stage.library("rollout-plugin-host", library)?;
    let sidecar = in_workspace("crates/rollout-bench/plugins/noop_sidecar.toml");
    let job = |plugin| Job { plugin, items: 1, batch: 1, workers: 1 };
    let pool = Pool { work: "noop", items: 1, processes: 1, chunk: 1 };
    let (mut cdylibs, mut sidecars, mut pools) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds * EACH {
        cdylibs.push(jobs.run(job(&library), nothing).await?.0.took.as_secs_f64());
        sidecars.push(jobs.run(job(&sidecar), nothing).await?.0.took.as_secs_f64());
        pools.push(jobs.pool(pool, nothing).await?.0.took.as_secs_f64());
    }
    let figure = |name, values| {
        let beside = pools.clone();
        Figure { name, unit: Unit::Time, values, beside, asked: Asked::Nothing }
    };
    Ok(Group {
        title: "`rollout run` of one item, from its start to its end".into(),
        beside: "multiprocessing.Pool(1) with one item",
        figures: vec![figure("cdylib", cdylibs), figure("Python sidecar", sidecars)],
    })
}
