//! The heart: one thread with a runtime of its own that registers, beats, watches the fence and
//! replaces lost connections. No plugin work can delay it.

use std::borrow::Cow;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use rollout_core::budget::Reconnect;
use rollout_core::duration::as_ms;
use rollout_core::event::{
    FENCE_LIFTED, WorkerDeregistered, WorkerDraining, WorkerFenced, WorkerRegistered, WorkerResumed,
};
use rollout_core::{Attempts, Incarnation, Mono, RunId, TimeBudget};
use rollout_storage::StorageError;
use rollout_transport::{
    ConnectError, Down, FenceReason, Link, Patience, RejectReason, Tls, Up, WireError, wire::Timing,
};
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::fence::{Change, Fence};
use crate::memory::Memory;
use crate::pulse::{Publisher, Pulse};
use crate::{Voice, WorkerError};

/// A new registration is acknowledged after an fsync, and a stalled disk must not look like a lost
/// coordinator. A resumption is answered at once, like a beat.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest nap without a link: timers stand still while the machine is suspended, and the
/// fence's clock does not.
const LONGEST_NAP: Duration = Duration::from_millis(100);

/// So many turns of the runtime until what is in the socket has been read: it learns of that, and the
/// connection's task reads.
const TURNS: usize = 3;

/// What the worker wants of its heart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    /// Beat.
    Serve,
    /// Beat, and say that no more work is taken.
    Drain,
    /// Deregister and stop.
    Leave,
}

/// Everything a heart is made of.
pub(crate) struct Parts {
    pub(crate) coordinator: String,
    pub(crate) run_id: Option<RunId>,
    pub(crate) budget: TimeBudget,
    pub(crate) start_timeout: Duration,
    pub(crate) plugins: Vec<String>,
    pub(crate) tls: Tls,
    pub(crate) memory: Memory,
    pub(crate) voice: Voice,
    pub(crate) intent: watch::Receiver<Intent>,
}

/// The heart's state across connections.
pub(crate) struct Heart {
    parts: Parts,
    link: Reconnect,
    fence: Fence,
    pulse: Publisher,
    incarnation: Incarnation,
    epoch: Option<u64>,
    /// The last beat of this process.
    beat: u64,
    /// Whether this process has ever been registered.
    known: bool,
    attempts: Attempts,
    /// What has been announced of the intent.
    announced: Intent,
    broken: (mpsc::Sender<Arc<StorageError>>, mpsc::Receiver<Arc<StorageError>>),
}

/// What is heard on a link.
type Line = Result<Option<Down>, WireError>;

/// How a session ended, if the heart goes on.
enum Next {
    /// The connection is lost, the coordinator ends, or the epoch is over: try again after a pause.
    Again,
    /// There is no more to do.
    Done,
}

impl Heart {
    pub(crate) fn new(parts: Parts) -> Self {
        let link = parts.budget.reconnect();
        let incarnation = Incarnation::generate();
        Self {
            link,
            fence: fence(&parts.budget),
            pulse: Publisher::new(incarnation),
            incarnation,
            epoch: None,
            beat: 0,
            known: false,
            attempts: Attempts::new(link),
            announced: Intent::Serve,
            broken: mpsc::channel(1),
            parts,
        }
    }

    /// Where the heart says who the process is.
    pub(crate) fn pulse(&self) -> watch::Receiver<Pulse> {
        self.pulse.subscribe()
    }

    /// Beats until the worker has left, or cannot go on.
    pub(crate) async fn run(mut self) -> Result<(), WorkerError> {
        let started = self.boot();
        loop {
            if let Ok(error) = self.broken.1.try_recv() {
                return Err(WorkerError::Memory(error));
            }
            let source = match self.connect().await {
                Ok(link) => match self.session(link).await? {
                    Next::Done => return Ok(()),
                    Next::Again => None,
                },
                Err(error @ ConnectError::Refused { .. }) => {
                    return Err(WorkerError::Refused(error));
                }
                Err(_) if self.leaves_unheard() => return Ok(()),
                Err(source) => {
                    if matches!(source, ConnectError::Timeout { .. }) {
                        self.attempts.unanswered();
                    }
                    Some(source)
                }
            };
            let after = self.parts.start_timeout;
            if !self.known && self.boot().since(started) >= after {
                return Err(WorkerError::Unreachable { after, source });
            }
            let pause = jittered(self.attempts.pause());
            self.wait(pause).await;
        }
    }

    /// Whether the worker is to leave; without a coordinator, that is all there is to do.
    fn leaves_unheard(&self) -> bool {
        let leaves = *self.parts.intent.borrow() == Intent::Leave;
        if leaves && self.known {
            tracing::warn!("the coordinator is gone: left without deregistering");
        }
        leaves
    }

    fn boot(&self) -> Mono {
        self.parts.voice.clock.boot()
    }

    async fn connect(&mut self) -> Result<Link, ConnectError> {
        let patience =
            Patience { reach: self.link.connect_timeout, whole: self.attempts.patience() };
        let Self { parts: Parts { coordinator, tls, voice, .. }, fence, pulse, .. } = self;
        let connecting = rollout_transport::connect(coordinator, tls, patience);
        watching(fence, (voice, pulse), connecting).await
    }

    /// Waits, watching the fence and the intent.
    async fn wait(&mut self, pause: Duration) {
        let until_then = self.boot() + pause;
        loop {
            let now = self.boot();
            look(&mut self.fence, (&self.parts.voice, &self.pulse));
            if now >= until_then {
                return;
            }
            let nap = until_then.since(now).min(until(self.fence.falls(), now)).min(LONGEST_NAP);
            tokio::select! {
                () = sleep(nap) => {}
                changed = self.parts.intent.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Registers over `link`, then beats until it ends.
    async fn session(&mut self, mut link: Link) -> Result<Next, WorkerError> {
        let sent = self.boot();
        if link.up.send(self.registration()).await.is_err() {
            return Ok(Next::Again);
        }
        let patience = match self.epoch {
            Some(_) => self.attempts.patience(),
            None if self.known => REGISTRATION_TIMEOUT,
            None => REGISTRATION_TIMEOUT.min(self.parts.start_timeout),
        };
        let hearing = timeout(patience, link.down.next());
        let watchers = (&self.parts.voice, &self.pulse);
        let answer = match watching(&mut self.fence, watchers, hearing).await {
            Ok(Ok(Some(answer))) => answer,
            Ok(Err(error)) => return self.cut(&error),
            Ok(Ok(None)) => return Ok(Next::Again),
            Err(_) => {
                self.attempts.unanswered();
                return Ok(Next::Again);
            }
        };
        match answer {
            Down::Registered { run_id, epoch, resumed, waited_ms, .. } => {
                // The deadline runs since the registration is on disk, and that took its time.
                let counts = (sent + Duration::from_millis(waited_ms)).min(self.boot());
                self.registered(counts, run_id, epoch, resumed);
                self.beat_over(link).await
            }
            other => self.heard(other),
        }
    }

    fn registration(&self) -> Up {
        Up::Register {
            worker_id: self.parts.voice.worker,
            incarnation: self.incarnation,
            epoch: self.epoch,
            run_id: self.parts.run_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            plugins: self.parts.plugins.clone(),
            timing: Timing::from(&self.parts.budget),
            unix_ms: Some(self.parts.voice.clock.unix_ms()),
        }
    }

    fn registered(&mut self, counts: Mono, run_id: RunId, epoch: u64, resumed: bool) {
        let voice = &self.parts.voice;
        voice.emit.lead(run_id);
        self.parts.run_id = Some(run_id);
        self.known = true;
        self.announced = Intent::Serve;
        // Resumed without an epoch: the coordinator's first answer was lost.
        if resumed && self.epoch == Some(epoch) {
            self.fence.resumed();
            self.pulse.registered(self.incarnation, epoch);
            voice.say(WorkerResumed { epoch });
            return;
        }
        self.fence.registered(counts);
        self.epoch = Some(epoch);
        self.pulse.registered(self.incarnation, epoch);
        let broken = self.broken.0.clone();
        self.parts.memory.registered(voice.worker, epoch, move |error| {
            // One report is enough, and the heart takes it at its next beat.
            let _ = broken.try_send(error);
        });
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let plugins = self.parts.plugins.clone();
        voice.say(WorkerRegistered { epoch, incarnation: self.incarnation, version, plugins });
    }

    /// Beats every interval, and listens.
    async fn beat_over(&mut self, mut link: Link) -> Result<Next, WorkerError> {
        let mut next_beat = self.boot();
        loop {
            let now = self.boot();
            look(&mut self.fence, (&self.parts.voice, &self.pulse));
            let expected = self.fence.oldest_pending().map(|sent| sent + self.link.ack_timeout);
            if expected.is_some_and(|expected| now >= expected) {
                let Some(line) = arrived(&mut link).await else { return Ok(Next::Again) };
                match self.take(line)? {
                    Some(next) => return Ok(next),
                    None => continue,
                }
            }
            if self.announce(&link).await.is_err() {
                return Ok(Next::Again);
            }
            // Who has deregistered is not alive any more, as far as the coordinator is concerned.
            if now >= next_beat && self.announced != Intent::Leave {
                self.beat += 1;
                // Who waits for an acknowledgement cannot be told when this was said.
                let heard_of_all = self.fence.oldest_pending().is_none();
                let unix_ms = heard_of_all.then(|| self.parts.voice.clock.unix_ms());
                self.fence.sent(now, self.beat);
                if link.up.send(Up::Beat { beat: self.beat, unix_ms }).await.is_err() {
                    return Ok(Next::Again);
                }
                next_beat = now + self.parts.budget.heartbeat_interval;
            }
            let expected = self.fence.oldest_pending().map(|sent| sent + self.link.ack_timeout);
            let nap =
                next_beat.since(now).min(until(expected, now)).min(until(self.fence.falls(), now));
            let line = tokio::select! {
                biased;
                line = link.down.next() => line,
                () = sleep(nap) => continue,
                changed = self.parts.intent.changed() => {
                    if changed.is_err() {
                        return Ok(Next::Done);
                    }
                    continue;
                }
                Some(error) = self.broken.1.recv() => return Err(WorkerError::Memory(error)),
            };
            if let Some(next) = self.take(line)? {
                return Ok(next);
            }
        }
    }

    /// What the coordinator says to a session, or that it is over; and what follows, if it ends.
    fn take(&mut self, line: Line) -> Result<Option<Next>, WorkerError> {
        match line {
            Ok(Some(Down::Ack { beat, .. })) => {
                self.fence.acknowledge(beat);
                self.attempts.answered();
                Ok(None)
            }
            Ok(Some(other)) => self.heard(other).map(Some),
            Ok(None) => Ok(Some(Next::Again)),
            Err(error) => self.cut(&error).map(Some),
        }
    }

    /// Tells the coordinator of a new intent.
    async fn announce(&mut self, link: &Link) -> Result<(), rollout_transport::Gone> {
        let wanted = *self.parts.intent.borrow_and_update();
        if wanted == self.announced {
            return Ok(());
        }
        if self.announced == Intent::Serve {
            link.up.send(Up::Draining).await?;
            if let Some(epoch) = self.epoch {
                self.parts.voice.say(WorkerDraining { epoch });
            }
        }
        if wanted == Intent::Leave {
            link.up.send(Up::Deregister).await?;
        }
        self.announced = wanted;
        Ok(())
    }

    /// Anything but an acknowledgement.
    fn heard(&mut self, line: Down) -> Result<Next, WorkerError> {
        match line {
            Down::Deregistered => {
                if let Some(epoch) = self.epoch {
                    self.parts.voice.say(WorkerDeregistered { epoch });
                }
                Ok(Next::Done)
            }
            Down::Fenced { reason } => {
                let unacknowledged = self.fence.unacknowledged(self.boot());
                self.parts.voice.say(WorkerFenced {
                    reason: Cow::Borrowed(reason.as_str()),
                    unacknowledged_ms: as_ms(unacknowledged),
                });
                if reason == FenceReason::Superseded {
                    return Err(WorkerError::Superseded);
                }
                if self.announced == Intent::Leave {
                    return Ok(Next::Done);
                }
                self.epoch = None;
                self.pulse.over();
                self.incarnation = Incarnation::generate();
                Ok(Next::Again)
            }
            // Perhaps it was the coordinator that was too slow.
            Down::Rejected { reason: RejectReason::Timeout, .. } => Ok(Next::Again),
            Down::Rejected { reason: RejectReason::Rate, detail } => {
                tracing::warn!("the coordinator refuses this worker for now: {detail}");
                Ok(Next::Again)
            }
            Down::Rejected { reason, detail } => Err(WorkerError::Rejected { reason, detail }),
            Down::Stopping | Down::Ack { .. } | Down::Registered { .. } => Ok(Next::Again),
        }
    }

    fn cut(&self, error: &WireError) -> Result<Next, WorkerError> {
        tracing::debug!("the connection to the coordinator ended: {error}");
        Ok(Next::Again)
    }
}

/// What has arrived and is not read yet: perhaps it was this thread that was late, and not the link.
async fn arrived(link: &mut Link) -> Option<Line> {
    for _ in 0..TURNS {
        yield_now().await;
        tokio::select! {
            biased;
            line = link.down.next() => return Some(line),
            () = ready(()) => {}
        }
    }
    None
}

fn fence(budget: &TimeBudget) -> Fence {
    #[cfg(feature = "faults")]
    if rollout_core::faults::fence_is_off() {
        return Fence::new(Duration::MAX);
    }
    Fence::new(budget.worker_self_fence_timeout)
}

/// How long from `now` until `then`; practically for ever when there is no `then`.
fn until(then: Option<Mono>, now: Mono) -> Duration {
    const FOR_EVER: Duration = Duration::from_secs(24 * 60 * 60);
    then.map_or(FOR_EVER, |then| then.since(now))
}

/// Waits for `outcome`; the fence falls on time meanwhile.
async fn watching<F: Future>(
    fence: &mut Fence,
    (voice, pulse): (&Voice, &Publisher),
    outcome: F,
) -> F::Output {
    tokio::pin!(outcome);
    loop {
        let falls = until(fence.falls(), voice.clock.boot()).min(LONGEST_NAP);
        tokio::select! {
            outcome = &mut outcome => return outcome,
            () = sleep(falls) => {}
        }
        look(fence, (voice, pulse));
    }
}

fn look(fence: &mut Fence, (voice, pulse): (&Voice, &Publisher)) {
    let now = voice.clock.boot();
    let change = fence.look(now);
    if let Some(change) = change {
        pulse.fence(matches!(change, Change::Fenced(_)));
    }
    match change {
        Some(Change::Fenced(silent)) => voice.say(WorkerFenced {
            reason: Cow::Borrowed("unacknowledged"),
            unacknowledged_ms: as_ms(silent),
        }),
        Some(Change::Lifted) => tracing::info!("{FENCE_LIFTED}"),
        None => {}
    }
}

/// Between half of `pause` and all of it, so that a fleet does not come back in step.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

/// Whether the coordinator's refusal is about who the worker is.
pub(crate) const fn is_identity(reason: RejectReason) -> bool {
    matches!(reason, RejectReason::Identity)
}

#[cfg(test)]
#[path = "heart_tests.rs"]
mod tests;
