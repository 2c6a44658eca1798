//! Episodes of the cart-pole, Gymnasium's own where it is installed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rollout_process::{Io, Spawn};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::run::{self, Run};
use super::stage::{Job, Jobs, Pool};
use crate::args::WorkArgs;
use crate::error::BenchError;
use crate::report::{Asked, Figure, Group, Unit};
use crate::stage::in_workspace;

/// A job has so many times fewer episodes than a library's has items.
const FEWER: u64 = 100;
const BATCH: u32 = 64;
const WORKERS: u32 = 2;

/// What is played.
struct World {
    manifest: PathBuf,
    /// As the peer calls it.
    work: &'static str,
    title: &'static str,
}

/// Episodes a second; and what is to be said, if it is another environment than it should be.
pub(super) async fn measure(
    jobs: &Jobs<'_>,
    args: &WorkArgs,
) -> Result<(Group, Option<String>), BenchError> {
    let (world, note) = world().await?;
    let items = (args.items.get() / FEWER).max(1);
    let job = Job { plugin: &world.manifest, items, batch: BATCH, workers: WORKERS };
    let pool = Pool { work: world.work, items, processes: WORKERS, chunk: BATCH };
    let (mut runs, mut pools) = (Vec::new(), Vec::new());
    for _ in 0..args.output.rounds.get() {
        let (pool, theirs) = jobs.pool(pool, ends).await?;
        let (run, ours) = jobs.run(job, ends).await?;
        if let Some((item, _)) = (0..)
            .zip(&ours)
            .zip(&theirs)
            .find_map(|((item, ours), theirs)| (ours != theirs).then_some((item, ours)))
        {
            return Err(BenchError::Disagree { item });
        }
        runs.push(run);
        pools.push(pool);
    }
    let figure = |name, rate: &dyn Fn(&Run) -> Option<f64>| Figure {
        name,
        unit: Unit::Rate,
        values: runs.iter().filter_map(rate).collect(),
        beside: pools.iter().filter_map(rate).collect(),
        asked: Asked::TimesAtLeast(0.8),
    };
    let whole = |run: &Run| Some(items as f64 / run.took.as_secs_f64());
    let figures = vec![
        figure("from start to end", &whole),
        figure("first to last result", &|run| run.growth.rate()),
    ];
    let title = format!("{items} episodes of {}, {WORKERS} workers", world.title);
    let beside = "multiprocessing.Pool(2).imap_unordered, chunks of 64, the same results";
    Ok((Group { title, beside, figures }, note))
}

async fn world() -> Result<(World, Option<String>), BenchError> {
    let check = Spawn::new("python3").args(["-c", "import gymnasium"]).stderr(Io::Null);
    let check = spawn_blocking(|| check.output(Some(Duration::from_secs(60)))).await;
    let check = check.map_err(|lost| BenchError::io("a thread was lost")(lost.into()))??;
    if check.exit.success() {
        let manifest = in_workspace("python/examples/gymnasium_cartpole/plugin.toml");
        let title = "Gymnasium's CartPole-v1, random policy";
        return Ok((World { manifest, work: "gymnasium", title }, None));
    }
    let manifest = in_workspace("python/examples/cartpole/plugin.toml");
    let title = "the example `cartpole`";
    let note =
        "CartPole-v1 was not played, because this python3 has no gymnasium: pip install gymnasium";
    Ok((World { manifest, work: "cartpole", title }, Some(note.into())))
}

/// Return and length of each episode.
fn ends(results: &Path) -> Result<Vec<Value>, BenchError> {
    let end =
        |line: Value| json!([line["item"], line["result"]["return"], line["result"]["length"]]);
    Ok(run::results(results)?.into_iter().map(end).collect())
}
