//! What an item costs whose plugin does nothing.

use super::loop_alone;
use super::memory::Peaks;
use super::rate::Growth;
use super::run::Run;
use super::stage::{Job, Jobs, Pool, nothing};
use crate::args::WorkArgs;
use crate::error::BenchError;
use crate::report::{Asked, Figure, Group, Unit};
use crate::stage::in_workspace;

/// As large as a batch may be.
const LARGE: u32 = 4096;
/// The batch of a job that names none.
const USUAL: u32 = 64;
/// A sidecar has so many times fewer items than a library.
const FEWER: u64 = 10;
const MIB: f64 = 1024.0 * 1024.0;

/// A library: what an item costs, how steady the rate is, and the memory it takes.
pub(super) async fn cdylib(jobs: &Jobs<'_>, args: &WorkArgs) -> Result<[Group; 3], BenchError> {
    let manifest = jobs.stage.library("rollout-plugin-host", &args.noop)?;
    let plugin = jobs.stage.start(&manifest).await?;
    let items = args.items.get();
    let job = Job { plugin: &manifest, items, batch: LARGE, workers: 1 };
    let (mut runs, mut small, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.output.rounds.get() {
        let file = jobs.fresh("alone");
        alone.push(loop_alone::measure(&plugin, &file, items, LARGE).await?.as_secs_f64());
        runs.push(jobs.run(job, nothing).await?.0);
        small.push(jobs.run(Job { items: 1, ..job }, nothing).await?.0);
    }
    plugin.shutdown().await?;
    let count = items as f64;
    let rates = |seconds: &[f64]| seconds.iter().map(|it| count / it).collect::<Vec<_>>();
    let took = seconds(&runs);
    let figures = vec![
        Figure {
            name: "an item",
            unit: Unit::Time,
            values: took.iter().map(|it| it / count).collect(),
            beside: alone.iter().map(|it| it / count).collect(),
            asked: Asked::AtMost(20e-6),
        },
        Figure {
            name: "items",
            unit: Unit::Rate,
            values: rates(&took),
            beside: rates(&alone),
            asked: Asked::AtLeast(50e3),
        },
        edge("until the first result", &runs, |run| run.growth.first()),
        edge("after the last one", &runs, |run| run.took.checked_sub(run.growth.last()?)),
    ];
    let each = Group {
        title: format!("{items} items of a no-op cdylib, 1 worker, batches of {LARGE}"),
        beside: "the plugin called in one process, results synced after each batch",
        figures,
    };
    Ok([each, steady(&runs), memory(&runs, &small)])
}

/// A sidecar on the Python SDK: what an item costs.
pub(super) async fn sidecar(jobs: &Jobs<'_>, args: &WorkArgs) -> Result<Group, BenchError> {
    let manifest = in_workspace("crates/rollout-bench/plugins/noop_sidecar.toml");
    let items = (args.items.get() / FEWER).max(1);
    let job = Job { plugin: &manifest, items, batch: USUAL, workers: 1 };
    let pool = Pool { work: "noop", items, processes: 1, chunk: USUAL };
    let (mut runs, mut large, mut pools) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.output.rounds.get() {
        pools.push(jobs.pool(pool, nothing).await?.0);
        runs.push(jobs.run(job, nothing).await?.0);
        large.push(jobs.run(Job { batch: LARGE, ..job }, nothing).await?.0);
    }
    let each = |runs| seconds(runs).iter().map(|it| it / items as f64).collect::<Vec<_>>();
    let figure = |name, runs| Figure {
        name,
        unit: Unit::Time,
        values: each(runs),
        beside: each(&pools),
        asked: Asked::AtMost(60e-6),
    };
    Ok(Group {
        title: format!("{items} items of a no-op Python sidecar, 1 worker"),
        beside: "multiprocessing.Pool(1).imap_unordered, chunks of 64",
        figures: vec![figure("batches of 64", &runs), figure("batches of 4096", &large)],
    })
}

fn seconds(runs: &[Run]) -> Vec<f64> {
    runs.iter().map(|run| run.took.as_secs_f64()).collect()
}

/// A time at the beginning or the end of the runs.
fn edge(
    name: &'static str,
    runs: &[Run],
    time: impl Fn(&Run) -> Option<std::time::Duration>,
) -> Figure {
    let values = runs.iter().filter_map(time).map(|it| it.as_secs_f64()).collect();
    Figure { name, unit: Unit::Time, values, beside: Vec::new(), asked: Asked::Nothing }
}

/// The rate in each tenth of the items.
fn steady(runs: &[Run]) -> Group {
    const NAMES: [&str; 10] = [
        "first tenth",
        "second",
        "third",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "last tenth",
    ];
    let tenths: Vec<_> = runs.iter().map(|run| &run.growth).filter_map(Growth::tenths).collect();
    let at = |tenth: usize| {
        tenths.iter().filter_map(move |rates| rates.get(tenth).copied()).collect::<Vec<_>>()
    };
    let figure = |(tenth, name)| Figure {
        name,
        unit: Unit::Rate,
        values: at(tenth),
        beside: at(0),
        asked: if tenth == 9 { Asked::TimesAtLeast(0.9) } else { Asked::Nothing },
    };
    Group {
        title: "The rate in these runs, from the first results to the last ones".into(),
        beside: "the first tenth of the items",
        figures: NAMES.into_iter().enumerate().map(figure).collect(),
    }
}

/// The most memory of each process.
fn memory(runs: &[Run], small: &[Run]) -> Group {
    let figure = |name, peak: fn(&Peaks) -> Option<f64>, asked| {
        let peaks = |runs: &[Run]| runs.iter().filter_map(|run| peak(&run.peaks)).collect();
        Figure { name, unit: Unit::Size, values: peaks(runs), beside: peaks(small), asked }
    };
    Group {
        title: "The most memory resident in these runs".into(),
        beside: "in a job of one item",
        figures: vec![
            figure("coordinator", |it| it.coordinator, Asked::AtMost(500.0 * MIB)),
            figure("worker", |it| it.worker, Asked::Nothing),
            figure("client", |it| it.client, Asked::Nothing),
        ],
    }
}
