//! A run from its schedule to its judgement.

use std::io::ErrorKind;
use std::path::PathBuf;

use rollout_core::{ExitCode, RunId};
use toml::Table;

use super::play::{Play, Progress};
use super::{Judgement, Schedule, ScheduleError, judge};
use crate::Interrupt;
use crate::binaries::{Binaries, workspace_root};
use crate::fixtures::{Claim, FixtureError, Fixtures, Layout};
use crate::fleet::{Fleet, FleetError, FleetOptions, Reach, Spec};
use crate::record::Record;
use crate::watch::Watch;

/// The run's directory below its root.
const DIR: &str = "data/chaos";

/// A protection that can be switched off, to show that it is needed: without it, chaos fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// The workers' self-fence.
    Fence,
    /// The coordinator's check of epochs and incarnations.
    EpochCheck,
    /// The coordinator's credit for its own stalls.
    StallCredit,
}

impl Protection {
    /// The key that switches it off.
    const fn key(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::EpochCheck => "epoch_check",
            Self::StallCredit => "stall_credit",
        }
    }
}

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The working directory of the processes; their files lie in `data/chaos` below it.
    pub root: PathBuf,
    /// What to run.
    pub binaries: Binaries,
    /// The program built with the feature `faults`: with it, disks can be stalled and protections
    /// switched off.
    pub faulty: Option<PathBuf>,
    /// What is done.
    pub schedule: Schedule,
    /// The protection to do without.
    pub without: Option<Protection>,
    /// Whether workers are given the sample plugins.
    pub plugins: bool,
    /// Whether earlier files are moved aside and not removed.
    pub keep: bool,
}

/// A run that came to its end, however it went.
#[derive(Debug)]
pub struct Run {
    /// What was seen.
    pub record: Record,
    /// The judgement.
    pub judgement: Judgement,
    /// Where the files lie.
    pub layout: Layout,
}

/// Why a run could not be carried through; never for what is judged.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// The schedule cannot be played.
    #[error("the schedule cannot be played")]
    Schedule(#[from] ScheduleError),
    /// The fleet cannot go on.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

impl From<FixtureError> for ChaosError {
    fn from(error: FixtureError) -> Self {
        Self::Fleet(error.into())
    }
}

impl ChaosError {
    /// The exit code of a command that ends with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let code = match self {
            Self::Schedule(ScheduleError::File { source, .. }) => match source.kind() {
                ErrorKind::NotFound => ExitCode::NoInput,
                _ => ExitCode::Io,
            },
            Self::Schedule(_) => ExitCode::Config,
            Self::Fleet(error) => return error.exit_code(),
        };
        code.code()
    }
}

/// Carries a run through and judges it. When this returns, nothing that it started is left.
///
/// # Errors
/// When the schedule cannot be played, the run's directory is taken or cannot be used, the fleet
/// does not come up, or the interrupt comes.
pub fn run(
    options: &Options,
    watch: &mut dyn Watch<Progress>,
    interrupt: &Interrupt,
) -> Result<Run, ChaosError> {
    options.schedule.check()?;
    let claim = Claim::of(Layout { root: options.root.clone(), dir: DIR.into() })?;
    claim.clear(options.keep)?;
    let layout = claim.layout.clone();
    let specs = specs(options, &layout)?;
    let fleet = Fleet::new(FleetOptions {
        title: title(options),
        layout: layout.clone(),
        program: options.binaries.rollout.clone(),
        faulty: options.faulty.clone(),
        timing: options.schedule.timing,
        run: RunId::generate(),
        interrupt: interrupt.clone(),
    })?;
    let record = Play::new(fleet, &options.schedule, watch).run(specs)?;
    let judgement = judge(&record);
    Ok(Run { record, judgement, layout })
}

fn title(options: &Options) -> String {
    let Schedule { seed, workers, length, .. } = &options.schedule;
    let without = options.without.map(|it| format!(", without {}", it.key())).unwrap_or_default();
    format!("chaos: seed {seed}, {workers} workers, {} s{without}", length.as_secs())
}

/// The coordinator and the workers, each behind a link.
fn specs(options: &Options, layout: &Layout) -> Result<Vec<Spec>, ChaosError> {
    let mut plugins = Vec::new();
    if options.plugins {
        let fixtures = Fixtures::read(&workspace_root().join("tests/smoke"))?;
        fixtures.write_plugins(layout, &options.binaries.cdylib)?;
        plugins = fixtures.manifests(layout);
    }
    let mut faults = Table::new();
    if let Some(protection) = options.without {
        faults.insert(protection.key().into(), "off".into());
    }
    let disk = options.faulty.is_some();
    let worker = |number: usize| Spec {
        plugins: plugins.clone(),
        reach: Reach::Link,
        faults: faults.clone(),
        disk,
        ..Spec::worker(&format!("w{number}"))
    };
    let coordinator = Spec { faults: faults.clone(), disk, ..Spec::coordinator() };
    let workers = (1..=options.schedule.workers).map(worker);
    Ok([coordinator].into_iter().chain(workers).collect())
}
