//! Work: the worker takes items, has its plugins run them, and commits what comes of them.
//!
//! [`desk`] decides (pure), this module carries out: it begins and ends calls, uploads large results,
//! and keeps a stream to the coordinator, on a connection of its own. It runs on the main runtime; the
//! heart's thread never waits for it and tells it, through a channel of the newest value, who the
//! process is and whether it may act. A stream that is lost is nothing to the heart.

mod desk;
mod drive;
mod link;
mod outbox;
mod pace;
mod upload;
mod verdict;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rollout_core::budget::Reconnect;
use rollout_core::{Clock, Mono, SystemClock, WorkerId};
use rollout_plugin_host::Plugin;
use rollout_transport::Tls;
use rollout_transport::work::WorkDown;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::sleep;

use self::desk::{Bench, Desk};
use self::drive::News;
use self::link::Link;
use self::upload::Uploads;
use crate::pulse::Pulse;
use crate::{Drain, WorkerError};

/// News of calls that wait to be taken in; then the calls wait.
const NEWS: usize = 256;
/// How often a plugin is asked whether it has ended a call that was given up, or is there again.
const SETTLE: Duration = Duration::from_millis(20);
/// The longest nap: time stands still for timers while the machine is suspended.
const LONGEST_NAP: Duration = Duration::from_secs(1);
/// Later than this after its time, the worker was not running: stopped, or starved.
const STALLED: Duration = Duration::from_millis(200);
/// How long what was given back at the very end may take to be sent and acknowledged.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// A library that does not return: its name, and the method.
pub(crate) type Wedged = Option<(String, String)>;

/// Everything that work is made of.
pub(crate) struct Parts {
    pub(crate) coordinator: String,
    pub(crate) reconnect: Reconnect,
    pub(crate) tls: Tls,
    pub(crate) plugins: Vec<Arc<Plugin>>,
    pub(crate) worker: WorkerId,
    pub(crate) pulse: watch::Receiver<Pulse>,
    /// Once nothing more is to be begun: how long what runs may take.
    pub(crate) leave: watch::Receiver<Option<Drain>>,
    pub(crate) wedged: watch::Receiver<Wedged>,
}

/// The running work.
struct Work {
    plugins: Vec<Arc<Plugin>>,
    pulse: watch::Receiver<Pulse>,
    leave: watch::Receiver<Option<Drain>>,
    wedged: watch::Receiver<Wedged>,
    known: Pulse,
    desk: Desk,
    link: Link,
    uploads: Uploads,
    calls: JoinSet<()>,
    handles: HashMap<u64, AbortHandle>,
    report: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    end: End,
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    No,
    /// What runs has until then.
    Leaving(Mono),
    /// What ran was given up; the coordinator is told until then.
    Abandoned(Mono),
}

/// What happened.
enum Woken {
    Pulse,
    Leave,
    Wedged,
    News(Vec<News>),
    Call(Result<(), JoinError>),
    Link(link::Event),
    Upload(upload::Ended),
    Time,
}

/// Takes and runs items until it is told to leave and has done so, or a plugin is wedged. Whatever it
/// held has been given back then, or cannot be.
pub(crate) async fn run(parts: Parts) -> Result<(), WorkerError> {
    Work::new(parts).run().await
}

impl Work {
    fn new(parts: Parts) -> Self {
        let Parts { coordinator, reconnect, tls, plugins, worker, mut pulse, leave, wedged } =
            parts;
        let bench = |p: &Arc<Plugin>| Bench { name: p.name().to_owned(), places: p.places() };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let desk = Desk::new(plugins.iter().map(bench).collect(), cores);
        let names = plugins.iter().map(|plugin| plugin.name().to_owned()).collect();
        let link = Link::new(coordinator, tls, reconnect, worker, names);
        let known = *pulse.borrow_and_update();
        let (report, news) = mpsc::channel(NEWS);
        Self {
            plugins,
            pulse,
            leave,
            wedged,
            known,
            desk,
            link,
            uploads: Uploads::default(),
            calls: JoinSet::new(),
            handles: HashMap::new(),
            report,
            news,
            end: End::No,
        }
    }

    async fn run(mut self) -> Result<(), WorkerError> {
        let mut due = SystemClock.now();
        loop {
            let now = SystemClock.now();
            let stall = now.since(due);
            if stall >= STALLED {
                tracing::warn!("the worker stood still for {stall:?}; no item is blamed for that");
                self.desk.stalled(now, stall);
            }
            if let Some(outcome) = self.look(now) {
                return outcome;
            }
            let nap = self.nap(now);
            due = now + nap;
            let woken = self.wait(nap).await;
            self.take_in(woken);
        }
    }

    /// Does what is to be done now; the outcome, once there is one.
    fn look(&mut self, now: Mono) -> Option<Result<(), WorkerError>> {
        self.settle(now);
        self.desk.expire(now);
        match self.end {
            End::Leaving(until) if now >= until => self.abandon(now),
            End::Abandoned(until) if now >= until => return Some(self.outcome()),
            End::Leaving(_) | End::Abandoned(_) if self.desk.is_clear() => {
                return Some(self.outcome());
            }
            _ => {}
        }
        while let Some(plan) = self.desk.next_call(now) {
            let Some(plugin) = self.plugins.get(plan.plugin) else { continue };
            let call = plan.call;
            let driven = drive::run(Arc::clone(plugin), plan, self.report.clone());
            self.handles.insert(call, self.calls.spawn(driven));
        }
        for call in self.desk.take_cut() {
            if let Some(handle) = self.handles.remove(&call) {
                handle.abort();
            }
        }
        self.uploads.begin(&mut self.desk, self.link.remote());
        self.link.send(&mut self.desk, now);
        None
    }

    fn outcome(&self) -> Result<(), WorkerError> {
        match &*self.wedged.borrow() {
            None => Ok(()),
            Some((plugin, method)) => {
                Err(WorkerError::Wedged { plugin: plugin.clone(), method: method.clone() })
            }
        }
    }

    fn abandon(&mut self, now: Mono) {
        self.desk.abandon();
        let words = self.leave.borrow().map_or(LAST_WORDS, |drain| drain.last_words);
        self.end = End::Abandoned(now + words);
    }

    /// A plugin that has ended the calls that were given up may be called again, once there is one.
    fn settle(&mut self, now: Mono) {
        for (at, plugin) in self.plugins.iter().enumerate() {
            if plugin.is_restarting() {
                self.desk.restarting(now, at);
            }
        }
        let settled: Vec<usize> = self
            .desk
            .settling()
            .filter(|(at, running)| {
                let settled = |plugin: &Arc<Plugin>| {
                    !plugin.is_restarting() && plugin.in_flight() <= *running
                };
                self.plugins.get(*at).is_none_or(settled)
            })
            .map(|(at, _)| at)
            .collect();
        for at in settled {
            let places = self.plugins.get(at).map_or(1, |plugin| plugin.places());
            self.desk.settled(at, places);
        }
    }

    /// How long there is nothing to do, if nothing happens.
    fn nap(&self, now: Mono) -> Duration {
        let mut nap =
            self.desk.wake(now, self.link.speaks()).map_or(LONGEST_NAP, |at| at.since(now));
        if self.desk.settling().next().is_some() {
            nap = nap.min(SETTLE);
        }
        if let End::Leaving(until) | End::Abandoned(until) = self.end {
            nap = nap.min(until.since(now));
        }
        nap.min(LONGEST_NAP)
    }

    async fn wait(&mut self, nap: Duration) -> Woken {
        let may_connect = !self.plugins.is_empty() && !self.known.fenced;
        let who = self.known;
        let mut news = Vec::new();
        tokio::select! {
            biased;
            Ok(()) = self.pulse.changed() => Woken::Pulse,
            Ok(()) = self.wedged.changed() => Woken::Wedged,
            Ok(()) = self.leave.changed() => Woken::Leave,
            _ = self.news.recv_many(&mut news, NEWS) => Woken::News(news),
            event = self.link.next(may_connect, who) => Woken::Link(event),
            ended = self.uploads.next() => Woken::Upload(ended),
            Some(ended) = self.calls.join_next() => Woken::Call(ended),
            () = sleep(nap) => Woken::Time,
        }
    }

    fn take_in(&mut self, woken: Woken) {
        let now = SystemClock.now();
        match woken {
            Woken::Pulse => self.pulse_changed(),
            Woken::Leave => self.told_to_leave(now),
            Woken::Wedged => {
                if self.wedged.borrow().is_some() {
                    self.abandon(now);
                }
            }
            Woken::News(news) => news.into_iter().for_each(|news| self.told(now, news)),
            Woken::Call(ended) => self.panicked(now, ended),
            Woken::Link(event) => self.linked(now, event),
            Woken::Upload(ended) => {
                // A late failure, of a connection that was replaced, is nothing to the present one.
                let of = self.uploads.ended(&mut self.desk, ended);
                if of.is_some_and(|of| self.link.remote().is_some_and(|(_, now)| now == of)) {
                    self.link.lose("an upload failed");
                }
            }
            Woken::Time => {}
        }
    }

    fn pulse_changed(&mut self) {
        let new = *self.pulse.borrow_and_update();
        let old = std::mem::replace(&mut self.known, new);
        self.desk.fence(new.fenced);
        if (new.epoch, new.incarnation) != (old.epoch, old.incarnation) {
            self.desk.epoch();
            self.uploads = Uploads::default();
            self.link.renew();
        } else if new.links != old.links {
            // The network or the coordinator was gone; what is left of the old stream is a guess.
            self.link.renew();
        }
    }

    fn told_to_leave(&mut self, now: Mono) {
        let Some(drain) = *self.leave.borrow_and_update() else { return };
        if self.end == End::No {
            self.desk.leave();
            self.end = End::Leaving(now + drain.running);
        }
    }

    fn told(&mut self, now: Mono, news: News) {
        let News { call, progress, answers, end } = news;
        if progress {
            self.desk.progress(now, call);
        }
        for (n, answer) in answers {
            self.desk.answered(now, call, n, answer);
        }
        if let Some(end) = end {
            self.handles.remove(&call);
            if let Some((plugin, wait)) = self.desk.ended(now, call, end) {
                tracing::warn!("plugin {plugin} cannot be called for {wait:?}: its items go back");
            }
        }
    }

    /// A call's task ends after its last news, or panics: a defect of rollout.
    fn panicked(&mut self, now: Mono, ended: Result<(), JoinError>) {
        let Err(error) = ended else { return };
        let is = |(_, handle): &(&u64, &AbortHandle)| handle.id() == error.id();
        if let Some((&call, _)) = self.handles.iter().find(is) {
            self.handles.remove(&call);
            tracing::error!("a call's task failed: {error}");
            // It says nothing of its plugin.
            let _ = self.desk.ended(now, call, verdict::defect());
        }
    }

    fn linked(&mut self, now: Mono, event: link::Event) {
        match event {
            link::Event::Opened => self.desk.stream(now),
            link::Event::Heard(WorkDown::Refused { detail }) => {
                tracing::info!("the coordinator refuses this worker's stream of work: {detail}");
                self.link.lose("refused");
            }
            link::Event::Heard(WorkDown::Stopping) => self.link.lose("the coordinator is stopping"),
            link::Event::Heard(line) => {
                if let Err(wrong) = self.desk.heard(now, line) {
                    tracing::error!("the coordinator said what makes no sense: {wrong}");
                    self.link.lose("what it said makes no sense");
                }
            }
            link::Event::Changed => {}
        }
    }
}
