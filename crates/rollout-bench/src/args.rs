//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
