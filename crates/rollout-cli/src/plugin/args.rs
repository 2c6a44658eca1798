//! The command line of `rollout plugin`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde_json::value::RawValue;

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Make a plugin to start from; it passes `rollout plugin check`
    #[command(after_help = NEW_HELP)]
    New(NewArgs),
    /// Run a plugin through what a worker may do to it, and say what does not hold
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Measure calls, beside a raw socket or a bare function in the same run
    #[command(after_help = BENCH_HELP)]
    Bench(BenchArgs),
    /// Call one method: the result goes to standard output, what the plugin says to standard error
    #[command(after_help = CALL_HELP)]
    Call(CallArgs),
}

const NEW_HELP: &str = "\
Example: rollout plugin new --lang python my_plugin
         rollout plugin check my_plugin/plugin.toml
         rollout run my_plugin/job.toml

The SDK comes along, in DIR/vendor, and a job to start from.

Exit codes: 0 made, 64 no name for a plugin, 73 DIR is not empty or cannot be
written.";

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Language {
    /// A sidecar
    Python,
    /// A cdylib
    Rust,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NewArgs {
    /// The language
    #[arg(long)]
    pub(crate) lang: Language,
    /// The plugin's name: lower-case letters, digits and `_`; by default the directory's
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The directory, made if it is missing
    pub(crate) dir: PathBuf,
}

const CHECK_HELP: &str = "\
Example: rollout plugin check tests/smoke/plugins/sample_sidecar.toml

Every method is called with parameters of every JSON type. Name those that may
be called so with --method, if the calls of others do what you do not want.

Exit codes: 0 nothing fails, 66 no manifest, 69 something fails, 78 the manifest
is invalid.";

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The plugin's manifest
    pub(crate) manifest: PathBuf,
    /// A method to call with bad parameters, instead of all; may be given several times
    #[arg(long = "method", value_name = "NAME")]
    pub(crate) methods: Vec<String>,
    /// How long to wait for each answer, at most the `call_timeout` that the manifest gives
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
}

const BENCH_HELP: &str = "\
Example: rollout plugin bench tests/smoke/plugins/sample_sidecar.toml --seconds 8

Round trips with 64 bytes beside the parameters, one at a time and up to 64 at a
time: of a sidecar beside messages to a thread through a raw socket, of a cdylib
beside calls through a function pointer. Large payloads take fewer at a time, and
batches that `limits.max_frame` does not allow are left out.

Exit codes: those of `rollout plugin call`.";

#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// The plugin's manifest
    pub(crate) manifest: PathBuf,
    /// The method; by default the probe's, with the probe's parameters
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Option<String>,
    /// The method's parameters, as JSON
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = json, requires = "method")]
    pub(crate) params: Box<RawValue>,
    /// How many bytes go beside the parameters of each call
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(..=1 << 26))]
    pub(crate) payload_size: u32,
    /// How long to measure in all
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
}

const CALL_HELP: &str = "\
Example: rollout plugin call tests/smoke/plugins/sample_sidecar.toml echo --params '[1, 2]'

Exit codes: 0 answered, 64 no such method, 65 bad params or a call too large,
69 the plugin does not work or reports an error, 75 trying again may help (no
answer in time, overloaded, a crash).";

#[derive(Debug, clap::Args)]
pub(crate) struct CallArgs {
    /// The plugin's manifest
    pub(crate) manifest: PathBuf,
    /// The method
    pub(crate) method: String,
    /// The parameters, as JSON
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = json)]
    pub(crate) params: Box<RawValue>,
    /// Bytes to send beside the parameters; `-` reads them from standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) payload: Option<PathBuf>,
    /// Where the answer's bytes go; without it their number is said on standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// How long to wait for the answer, at most the `call_timeout` that the manifest gives; if
    /// neither is given, 60 s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

fn json(text: &str) -> Result<Box<RawValue>, serde_json::Error> {
    serde_json::from_str(text)
}

fn duration(text: &str) -> Result<Duration, String> {
    let wanted = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if wanted.is_zero() { Err("must be more than zero".into()) } else { Ok(wanted) }
}
