//! The three processes of a run, each with its log.

use std::fs::{self, File};

use rollout_core::{Body, Clock, Event, SystemClock, WorkerId};
use rollout_process::{Child, Exit, Io, Signal, Spawn};

use super::{Trouble, chain};
use crate::fixtures::{FixtureError, Layout, on};
use crate::judge::Witness;
use crate::log::{Log, Tail};
use crate::record::{Ended, Life};

/// A process of the run, started or not.
pub(super) struct Actor {
    pub(super) name: &'static str,
    layout: Layout,
    child: Option<Child>,
    tail: Tail,
    life: Option<Life>,
    /// How it ended, by itself or by what the timeline did to it.
    pub(super) exit: Option<Exit>,
    /// Whether the timeline has ended it: until then an exit is unexpected.
    leaving: bool,
}

impl Actor {
    /// The part of `name`, with empty files for its outputs.
    pub(super) fn new(name: &'static str, layout: &Layout) -> Result<Self, FixtureError> {
        for path in [layout.log(name), layout.stderr(name)] {
            File::create(&path).map_err(on("create", path))?;
        }
        let tail = Tail::open(&layout.log(name)).map_err(on("open", layout.log(name)))?;
        Ok(Self {
            name,
            layout: layout.clone(),
            child: None,
            tail,
            life: None,
            exit: None,
            leaving: false,
        })
    }

    /// Starts it, its outputs led into its files.
    pub(super) fn start(&mut self, spawn: Spawn) -> Result<(), Trouble> {
        let append = |path: std::path::PathBuf| {
            File::options().append(true).open(&path).map(Io::File).map_err(on("open", path))
        };
        let (log, stderr) = (self.layout.log(self.name), self.layout.stderr(self.name));
        let spawn = spawn.stdout(append(log)?).stderr(append(stderr)?);
        let began = SystemClock.now();
        let child = spawn.spawn().map_err(|error| Trouble::Failed(chain(&error)))?;
        self.life = Some(Life { pid: child.pid(), began, ended: None });
        self.child = Some(child);
        Ok(())
    }

    /// The number of its process, once it is started.
    pub(super) fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(Child::pid)
    }

    /// Ends it: whatever comes of the signal is expected.
    pub(super) fn end(&mut self, signal: Signal) {
        self.leaving = true;
        if let Some(child) = &self.child {
            child.handle().signal_main(signal);
        }
    }

    /// Reads on in its log and looks whether it still runs.
    fn look(&mut self) -> Result<(), FixtureError> {
        // The exit first: what it wrote before is then in the file.
        self.exit = self.exit.or_else(|| self.child.as_ref()?.try_wait());
        if let (Some(life), Some(exit)) = (&mut self.life, self.exit) {
            life.ended.get_or_insert_with(|| Ended::new(SystemClock.now(), exit));
        }
        self.tail.poll().map_err(on("read", self.layout.log(self.name)))
    }

    pub(super) fn log(&self) -> &Log {
        self.tail.log()
    }

    fn stderr(&self) -> String {
        // A file of our own making that cannot be read shows as one that says nothing.
        let bytes = fs::read(self.layout.stderr(self.name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Kills what is left of it, and gives what it left behind. An exit by this kill says nothing
    /// about the process and is not part of that.
    fn into_witness(mut self) -> Result<Witness, FixtureError> {
        drop(self.child.take());
        self.look()?;
        let (stderr, log) = (self.stderr(), self.tail.log().clone());
        Ok(Witness { log, stderr, exit: self.exit, life: self.life })
    }
}

/// All three.
pub(super) struct Cast {
    pub(super) coordinator: Actor,
    pub(super) w1: Actor,
    pub(super) w2: Actor,
}

impl Cast {
    pub(super) fn new(layout: &Layout) -> Result<Self, FixtureError> {
        let [coordinator, w1, w2] = ["coord", "w1", "w2"].map(|name| Actor::new(name, layout));
        Ok(Self { coordinator: coordinator?, w1: w1?, w2: w2? })
    }

    fn all(&self) -> [&Actor; 3] {
        [&self.coordinator, &self.w1, &self.w2]
    }

    /// Reads on in every log and looks who still runs.
    pub(super) fn look(&mut self) -> Result<(), FixtureError> {
        [&mut self.coordinator, &mut self.w1, &mut self.w2].into_iter().try_for_each(Actor::look)
    }

    pub(super) fn pids(&self) -> Vec<i32> {
        self.all().into_iter().filter_map(Actor::pid).collect()
    }

    /// An exit that the timeline has not caused, with the end of what the process said.
    pub(super) fn unexpected_exit(&self) -> Result<(), Trouble> {
        for actor in self.all().into_iter().filter(|actor| !actor.leaving) {
            if let Some(exit) = actor.exit {
                let stderr = actor.stderr();
                let last: Vec<_> = stderr.lines().rev().take(6).collect();
                let said: String = last.iter().rev().map(|line| format!("\n{line}")).collect();
                return Err(Trouble::Failed(format!("{} {exit}{said}", actor.name)));
            }
        }
        Ok(())
    }

    /// The coordinator's events about `worker`.
    pub(super) fn about(&self, worker: WorkerId) -> impl DoubleEndedIterator<Item = &Event> {
        self.coordinator.log().events().filter(move |event| event.worker_id == Some(worker))
    }

    /// Whether the coordinator has written an event with `topic` about `worker`.
    pub(super) fn says(&self, topic: &str, worker: WorkerId) -> bool {
        self.about(worker).any(|event| event.body.topic() == topic)
    }

    /// How many plugins of a worker have answered their probe.
    pub(super) fn probed(actor: &Actor) -> usize {
        actor.log().events().filter(|e| matches!(e.body, Body::PluginProbed(_))).count()
    }

    /// Kills what is left, in the reverse of the order in which it was started.
    pub(super) fn into_witnesses(self) -> Result<[Witness; 3], FixtureError> {
        let w2 = self.w2.into_witness()?;
        let w1 = self.w1.into_witness()?;
        Ok([self.coordinator.into_witness()?, w1, w2])
    }
}
