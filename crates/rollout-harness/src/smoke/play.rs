//! Plays the timeline: starts the processes, waits for each step inside its budget, kills one.

use std::collections::BTreeSet;
use std::env;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use rollout_core::{Body, Clock, Mono, SystemClock};
use rollout_process::{Signal, Spawn};

use super::cast::{Actor, Cast};
use super::leftovers::Traces;
use super::{Fault, Ids, Options, SmokeError, Trouble, chain};
use crate::Interrupt;
use crate::binaries::{self, Binaries, BuildError, workspace_root};
use crate::fixtures::{Fixtures, Layout, on};
use crate::judge::{Evidence, WorkerWitness};
use crate::processes::trees;
use crate::timeline::{Progress, Step, StepReport};
use crate::watchdog::Watchdog;

/// How often the logs are looked at.
const POLL: Duration = Duration::from_millis(3);

/// A run under way.
pub(super) struct Play<'a> {
    options: &'a Options,
    fixtures: Fixtures,
    layout: Layout,
    ids: Ids,
    progress: &'a mut dyn Progress,
    interrupt: &'a Interrupt,
    cast: Cast,
    steps: Vec<StepReport>,
    traces: Traces,
    first_spawn: Option<Mono>,
    last_exit: Option<Mono>,
    kill: Option<Mono>,
    w2_stop: Option<Mono>,
    watchdog: Option<Watchdog>,
    harness_late: Duration,
}

/// What a step gives, and what it says of itself.
type Done<T> = Result<(T, String), Trouble>;

impl<'a> Play<'a> {
    pub(super) fn new(
        options: &'a Options,
        fixtures: Fixtures,
        layout: Layout,
        ids: Ids,
        progress: &'a mut dyn Progress,
        interrupt: &'a Interrupt,
    ) -> Result<Self, SmokeError> {
        Ok(Self {
            cast: Cast::new(&layout)?,
            traces: Traces { layout: layout.clone(), processes: BTreeSet::new(), address: None },
            options,
            fixtures,
            layout,
            ids,
            progress,
            interrupt,
            steps: Vec::new(),
            first_spawn: None,
            last_exit: None,
            kill: None,
            w2_stop: None,
            watchdog: None,
            harness_late: Duration::ZERO,
        })
    }

    /// Plays to the end, or to the first step that cannot be got over; then kills what is left and
    /// gives the evidence and the time from the first spawn to the last exit.
    pub(super) fn run(mut self) -> Result<(Evidence, Duration), SmokeError> {
        if let Err(Trouble::Harness(error)) = self.timeline() {
            return Err(error);
        }
        let [coordinator, w1, w2] = self.cast.into_witnesses()?;
        let end = self.last_exit.unwrap_or_else(now);
        let wall = self.first_spawn.map(|first| end.since(first)).unwrap_or_default();
        let leftovers = Self::last_look(&self.traces, self.progress, &mut self.steps)?;
        let evidence = Evidence {
            run: self.ids.run,
            timing: self.fixtures.timing(),
            plugins: self.fixtures.plugin_names(),
            ca_line: self.fixtures.ca_line(),
            steps: self.steps,
            coordinator,
            w1: WorkerWitness { id: self.ids.w1, seen: w1 },
            w2: WorkerWitness { id: self.ids.w2, seen: w2 },
            kill: self.kill,
            w2_stop: self.w2_stop,
            harness_late: self.harness_late,
            leftovers,
        };
        Ok((evidence, wall))
    }

    fn timeline(&mut self) -> Result<(), Trouble> {
        let binaries = self.step(Step::Build, Self::build)?;
        let address = self.step(Step::Coordinator, |play| play.coordinator(&binaries))?;
        self.step(Step::Workers, |play| play.workers(&binaries, &address))?;
        self.step(Step::Stable, Self::stable)?;
        self.step(Step::Kill, Self::kill_w1)?;
        let detected = self.step(Step::Detect, Self::detect);
        // A verdict that did not come is no reason for the others not to end in good order.
        if let Err(Trouble::Harness(error)) = detected {
            return Err(Trouble::Harness(error));
        }
        self.step(Step::StopWorker, Self::stop_w2)?;
        self.step(Step::StopCoordinator, Self::stop_coordinator)
    }

    /// Takes the time of a step and reports it, whether it succeeds or not.
    fn step<T>(
        &mut self,
        step: Step,
        act: impl FnOnce(&mut Self) -> Done<T>,
    ) -> Result<T, Trouble> {
        self.progress.started(step);
        let start = now();
        let (value, result) = match act(self) {
            Ok((value, said)) => (Ok(value), Ok(said)),
            Err(Trouble::Failed(why)) => (Err(Trouble::Failed(why.clone())), Err(why)),
            Err(Trouble::Harness(error)) => return Err(Trouble::Harness(error)),
        };
        // Detection is counted from the kill, not from the end of the step that killed.
        let start = self.kill.filter(|_| step == Step::Detect).unwrap_or(start);
        let report = StepReport { step, took: now().since(start), result };
        self.progress.ended(&report);
        self.steps.push(report);
        value
    }

    /// Waits until `done` gives something; `status` says what is still missing.
    fn wait<T>(
        &mut self,
        until: Mono,
        done: impl Fn(&Cast) -> Option<T>,
        status: impl Fn(&Cast) -> String,
    ) -> Result<T, Trouble> {
        loop {
            if let Some(signal) = self.interrupt.requested() {
                return Err(SmokeError::Interrupted(signal).into());
            }
            // Looked at before the logs, so that what is in them by then still counts.
            let late = now() > until;
            self.cast.look()?;
            if let Some(found) = done(&self.cast) {
                return Ok(found);
            }
            self.cast.unexpected_exit()?;
            let status = status(&self.cast);
            if late {
                return Err(Trouble::Failed(status));
            }
            self.progress.status(&status);
            thread::sleep(POLL);
        }
    }

    fn build(&mut self) -> Done<Binaries> {
        if let Some(binaries) = &self.options.binaries {
            return Ok((binaries.clone(), "built already".to_owned()));
        }
        let progress = &mut *self.progress;
        let built = binaries::build(self.options.profile, self.interrupt, &mut |line| {
            progress.status(line);
        });
        let binaries = built.map_err(|error| match error {
            BuildError::Interrupted(signal) => SmokeError::Interrupted(signal).into(),
            error => Trouble::Failed(chain(&error)),
        })?;
        Ok((binaries, String::new()))
    }

    /// The program in the run's root, with what the sidecars need to be found.
    fn program(&self, binaries: &Binaries, role: &str, config: &str) -> Spawn {
        let python = ["python/examples", "python"].map(|dir| workspace_root().join(dir));
        let spawn = Spawn::new(&binaries.rollout).current_dir(&self.layout.root);
        let config = Layout::relative(&format!("logs/{config}.toml"));
        let spawn = spawn.args([role, "run", "--config"]).arg(config);
        // A workspace whose path holds a colon cannot be put on a search path.
        match env::join_paths(python) {
            Ok(path) => spawn.env("PYTHONPATH", path),
            Err(_) => spawn,
        }
    }

    fn coordinator(&mut self, binaries: &Binaries) -> Done<String> {
        self.fixtures.write_coordinator(&self.layout, self.ids.run, self.options.port)?;
        self.fixtures.write_plugins(&self.layout, &binaries.cdylib)?;
        let start = now();
        self.first_spawn = Some(start);
        self.cast.coordinator.start(self.program(binaries, "coordinator", "coord"))?;
        let address = self.wait(start + limit(Step::Coordinator), listen_addr, |_| {
            "no coordinator_started event yet".to_owned()
        })?;
        let connected = address.parse::<SocketAddr>().map_err(|error| error.to_string());
        let connected = connected.and_then(|address| {
            self.traces.address = Some(address);
            TcpStream::connect_timeout(&address, limit(Step::Coordinator))
                .map_err(|e| e.to_string())
        });
        match connected {
            Ok(_) => Ok((address.clone(), format!("listens on {address}"))),
            Err(why) => Err(Trouble::Failed(format!("cannot connect to {address}: {why}"))),
        }
    }

    fn workers(&mut self, binaries: &Binaries, address: &str) -> Done<()> {
        let address = self.options.port.map(|_| address);
        let ids = self.ids;
        for (name, id) in [("w1", ids.w1), ("w2", ids.w2)] {
            self.fixtures.write_worker(&self.layout, name, (ids.run, id), address)?;
            let mut spawn = self.program(binaries, "worker", name);
            spawn = spawn.args(["--worker-id", &id.to_string()]);
            for manifest in self.fixtures.manifests() {
                spawn = spawn.arg("--plugin").arg(manifest);
            }
            let actor = if id == ids.w1 { &mut self.cast.w1 } else { &mut self.cast.w2 };
            actor.start(spawn)?;
        }
        self.cast.look()?;
        self.cast.unexpected_exit()?;
        let pids = [&self.cast.w1, &self.cast.w2].map(|w| w.pid().unwrap_or_default());
        Ok(((), format!("pids {} and {}", pids[0], pids[1])))
    }

    fn stable(&mut self) -> Done<()> {
        let plugins = self.fixtures.plugin_names().len();
        let Ids { w1, w2, .. } = self.ids;
        let beats = move |cast: &Cast| [w1, w2].map(|id| cast.says("worker_heartbeat", id));
        let probed = |cast: &Cast| [&cast.w1, &cast.w2].map(Cast::probed);
        self.wait(
            now() + limit(Step::Stable),
            |cast| (beats(cast) == [true; 2] && probed(cast) == [plugins; 2]).then_some(()),
            |cast| {
                let (beats, probed) = (beats(cast), probed(cast));
                let worker = |n: usize| {
                    let beat = if beats[n] { "beats" } else { "has not beaten" };
                    format!("w{} {beat}, {} of {plugins} plugins answered", n + 1, probed[n])
                };
                format!("{}; {}", worker(0), worker(1))
            },
        )?;
        Ok(((), format!("both beat, {} plugins answered", 2 * plugins)))
    }

    fn kill_w1(&mut self) -> Done<()> {
        self.traces.processes.extend(trees(&self.cast.pids()).map_err(on("read", "/proc"))?);
        self.watchdog = Some(Watchdog::start());
        let kill = now();
        self.kill = Some(kill);
        if self.options.fault == Fault::None {
            return Ok(((), "left alone".to_owned()));
        }
        self.cast.w1.end(Signal::SIGKILL);
        let until = kill + limit(Step::Kill);
        let exit = self.wait(until, |cast| cast.w1.exit, |_| "w1 is still there".to_owned())?;
        if exit.signal != Some(Signal::SIGKILL as i32) {
            return Err(Trouble::Failed(format!("w1 {exit}, not by the SIGKILL")));
        }
        Ok(((), exit.to_string()))
    }

    fn detect(&mut self) -> Done<()> {
        let (kill, w1) = (self.kill.unwrap_or_else(now), self.ids.w1);
        let timing = self.fixtures.timing();
        let deadline = |cast: &Cast| {
            let mut events = cast.about(w1);
            let beat = events.rfind(|event| matches!(event.body, Body::WorkerHeartbeat(_)));
            let left = beat.map(|beat| timing.deadline(beat.mono).since(now()));
            match left.unwrap_or_default() {
                Duration::ZERO => "deadline passed".to_owned(),
                left => format!("deadline in {:.1} s", left.as_secs_f64()),
            }
        };
        let found = self.wait(
            kill + self.options.patience,
            |cast| cast.says("worker_failed", w1).then_some(()),
            |cast| format!("{}, no worker_failed(w1) yet", deadline(cast)),
        );
        self.harness_late = self.watchdog.take().map(Watchdog::stop).unwrap_or_default();
        found.map(|()| ((), String::new()))
    }

    fn stop_w2(&mut self) -> Done<()> {
        self.traces.processes.extend(trees(&self.cast.pids()).map_err(on("read", "/proc"))?);
        let (stop, id) = (now(), self.ids.w2);
        self.w2_stop = Some(stop);
        self.cast.w2.end(Signal::SIGTERM);
        if self.cast.w1.exit.is_none() {
            self.cast.w1.end(Signal::SIGTERM);
        }
        let exit = self.wait(
            stop + limit(Step::StopWorker),
            |cast| cast.w2.exit.filter(|_| cast.says("worker_deregistered", id)),
            |cast| match cast.w2.exit {
                Some(exit) => format!("w2 {exit}, without worker_deregistered"),
                None => "w2 is still there".to_owned(),
            },
        )?;
        Ok(((), format!("deregistered, {exit}")))
    }

    fn stop_coordinator(&mut self) -> Done<()> {
        let until = now() + limit(Step::StopCoordinator);
        self.cast.coordinator.end(Signal::SIGTERM);
        let ended = |actor: &Actor| actor.exit;
        let exit = self.wait(
            until,
            |cast| ended(&cast.coordinator),
            |_| "the coordinator is still there".to_owned(),
        )?;
        self.last_exit = Some(now());
        Ok(((), exit.to_string()))
    }

    /// Looks for leftovers until there are none or the step's time is over.
    fn last_look(
        traces: &Traces,
        progress: &mut dyn Progress,
        steps: &mut Vec<StepReport>,
    ) -> Result<Vec<String>, SmokeError> {
        let step = Step::NothingLeft;
        progress.started(step);
        let start = now();
        let left = loop {
            let left = traces.found()?;
            if left.is_empty() || now().since(start) > limit(step) {
                break left;
            }
            progress.status(&left.join(", "));
            thread::sleep(POLL);
        };
        let fine = || "no process, socket or lock".to_owned();
        let result = if left.is_empty() { Ok(fine()) } else { Err(left.join(", ")) };
        let report = StepReport { step, took: now().since(start), result };
        progress.ended(&report);
        steps.push(report);
        Ok(left)
    }
}

fn now() -> Mono {
    SystemClock.now()
}

fn limit(step: Step) -> Duration {
    step.budget().limit().unwrap_or(Duration::MAX)
}

fn listen_addr(cast: &Cast) -> Option<String> {
    cast.coordinator.log().events().find_map(|event| match &event.body {
        Body::CoordinatorStarted(started) => Some(started.listen_addr.clone()),
        _ => None,
    })
}
