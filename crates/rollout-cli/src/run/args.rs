//! The command line of `run`, `resume`, `status` and `events`.

use std::path::PathBuf;

use crate::fleet_at::FleetArgs;

/// A job, from a file or from flags.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The job file; flags below take precedence over it
    #[arg(value_name = "JOB", required_unless_present = "plugin")]
    pub(crate) job: Option<PathBuf>,
    /// The plugin's manifest; with --coordinator, the plugin's name will do
    #[arg(long, value_name = "MANIFEST")]
    pub(crate) plugin: Option<String>,
    /// The plugin's method; without a job file, `run`
    #[arg(long)]
    pub(crate) method: Option<String>,
    /// How many items there are
    #[arg(long, value_name = "N", conflicts_with = "params")]
    pub(crate) count: Option<u64>,
    /// A file with one item's parameters, a JSON value, a line
    #[arg(long, value_name = "FILE")]
    pub(crate) params: Option<PathBuf>,
    /// What the items' seeds are made from; without a job file, 0
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Where the results go; by default runs/NAME, here
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) how: How,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
}

/// How a run is carried out; no result depends on it.
#[derive(Debug, clap::Args)]
pub(crate) struct How {
    /// How many workers are started; by default one for each processor
    #[arg(long, value_name = "N", conflicts_with = "coordinator",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
    /// Write progress to standard output, one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// A run that goes on.
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// The directory of the run
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) how: ResumeHow,
}

/// What may differ from the first time.
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeHow {
    /// How many workers are started; by default as many as before
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
    /// Write progress to standard output, one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whose state is wanted.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// The directory of a run; by default this one
    #[arg(value_name = "DIR", conflicts_with = "coordinator")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
    /// Write it as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Again every second, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Which events are wanted.
#[derive(Debug, clap::Args)]
pub(crate) struct EventsArgs {
    /// The directory of a run; by default this one
    #[arg(value_name = "DIR", conflicts_with = "coordinator")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
    /// Go on with what is written later, until Ctrl-C; also when the coordinator is started again
    #[arg(long)]
    pub(crate) follow: bool,
    /// Only events of this topic; may be given several times
    #[arg(long = "topic", value_name = "TOPIC", value_parser = topic)]
    pub(crate) topics: Vec<String>,
}

fn topic(text: &str) -> Result<String, String> {
    let known = rollout_core::Body::TOPICS;
    if text == "log" || known.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("no such topic; there are: log, {}", known.join(", ")))
}
