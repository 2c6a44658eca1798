//! The command line.
#![expect(rustdoc::invalid_html_tags, reason = "help is shown by a terminal, not by a browser")]

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use rollout_harness::binaries::Profile;

const EXIT_CODES: &str = "\
Exit codes:
  0        pass
  1        fail: a promise was broken, or a step of ci failed
  2        inconclusive: the machine was too slow to show anything; run it again
  3        preflight: a tool is missing or too old
  64       usage: the command line is wrong, or there is no such scenario
  65, 66   a bundle is damaged; it, or a schedule or scenario, is not there
  69       another run is at work in the same directory
  74, 78   a file cannot be read or written; a fixture, scenario or schedule is not valid
  128 + n  stopped by signal n";

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the live substrate end to end, kill a worker, and judge how that was noticed
    Smoke(SmokeArgs),
    /// Play a scenario of tests/scenarios, or all of them, and judge what came of it
    Scenario(ScenarioArgs),
    /// Kill workers at random moments, and look for processes that they leave
    Orphans(OrphansArgs),
    /// Measure, each figure beside its baseline in the same run
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Kill workers at random moments, and show how soon each was suspected and failed
    Detection(DetectionArgs),
    /// Simulate a large fleet in virtual time, check every verdict, and show what it costs
    Simulate(SimulateArgs),
    /// Do random harm to a fleet of real workers, and judge what its logs say of it
    Chaos(ChaosArgs),
    /// Do a job twice, once while its fleet is killed and frozen, and compare the results
    Work(WorkArgs),
    /// Judge a bundle of chaos, or any other record of a run, again
    Judge(JudgeArgs),
    /// Check that cargo, a C compiler and python3 >= 3.11 are there
    Preflight,
    /// Do what continuous integration does: all of its jobs, or one
    Ci(CiArgs),
    /// Look for what people forget: sizes, module docs, forbidden calls, keys, topics, fixtures
    Tidy,
    /// Write the files and parts of chapters that are made from the code: schemas, references
    Generate(GenerateArgs),
}

const CI_EXAMPLE: &str = "\
Examples:
  cargo xtask ci
  cargo xtask ci lint
  cargo xtask ci commitlint --range main..HEAD";

#[derive(Debug, clap::Args)]
#[command(after_help = CI_EXAMPLE, after_long_help = format!("{CI_EXAMPLE}\n\n{EXIT_CODES}"))]
pub(crate) struct CiArgs {
    /// The job; without one all of them are run, and the first that failed gives the exit code
    #[arg(value_enum)]
    pub(crate) job: Option<Job>,
    /// The commits that commitlint and docs-test-policy look at, as git understands it [default: all
    /// since there are these checks]
    #[arg(long, value_name = "A..B")]
    pub(crate) range: Option<String>,
    /// Build a tool that is missing with `cargo install`
    #[arg(long)]
    pub(crate) install: bool,
}

/// The jobs, in the order in which all of them are run: the quick ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Job {
    /// Commit messages are Conventional Commits
    Commitlint,
    /// A change of behaviour comes with a test or with documentation
    DocsTestPolicy,
    /// Every dependency is used by the code that is built with it
    UnusedDeps,
    /// Format, tidy, clippy with warnings denied
    Lint,
    /// Bans, licences and sources of all dependencies (cargo-deny)
    Deny,
    /// Which crate may use which, and where `unsafe` may be
    ArchitectureLint,
    /// What is made from the code is as the code says: `cargo xtask generate --check`
    SchemaDrift,
    /// Rustdoc without a warning, private items included
    RustdocCheck,
    /// The book's links, and the book (mdBook)
    DocsBuild,
    /// `cargo test`, the acceptance tests included
    Test,
    /// The smoke run
    Smoke,
}

impl Job {
    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// The name, here and in the workflow.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The names of all of them.
    pub(crate) fn names() -> Vec<String> {
        Self::all().into_iter().map(Self::name).collect()
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask generate --check")]
pub(crate) struct GenerateArgs {
    /// Write nothing; name what differs, and fail if anything does
    #[arg(long)]
    pub(crate) check: bool,
}

const SMOKE_EXAMPLE: &str = "\
Examples:
  cargo xtask smoke
  cargo xtask smoke --repeat 20 --json report.json";

#[derive(Debug, clap::Args)]
#[command(after_help = SMOKE_EXAMPLE, after_long_help = format!("{SMOKE_EXAMPLE}\n\n{EXIT_CODES}"))]
pub(crate) struct SmokeArgs {
    /// The directory with coordinator.toml, worker.toml and plugins/*.toml [default: tests/smoke]
    #[arg(long, value_name = "DIR")]
    pub(crate) fixtures: Option<PathBuf>,
    /// Move earlier artifacts to data/smoke-kept/<number> and do not remove them; those of a run
    /// that did not pass are always moved there before the next of --repeat
    #[arg(long)]
    pub(crate) keep: bool,
    /// Write the checks as JUnit's XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Run so many times and show how the figures are distributed
    #[arg(long, value_name = "N")]
    pub(crate) repeat: Option<NonZeroUsize>,
    /// The coordinator's port in place of the fixture's; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// What every command has that carries a run out, or several.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) page: PageArgs,
    /// Write the checks and figures of all runs as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,
    /// The directory in whose `data` the runs take place [default: the workspace]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
}

/// What is built, and run.
#[derive(Debug, clap::Args)]
pub(crate) struct ProfileArgs {
    /// Build and run with the release profile
    #[arg(long)]
    release: bool,
}

impl ProfileArgs {
    /// The profile.
    pub(crate) const fn profile(&self) -> Profile {
        if self.release { Profile::Release } else { Profile::own() }
    }
}

/// Where to write the page to look at, for every command that shows a run.
#[derive(Debug, clap::Args)]
pub(crate) struct PageArgs {
    /// Write the run as a page to look at, one HTML file; of several runs the first that did not
    /// pass, or the last
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

const SCENARIO_EXAMPLE: &str = "\
Examples:
  cargo xtask scenario --list
  cargo xtask scenario killed --repeat 20 --json report.json
  cargo xtask scenario --all";

#[derive(Debug, clap::Args)]
#[command(
    after_help = SCENARIO_EXAMPLE,
    after_long_help = format!("{SCENARIO_EXAMPLE}\n\n{EXIT_CODES}")
)]
pub(crate) struct ScenarioArgs {
    /// The scenario: the name of a file in tests/scenarios without its `.toml`, or a path
    #[arg(value_name = "NAME", required_unless_present_any = ["all", "list"])]
    pub(crate) name: Option<String>,
    /// Play every scenario there is
    #[arg(long, conflicts_with = "name")]
    pub(crate) all: bool,
    /// Say which scenarios there are
    #[arg(long, conflicts_with_all = ["name", "all"])]
    pub(crate) list: bool,
    /// Play so many times; for one scenario, show how the figures are distributed
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) repeat: NonZeroUsize,
    /// Move earlier artifacts to data/scenario/<name>-kept/<number> and do not remove them
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask orphans --kills 1000")]
pub(crate) struct OrphansArgs {
    /// How many workers to kill
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) kills: usize,
    /// The same seed, the same moments
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Calls of plugins, what becomes of their callers, and how soon they are back
    #[command(after_help = "Example:\n  cargo xtask bench plugin --json figures.json")]
    Plugin(BenchArgs),
    /// Whole jobs: what an item costs, memory, episodes, start-up
    Work(BenchWorkArgs),
    /// The coordinator's state machine alone, from 1,000 to 1,000,000 workers in virtual time
    Liveness(BenchArgs),
    /// What a fleet of real sessions costs the coordinator, and how late its verdicts are
    #[command(after_help = "Example:\n  cargo xtask bench fleet --workers 1000,10000 --rounds 5")]
    Fleet(BenchFleetArgs),
    /// A coordinator that is killed under its fleet, and started again
    Restart(BenchFleetArgs),
    /// Durable beats and commits, beside bare redb and the disk
    Ledger(BenchArgs),
    /// A build of `rollout` from nothing: takes minutes
    Build(BenchArgs),
    /// All but the build, one after the other
    All(BenchAllArgs),
}

/// What becomes of a suite's figures.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BenchArgs {
    /// How many times each figure and its baseline are measured, in turn [default: 8 for plugin, 1
    /// for build, else 3]
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<NonZeroUsize>,
    /// Write the figures of every round as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw the figures as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Keep the figures in docs/bench, and write the chapter that shows them anew
    #[arg(long)]
    pub(crate) record: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BenchFleetArgs {
    /// How many workers, one size after the other [default: 100,1000,10000]
    #[arg(long, value_name = "N,…")]
    pub(crate) workers: Option<String>,
    /// For how long beats are measured in a round, the baseline for 60 at most [default: 10]; not for
    /// restarts
    #[arg(long, value_name = "S")]
    pub(crate) seconds: Option<u64>,
    #[command(flatten)]
    pub(crate) bench: BenchArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask bench all --dir figures")]
pub(crate) struct BenchAllArgs {
    /// How many times each figure and its baseline are measured, in turn
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<NonZeroUsize>,
    /// Write each suite's figures there, as <suite>.json and <suite>.svg
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Keep the figures in docs/bench, and write the chapter that shows them anew
    #[arg(long)]
    pub(crate) record: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask bench work --json figures.json")]
pub(crate) struct BenchWorkArgs {
    /// Items of the library's job; a sidecar's has a tenth, one of episodes a hundredth
    #[arg(long, value_name = "N", default_value = "1000000")]
    pub(crate) items: NonZeroU64,
    /// Measure only this part: start, cdylib, sidecar, episodes, scale; may be given more than once
    #[arg(long, value_name = "PART")]
    pub(crate) only: Vec<String>,
    #[command(flatten)]
    pub(crate) bench: BenchArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask detection --kills 200 --release")]
pub(crate) struct DetectionArgs {
    /// How many workers to kill
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub(crate) kills: usize,
    /// How many workers are alive at the same time
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) workers: u16,
    /// The same seed, the same moments
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask simulate --workers 1000000 --seconds 30")]
pub(crate) struct SimulateArgs {
    /// How many workers beat
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) workers: u32,
    /// How much virtual time passes
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub(crate) seconds: u64,
    /// The same seed, the same faults
    #[arg(long, value_name = "X", default_value_t = 1)]
    pub(crate) seed: u64,
}

const CHAOS_EXAMPLE: &str = "\
Examples:
  cargo xtask chaos --seed 1 --seconds 120 --release
  cargo xtask chaos --seed 7 --without fence      # fails, as it should
  cargo xtask chaos --schedule data/chaos-bundles/<run>/schedule.json";

#[derive(Debug, clap::Args)]
#[command(after_help = CHAOS_EXAMPLE, after_long_help = format!("{CHAOS_EXAMPLE}\n\n{EXIT_CODES}"))]
pub(crate) struct ChaosArgs {
    /// The same seed, the same schedule
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// How long, counted from when the whole fleet beats
    #[arg(long, value_name = "N", default_value_t = 120)]
    pub(crate) seconds: u64,
    /// How many workers
    #[arg(long, value_name = "K", default_value_t = 6)]
    pub(crate) workers: usize,
    /// The time budget: one with short durations, or the defaults of a configuration
    #[arg(long, value_enum, default_value_t = Timing::Short)]
    pub(crate) timing: Timing,
    /// Play a schedule that was written down, and not one drawn from the seed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seconds", "workers", "timing"])]
    pub(crate) schedule: Option<PathBuf>,
    /// Stall disks, too; builds rollout with the feature `faults`
    #[arg(long)]
    pub(crate) disk: bool,
    /// Switch a protection off, to see that it is needed; builds rollout with the feature `faults`
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) without: Option<Without>,
    /// Keep everything of the run in this directory; one that does not pass is always kept
    #[arg(long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// Move the files of earlier runs to data/chaos-kept/<number> and do not remove them
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// A time budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Timing {
    /// 200 ms beats, a fence of 1.2 s, failed 1.8 s after the last beat.
    Short,
    /// Those of a configuration that names none.
    Defaults,
}

/// A protection that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Without {
    /// The workers' self-fence
    Fence,
    /// The coordinator's check of epochs and incarnations
    EpochCheck,
    /// The coordinator's credit for its own stalls
    StallCredit,
}

const WORK_EXAMPLE: &str = "\
Examples:
  cargo xtask work --seed 1 --release
  cargo xtask work --seed 1 --seeds 20 --release
  cargo xtask work --faults kills --release                   # what a kill costs an item
  cargo xtask work --faults one-kill --items 52000 --release  # and a run of a minute";

#[derive(Debug, clap::Args)]
#[command(after_help = WORK_EXAMPLE, after_long_help = format!("{WORK_EXAMPLE}\n\n{EXIT_CODES}"))]
pub(crate) struct WorkArgs {
    /// The same seed, the same job and the same faults
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// So many seeds, one after the other; in the JSON, an object for each
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) seeds: NonZeroUsize,
    /// How many items, of 5 to 30 ms each
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) items: u64,
    /// How many workers at a time
    #[arg(long, value_name = "K", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
    /// How many items each worker runs at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) in_flight: u16,
    /// What is done to the fleet
    #[arg(long, value_enum, default_value_t = FaultsArg::All)]
    pub(crate) faults: FaultsArg,
    /// Keep everything of the last run in this directory; one that does not pass is always kept
    #[arg(long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// What is done to a fleet that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FaultsArg {
    /// A worker killed every second, a sidecar every two, the coordinator twice, one worker frozen
    /// for 10 s
    All,
    /// A worker killed every 3 s: fails if its items run elsewhere too late (p99 over 1.5 s)
    Kills,
    /// One worker killed: fails if it costs more than 5 % of the time
    OneKill,
    /// Nothing
    None,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask judge data/chaos-bundles/<run>")]
pub(crate) struct JudgeArgs {
    /// The directory with record.json and the logs
    pub(crate) bundle: PathBuf,
    /// Write everything that was said and done as one text, in its order
    #[arg(long, value_name = "FILE")]
    pub(crate) timeline: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) page: PageArgs,
}
