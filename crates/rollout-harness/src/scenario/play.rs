//! Plays a scenario: starts its processes, waits, does what the steps say, and ends everything.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use rollout_core::{Body, Clock, Mono, RunId, SystemClock, WorkerId};

use super::file::{Action, Awaited, END, Player, READY, Step, Verb, Wait, When};
use super::{Options, Played, Progress, Scenario, ScenarioError, Seen, judge};
use crate::Interrupt;
use crate::fixtures::{Fixtures, Layout};
use crate::fleet::{Config, DiskFault, Fleet, FleetOptions, Reach, Spec, Trouble};
use crate::record::Role;

/// How long the processes may take to be ready.
const STARTS: Duration = Duration::from_secs(20);
/// How long they may take to end when they are asked to.
const ENDS: Duration = Duration::from_secs(10);

/// What a scenario is played on.
pub(super) struct Stage<'a> {
    pub(super) options: &'a Options,
    pub(super) layout: &'a Layout,
    pub(super) fixtures: &'a Fixtures,
    pub(super) run: RunId,
}

/// A scenario under way.
struct Play<'a> {
    scenario: &'a Scenario,
    fleet: Fleet,
    progress: &'a mut dyn Progress,
    steps: Vec<Played>,
}

/// The instant of a step, and what it says of itself.
type Done = Result<(Mono, String), Trouble>;

/// Plays to the end, or to the first step that cannot be got over; then ends what still runs.
pub(super) fn play(
    scenario: &Scenario,
    stage: &Stage<'_>,
    progress: &mut dyn Progress,
    interrupt: &Interrupt,
) -> Result<Seen, ScenarioError> {
    let mut fleet = Fleet::new(FleetOptions {
        title: format!("{}: {}", scenario.name, scenario.about),
        layout: stage.layout.clone(),
        program: stage.options.binaries.rollout.clone(),
        faulty: stage.options.faulty.clone(),
        timing: scenario.budget(),
        run: stage.run,
        interrupt: interrupt.clone(),
    })?;
    let mut ids: Vec<(String, WorkerId)> = Vec::new();
    for player in scenario.players() {
        let mut spec = spec(scenario, player, stage)?;
        if let Role::Worker { id } = &mut spec.role {
            let other = player.id_of.as_ref();
            let other = other.and_then(|other| ids.iter().find(|(name, _)| name == other));
            *id = other.map_or(*id, |(_, id)| *id);
            ids.push((player.name.clone(), *id));
        }
        fleet.add(spec)?;
    }
    let mut play = Play { scenario, fleet, progress, steps: Vec::new() };
    if let Err(Trouble::Harness(error)) = play.timeline() {
        return Err(error.into());
    }
    if let Err(Trouble::Harness(error)) = play.step("ask the rest to end", Some(END), Play::end) {
        return Err(error.into());
    }
    let Play { fleet, steps, .. } = play;
    Ok(Seen { record: fleet.finish()?, steps })
}

fn spec(scenario: &Scenario, player: &Player, stage: &Stage<'_>) -> Result<Spec, ScenarioError> {
    let coordinator = player.name == scenario.coordinator.name;
    let base = if coordinator { Spec::coordinator() } else { Spec::worker(&player.name) };
    let plugins = player.plugins.iter().map(|plugin| {
        let missing = || ScenarioError::Plugin {
            worker: player.name.clone(),
            plugin: plugin.clone(),
            dir: stage.options.fixtures.join("plugins"),
        };
        let manifests = stage.fixtures.manifests(stage.layout);
        let named = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == plugin.as_str());
        manifests.into_iter().find(named).ok_or_else(missing)
    });
    Ok(Spec {
        config: Config::Over(player.config.clone()),
        plugins: plugins.collect::<Result<_, _>>()?,
        reach: if player.link { Reach::Link } else { base.reach },
        faults: player.faults.clone(),
        disk: player.disk,
        may_exit: scenario.may_exit(&player.name),
        ..base
    })
}

impl Play<'_> {
    fn timeline(&mut self) -> Result<(), Trouble> {
        let scenario = self.scenario;
        self.step("all processes are ready", Some(READY), Play::ready)?;
        for step in &scenario.steps {
            let title = title(step);
            self.step(&title, step.label.as_deref(), |play| play.carry_out(step))?;
        }
        Ok(())
    }

    /// Takes the time of a step and reports it, whether it succeeds or not.
    fn step(
        &mut self,
        title: &str,
        label: Option<&str>,
        act: impl FnOnce(&mut Self) -> Done,
    ) -> Result<(), Trouble> {
        self.progress.started(title);
        let start = now();
        let (at, result, trouble) = match act(self) {
            Ok((at, said)) => (at, Ok(said), None),
            Err(Trouble::Failed(why)) => (now(), Err(why.clone()), Some(Trouble::Failed(why))),
            Err(harness) => return Err(harness),
        };
        // An instant that was not reached has no name.
        let label = label.filter(|_| trouble.is_none()).map(str::to_owned);
        let took = now().since(start);
        let played = Played { title: title.to_owned(), label, at, took, result };
        self.progress.ended(&played);
        self.steps.push(played);
        trouble.map_or(Ok(()), Err)
    }

    /// Starts all that start at once, and waits until the workers have beaten and their plugins
    /// have answered.
    fn ready(&mut self) -> Done {
        let scenario = self.scenario;
        self.fleet.start(&scenario.coordinator.name)?;
        self.fleet.listening(STARTS)?;
        let early: Vec<_> = scenario.workers.iter().filter(|worker| !worker.late).collect();
        for worker in &early {
            self.fleet.start(&worker.name)?;
        }
        let missing = |fleet: &Fleet| {
            let waits = |worker: &&&Player| {
                let ready = fleet.worker_id(&worker.name).is_some_and(|id| {
                    fleet.about(id).any(|event| matches!(event.body, Body::WorkerReady(_)))
                });
                let probed = |event: &&_| is_probed(event);
                let answered = fleet.events(&worker.name).filter(probed).count();
                !ready || answered < worker.plugins.len()
            };
            let names = early.iter().filter(waits).map(|worker| worker.name.clone());
            names.collect::<Vec<_>>()
        };
        let done = |fleet: &Fleet| missing(fleet).is_empty().then_some(());
        let status = |fleet: &Fleet| format!("not ready yet: {}", missing(fleet).join(", "));
        self.wait(STARTS, done, status)?;
        let address = self.fleet.address().map(|it| it.to_string()).unwrap_or_default();
        Ok((now(), format!("{} workers, coordinator on {address}", early.len())))
    }

    fn carry_out(&mut self, step: &Step) -> Done {
        let since = self.steps.last().map_or(Mono(0), |step| step.at);
        let ready = self.steps.first().map_or(Mono(0), |step| step.at);
        match step.when {
            When::Next => {}
            When::At(at) => self.pass(ready + at)?,
            When::After(after) => self.pass(since + after)?,
        }
        let waited = step.wait.as_ref().map(|wait| self.await_it(wait, since)).transpose()?;
        let (mut at, mut said) = (now(), waited.unwrap_or_default());
        if let Some(action) = &step.action {
            at = now();
            let faults = self.fleet.faults().len();
            let done = self.act(action)?;
            // What was noted is nearer to what was done than what is known here.
            at = self.fleet.faults().get(faults).map_or(at, |fault| fault.began);
            if !done.is_empty() {
                said = done;
            }
        }
        Ok((at, said))
    }

    /// Lets the time pass until `then`.
    fn pass(&mut self, then: Mono) -> Result<(), Trouble> {
        loop {
            let left = then.since(now());
            self.fleet.wait(left.min(Duration::from_millis(100)), |_| None::<()>)?;
            self.all_run()?;
            if left.is_zero() {
                return Ok(());
            }
            self.progress.status(&format!("for another {:.1} s", left.as_secs_f64()));
        }
    }

    fn await_it(&mut self, wait: &Wait, since: Mono) -> Result<String, Trouble> {
        let start = now();
        match &wait.what {
            Awaited::Exit(name) => {
                let exit = self.wait(
                    wait.within,
                    |fleet| fleet.exit(name),
                    |_| format!("{name} is still there"),
                )?;
                Ok(exit.to_string())
            }
            Awaited::Event { pattern, count, since: named } => {
                let named = named.as_ref().and_then(|name| {
                    let step = self.steps.iter().find(|step| step.label.as_ref() == Some(name));
                    step.map(|step| step.at)
                });
                let since = named.unwrap_or(since);
                let worker = pattern.worker.as_ref().and_then(|name| self.fleet.worker_id(name));
                let seen = |fleet: &Fleet| {
                    let events = fleet.events(&pattern.from).filter(|event| event.mono >= since);
                    events.filter(|event| judge::fits(event, pattern, worker)).count()
                };
                self.wait(
                    wait.within,
                    |fleet| (seen(fleet) >= *count).then_some(()),
                    |fleet| format!("{} of {count} {}", seen(fleet), pattern.topic),
                )?;
                Ok(format!("after {:.3} s", now().since(start).as_secs_f64()))
            }
        }
    }

    /// Waits until `done` gives something; `status` says what is still missing.
    fn wait<T>(
        &mut self,
        within: Duration,
        done: impl Fn(&Fleet) -> Option<T>,
        status: impl Fn(&Fleet) -> String,
    ) -> Result<T, Trouble> {
        let until = now() + within;
        loop {
            let left = until.since(now());
            let found = self.fleet.wait(left.min(Duration::from_millis(50)), &done)?;
            if let Some(found) = found {
                return Ok(found);
            }
            self.all_run()?;
            let status = status(&self.fleet);
            if left.is_zero() {
                let within = within.as_secs_f64();
                return Err(Trouble::Failed(format!("not within {within} s: {status}")));
            }
            self.progress.status(&status);
        }
    }

    /// That nobody has ended unasked.
    fn all_run(&self) -> Result<(), Trouble> {
        self.fleet.unexpected_exit().map_or(Ok(()), |exit| Err(Trouble::Failed(exit)))
    }

    fn act(&mut self, action: &Action) -> Result<String, Trouble> {
        let (fleet, to) = (&mut self.fleet, action.to.as_str());
        match action.verb {
            Verb::Start => {
                fleet.start(to)?;
                if to == self.scenario.coordinator.name {
                    let address = fleet.listening(STARTS)?;
                    return Ok(format!("listens on {address}"));
                }
                return Ok(format!("pid {}", fleet.pid(to).unwrap_or_default()));
            }
            Verb::Kill => fleet.kill(to)?,
            Verb::Terminate => fleet.terminate(to)?,
            Verb::Stop => fleet.stop(to)?,
            Verb::Continue => fleet.resume(to)?,
            Verb::KillSidecars => fleet.kill_sidecars(to)?,
            Verb::Cut => fleet.cut(to)?,
            Verb::BlackHole => fleet.black_hole(to)?,
            Verb::Delay(by) => fleet.delay(to, by)?,
            Verb::Heal => fleet.heal(to)?,
            Verb::DiskStall => fleet.disk(to, DiskFault::Stall)?,
            Verb::DiskFull => fleet.disk(to, DiskFault::Full)?,
            Verb::DiskError => fleet.disk(to, DiskFault::Error)?,
            Verb::DiskHeal => fleet.heal_disk(to)?,
        }
        Ok(String::new())
    }

    fn end(&mut self) -> Done {
        let at = now();
        self.fleet.end(ENDS)?;
        Ok((at, String::new()))
    }
}

/// What a step does, in a few words.
fn title(step: &Step) -> String {
    let mut text = String::new();
    if let Some(action) = &step.action {
        let _ = write!(text, "{} {}", action.verb.word(), action.to);
    } else if let Some(wait) = &step.wait {
        match &wait.what {
            Awaited::Exit(name) => {
                let _ = write!(text, "wait for {name} to end");
            }
            Awaited::Event { pattern, .. } => {
                let about = pattern.worker.as_ref().map(|worker| format!("({worker})"));
                let _ = write!(text, "{}{}", pattern.topic, about.unwrap_or_default());
            }
        }
    } else {
        text.push_str("wait");
    }
    text
}

impl Verb {
    const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Kill => "kill",
            Self::Terminate => "terminate",
            Self::Stop => "stop",
            Self::Continue => "continue",
            Self::KillSidecars => "kill the sidecars of",
            Self::Cut => "cut off",
            Self::BlackHole => "black-hole",
            Self::Delay(_) => "delay",
            Self::Heal => "heal",
            Self::DiskStall => "stall the disk of",
            Self::DiskFull => "fill the disk of",
            Self::DiskError => "break the disk of",
            Self::DiskHeal => "heal the disk of",
        }
    }
}

fn is_probed(event: &rollout_core::Event) -> bool {
    matches!(event.body, Body::PluginProbed(_))
}

fn now() -> Mono {
    SystemClock.now()
}
