//! Carries a schedule out on real processes.

use std::collections::{HashMap, VecDeque};
use std::thread;
use std::time::Duration;

use rollout_core::event::CoordinatorStarted;
use rollout_core::{Body, Clock, Mono, SystemClock};

use super::schedule::{Act, Schedule, Step, Target};
use crate::fleet::{DiskFault, Fleet, FleetError, GRACE, POLL, Spec};
use crate::record::Record;
use crate::watch::{TOLD_EVERY, Watch};

/// How a run goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Since when the whole fleet beats.
    pub elapsed: Duration,
    /// How long the run lasts.
    pub length: Duration,
    /// How many things were done, what undid them not counted.
    pub faults: usize,
    /// How many there are to be done.
    pub of: usize,
    /// How many verdicts fell.
    pub verdicts: usize,
    /// How many terms began.
    pub terms: usize,
}

/// A run under way.
pub(super) struct Play<'a> {
    fleet: Fleet,
    schedule: &'a Schedule,
    watch: &'a mut dyn Watch<Progress>,
    steps: VecDeque<Step>,
    /// Starts of processes that have not ended yet.
    waiting: Vec<Target>,
    /// When who was started last.
    started: HashMap<String, Mono>,
    /// How many plugins a worker has.
    plugins: usize,
    done: usize,
    told: Mono,
}

impl<'a> Play<'a> {
    /// A run of `fleet`, which has no process yet.
    pub(super) fn new(
        fleet: Fleet,
        schedule: &'a Schedule,
        watch: &'a mut dyn Watch<Progress>,
    ) -> Self {
        let steps = schedule.steps.iter().copied().collect();
        Self {
            fleet,
            schedule,
            watch,
            steps,
            waiting: Vec::new(),
            started: HashMap::new(),
            plugins: 0,
            done: 0,
            told: Mono(0),
        }
    }

    /// Plays to the end; then nothing that was started is left.
    pub(super) fn run(mut self, specs: Vec<Spec>) -> Result<Record, FleetError> {
        self.watch.says("starting the fleet");
        self.start(specs)?;
        let start = now();
        let end = start + self.schedule.length;
        while now() < end {
            self.fleet.look()?;
            self.start_waiting()?;
            while let Some(step) = self.steps.front().filter(|step| start + step.at <= now()) {
                let step = *step;
                self.steps.pop_front();
                self.carry_out(step)?;
            }
            self.tell(start);
            let next = self.steps.front().map_or(end, |step| start + step.at);
            thread::sleep(next.min(end).since(now()).min(POLL * 2));
        }
        self.watch.says("ending the fleet");
        self.start_waiting()?;
        self.fleet.end(GRACE)?;
        self.fleet.finish()
    }

    /// Starts everybody and waits until every worker beats.
    fn start(&mut self, specs: Vec<Spec>) -> Result<(), FleetError> {
        self.plugins = specs.iter().map(|spec| spec.plugins.len()).max().unwrap_or_default();
        let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
        specs.into_iter().try_for_each(|spec| self.fleet.add(spec))?;
        for name in &names {
            self.fleet.start(name)?;
        }
        self.fleet.beating()
    }

    fn carry_out(&mut self, step: Step) -> Result<(), FleetError> {
        let name = step.target.to_string();
        let spared = matches!(step.act, Act::Stop | Act::Terminate | Act::KillSidecars);
        if spared && !self.is_up(&name) {
            return Ok(());
        }
        let (name, fleet) = (name.as_str(), &mut self.fleet);
        let outcome = match step.act {
            Act::Kill => fleet.kill(name),
            Act::Terminate => fleet.terminate(name),
            Act::Stop => fleet.stop(name),
            Act::Continue => fleet.resume(name),
            Act::Cut => fleet.cut(name),
            Act::BlackHole => fleet.black_hole(name),
            Act::Delay { by } => fleet.delay(name, by),
            Act::Heal => fleet.heal(name),
            Act::StallDisk => fleet.disk(name, DiskFault::Stall),
            Act::FreeDisk => fleet.heal_disk(name),
            Act::KillSidecars => fleet.kill_sidecars(name),
            Act::Start => {
                self.waiting.push(step.target);
                self.start_waiting()?;
                Ok(())
            }
        };
        match outcome {
            Ok(()) => self.done += usize::from(!step.act.undoes()),
            // It has just ended, or not yet come up: what cannot be done is not in the record.
            Err(FleetError::NotRunning(_) | FleetError::NoSidecar(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Starts whoever is to be started and has ended by now. Nobody waits for anybody else.
    fn start_waiting(&mut self) -> Result<(), FleetError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.fleet.look()?;
        for target in std::mem::take(&mut self.waiting) {
            let name = target.to_string();
            if self.fleet.pid(&name).is_some() {
                self.waiting.push(target);
            } else {
                self.started.insert(name.clone(), now());
                self.fleet.start(&name)?;
            }
        }
        Ok(())
    }

    /// Whether a process has all its plugins: before, it may end of what is done to it, and rightly.
    fn is_up(&self, name: &str) -> bool {
        if self.fleet.worker_id(name).is_none() {
            return true;
        }
        let since = self.started.get(name).copied().unwrap_or_default();
        let events = self.fleet.events(name).rev().take_while(|event| event.mono >= since);
        let probed = events.filter(|event| matches!(event.body, Body::PluginProbed(_)));
        probed.count() >= self.plugins
    }

    fn tell(&mut self, start: Mono) {
        if now().since(self.told) < TOLD_EVERY {
            return;
        }
        self.told = now();
        let (mut verdicts, mut terms) = (0, 0);
        for event in self.fleet.events("coord") {
            match event.body {
                Body::WorkerFailed(_) => verdicts += 1,
                Body::CoordinatorStarted(CoordinatorStarted { .. }) => terms += 1,
                _ => {}
            }
        }
        let (length, of) = (self.schedule.length, self.schedule.faults());
        let elapsed = now().since(start).min(length);
        let faults = self.done;
        self.watch.goes(&Progress { elapsed, length, faults, of, verdicts, terms });
    }
}

fn now() -> Mono {
    SystemClock.now()
}
