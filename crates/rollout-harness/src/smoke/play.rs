//! Plays the timeline: starts the processes, waits for each step inside its budget, kills one.

use std::mem;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rollout_core::{Body, Clock, Mono, SystemClock, WorkerId, chain};
use rollout_process::Signal;

use super::{Evidence, Fault, Ids, Options, Witness, WorkerWitness};
use crate::Interrupt;
use crate::binaries::{self, Binaries, BuildError};
use crate::fixtures::{Fixtures, Layout};
use crate::fleet::{Config, Fleet, FleetError, FleetOptions, POLL, Reach, Spec, Trouble};
use crate::record::{Process, Record, Role};
use crate::timeline::{Progress, Step, StepReport};
use crate::watchdog::Watchdog;

/// The names of the processes.
const COORD: &str = "coord";
const W1: &str = "w1";
const W2: &str = "w2";

/// A run under way.
pub(super) struct Play<'a> {
    options: &'a Options,
    fixtures: Fixtures,
    layout: Layout,
    ids: Ids,
    progress: &'a mut dyn Progress,
    interrupt: &'a Interrupt,
    fleet: Fleet,
    steps: Vec<StepReport>,
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
    ) -> Result<Self, FleetError> {
        let mut fleet = Fleet::new(FleetOptions {
            title: "smoke".to_owned(),
            layout: layout.clone(),
            // Until it is built; nothing is started before.
            program: "rollout".into(),
            faulty: None,
            timing: fixtures.timing(),
            run: ids.run,
            interrupt: interrupt.clone(),
        })?;
        for spec in cast(&fixtures, &layout, ids, options.port) {
            fleet.add(spec)?;
        }
        Ok(Self {
            fleet,
            options,
            fixtures,
            layout,
            ids,
            progress,
            interrupt,
            steps: Vec::new(),
            kill: None,
            w2_stop: None,
            watchdog: None,
            harness_late: Duration::ZERO,
        })
    }

    /// Plays to the end, or to the first step that cannot be got over; then kills what is left and
    /// gives the evidence and the time from the first spawn to the last exit.
    pub(super) fn run(mut self) -> Result<(Evidence, Duration), FleetError> {
        if let Err(Trouble::Harness(error)) = self.timeline() {
            return Err(error);
        }
        self.fleet.close()?;
        let leftovers = Self::last_look(&self.fleet, self.progress, &mut self.steps)?;
        let mut record = self.fleet.into_record(leftovers);
        let ran = record.processes.iter().any(|process| !process.lives.is_empty());
        let wall = if ran { record.ended.since(record.began) } else { Duration::ZERO };
        let evidence = Evidence {
            run: self.ids.run,
            timing: record.timing,
            plugins: self.fixtures.plugin_names(),
            ca_line: self.fixtures.ca_line(),
            steps: self.steps,
            coordinator: witness(&mut record, COORD),
            w1: WorkerWitness { id: self.ids.w1, seen: witness(&mut record, W1) },
            w2: WorkerWitness { id: self.ids.w2, seen: witness(&mut record, W2) },
            kill: self.kill,
            w2_stop: self.w2_stop,
            harness_late: self.harness_late,
            leftovers: record.leftovers,
        };
        Ok((evidence, wall))
    }

    fn timeline(&mut self) -> Result<(), Trouble> {
        let binaries = self.step(Step::Build, Self::build)?;
        self.step(Step::Coordinator, |play| play.coordinator(&binaries))?;
        self.step(Step::Workers, Self::workers)?;
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
        done: impl Fn(&Fleet) -> Option<T>,
        status: impl Fn(&Fleet) -> String,
    ) -> Result<T, Trouble> {
        loop {
            // Looked at before the logs, so that what is in them by then still counts.
            let late = now() > until;
            self.fleet.look()?;
            if let Some(found) = done(&self.fleet) {
                return Ok(found);
            }
            self.all_run()?;
            let status = status(&self.fleet);
            if late {
                return Err(Trouble::Failed(status));
            }
            self.progress.status(&status);
            thread::sleep(POLL);
        }
    }

    /// That nobody has ended unasked.
    fn all_run(&self) -> Result<(), Trouble> {
        self.fleet.unexpected_exit().map_or(Ok(()), |exit| Err(Trouble::Failed(exit)))
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
            BuildError::Interrupted(signal) => FleetError::Interrupted(signal).into(),
            error => Trouble::Failed(chain(&error)),
        })?;
        Ok((binaries, String::new()))
    }

    fn coordinator(&mut self, binaries: &Binaries) -> Done<()> {
        self.fixtures.write_plugins(&self.layout, &binaries.cdylib)?;
        self.fleet.set_program(binaries.rollout.clone());
        let start = now();
        self.fleet.start(COORD)?;
        self.wait(start + limit(Step::Coordinator), listens, |_| {
            "no coordinator_started event yet".to_owned()
        })?;
        let address = self.fleet.listening(limit(Step::Coordinator))?;
        match TcpStream::connect_timeout(&address, limit(Step::Coordinator)) {
            Ok(_) => Ok(((), format!("listens on {address}"))),
            Err(why) => Err(Trouble::Failed(format!("cannot connect to {address}: {why}"))),
        }
    }

    fn workers(&mut self) -> Done<()> {
        for name in [W1, W2] {
            self.fleet.start(name)?;
        }
        self.fleet.look()?;
        self.all_run()?;
        let pids = [W1, W2].map(|worker| self.fleet.pid(worker).unwrap_or_default());
        Ok(((), format!("pids {} and {}", pids[0], pids[1])))
    }

    fn stable(&mut self) -> Done<()> {
        let plugins = self.fixtures.plugin_names().len();
        let Ids { w1, w2, .. } = self.ids;
        let beats = move |fleet: &Fleet| [w1, w2].map(|id| fleet.says("worker_heartbeat", id));
        let probed = |fleet: &Fleet| [W1, W2].map(|worker| probed(fleet, worker));
        self.wait(
            now() + limit(Step::Stable),
            |fleet| (beats(fleet) == [true; 2] && probed(fleet) == [plugins; 2]).then_some(()),
            |fleet| {
                let (beats, probed) = (beats(fleet), probed(fleet));
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
        self.watchdog = Some(Watchdog::start());
        if self.options.fault == Fault::None {
            self.kill = Some(now());
            return Ok(((), "left alone".to_owned()));
        }
        self.fleet.kill(W1)?;
        let kill = self.fleet.faults().last().map_or_else(now, |fault| fault.began);
        self.kill = Some(kill);
        let until = kill + limit(Step::Kill);
        let exit = self.wait(until, |fleet| fleet.exit(W1), |_| "w1 is still there".to_owned())?;
        if exit.signal != Some(Signal::SIGKILL as i32) {
            return Err(Trouble::Failed(format!("w1 {exit}, not by the SIGKILL")));
        }
        Ok(((), exit.to_string()))
    }

    fn detect(&mut self) -> Done<()> {
        let (kill, w1) = (self.kill.unwrap_or_else(now), self.ids.w1);
        let timing = self.fixtures.timing();
        let deadline = |fleet: &Fleet| {
            let mut events = fleet.about(w1);
            let beat = events.rfind(|event| matches!(event.body, Body::WorkerHeartbeat(_)));
            let left = beat.map(|beat| timing.deadline(beat.mono).since(now()));
            match left.unwrap_or_default() {
                Duration::ZERO => "deadline passed".to_owned(),
                left => format!("deadline in {:.1} s", left.as_secs_f64()),
            }
        };
        let found = self.wait(
            kill + self.options.patience,
            |fleet| fleet.says("worker_failed", w1).then_some(()),
            |fleet| format!("{}, no worker_failed(w1) yet", deadline(fleet)),
        );
        self.harness_late = self.watchdog.take().map(Watchdog::stop).unwrap_or_default();
        found.map(|()| ((), String::new()))
    }

    fn stop_w2(&mut self) -> Done<()> {
        let (stop, id) = (now(), self.ids.w2);
        self.w2_stop = Some(stop);
        self.fleet.terminate(W2)?;
        if self.fleet.exit(W1).is_none() {
            self.fleet.terminate(W1)?;
        }
        let exit = self.wait(
            stop + limit(Step::StopWorker),
            |fleet| fleet.exit(W2).filter(|_| fleet.says("worker_deregistered", id)),
            |fleet| match fleet.exit(W2) {
                Some(exit) => format!("w2 {exit}, without worker_deregistered"),
                None => "w2 is still there".to_owned(),
            },
        )?;
        Ok(((), format!("deregistered, {exit}")))
    }

    fn stop_coordinator(&mut self) -> Done<()> {
        let until = now() + limit(Step::StopCoordinator);
        self.fleet.terminate(COORD)?;
        let there = |_: &Fleet| "the coordinator is still there".to_owned();
        let exit = self.wait(until, |fleet| fleet.exit(COORD), there)?;
        Ok(((), exit.to_string()))
    }

    /// Looks for leftovers until there are none or the step's time is over.
    fn last_look(
        fleet: &Fleet,
        progress: &mut dyn Progress,
        steps: &mut Vec<StepReport>,
    ) -> Result<Vec<String>, FleetError> {
        let step = Step::NothingLeft;
        progress.started(step);
        let start = now();
        let left = loop {
            let left = fleet.left()?;
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

/// The three processes, with the configurations of the fixtures.
fn cast(fixtures: &Fixtures, layout: &Layout, ids: Ids, port: Option<u16>) -> [Spec; 3] {
    let worker = |name: &str, id: WorkerId| Spec {
        role: Role::Worker { id },
        config: Config::Whole(fixtures.worker(name, ids.run, None)),
        plugins: fixtures.manifests(layout),
        // A port that was asked for is not in the fixture.
        reach: if port.is_some() { Reach::Direct } else { Reach::Configured },
        ..Spec::worker(name)
    };
    let config = Config::Whole(fixtures.coordinator(ids.run, port));
    let coordinator = Spec { config, ..Spec::coordinator() };
    [coordinator, worker(W1, ids.w1), worker(W2, ids.w2)]
}

fn listens(fleet: &Fleet) -> Option<()> {
    fleet.events(COORD).any(|e| matches!(e.body, Body::CoordinatorStarted(_))).then_some(())
}

/// How many plugins of a worker have answered their probe.
fn probed(fleet: &Fleet, worker: &str) -> usize {
    fleet.events(worker).filter(|e| matches!(e.body, Body::PluginProbed(_))).count()
}

/// What a process has left behind.
fn witness(record: &mut Record, name: &str) -> Witness {
    let process = record.processes.iter_mut().find(|process| process.name == name);
    let process: Option<&mut Process> = process;
    process.map_or_else(Witness::default, |process| Witness {
        log: mem::take(&mut process.log),
        stderr: mem::take(&mut process.stderr),
        exit: process.exit(),
        life: process.lives.first().cloned(),
    })
}
