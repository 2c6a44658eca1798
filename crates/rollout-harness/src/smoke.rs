//! The smoke run: real processes through the specification's timeline, and the judge over what
//! they left.

mod judge;
mod play;
mod record;

use std::path::PathBuf;
use std::time::Duration;

use rollout_core::{RunId, WorkerId};

use crate::Interrupt;
use crate::binaries::{Binaries, Profile, workspace_root};
use crate::fixtures::{Claim, Fixtures, Layout};
use crate::fleet::FleetError;
use crate::timeline::{DETECTION_BOUND, Progress};

pub use judge::{Evidence, Measured, Verdict, Witness, WorkerWitness, judge};

/// What is done to the first worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is killed, as the specification wants.
    Kill,
    /// Nothing: a control for the judge, which must not see a failure where there is none.
    None,
}

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The working directory of the processes; artifacts lie in `data/smoke` below it.
    pub root: PathBuf,
    /// The directory of the fixtures.
    pub fixtures: PathBuf,
    /// The coordinator's port, if not the fixture's; 0 takes a free one.
    pub port: Option<u16>,
    /// Whether earlier artifacts are moved aside and not removed.
    pub keep: bool,
    /// The profile to build.
    pub profile: Profile,
    /// What to run if it is built already.
    pub binaries: Option<Binaries>,
    /// What is done to the first worker.
    pub fault: Fault,
    /// How long to wait for the verdict. The judge's bound does not depend on it.
    pub patience: Duration,
}

impl Default for Options {
    /// The specification's run, in the workspace.
    fn default() -> Self {
        let root = workspace_root();
        Self {
            fixtures: root.join("tests/smoke"),
            root,
            port: None,
            keep: false,
            profile: Profile::own(),
            binaries: None,
            fault: Fault::Kill,
            patience: DETECTION_BOUND,
        }
    }
}

/// A run that came to its end, however it went.
#[derive(Debug)]
pub struct Run {
    /// What was seen.
    pub evidence: Evidence,
    /// The judgement.
    pub verdict: Verdict,
    /// Where the artifacts lie.
    pub layout: Layout,
    /// From the first spawn to the last exit.
    pub wall: Duration,
}

/// The ids of a run.
#[derive(Debug, Clone, Copy)]
struct Ids {
    run: RunId,
    w1: WorkerId,
    w2: WorkerId,
}

/// Carries a run through and judges it. When this returns, nothing that it started is left.
///
/// # Errors
/// When the run's directory is taken or cannot be used, a fixture cannot be read, or the interrupt
/// comes.
pub fn run(
    options: &Options,
    progress: &mut dyn Progress,
    interrupt: &Interrupt,
) -> Result<Run, FleetError> {
    let fixtures = Fixtures::read(&options.fixtures)?;
    let claim = Claim::take(&options.root)?;
    claim.clear(options.keep)?;
    let ids = Ids { run: RunId::generate(), w1: WorkerId::generate(), w2: WorkerId::generate() };
    let layout = claim.layout.clone();
    let play = play::Play::new(options, fixtures, layout.clone(), ids, progress, interrupt)?;
    let (evidence, wall) = play.run()?;
    let verdict = judge(&evidence);
    Ok(Run { evidence, verdict, layout, wall })
}
