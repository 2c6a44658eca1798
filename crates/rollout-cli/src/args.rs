//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use rollout_core::{RunId, WorkerId};
use rollout_transport::Identity;

use crate::plugin::args::PluginCommand;
use crate::run::args::{EventsArgs, ResumeArgs, RunArgs, StatusArgs};
use crate::schema::Kind;

/// Workers for LLM reinforcement-learning rollouts, evaluations and synthetic data.
///
/// When a worker dies, hangs or is cut off, you learn it inside a stated deadline.
#[derive(Debug, Parser)]
#[command(
    name = "rollout",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = EXIT_CODES
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 success, 64 usage, 65 bad data, 66 input missing, 69 unavailable, 70 internal,
73 cannot create, 74 I/O error, 75 work left undone, 77 identity refused, 78 configuration
invalid.";

const RUN_HELP: &str = "\
Example: rollout run python/examples/cartpole/job.toml
         rollout run --plugin plugin.toml --count 100000 --seed 7 --out runs/x
         rollout run job.toml --coordinator https://host:50051 --tls-dir tls

The directory of the run gets results.jsonl in the order of items, dead.jsonl with what failed for
good, and run.json. Ctrl-C finishes what workers have in hand and stops; once more stops at once.
Either way `rollout resume DIR` goes on. Exits with 0 only if every item has a result, and with 75
if some are dead letters or left undone.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a job: every item once, whatever dies meanwhile
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Go on with a run that was stopped or killed
    #[command(after_help = "Example: rollout resume runs/cartpole")]
    Resume(ResumeArgs),
    /// Show workers and jobs, and what is stuck
    #[command(after_help = "\
Example: rollout status runs/cartpole --watch
         rollout status --coordinator host:50051 --tls-dir tls")]
    Status(StatusArgs),
    /// Show what happened in a run, in the order of time, as JSON lines
    #[command(after_help = "\
Example: rollout events runs/cartpole --topic worker_failed
         rollout events --coordinator host:50051 --tls-dir tls --follow

With --coordinator, these are the newest lines of its own event stream.")]
    Events(EventsArgs),
    /// Run a coordinator: it knows every worker and says when one has failed
    #[command(subcommand)]
    Coordinator(CoordinatorCommand),
    /// Run a worker: it loads plugins, registers and beats
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Make, check, call and measure plugins, without a worker
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Check configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make and inspect certificates by hand
    #[command(subcommand)]
    Cert(CertCommand),
    /// Print the JSON Schema of a kind of file, or of the lines that processes write
    #[command(after_help = "\
Example: rollout schema job > job.schema.json

A first line `#:schema job.schema.json` in a job file then tells editors that know TOML. A schema sees
what one key may hold; `rollout config check` sees relations between keys, too.")]
    Schema {
        /// The kind
        kind: Kind,
    },
    /// Print a completion script for a shell
    #[command(after_help = "Example: rollout completions bash > ~/.local/share/bash-completion/\
                            completions/rollout")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CoordinatorCommand {
    /// Run until SIGTERM or Ctrl-C; events go to standard output, one JSON object a line
    #[command(
        after_help = "Example: rollout coordinator run --config tests/smoke/coordinator.toml"
    )]
    Run(CoordinatorRun),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CoordinatorRun {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The run to lead, instead of the file's `run_id`
    #[arg(long, value_name = "ULID")]
    pub(crate) run_id: Option<RunId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Run until SIGTERM or Ctrl-C, then drain; events go to standard output
    #[command(after_help = "\
Example: rollout worker run --config tests/smoke/worker.toml \\
           --plugin tests/smoke/plugins/sample_sidecar.toml")]
    Run(WorkerRun),
}

#[derive(Debug, clap::Args)]
pub(crate) struct WorkerRun {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The worker's id; by default the one in its certificate or database, or a new one
    #[arg(long, value_name = "ULID")]
    pub(crate) worker_id: Option<WorkerId>,
    /// A plugin's manifest; may be given several times
    #[arg(long = "plugin", value_name = "MANIFEST")]
    pub(crate) plugins: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check job, coordinator and worker files and plugin manifests, without opening anything else
    #[command(after_help = "Example: rollout config check tests/smoke/*.toml")]
    Check {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Make a certificate authority: ca.pem and ca.key
    #[command(after_help = "Example: rollout cert init --dir fleet-ca")]
    Init(CertInit),
    /// Issue a certificate, to be carried to the machine that needs it
    #[command(after_help = "\
Example: rollout cert issue --dir fleet-ca --identity /coordinator \\
           --host coordinator.example --out coordinator-tls
         rollout cert issue --dir fleet-ca --identity /worker/01ARZ3NDEKTSV4RRFFQ69G5FAV \\
           --out worker-tls

Then name the three files in the process's configuration as `ca`, `cert` and `key`; the CA's own
key stays where it is.")]
    Issue(CertIssue),
    /// Show whose certificate it is and how long it holds
    #[command(after_help = "Example: rollout cert show worker-tls/*.pem")]
    Show {
        /// Certificates in PEM form
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CertInit {
    /// The directory, made if it is missing
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CertIssue {
    /// The certificate authority's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Whom it speaks for: /coordinator, /worker/ULID or /client/NAME
    #[arg(long)]
    pub(crate) identity: Identity,
    /// A host name or address it also names; may be given several times
    #[arg(long = "host", value_name = "NAME")]
    pub(crate) hosts: Vec<String>,
    /// Where the certificate, its key and a copy of ca.pem go
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}
