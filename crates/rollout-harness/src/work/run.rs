//! Both runs from their plan to the judgement.

use std::path::PathBuf;
use std::time::Duration;

use rollout_core::{ExitCode, RunId, TimeBudget};
use rollout_process::{Exit, SpawnError};

use super::client::Call;
use super::files::{self, Pace};
use super::judge::{Bounds, Case, Judgement, Seen, judge};
use super::ledger::Ledger;
use super::play::{Play, Progress, Scene};
use super::results::Job;
use super::schedule::{Faults, Plan, PlanError, Schedule};
use crate::Interrupt;
use crate::fixtures::{Claim, FixtureError, Layout};
use crate::fleet::{Fleet, FleetError, FleetOptions, Spec};
use crate::watch::Watch;

/// The directories of both fleets below the root.
const UNDISTURBED: &str = "data/work/undisturbed";
const DISTURBED: &str = "data/work/disturbed";
/// How long the undisturbed client may take.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// How many times as long the disturbed one may take, and a minute more.
const SLOWER: u32 = 10;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The working directory of the processes; their files lie in `data/work` below it.
    pub root: PathBuf,
    /// The program `rollout`.
    pub program: PathBuf,
    /// Of the job and of the schedule.
    pub seed: u64,
    /// How many items there are.
    pub items: u64,
    /// How many workers there are at a time.
    pub workers: usize,
    /// How many items each of them runs at a time.
    pub in_flight: usize,
    /// Everybody's time budget.
    pub timing: TimeBudget,
    /// What is done; nothing, and there is no second run.
    pub faults: Option<Faults>,
    /// What is asked of the figures.
    pub bounds: Bounds,
}

/// Both runs, come to their end, however they went.
#[derive(Debug)]
pub struct Run {
    /// What was seen.
    pub case: Case,
    /// The judgement.
    pub judgement: Judgement,
}

/// Why a run could not be carried through; never for what is judged.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The faults do not fit.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The fleet cannot go on.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The client has no certificate.
    #[error("`rollout cert issue` for the client {exit}: {said}")]
    Certificate {
        /// How it ended.
        exit: Exit,
        /// What it complained of.
        said: String,
    },
    /// The client cannot be started.
    #[error("cannot start the client")]
    Client {
        /// Why.
        #[source]
        source: SpawnError,
    },
}

impl From<FixtureError> for WorkError {
    fn from(error: FixtureError) -> Self {
        Self::Fleet(error.into())
    }
}

impl WorkError {
    /// The exit code of a command that ends with it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Plan(PlanError::Workers(_)) => ExitCode::Usage.code(),
            Self::Plan(PlanError::Short { .. }) | Self::Certificate { .. } => 1,
            Self::Fleet(error) => error.exit_code(),
            Self::Client { .. } => ExitCode::Internal.code(),
        }
    }
}

/// Carries both runs through and judges them. When this returns, nothing that it started is left.
///
/// The second run is made only if the first one's client succeeds: its length is the measure of what
/// is done in the second.
///
/// # Errors
/// When the faults do not fit into the first run, the run's directory is taken or cannot be used, a
/// fleet does not come up, or the interrupt comes.
pub fn run(
    options: &Options,
    watch: &mut dyn Watch<Progress>,
    interrupt: &Interrupt,
) -> Result<Run, WorkError> {
    let job = Job { items: options.items, seed: options.seed };
    if let Some(faults) = &options.faults {
        // Whether there are enough workers is known before anything runs.
        plan(options, faults, Duration::ZERO).check()?;
    }
    watch.says("undisturbed");
    let stage = Stage { options, job, interrupt };
    let undisturbed = stage.play(UNDISTURBED, None, PATIENCE, watch)?;
    let succeeded = undisturbed.ended.as_ref().is_some_and(|ended| ended.exit().success());
    let disturbed = match &options.faults {
        Some(faults) if succeeded && undisturbed.trouble.is_none() => {
            let schedule = plan(options, faults, span(&undisturbed)).draw()?;
            watch.says("disturbed");
            let patience = span(&undisturbed) * SLOWER + Duration::from_secs(60);
            let seen = stage.play(DISTURBED, Some(&schedule), patience, watch)?;
            Some((schedule, seen))
        }
        _ => None,
    };
    let case = Case { job, undisturbed, disturbed, bounds: options.bounds };
    let judgement = judge(&case);
    Ok(Run { case, judgement })
}

fn plan(options: &Options, faults: &Faults, length: Duration) -> Plan {
    let Options { seed, workers, .. } = *options;
    Plan { seed, workers, length, faults: faults.clone() }
}

/// From the first grant to the last commit.
fn span(seen: &Seen) -> Duration {
    let ledger = Ledger::of(&seen.record);
    match (ledger.first, ledger.last) {
        (Some(first), Some(last)) => last.since(first),
        _ => Duration::ZERO,
    }
}

/// What both runs have in common.
struct Stage<'a> {
    options: &'a Options,
    job: Job,
    interrupt: &'a Interrupt,
}

impl Stage<'_> {
    fn play(
        &self,
        dir: &str,
        schedule: Option<&Schedule>,
        patience: Duration,
        watch: &mut dyn Watch<Progress>,
    ) -> Result<Seen, WorkError> {
        let Options { root, program, workers, items, in_flight, .. } = self.options;
        let claim = Claim::of(Layout { root: root.clone(), dir: dir.into() })?;
        claim.clear(false)?;
        let layout = claim.layout.clone();
        let mut worker = Spec::worker("worker");
        worker.plugins = vec![files::write_plugin(&layout, Pace { in_flight: *in_flight })?];
        let job = files::write_job(&layout, self.job)?;
        let fleet = Fleet::new(FleetOptions {
            title: self.title(schedule),
            layout: layout.clone(),
            program: program.clone(),
            faulty: None,
            timing: self.options.timing,
            run: RunId::generate(),
            interrupt: self.interrupt.clone(),
        })?;
        let nowhere = ([127, 0, 0, 1], 0).into();
        let out = layout.relative("out");
        let call = Call { program, layout: &layout, coordinator: nowhere, job: &job, out: &out };
        let scene =
            Scene { worker: &worker, workers: *workers, items: *items, call, patience, schedule };
        Play::new(fleet, scene, watch).run()
    }

    fn title(&self, schedule: Option<&Schedule>) -> String {
        let Options { seed, workers, items, .. } = self.options;
        let what = if schedule.is_some() { "disturbed" } else { "undisturbed" };
        format!("work: {what}, seed {seed}, {items} items, {workers} workers")
    }
}
