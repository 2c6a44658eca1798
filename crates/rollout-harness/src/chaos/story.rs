//! The coordinator's log as a story: term by term, worker by worker, from each sign of life to what
//! came next. What cannot be, is a contradiction.

mod reader;
mod track;

use std::collections::HashMap;
use std::time::Duration;

use rollout_core::event::WorkerFailed;
use rollout_core::{Body, Event, Incarnation, Mono, WorkerId};

use super::streams::{Stream, life_at, streams, was_killed};
use super::truth::Truth;
use crate::record::{Life, Process, Record, What};

use reader::Reader;
use track::Track;

/// What a coordinator that dies may not have written yet, it decided at most so long before.
pub(super) const DURABLE_WITHIN: Duration = Duration::from_secs(1);
/// What a stall's credit may exceed its report by.
const CREDIT_SLACK: Duration = Duration::from_millis(100);

/// A life of the coordinator.
#[derive(Debug)]
pub(super) struct Term {
    /// The instant from which it serves.
    pub(super) started: Mono,
    /// The last instant at which it surely ran.
    pub(super) until: Mono,
}

/// What a deadline is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// The coordinator's start.
    Start,
    /// A registration: the deadline runs from its answer, which comes after an fsync.
    Registered,
    /// A beat that was accepted.
    Beat,
}

/// What came after a sign of life.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// A beat that was accepted.
    Beat,
    /// The verdict.
    Failed(WorkerFailed),
    /// A new registration.
    Replaced,
    /// It left in good order.
    Left,
    /// The term ended.
    TermEnded,
}

/// From a sign of life of a worker to what came next.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    pub(super) worker: WorkerId,
    pub(super) epoch: u64,
    pub(super) sign: Sign,
    /// The instant of the sign.
    pub(super) from: Mono,
    pub(super) next: Next,
    /// The instant of what came next.
    pub(super) at: Mono,
    /// The most that the coordinator may have credited since the sign, by its own reports.
    pub(super) credit: Duration,
}

/// An epoch, and which process held it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder<'a> {
    pub(super) process: &'a Process,
    pub(super) life: &'a Life,
}

/// The story.
pub(super) struct Story<'a> {
    pub(super) terms: Vec<Term>,
    pub(super) waits: Vec<Wait>,
    /// What cannot be, by the name of the promise that it breaks.
    pub(super) contradictions: Vec<(&'static str, String)>,
    /// The coordinator's streams, a term each.
    pub(super) streams: Vec<Stream<'a>>,
    /// The workers' streams.
    pub(super) workers: Vec<(&'a Process, WorkerId, Vec<Stream<'a>>)>,
    /// How often what was looked at, by the name of the promise.
    pub(super) looked: HashMap<&'static str, usize>,
    /// When the coordinator accepted something under an epoch: its registration, a resumption, a
    /// beat.
    pub(super) accepted: HashMap<(WorkerId, u64), Vec<Mono>>,
    /// When it accepted a beat under an epoch.
    pub(super) beats: HashMap<(WorkerId, u64), Vec<Mono>>,
    /// When it first registered an epoch.
    registered: HashMap<(WorkerId, u64), Mono>,
    /// Who held which epoch, as far as a process says so, and since when it does.
    told: HashMap<(WorkerId, u64), (Incarnation, Holder<'a>, Mono)>,
    /// When who was told that it left.
    left: HashMap<(WorkerId, u64), Mono>,
    /// What instants are counted from, for people.
    began: Mono,
}

impl<'a> Story<'a> {
    /// Reads the logs of a record.
    pub(super) fn of(record: &'a Record, truth: &Truth<'_>) -> Self {
        let coordinator = record.coordinator();
        let workers = record.workers().map(|(process, id)| (process, id, streams(process)));
        let mut story = Self {
            terms: Vec::new(),
            waits: Vec::new(),
            contradictions: Vec::new(),
            streams: coordinator.map(streams).unwrap_or_default(),
            workers: workers.collect(),
            looked: HashMap::new(),
            accepted: HashMap::new(),
            beats: HashMap::new(),
            registered: HashMap::new(),
            told: HashMap::new(),
            left: HashMap::new(),
            began: record.began,
        };
        story.hear_the_workers();
        if let Some(coordinator) = coordinator {
            story.read(record, coordinator, truth);
        }
        story
    }

    /// Who was told what.
    fn hear_the_workers(&mut self) {
        for (process, id, streams) in &self.workers {
            for stream in streams {
                let Some(life) = stream.life else { continue };
                for event in &stream.events {
                    match &event.body {
                        Body::WorkerRegistered(body) => {
                            let told = (body.incarnation, Holder { process, life }, event.mono);
                            self.told.insert((*id, body.epoch), told);
                        }
                        Body::WorkerDeregistered(body) => {
                            self.left.insert((*id, body.epoch), event.mono);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// When a process was told that it was registered so, if it says that it was.
    fn told_at(&self, worker: WorkerId, epoch: u64, incarnation: Incarnation) -> Option<Mono> {
        let (told, _, at) = self.told.get(&(worker, epoch))?;
        (*told == incarnation).then_some(*at)
    }

    /// Who held an epoch: who was told so, or whose life the registration falls into.
    pub(super) fn holder(&self, worker: WorkerId, epoch: u64) -> Option<Holder<'a>> {
        if let Some((_, holder, _)) = self.told.get(&(worker, epoch)) {
            return Some(*holder);
        }
        let at = *self.registered.get(&(worker, epoch))?;
        let processes = self.workers.iter().filter(|(_, id, _)| *id == worker);
        let lives = processes
            .filter_map(|(process, _, _)| Some(Holder { process, life: life_at(process, at)? }));
        lives.max_by_key(|holder| holder.life.began)
    }

    /// How many registrations the coordinators took.
    pub(super) fn registrations(&self) -> usize {
        self.registered.len()
    }

    /// The verdicts, with what they are about.
    pub(super) fn verdicts(&self) -> impl Iterator<Item = (&Wait, &WorkerFailed)> {
        self.waits.iter().filter_map(|wait| match &wait.next {
            Next::Failed(failed) => Some((wait, failed)),
            _ => None,
        })
    }

    fn read(&mut self, record: &'a Record, coordinator: &Process, truth: &Truth<'_>) {
        let mut tracks: HashMap<WorkerId, Track> = HashMap::new();
        let mut number = 0;
        for place in 0..self.streams.len() {
            let (term, killed) = self.term(record, coordinator, place);
            let Some(term) = term else { continue };
            let events = std::mem::take(&mut self.streams[place].events);
            self.open(&events, &mut tracks, &mut number);
            let place_of_term = self.terms.len();
            self.terms.push(term);
            let mut reader =
                Reader { story: self, term: place_of_term, credit: Duration::ZERO, tracks };
            events.iter().for_each(|event| reader.read(event));
            tracks = reader.close(coordinator, truth, killed);
            self.streams[place].events = events;
        }
    }

    /// The term that a stream is; and whether SIGKILL ended it. A coordinator that never came to
    /// serve has none.
    fn term(&self, record: &Record, coordinator: &Process, place: usize) -> (Option<Term>, bool) {
        let stream = &self.streams[place];
        let find = |topic: &str| {
            stream.events.iter().find(|event| event.body.topic() == topic).map(|event| event.mono)
        };
        let fatal = stream.life.and_then(|life| {
            let ended = life.ended.as_ref()?;
            let fault = record.faults_of(&coordinator.name).find(|fault| {
                fault.what == What::Kill && life.began <= fault.began && fault.began <= ended.at
            });
            Some(fault.map_or(ended.at, |fault| fault.began))
        });
        let until = find("coordinator_stopping").or(fatal).unwrap_or(record.ended);
        let killed = stream.life.is_some_and(was_killed);
        (find("coordinator_started").map(|started| Term { started, until }), killed)
    }

    /// The first event of a term: its number grows, and it knows whom it must know.
    fn open(&mut self, events: &[Event], tracks: &mut HashMap<WorkerId, Track>, number: &mut u64) {
        let Some((at, body)) = events.iter().find_map(|event| match &event.body {
            Body::CoordinatorStarted(body) => Some((event.mono, body)),
            _ => None,
        }) else {
            return;
        };
        self.look("terms");
        if body.term <= *number {
            self.contradict("terms", format!("term {} follows term {number}", body.term));
        }
        *number = body.term;
        tracks.values_mut().for_each(|track| track.begin_term(at));
        let least = tracks.values().filter(|track| track.surely_live()).count() as u64;
        let most = tracks.values().filter(|track| track.perhaps_live()).count() as u64;
        self.look("durable");
        if !(least..=most).contains(&body.known_workers) {
            self.contradict(
                "durable",
                format!(
                    "term {} began with {} workers; {least} to {most} had been acknowledged",
                    body.term, body.known_workers
                ),
            );
        }
    }

    fn look(&mut self, promise: &'static str) {
        *self.looked.entry(promise).or_default() += 1;
    }

    fn contradict(&mut self, promise: &'static str, what: String) {
        self.contradictions.push((promise, what));
    }
}
