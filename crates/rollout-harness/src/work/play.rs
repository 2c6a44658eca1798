//! Runs the job once on a fleet of its own, and does meanwhile what a schedule says.

use std::collections::VecDeque;
use std::fs;
use std::thread;
use std::time::Duration;

use rollout_core::{Body, Clock, Mono, SystemClock};

use super::WorkError;
use super::client::{Call, Client};
use super::executions::Execution;
use super::files;
use super::judge::Seen;
use super::schedule::{Act, Schedule, Step};
use crate::fixtures::on;
use crate::fleet::{Fleet, FleetError, GRACE, POLL, Spec, UP_WITHIN};
use crate::watch::{TOLD_EVERY, Watch};

/// How a run goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Since the client was started.
    pub elapsed: Duration,
    /// How many items have come to their end.
    pub done: u64,
    /// How many there are.
    pub items: u64,
    /// How many things were done to the fleet.
    pub faults: usize,
    /// How many are to be.
    pub of: usize,
}

/// What a run consists of.
pub(super) struct Scene<'a> {
    /// A worker, of whatever name.
    pub(super) worker: &'a Spec,
    /// How many there are at a time.
    pub(super) workers: usize,
    /// How many items there are.
    pub(super) items: u64,
    /// The client, but for the coordinator's address.
    pub(super) call: Call<'a>,
    /// How long the client may take.
    pub(super) patience: Duration,
    /// What is done; nothing, if there is none.
    pub(super) schedule: Option<&'a Schedule>,
}

/// A place in the fleet, and who holds it.
#[derive(Debug)]
struct Place {
    name: String,
    /// When it was started last.
    started: Mono,
    /// When it is to be filled again, if it is empty.
    start: Option<Mono>,
    /// When it is to be thawed, if it is frozen.
    thaw: Option<Mono>,
}

/// A run under way.
pub(super) struct Play<'a> {
    fleet: Fleet,
    scene: Scene<'a>,
    watch: &'a mut dyn Watch<Progress>,
    places: Vec<Place>,
    /// How many workers there have been.
    named: usize,
    /// When the coordinator is to be started again.
    coordinator: Option<Mono>,
    steps: VecDeque<Step>,
    done: u64,
    /// How many of the coordinator's events were counted.
    counted: usize,
    /// The first grant.
    granted: Option<Mono>,
    told: Mono,
}

impl<'a> Play<'a> {
    /// A run of `fleet`, which has no process yet.
    pub(super) fn new(fleet: Fleet, scene: Scene<'a>, watch: &'a mut dyn Watch<Progress>) -> Self {
        let steps = scene.schedule.into_iter().flat_map(|schedule| &schedule.steps);
        Self {
            steps: steps.copied().collect(),
            fleet,
            scene,
            watch,
            places: Vec::new(),
            named: 0,
            coordinator: None,
            done: 0,
            counted: 0,
            granted: None,
            told: Mono(0),
        }
    }

    /// Plays to the end; then nothing that was started is left.
    pub(super) fn run(mut self) -> Result<Seen, WorkError> {
        self.watch.says("starting the fleet");
        self.start()?;
        self.scene.call.coordinator = self.fleet.listening(UP_WITHIN)?;
        self.watch.says("working");
        let mut client = Client::start(&self.scene.call)?;
        let trouble = self.work(&mut client)?;
        let began = client.began;
        let (ended, stderr) = client.finish();
        self.watch.says("ending the fleet");
        self.wake_coordinator(true)?;
        self.fleet.end(GRACE)?;
        let layout = self.fleet.layout().clone();
        let record = self.fleet.finish()?;
        let out = files::output(&layout);
        let notes = files::executions(&layout);
        let notes = fs::read_to_string(&notes).map_err(on("read", notes))?;
        Ok(Seen {
            record,
            began,
            ended,
            stderr,
            trouble,
            results: fs::read(out.join("results.jsonl")).ok(),
            dead: fs::read(out.join("dead.jsonl")).unwrap_or_default(),
            executions: Execution::read(&notes),
        })
    }

    /// Starts everybody and waits until every worker beats.
    fn start(&mut self) -> Result<(), WorkError> {
        self.fleet.add(Spec::coordinator())?;
        self.fleet.start("coord")?;
        for _ in 0..self.scene.workers {
            let name = self.name()?;
            let started = now();
            self.fleet.start(&name)?;
            self.places.push(Place { name, started, start: None, thaw: None });
        }
        Ok(self.fleet.beating()?)
    }

    /// Takes a new worker into the fleet; its name.
    fn name(&mut self) -> Result<String, WorkError> {
        self.named += 1;
        let name = format!("w{}", self.named);
        let mut spec = Spec::worker(&name);
        spec.plugins.clone_from(&self.scene.worker.plugins);
        spec.config = self.scene.worker.config.clone();
        self.fleet.add(spec)?;
        Ok(name)
    }

    /// Does what there is to do until the client ends. Why it was not waited for, if so.
    fn work(&mut self, client: &mut Client) -> Result<Option<String>, WorkError> {
        let until = now() + self.scene.patience;
        while client.look().is_none() {
            self.fleet.look()?;
            if let Some(exit) = self.fleet.unexpected_exit() {
                return Ok(Some(exit));
            }
            if now() > until {
                let patience = self.scene.patience;
                return Ok(Some(format!("the client has not ended within {patience:?}")));
            }
            self.count();
            self.undo()?;
            self.do_due()?;
            self.tell(client.began);
            thread::sleep(POLL);
        }
        Ok(None)
    }

    /// Counts what the coordinator has said since the last time.
    fn count(&mut self) {
        for event in self.fleet.events("coord").skip(self.counted) {
            self.counted += 1;
            match &event.body {
                Body::ItemsLeased(_) => {
                    self.granted.get_or_insert(event.mono);
                }
                Body::ItemsCommitted(body) => self.done += body.items,
                _ => {}
            }
        }
    }

    /// Fills empty places, thaws who is frozen, starts the coordinator again, where it is time.
    fn undo(&mut self) -> Result<(), WorkError> {
        self.wake_coordinator(false)?;
        let now = now();
        for place in &mut self.places {
            if place.thaw.is_some_and(|thaw| thaw <= now) {
                place.thaw = None;
                self.fleet.resume(&place.name)?;
            }
            let due = place.start.is_some_and(|start| start <= now);
            if due && self.fleet.pid(&place.name).is_none() {
                (place.start, place.started) = (None, now);
                self.fleet.start(&place.name)?;
            }
        }
        Ok(())
    }

    fn wake_coordinator(&mut self, at_once: bool) -> Result<(), WorkError> {
        let due = self.coordinator.is_some_and(|start| at_once || start <= now());
        if due && (at_once || self.fleet.pid("coord").is_none()) {
            self.coordinator = None;
            self.fleet.start("coord")?;
        }
        Ok(())
    }

    /// Carries out the steps that are due. One that cannot be carried out just then is put off, and
    /// those after it with it.
    fn do_due(&mut self) -> Result<(), WorkError> {
        let Some(granted) = self.granted else { return Ok(()) };
        while let Some(step) = self.steps.front().copied() {
            if granted + step.at > now() || !self.carry_out(step)? {
                break;
            }
            self.steps.pop_front();
        }
        Ok(())
    }

    /// Whether it was done.
    fn carry_out(&mut self, step: Step) -> Result<bool, WorkError> {
        if let Act::KillCoordinator { absence } = step.act {
            return Ok(self.tried(|fleet| fleet.kill("coord"))?
                && self.coordinator.replace(now() + absence).is_none());
        }
        let count = self.places.len();
        for place in (0..count).map(|next| (step.place + next) % count) {
            let Place { start, thaw, .. } = self.places[place];
            let kills = matches!(step.act, Act::KillWorker { .. });
            if start.is_some() || thaw.is_some() || !kills && !self.is_up(place) {
                continue;
            }
            if self.harm(place, step.act)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a worker has its plugin: before, it may end of what is done to it, and rightly.
    fn is_up(&self, place: usize) -> bool {
        let Place { name, started, .. } = &self.places[place];
        let mut events = self.fleet.events(name).rev().take_while(|event| event.mono >= *started);
        events.any(|event| matches!(event.body, Body::PluginProbed(_)))
    }

    fn harm(&mut self, place: usize, act: Act) -> Result<bool, WorkError> {
        let name = self.places[place].name.clone();
        match act {
            Act::KillWorker { fresh, absence } => {
                if !self.tried(|fleet| fleet.kill(&name))? {
                    return Ok(false);
                }
                if fresh {
                    self.places[place].name = self.name()?;
                }
                self.places[place].start = Some(now() + absence);
                Ok(true)
            }
            Act::KillSidecar => self.tried(|fleet| fleet.kill_sidecars(&name)),
            Act::Freeze { length } => {
                let done = self.tried(|fleet| fleet.stop(&name))?;
                self.places[place].thaw = done.then(|| now() + length);
                Ok(done)
            }
            Act::KillCoordinator { .. } => Ok(false),
        }
    }

    /// Does something to a process that may have just ended or not have come up yet.
    fn tried(
        &mut self,
        act: impl FnOnce(&mut Fleet) -> Result<(), FleetError>,
    ) -> Result<bool, WorkError> {
        match act(&mut self.fleet) {
            Ok(()) => Ok(true),
            Err(FleetError::NotRunning(_) | FleetError::NoSidecar(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn tell(&mut self, began: Mono) {
        let now = now();
        if now.since(self.told) < TOLD_EVERY {
            return;
        }
        self.told = now;
        let of = self.scene.schedule.map_or(0, |schedule| schedule.steps.len());
        self.watch.goes(&Progress {
            elapsed: now.since(began),
            done: self.done,
            items: self.scene.items,
            faults: of - self.steps.len(),
            of,
        });
    }
}

fn now() -> Mono {
    SystemClock.now()
}
