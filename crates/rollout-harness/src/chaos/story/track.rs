//! What the coordinator is known to hold of one worker.

use std::time::Duration;

use rollout_core::{Incarnation, Mono};

use super::Sign;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    Failed,
    Left,
}

/// A worker as the coordinator's log has it so far.
#[derive(Debug, Clone)]
pub(super) struct Track {
    pub(super) epoch: u64,
    pub(super) incarnation: Incarnation,
    /// Whether its process was told its epoch before the coordinator's last end; what nobody was
    /// told need not have become durable.
    pub(super) told: bool,
    /// When its process says that it was told its epoch.
    told_at: Option<Mono>,
    /// When its process says that it was told that it left.
    told_it_left: Option<Mono>,
    state: State,
    /// Since when it is in that state.
    pub(super) since: Mono,
    /// Whether that is durable for sure. After a restart, what is not may be undone.
    certain: bool,
    /// Whether it has registered or resumed in this term.
    pub(super) introduced: bool,
    /// What its deadline is counted from.
    pub(super) sign: Sign,
    pub(super) base: Mono,
    /// What the coordinator had credited by then.
    pub(super) credit: Duration,
    /// Since when it is suspected; whether it has beaten since.
    pub(super) suspected: Option<bool>,
    pub(super) draining: bool,
}

impl Track {
    pub(super) fn registered(
        at: Mono,
        epoch: u64,
        incarnation: Incarnation,
        told_at: Option<Mono>,
        credit: Duration,
    ) -> Self {
        Self {
            epoch,
            incarnation,
            told: true,
            told_at,
            told_it_left: None,
            state: State::Live,
            since: at,
            certain: true,
            introduced: true,
            sign: Sign::Registered,
            base: at,
            credit,
            suspected: None,
            draining: false,
        }
    }

    pub(super) fn surely_live(&self) -> bool {
        self.state == State::Live && self.certain
    }

    pub(super) fn perhaps_live(&self) -> bool {
        self.state == State::Live || !self.certain
    }

    /// Whether its deadline runs for sure.
    pub(super) fn is_awaited(&self) -> bool {
        self.surely_live()
    }

    /// Why nothing may be said of it, if so. What may have been undone by a restart has been, once
    /// something is said.
    pub(super) fn must_live(&mut self) -> Option<&'static str> {
        match self.state {
            State::Live => {}
            _ if !self.certain => self.state = State::Live,
            State::Failed => return Some("it had failed"),
            State::Left => return Some("it had left"),
        }
        self.certain = true;
        None
    }

    pub(super) fn resumed(&mut self) -> Option<&'static str> {
        self.introduced = true;
        None
    }

    /// It was asked to end: from now on it is neither suspected nor recovers.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.suspected = None;
    }

    pub(super) fn beat(&mut self, at: Mono, credit: Duration) -> Option<&'static str> {
        (self.sign, self.base, self.credit) = (Sign::Beat, at, credit);
        let unsaid = self.suspected == Some(true) && !self.draining;
        self.suspected = self.suspected.map(|_| true);
        unsaid.then_some("it was suspected, beats, and has not recovered")
    }

    pub(super) fn suspect(&mut self) -> Option<&'static str> {
        self.suspected.replace(false).map(|_| "it was suspected already")
    }

    pub(super) fn recover(&mut self) -> Option<&'static str> {
        match self.suspected.take() {
            Some(_) => None,
            None => Some("it was not suspected"),
        }
    }

    pub(super) fn fail(&mut self, at: Mono) {
        (self.state, self.since) = (State::Failed, at);
    }

    pub(super) fn leave(&mut self, at: Mono) -> Option<&'static str> {
        (self.state, self.since) = (State::Left, at);
        None
    }

    /// The term has ended. `durable` says whether what was decided at an instant is on disk for
    /// sure; `told_it_left` when its process was told that it has left.
    pub(super) fn end_term(&mut self, durable: impl Fn(Mono) -> bool, told_it_left: Option<Mono>) {
        self.told_it_left = told_it_left;
        self.certain &= durable(self.since) || (self.state == State::Live && self.has_beaten());
    }

    fn has_beaten(&self) -> bool {
        self.sign == Sign::Beat
    }

    /// A new term begins at `at`. It knows what is durable, which is whatever anybody was told
    /// before, and gives everybody live a full deadline.
    pub(super) fn begin_term(&mut self, at: Mono) {
        let before = |told: Option<Mono>| told.is_some_and(|told| told < at);
        self.told = before(self.told_at) || self.has_beaten();
        self.certain |= match self.state {
            State::Live => self.told,
            State::Left => before(self.told_it_left),
            State::Failed => false,
        };
        (self.sign, self.base, self.credit) = (Sign::Start, at, Duration::ZERO);
        self.introduced = false;
        self.suspected = None;
        self.draining = false;
    }
}
