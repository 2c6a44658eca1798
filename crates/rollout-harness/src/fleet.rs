//! Real processes in a directory, and what can be done to them.
//!
//! A [`Fleet`] starts a coordinator and workers, each with one log however often it is started, and
//! each worker behind a [`Link`](crate::link::Link) if it is to be cut off. It kills, stops, cuts and heals them, and
//! notes each life and each fault in the [`Record`] that comes out at the end. Whatever becomes of
//! the harness, the guards of `rollout-process` see to it that nothing it started is left.
//!
//! It judges nothing, and nothing happens in it by itself: [`Fleet::look`] reads on in the logs.

mod error;
mod faults;
mod member;
mod spec;
mod view;

use std::collections::BTreeSet;
use std::fs;
use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rollout_core::{Body, Clock, Event, Mono, RunId, SystemClock, TimeBudget};
use toml::Table;

use crate::Interrupt;
use crate::fixtures::{Layout, on};
use crate::leftovers::Traces;
use crate::processes::trees;
use crate::record::{Fault, Record, What};
use crate::watchdog::Watchdog;

pub use error::FleetError;
pub(crate) use error::Trouble;
pub use faults::DiskFault;
pub use spec::{Config, Reach, Spec};

use member::Member;

/// How often the logs are looked at while something is waited for.
pub const POLL: Duration = Duration::from_millis(3);
/// How long a process may take to end after its SIGKILL, and a trace to vanish.
const GONE: Duration = Duration::from_secs(10);
/// How long a starting coordinator may take to listen.
const LISTENS: Duration = Duration::from_secs(10);

/// How long a fleet may take until all of it beats.
pub const UP_WITHIN: Duration = Duration::from_secs(30);
/// How long a worker may take to leave: its drain time-out, and its plugins' end.
pub const GRACE: Duration = Duration::from_secs(12);

/// What a fleet starts from.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// What is run, in a few words.
    pub title: String,
    /// Where its files lie. The directory is the caller's, claimed and cleared.
    pub layout: Layout,
    /// The program `rollout`.
    pub program: PathBuf,
    /// The program built with the feature `faults`, for those that have some.
    pub faulty: Option<PathBuf>,
    /// The time budget of all.
    pub timing: TimeBudget,
    /// The run.
    pub run: RunId,
    /// Whether someone asks the harness to stop.
    pub interrupt: Interrupt,
}

/// Real processes, started and ended here.
#[derive(Debug)]
pub struct Fleet {
    options: FleetOptions,
    members: Vec<Member>,
    faults: Vec<Fault>,
    /// Where the coordinator listens, once it does, and after each restart.
    address: Option<SocketAddr>,
    traces: Traces,
    watchdog: Option<Watchdog>,
    began: Mono,
    ended: Option<Mono>,
}

impl Fleet {
    /// A fleet without processes.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn new(options: FleetOptions) -> Result<Self, FleetError> {
        let logs = options.layout.root.join(options.layout.relative("logs"));
        fs::create_dir_all(&logs).map_err(on("create", logs))?;
        let layout = options.layout.clone();
        let traces =
            Traces { layout, names: Vec::new(), processes: BTreeSet::new(), address: None };
        Ok(Self {
            options,
            members: Vec::new(),
            faults: Vec::new(),
            address: None,
            traces,
            watchdog: Some(Watchdog::start()),
            began: now(),
            ended: None,
        })
    }

    /// A fleet whose coordinator has this configuration, and listens.
    ///
    /// # Errors
    /// When its directory cannot be made, or it does not come to listen.
    pub fn serving(options: FleetOptions, coordinator: Table) -> Result<Self, FleetError> {
        let mut fleet = Self::new(options)?;
        fleet.add(Spec { config: Config::Whole(coordinator), ..Spec::coordinator() })?;
        fleet.start("coord")?;
        fleet.listening(LISTENS)?;
        Ok(fleet)
    }

    /// Starts this program from now on.
    pub fn set_program(&mut self, program: PathBuf) {
        self.options.program = program;
    }

    /// Takes a process into the fleet, without starting it; the coordinator first.
    ///
    /// # Errors
    /// When there is one of its name, or its files cannot be made.
    pub fn add(&mut self, spec: Spec) -> Result<(), FleetError> {
        if self.members.iter().any(|member| member.name() == spec.name) {
            return Err(FleetError::Twice(spec.name));
        }
        self.traces.names.push(spec.name.clone());
        self.members.push(Member::new(spec, &self.options)?);
        Ok(())
    }

    /// Starts a process; again, on the same files, if it ran before. A worker waits for the
    /// coordinator's address if that is not known yet.
    ///
    /// # Errors
    /// When it runs, cannot be started, or there is no address for it.
    pub fn start(&mut self, name: &str) -> Result<(), FleetError> {
        let member = self.member(name)?;
        if let Some(ending) = member.ending() {
            let exit = ending.wait_timeout(GONE);
            exit.ok_or_else(|| FleetError::Runs(name.to_owned()))?;
        }
        self.look()?;
        if self.member(name)?.runs() {
            return Err(FleetError::Runs(name.to_owned()));
        }
        let needs = self.member(name)?.needs_address() && self.address.is_none();
        let address = if needs { Some(self.listening(LISTENS)?) } else { self.address };
        let start = now();
        if self.members.iter().all(|member| member.lives.is_empty()) {
            self.began = start;
        }
        let options = &self.options;
        let member = find(&mut self.members, name)?;
        let again = !member.lives.is_empty();
        member.start(options, address)?;
        if again {
            self.note(name, What::Restart, start);
        }
        Ok(())
    }

    /// Waits until the coordinator says that it listens, and gives its address. From then on it is
    /// started on that address again.
    ///
    /// # Errors
    /// When it does not within this time, or ends before.
    pub fn listening(&mut self, within: Duration) -> Result<SocketAddr, FleetError> {
        let found = self.wait(within, |fleet| {
            let Some(coordinator) = fleet.coordinator().filter(|c| !c.lives.is_empty()) else {
                return Some(Err("it was not started".to_owned()));
            };
            let life = coordinator.lives.last().map_or(Mono(0), |life| life.began);
            let events = coordinator.log().events().filter(|event| event.mono >= life);
            match (events.filter_map(started).next_back(), coordinator.exit()) {
                (_, Some(exit)) => Some(Err(exit.to_string())),
                (Some(address), None) => Some(Ok(address.to_owned())),
                (None, None) => None,
            }
        })?;
        let missing = || Err(format!("no coordinator_started within {within:?}"));
        let address = found.unwrap_or_else(missing).and_then(|address| {
            address.parse().map_err(|error| format!("its address is `{address}`: {error}"))
        });
        let address = address.map_err(|why| FleetError::NotListening(self.why(why)))?;
        self.address = Some(address);
        self.traces.address = self.address;
        Ok(address)
    }

    /// Waits until every worker beats.
    ///
    /// # Errors
    /// [`FleetError::NotUp`] when one does not within [`UP_WITHIN`], or anybody ends before.
    pub fn beating(&mut self) -> Result<(), FleetError> {
        let silent = |fleet: &Self| {
            let mut ids = fleet.names().filter_map(|name| Some((name, fleet.worker_id(name)?)));
            let silent = ids.find(|(_, id)| !fleet.says("worker_heartbeat", *id));
            silent.map(|(name, _)| name.to_owned())
        };
        let up = self.wait(UP_WITHIN, |fleet| {
            let ended = fleet.unexpected_exit().map(Err);
            ended.or_else(|| silent(fleet).is_none().then_some(Ok(())))
        })?;
        let late = || {
            let who = silent(self).unwrap_or_default();
            Err(format!("{who} does not beat within {UP_WITHIN:?}"))
        };
        up.unwrap_or_else(late).map_err(FleetError::NotUp)
    }

    fn why(&self, why: String) -> String {
        let said = self.coordinator().map(Member::stderr_tail).unwrap_or_default();
        if said.is_empty() { why } else { format!("{why}\n{said}") }
    }

    /// Reads on in every log and looks who still runs.
    ///
    /// # Errors
    /// When a log cannot be read, or someone asked the harness to stop.
    pub fn look(&mut self) -> Result<(), FleetError> {
        if let Some(signal) = self.options.interrupt.requested() {
            return Err(FleetError::Interrupted(signal));
        }
        self.members.iter_mut().try_for_each(Member::look)?;
        Ok(())
    }

    /// Looks until `done` gives something, or this much time has passed: then nothing.
    ///
    /// # Errors
    /// When a log cannot be read, or someone asked the harness to stop.
    pub fn wait<T>(
        &mut self,
        within: Duration,
        mut done: impl FnMut(&Self) -> Option<T>,
    ) -> Result<Option<T>, FleetError> {
        let until = now() + within;
        loop {
            // Looked at before the logs, so that what is in them by then still counts.
            let late = now() >= until;
            self.look()?;
            let found = done(self);
            if found.is_some() || late {
                return Ok(found);
            }
            thread::sleep(POLL);
        }
    }

    /// An exit that was not caused from here, of a process that was not expected to end by itself:
    /// in words, with the end of what the process said.
    #[must_use]
    pub fn unexpected_exit(&self) -> Option<String> {
        self.members.iter().find_map(Member::unexpected_exit)
    }

    /// Asks what still runs to end, the workers first, and kills what does not within `grace`. What
    /// is stopped is continued before, and every link passes again.
    ///
    /// # Errors
    /// When a log cannot be read, or someone asked the harness to stop.
    pub fn end(&mut self, grace: Duration) -> Result<(), FleetError> {
        self.undo_all()?;
        for worker in [true, false] {
            let running: Vec<String> = self
                .members
                .iter()
                .filter(|member| member.runs() && member.is_worker() == worker)
                .map(|member| member.name().to_owned())
                .collect();
            for name in &running {
                self.terminate(name)?;
            }
            let runs = |fleet: &Self, name: &String| fleet.member(name).is_ok_and(Member::runs);
            self.wait(grace, |fleet| {
                (!running.iter().any(|name| runs(fleet, name))).then_some(())
            })?;
            for name in running.iter().filter(|name| runs(self, name)).collect::<Vec<_>>() {
                self.kill(name)?;
            }
        }
        let ended = |fleet: &Self| fleet.members.iter().all(|member| !member.runs());
        self.wait(GONE, |fleet| ended(fleet).then_some(()))?;
        Ok(())
    }

    /// Kills what still runs, in the reverse of the order in which it was added. Its life has no
    /// end in the record: that it had to be killed says nothing about the process.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn close(&mut self) -> Result<(), FleetError> {
        self.note_processes()?;
        self.members.iter_mut().try_for_each(Member::look)?;
        for member in self.members.iter_mut().rev() {
            member.close();
            member.look()?;
        }
        self.ended.get_or_insert_with(now);
        Ok(())
    }

    /// What there is left of the processes now that all are ended, in words.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn left(&self) -> Result<Vec<String>, FleetError> {
        Ok(self.traces.found()?)
    }

    /// The record of a fleet that is closed.
    #[must_use]
    pub fn into_record(mut self, leftovers: Vec<String>) -> Record {
        let processes = self.members.iter_mut().map(Member::take).collect();
        Record {
            title: mem::take(&mut self.options.title),
            run: self.options.run,
            timing: self.options.timing,
            began: self.began,
            ended: self.ended.unwrap_or_else(now),
            processes,
            faults: mem::take(&mut self.faults),
            harness_late: self.watchdog.take().map(Watchdog::stop).unwrap_or_default(),
            leftovers,
        }
    }

    /// Kills what still runs, waits until no trace is left or a second has passed, and gives the
    /// record.
    ///
    /// # Errors
    /// When a log cannot be read, or the system does not tell.
    pub fn finish(mut self) -> Result<Record, FleetError> {
        self.close()?;
        let until = now() + Duration::from_secs(1);
        loop {
            let left = self.left()?;
            if left.is_empty() || now() > until {
                return Ok(self.into_record(left));
            }
            thread::sleep(POLL);
        }
    }

    fn member(&self, name: &str) -> Result<&Member, FleetError> {
        let member = self.members.iter().find(|member| member.name() == name);
        member.ok_or_else(|| FleetError::Unknown(name.to_owned()))
    }

    fn coordinator(&self) -> Option<&Member> {
        self.members.iter().find(|member| !member.is_worker())
    }

    /// Notes which processes there are now, to look for them at the end.
    fn note_processes(&mut self) -> Result<(), FleetError> {
        let pids: Vec<_> = self.members.iter().filter_map(Member::pid).collect();
        if !pids.is_empty() {
            self.traces.processes.extend(trees(&pids).map_err(on("read", "/proc"))?);
        }
        Ok(())
    }

    /// Notes what is done to a process from `began` on.
    fn note(&mut self, target: &str, what: What, began: Mono) {
        self.faults.push(Fault { target: target.to_owned(), what, began, ended: None });
    }
}

impl Drop for Fleet {
    /// In the reverse of the order in which they were added, as [`close`](Self::close).
    fn drop(&mut self) {
        self.members.iter_mut().rev().for_each(Member::close);
    }
}

fn find<'a>(members: &'a mut [Member], name: &str) -> Result<&'a mut Member, FleetError> {
    let member = members.iter_mut().find(|member| member.name() == name);
    member.ok_or_else(|| FleetError::Unknown(name.to_owned()))
}

fn started(event: &Event) -> Option<&str> {
    match &event.body {
        Body::CoordinatorStarted(started) => Some(&started.listen_addr),
        _ => None,
    }
}

fn now() -> Mono {
    SystemClock.now()
}

#[cfg(test)]
mod tests;
