//! The command line.

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
    /// How many times each figure and its baseline are measured, in turn
    #[arg(long, value_name = "N", default_value = "8")]
    pub(crate) rounds: NonZeroUsize,
    /// Write the figures of every round as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WorkArgs {
    /// The program `rollout`
    #[arg(long, value_name = "FILE")]
    pub(crate) rollout: PathBuf,
    /// A library that does nothing, the plugin host's example `noop`
    #[arg(long, value_name = "FILE")]
    pub(crate) noop: PathBuf,
    /// How many times each figure and its peer are measured, in turn
    #[arg(long, value_name = "N", default_value = "3")]
    pub(crate) rounds: NonZeroUsize,
    /// Items of the library's job; a sidecar's has a tenth, one of episodes a hundredth
    #[arg(long, value_name = "N", default_value = "1000000")]
    pub(crate) items: NonZeroU64,
    /// Measure only this part; may be given more than once
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) only: Vec<Part>,
    /// Write the figures of every round as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
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
}
