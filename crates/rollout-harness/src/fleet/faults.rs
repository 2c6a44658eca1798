//! What can be done to a fleet's processes. Each of these notes what it does, with the instants
//! just before it was done and just after it was undone.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Fleet, FleetError, find, now};
use crate::fixtures::{on, write};
use crate::link::Condition;
use crate::processes::children;
use crate::record::What;

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// Writes and syncs neither fail nor finish, until it heals.
    Stall,
    /// There is no room.
    Full,
    /// Writes and syncs fail.
    Error,
}

impl DiskFault {
    const fn word(self) -> &'static str {
        match self {
            Self::Stall => "stall",
            Self::Full => "full",
            Self::Error => "error",
        }
    }

    const fn what(self) -> What {
        match self {
            Self::Stall => What::DiskStall,
            Self::Full => What::DiskFull,
            Self::Error => What::DiskError,
        }
    }
}

impl Fleet {
    /// SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, name: &str) -> Result<(), FleetError> {
        self.leave(name, Signal::SIGKILL, What::Kill)
    }

    /// SIGTERM: whatever comes of it is expected.
    ///
    /// # Errors
    /// When it does not run.
    pub fn terminate(&mut self, name: &str) -> Result<(), FleetError> {
        self.leave(name, Signal::SIGTERM, What::Terminate)
    }

    fn leave(&mut self, name: &str, signal: Signal, what: What) -> Result<(), FleetError> {
        self.note_processes()?;
        let began = now();
        let member = find(&mut self.members, name)?;
        member.signal(signal)?;
        member.leaving = true;
        self.note(name, what, began);
        if what == What::Kill {
            self.undone(name, |what| *what == What::Stop);
        }
        Ok(())
    }

    /// SIGSTOP to the process itself; its plugins go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop(&mut self, name: &str) -> Result<(), FleetError> {
        let began = now();
        self.member(name)?.signal(Signal::SIGSTOP)?;
        self.note(name, What::Stop, began);
        Ok(())
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&mut self, name: &str) -> Result<(), FleetError> {
        self.member(name)?.signal(Signal::SIGCONT)?;
        self.undone(name, |what| *what == What::Stop);
        Ok(())
    }

    /// Resets the worker's connections and every new one.
    ///
    /// # Errors
    /// When it has no link.
    pub fn cut(&mut self, name: &str) -> Result<(), FleetError> {
        self.link(name, Condition::Cut)
    }

    /// Lets nothing pass between the worker and the coordinator, and keeps the connections.
    ///
    /// # Errors
    /// When it has no link.
    pub fn black_hole(&mut self, name: &str) -> Result<(), FleetError> {
        self.link(name, Condition::BlackHole)
    }

    /// Delays what passes, in each direction.
    ///
    /// # Errors
    /// When it has no link.
    pub fn delay(&mut self, name: &str, by: Duration) -> Result<(), FleetError> {
        self.link(name, Condition::Delay(by))
    }

    /// Lets everything pass again.
    ///
    /// # Errors
    /// When it has no link.
    pub fn heal(&mut self, name: &str) -> Result<(), FleetError> {
        self.link(name, Condition::Pass)
    }

    /// Brings the worker's link into this condition. What it was in before is over by then.
    fn link(&mut self, name: &str, condition: Condition) -> Result<(), FleetError> {
        let began = now();
        let link = self.member(name)?.link.as_ref();
        link.ok_or_else(|| FleetError::NoLink(name.to_owned()))?.set(condition);
        self.undone(name, |what| matches!(what, What::Cut | What::BlackHole | What::Delay { .. }));
        if let Some(what) = what(condition) {
            self.note(name, what, began);
        }
        Ok(())
    }

    /// Makes the process's disk fail from now on.
    ///
    /// # Errors
    /// When it was not given one that can, or the control file cannot be written.
    pub fn disk(&mut self, name: &str, fault: DiskFault) -> Result<(), FleetError> {
        let began = now();
        self.write_disk(name, fault.word())?;
        self.undone(name, is_disk);
        self.note(name, fault.what(), began);
        Ok(())
    }

    /// Makes the process's disk work again.
    ///
    /// # Errors
    /// When it was not given one that can fail, or the control file cannot be written.
    pub fn heal_disk(&mut self, name: &str) -> Result<(), FleetError> {
        self.write_disk(name, "")?;
        self.undone(name, is_disk);
        Ok(())
    }

    /// Replaces the control file, so that nobody reads half a word.
    fn write_disk(&self, name: &str, word: &str) -> Result<(), FleetError> {
        if !self.member(name)?.spec.disk {
            return Err(FleetError::NoDisk(name.to_owned()));
        }
        let path = self.options.layout.disk(name);
        let new = path.with_extension("new");
        write(&new, word)?;
        fs::rename(&new, &path).map_err(on("replace", path))?;
        Ok(())
    }

    /// SIGKILL to every sidecar of a worker.
    ///
    /// # Errors
    /// When it runs none.
    pub fn kill_sidecars(&mut self, name: &str) -> Result<(), FleetError> {
        let pid = self.member(name)?.pid();
        let pid = pid.ok_or_else(|| FleetError::NotRunning(name.to_owned()))?;
        // What a worker starts runs under guards, which are its only children.
        let guards = children(&[pid]).map_err(on("read", "/proc"))?;
        let guards: Vec<_> = guards.iter().map(|guard| guard.pid).collect();
        let sidecars = children(&guards).map_err(on("read", "/proc"))?;
        if sidecars.is_empty() {
            return Err(FleetError::NoSidecar(name.to_owned()));
        }
        let began = now();
        for sidecar in sidecars {
            // One that has ended meanwhile is as dead as it was to be.
            let _ = kill(Pid::from_raw(sidecar.pid), Signal::SIGKILL);
        }
        self.note(name, What::KillSidecars, began);
        Ok(())
    }

    /// Continues what is stopped and heals what is cut, delayed or failing.
    pub(super) fn undo_all(&mut self) -> Result<(), FleetError> {
        let ongoing = self.faults.iter().filter(|fault| fault.ended.is_none());
        let ongoing: Vec<_> = ongoing.map(|fault| (fault.target.clone(), fault.what)).collect();
        for (name, what) in ongoing {
            let (runs, linked) =
                self.member(&name).map(|member| (member.runs(), member.link.is_some()))?;
            match what {
                What::Stop if runs => self.resume(&name)?,
                What::Cut | What::BlackHole | What::Delay { .. } if linked => self.heal(&name)?,
                What::DiskStall | What::DiskFull | What::DiskError => self.heal_disk(&name)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes that what `which` picks is no longer done to the process.
    fn undone(&mut self, name: &str, which: impl Fn(&What) -> bool) {
        let end = now();
        for fault in &mut self.faults {
            if fault.target == name && fault.ended.is_none() && which(&fault.what) {
                fault.ended = Some(end);
            }
        }
    }
}

/// A link's condition as something that is done to the worker behind it.
const fn what(condition: Condition) -> Option<What> {
    match condition {
        Condition::Pass => None,
        Condition::Cut => Some(What::Cut),
        Condition::BlackHole => Some(What::BlackHole),
        Condition::Delay(by) => Some(What::Delay { by }),
    }
}

const fn is_disk(what: &What) -> bool {
    matches!(what, What::DiskStall | What::DiskFull | What::DiskError)
}
