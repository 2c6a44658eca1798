//! A process of a fleet: the same one however often it is started.

use std::fs::{self, File};
use std::io::Write;
use std::mem;
use std::net::SocketAddr;
use std::path::Path;

use nix::sys::signal::Signal;
use rollout_process::{Child, Exit, Io, Spawn};
use toml::{Table, Value};

use super::{FleetError, FleetOptions, Reach, Spec, now};
use crate::binaries::{FAULTS, with_python};
use crate::fixtures::{FixtureError, Layout, on, write};
use crate::link::Link;
use crate::log::{Log, Tail};
use crate::record::{Ended, Life, Process, Role};

/// How many lines of a standard error are shown.
const SHOWN: usize = 6;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) spec: Spec,
    config: Table,
    layout: Layout,
    child: Option<Child>,
    tail: Tail,
    pub(super) lives: Vec<Life>,
    /// Whether it was ended from here: until then an exit is unexpected.
    pub(super) leaving: bool,
    pub(super) link: Option<Link>,
}

impl Member {
    /// With empty files for its outputs.
    pub(super) fn new(spec: Spec, options: &FleetOptions) -> Result<Self, FleetError> {
        let (layout, name) = (options.layout.clone(), &spec.name);
        for path in [layout.log(name), layout.stderr(name)] {
            File::create(&path).map_err(on("create", path))?;
        }
        if let Role::Worker { id } = spec.role {
            write(&layout.id(name), &format!("{id}\n"))?;
        }
        let tail = Tail::open(&layout.log(name)).map_err(on("open", layout.log(name)))?;
        let config = spec.table(&layout, options.run, &options.timing);
        let (child, lives, leaving, link) = (None, Vec::new(), false, None);
        Ok(Self { spec, config, layout, child, tail, lives, leaving, link })
    }

    pub(super) fn name(&self) -> &str {
        &self.spec.name
    }

    pub(super) fn is_worker(&self) -> bool {
        self.spec.role != Role::Coordinator
    }

    /// Whether it cannot be started without the coordinator's address.
    pub(super) fn needs_address(&self) -> bool {
        self.spec.reach != Reach::Configured
    }

    /// Starts it, its outputs led into its files.
    pub(super) fn start(
        &mut self,
        options: &FleetOptions,
        address: Option<SocketAddr>,
    ) -> Result<(), FleetError> {
        self.address(address)?;
        write(&self.layout.config(self.name()), &self.config.to_string())?;
        self.end_torn_line()?;
        let append = |path: std::path::PathBuf| {
            File::options().append(true).open(&path).map(Io::File).map_err(on("open", path))
        };
        let (log, stderr) = (self.layout.log(self.name()), self.layout.stderr(self.name()));
        let spawn = self.program(options)?.stdout(append(log)?).stderr(append(stderr)?);
        let began = now();
        let child = spawn.spawn().map_err(|source| {
            let name = self.name().to_owned();
            FleetError::Spawn { name, source }
        })?;
        self.lives.push(Life { pid: child.pid(), began, ended: None });
        self.leaving = false;
        self.child = Some(child);
        Ok(())
    }

    /// Sets where it is to listen or connect.
    fn address(&mut self, address: Option<SocketAddr>) -> Result<(), FleetError> {
        let Some(address) = address else { return Ok(()) };
        if !self.is_worker() {
            let listen = self.config.get("listen").and_then(Value::as_str);
            let free = listen.and_then(|listen| listen.parse::<SocketAddr>().ok());
            if free.is_some_and(|listen| listen.port() == 0) {
                self.config.insert("listen".into(), address.to_string().into());
            }
            return Ok(());
        }
        if self.spec.reach == Reach::Link && self.link.is_none() {
            let name = self.name().to_owned();
            let link = Link::to(address).map_err(|source| FleetError::Link { name, source })?;
            self.link = Some(link);
        }
        let address = match self.spec.reach {
            Reach::Configured => return Ok(()),
            Reach::Direct => address,
            Reach::Link => self.link.as_ref().map_or(address, Link::address),
        };
        self.config.insert("coordinator".into(), address.to_string().into());
        Ok(())
    }

    /// A line that a killed process did not finish stays one of its own.
    fn end_torn_line(&mut self) -> Result<(), FixtureError> {
        self.look()?;
        if self.tail.log().torn().is_none() {
            return Ok(());
        }
        let path = self.layout.log(self.name());
        let file = File::options().append(true).open(&path);
        file.and_then(|mut file| file.write_all(b"\n")).map_err(on("write", path))?;
        self.look()
    }

    /// The program in the run's root, with what it needs to be found.
    fn program(&self, options: &FleetOptions) -> Result<Spawn, FleetError> {
        let name = self.name();
        let program = match (&options.faulty, self.spec.is_faulty()) {
            (_, false) => &options.program,
            (Some(faulty), true) => faulty,
            (None, true) => return Err(FleetError::NoFaults(name.to_owned())),
        };
        let role = if self.is_worker() { "worker" } else { "coordinator" };
        let mut spawn = with_python(Spawn::new(program).current_dir(&self.layout.root));
        spawn = spawn.args([role, "run", "--config"]);
        spawn = spawn.arg(self.layout.relative(&format!("logs/{name}.toml")));
        if let Role::Worker { id } = self.spec.role {
            spawn = spawn.args(["--worker-id", &id.to_string()]);
        }
        for manifest in &self.spec.plugins {
            spawn = spawn.arg("--plugin").arg(manifest);
        }
        if self.spec.is_faulty() {
            spawn = spawn.env(FAULTS, self.write_faults()?);
        }
        Ok(spawn)
    }

    fn write_faults(&self) -> Result<std::path::PathBuf, FixtureError> {
        let mut faults = self.spec.faults.clone();
        if self.spec.disk {
            let disk = self.layout.disk(self.name());
            if !disk.exists() {
                write(&disk, "")?;
            }
            faults.insert("disk".into(), text(&absolute(&disk)));
        }
        let path = self.layout.faults(self.name());
        write(&path, &faults.to_string())?;
        Ok(absolute(&path))
    }

    /// Reads on in its log and looks whether it still runs.
    pub(super) fn look(&mut self) -> Result<(), FixtureError> {
        // The exit first: what it wrote before is then in the file.
        if let (Some(child), Some(life)) = (&self.child, self.lives.last_mut())
            && life.ended.is_none()
            && let Some(exit) = child.try_wait()
        {
            life.ended = Some(Ended::new(now(), exit));
        }
        self.tail.poll().map_err(on("read", self.layout.log(&self.spec.name)))
    }

    pub(super) fn log(&self) -> &Log {
        self.tail.log()
    }

    /// Whether it was started and its end not seen yet.
    pub(super) fn runs(&self) -> bool {
        self.child.is_some() && self.lives.last().is_some_and(|life| life.ended.is_none())
    }

    /// The process if it was told to end, and its end not seen yet.
    pub(super) fn ending(&self) -> Option<&Child> {
        self.child.as_ref().filter(|_| self.leaving && self.runs())
    }

    pub(super) fn pid(&self) -> Option<i32> {
        self.child.as_ref().filter(|_| self.runs()).map(Child::pid)
    }

    /// How its last life ended.
    pub(super) fn exit(&self) -> Option<Exit> {
        Some(self.lives.last()?.ended.as_ref()?.exit())
    }

    /// Sends a signal to its main process, which has to run.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), FleetError> {
        let child = self.child.as_ref().filter(|_| self.runs());
        let child = child.ok_or_else(|| FleetError::NotRunning(self.name().to_owned()))?;
        child.handle().signal_main(signal);
        Ok(())
    }

    /// An exit that nobody caused, with the end of what the process said.
    pub(super) fn unexpected_exit(&self) -> Option<String> {
        let exit = self.exit().filter(|_| !self.leaving && !self.spec.may_exit)?;
        let said: String = self.stderr_tail().lines().map(|line| format!("\n{line}")).collect();
        Some(format!("{} {exit}{said}", self.name()))
    }

    /// The end of its standard error.
    pub(super) fn stderr_tail(&self) -> String {
        let stderr = self.stderr();
        let lines: Vec<_> = stderr.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }

    fn stderr(&self) -> String {
        // A file of our own making that cannot be read shows as one that says nothing.
        let bytes = fs::read(self.layout.stderr(self.name())).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Kills what is left of it, and forgets its link.
    pub(super) fn close(&mut self) {
        self.child = None;
        self.link = None;
    }

    /// What it leaves behind.
    pub(super) fn take(&mut self) -> Process {
        Process {
            name: self.name().to_owned(),
            role: self.spec.role,
            lives: mem::take(&mut self.lives),
            log: self.tail.log().clone(),
            stderr: self.stderr(),
        }
    }
}

/// A path that holds in whatever directory it is used.
fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn text(path: &Path) -> Value {
    path.to_string_lossy().into_owned().into()
}
