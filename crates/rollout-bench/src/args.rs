//! The command line.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Measures rollout; `cargo xtask bench` builds what it needs and runs it.
#[derive(Debug, Parser)]
#[command(name = "rollout-bench")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) suite: Suite,
}

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Suite {
    /// Calls of plugins, what becomes of their callers, and how soon they are back
    Plugin(PluginArgs),
    /// Whole jobs: what an item costs, memory, episodes, start-up
    Work(WorkArgs),
    /// The coordinator's state machine alone
    Liveness(LivenessArgs),
    /// What a fleet of real sessions costs the coordinator, and how late its verdicts are
    Fleet(FleetArgs),
    /// A coordinator that is killed under its fleet and started again
    Restart(FleetArgs),
    /// Durable beats and commits
    Ledger(LedgerArgs),
    /// A build from nothing
    Build(BuildArgs),
    /// Serve as the bare server that a coordinator is measured beside
    #[command(hide = true)]
    Bare(BareArgs),
}

/// What becomes of the figures.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// How many times each figure and its baseline are measured, in turn [default: 8 for plugin, 1
    /// for build, 3 for others]
    #[arg(long, value_name = "N", default_value = "3")]
    pub(crate) rounds: NonZeroUsize,
    /// Write the figures of every round as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw the figures as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Keep the figures in this directory of documents, and write their chapter anew
    #[arg(long, value_name = "DIR")]
    pub(crate) record: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PluginArgs {
    /// The program `rollout`
    #[arg(long, value_name = "FILE")]
    pub(crate) rollout: PathBuf,
    /// The sample library, plugins/rust_cdylib_sample
    #[arg(long, value_name = "FILE")]
    pub(crate) cdylib: PathBuf,
    /// A library that sleeps when it is asked to, the plugin host's example `hostile`
    #[arg(long, value_name = "FILE")]
    pub(crate) sleeper: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LivenessArgs {
    /// The simulation, the coordinator's example `simulate`
    #[arg(long, value_name = "FILE")]
    pub(crate) simulate: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FleetArgs {
    /// The program `rollout`
    #[arg(long, value_name = "FILE")]
    pub(crate) rollout: PathBuf,
    /// How many workers, one size after the other
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "100,1000,10000")]
    pub(crate) workers: Vec<usize>,
    /// For how long beats are measured in a round, the baseline for 60 at most; not for restarts
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub(crate) seconds: u64,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LedgerArgs {
    /// A directory of the disk that is measured
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BareArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// The authority's certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: PathBuf,
    /// The server's
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: PathBuf,
    /// Its key
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WorkArgs {
    /// The program `rollout`
    #[arg(long, value_name = "FILE")]
    pub(crate) rollout: PathBuf,
    /// A library that does nothing, the plugin host's example `noop`
    #[arg(long, value_name = "FILE")]
    pub(crate) noop: PathBuf,
    /// Items of the library's job; a sidecar's has a tenth, one of episodes a hundredth
    #[arg(long, value_name = "N", default_value = "1000000")]
    pub(crate) items: NonZeroU64,
    /// Measure only this part; may be given more than once
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) only: Vec<Part>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A part of the suite `work`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// A job of one item
    Start,
    /// A no-op library: what an item costs, rates, memory
    Cdylib,
    /// A no-op Python sidecar: what an item costs
    Sidecar,
    /// Episodes of the cart-pole
    Episodes,
    /// A no-op library with a thousandth of the items, a hundredth, a tenth, and all of them
    Scale,
}
