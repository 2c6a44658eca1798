//! Reads one term of the coordinator, event by event.

use std::collections::HashMap;
use std::time::Duration;

use rollout_core::event::WorkerFailed;
use rollout_core::{Body, Event, Incarnation, Mono, WorkerId};

use super::track::Track;
use super::{CREDIT_SLACK, DURABLE_WITHIN, Next, Story, Wait};
use crate::chaos::truth::Truth;
use crate::record::Process;

/// Reads one term.
pub(super) struct Reader<'s, 'a> {
    pub(super) story: &'s mut Story<'a>,
    pub(super) term: usize,
    /// All that was credited in this term so far, by its own reports.
    pub(super) credit: Duration,
    pub(super) tracks: HashMap<WorkerId, Track>,
}

impl Reader<'_, '_> {
    pub(super) fn read(&mut self, event: &Event) {
        if let Body::CoordinatorStalled(stall) = &event.body {
            let reported = Duration::try_from_secs_f64(stall.ms / 1e3).unwrap_or_default();
            self.credit += reported + CREDIT_SLACK;
        }
        let (Some(worker), at) = (event.worker_id, event.mono) else { return };
        match &event.body {
            Body::WorkerRegistered(body) => {
                self.registered(worker, at, body.epoch, body.incarnation);
            }
            Body::WorkerResumed(body) => {
                self.story.look("durable");
                self.story.accepted.entry((worker, body.epoch)).or_default().push(at);
                let wrong = self.on(worker, body.epoch, at, Track::resumed);
                self.complain("durable", worker, at, "resumed", body.epoch, wrong);
            }
            Body::WorkerHeartbeat(body) => self.beat(worker, at, body.epoch),
            Body::WorkerReady(_) => self.with(worker, |track| track.suspected = None),
            Body::WorkerSuspected(body) => {
                self.story.look("pairs");
                let wrong = self.on(worker, body.epoch, at, Track::suspect);
                self.complain("pairs", worker, at, "suspected", body.epoch, wrong);
            }
            Body::WorkerRecovered(body) => {
                self.story.look("pairs");
                let wrong = self.on(worker, body.epoch, at, Track::recover);
                self.complain("pairs", worker, at, "recovered", body.epoch, wrong);
            }
            Body::WorkerFailed(body) => self.failed(worker, at, body),
            Body::WorkerDraining(_) => self.with(worker, Track::drain),
            Body::WorkerDeregistered(body) => {
                self.wait_ends(worker, at, Next::Left);
                let wrong = self.on(worker, body.epoch, at, |track| track.leave(at));
                self.complain("epochs", worker, at, "deregistered", body.epoch, wrong);
            }
            _ => {}
        }
    }

    fn with(&mut self, worker: WorkerId, act: impl FnOnce(&mut Track)) {
        if let Some(track) = self.tracks.get_mut(&worker) {
            act(track);
        }
    }

    /// What is wrong with something that is said of this epoch of a worker.
    fn on(
        &mut self,
        worker: WorkerId,
        epoch: u64,
        at: Mono,
        act: impl FnOnce(&mut Track) -> Option<&'static str>,
    ) -> Option<String> {
        let Some(track) = self.tracks.get_mut(&worker) else {
            return Some("it never registered".to_owned());
        };
        if track.epoch != epoch {
            return Some(format!("its epoch is {}", track.epoch));
        }
        if let Some(wrong) = track.must_live() {
            return Some(format!("{wrong} {:.3} s before", at.since(track.since).as_secs_f64()));
        }
        act(track).map(str::to_owned)
    }

    fn complain(
        &mut self,
        promise: &'static str,
        worker: WorkerId,
        at: Mono,
        what: &str,
        epoch: u64,
        wrong: Option<String>,
    ) {
        if let Some(wrong) = wrong {
            let at = at.since(self.story.began).as_secs_f64();
            let text = format!("{worker} {what} under epoch {epoch} at {at:.3} s: {wrong}");
            self.story.contradict(promise, text);
        }
    }

    fn registered(&mut self, worker: WorkerId, at: Mono, epoch: u64, incarnation: Incarnation) {
        self.story.look("epochs");
        self.wait_ends(worker, at, Next::Replaced);
        let told = self.story.told_at(worker, epoch, incarnation);
        if let Some(before) = self.tracks.get(&worker) {
            // What nobody was told need not have become durable.
            let grows = epoch > before.epoch || (epoch == before.epoch && !before.told);
            if !grows {
                let wrong = Some(format!("it had epoch {} before", before.epoch));
                self.complain("epochs", worker, at, "registered", epoch, wrong);
            } else if before.incarnation == incarnation && before.told {
                let wrong = Some("the same process had an epoch already, now forgotten".to_owned());
                self.complain("durable", worker, at, "registered", epoch, wrong);
            }
        }
        self.story.accepted.entry((worker, epoch)).or_default().push(at);
        self.story.registered.entry((worker, epoch)).or_insert(at);
        self.tracks.insert(worker, Track::registered(at, epoch, incarnation, told, self.credit));
    }

    fn beat(&mut self, worker: WorkerId, at: Mono, epoch: u64) {
        self.story.look("stale");
        let wrong = self.on(worker, epoch, at, |track| {
            (!track.introduced).then_some("it had not registered or resumed in this term")
        });
        if wrong.is_some() {
            return self.complain("stale", worker, at, "beat", epoch, wrong);
        }
        self.story.accepted.entry((worker, epoch)).or_default().push(at);
        self.story.beats.entry((worker, epoch)).or_default().push(at);
        self.wait_ends(worker, at, Next::Beat);
        let credit = self.credit;
        let wrong = self.on(worker, epoch, at, |track| track.beat(at, credit));
        self.complain("pairs", worker, at, "beat", epoch, wrong);
    }

    fn failed(&mut self, worker: WorkerId, at: Mono, body: &WorkerFailed) {
        self.story.look("once");
        let epoch = body.epoch;
        let wrong = self.on(worker, epoch, at, |_| None);
        if wrong.is_none() {
            self.wait_ends(worker, at, Next::Failed(body.clone()));
            self.with(worker, |track| track.fail(at));
        }
        self.complain("once", worker, at, "failed", epoch, wrong);
    }

    /// What a worker that is awaited was awaited for has come.
    fn wait_ends(&mut self, worker: WorkerId, at: Mono, next: Next) {
        let Some(track) = self.tracks.get(&worker).filter(|track| track.is_awaited()) else {
            return;
        };
        let wait = Wait {
            worker,
            epoch: track.epoch,
            sign: track.sign,
            from: track.base,
            next,
            at,
            credit: self.credit.saturating_sub(track.credit),
        };
        self.story.waits.push(wait);
    }

    /// The end of the term: what it decided last may not be durable.
    pub(super) fn close(
        mut self,
        coordinator: &Process,
        truth: &Truth<'_>,
        killed: bool,
    ) -> HashMap<WorkerId, Track> {
        let until = self.story.terms[self.term].until;
        let mut awaited: Vec<_> = self.tracks.keys().copied().collect();
        awaited.sort_unstable();
        for worker in awaited {
            self.wait_ends(worker, until, Next::TermEnded);
        }
        let disk = truth.stalled_disk(coordinator);
        let last = until.before(DURABLE_WITHIN);
        for (worker, track) in &mut self.tracks {
            let durable = |since: Mono| !killed || (since < last && !disk.touch(since, until));
            let told = self.story.left.get(&(*worker, track.epoch)).copied();
            track.end_term(durable, told);
        }
        self.tracks
    }
}
