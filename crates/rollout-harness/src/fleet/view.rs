//! What can be seen of a fleet, as of the last look.

use std::net::SocketAddr;

use rollout_core::{Event, TimeBudget, WorkerId};
use rollout_process::Exit;

use super::member::Member;
use super::{Fleet, FleetError};
use crate::fixtures::Layout;
use crate::log::Log;
use crate::record::{Fault, Role};

impl Fleet {
    /// What a process wrote to its standard output so far, in all its lives.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn log(&self, name: &str) -> Result<&Log, FleetError> {
        Ok(self.member(name)?.log())
    }

    /// A process's events so far; none of one that is not there.
    pub fn events(&self, name: &str) -> impl DoubleEndedIterator<Item = &Event> {
        self.member(name).ok().into_iter().flat_map(|member| member.log().events())
    }

    /// The coordinator's events about `worker`.
    pub fn about(&self, worker: WorkerId) -> impl DoubleEndedIterator<Item = &Event> {
        let events = self.coordinator().into_iter().flat_map(|member| member.log().events());
        events.filter(move |event| event.worker_id == Some(worker))
    }

    /// Whether the coordinator has written an event with `topic` about `worker`.
    #[must_use]
    pub fn says(&self, topic: &str, worker: WorkerId) -> bool {
        self.about(worker).any(|event| event.body.topic() == topic)
    }

    /// How a process ended; none while it runs, or was never started.
    #[must_use]
    pub fn exit(&self, name: &str) -> Option<Exit> {
        self.member(name).ok()?.exit()
    }

    /// The number of a process that runs.
    #[must_use]
    pub fn pid(&self, name: &str) -> Option<i32> {
        self.member(name).ok()?.pid()
    }

    /// The id of a worker.
    #[must_use]
    pub fn worker_id(&self, name: &str) -> Option<WorkerId> {
        match self.member(name).ok()?.spec.role {
            Role::Worker { id } => Some(id),
            Role::Coordinator => None,
        }
    }

    /// The names of the processes, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(Member::name)
    }

    /// Whether the coordinator listens, and where.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The time budget.
    #[must_use]
    pub const fn timing(&self) -> &TimeBudget {
        &self.options.timing
    }

    /// Where the files lie.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.options.layout
    }

    /// What was done so far.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}
