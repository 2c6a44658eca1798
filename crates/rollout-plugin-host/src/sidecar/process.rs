//! One process of a sidecar: the calls it has, and what ends them all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rollout_core::{Clock, SystemClock};
use rollout_process::{Handle, Signal, Watched};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::calls::{Answer, Calls, GivenUp, Kind};
use super::frame::Frame;
use super::wire::{self, ToPlugin};
use crate::call::{Call, Failed, Input, Item, MaxFrame, Reply};
use crate::error::{Cause, Executed, Exited};
use crate::event::OnEvent;
use crate::inbox::Inbox;
use crate::manifest::Limits;

/// A process that has become ready. The task that keeps the sidecar going owns the process itself.
pub(super) struct Process {
    pub(super) shared: Arc<Shared>,
    pub(super) outgoing: mpsc::Sender<Outgoing>,
}

/// Why a call has no answer.
pub(super) enum Unanswered {
    Failed(Failed),
    /// The process answers no more, and has never had the call.
    NotSent,
}

impl From<Failed> for Unanswered {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// A message on its way to the socket.
pub(super) enum Outgoing {
    /// Sent only if it is still wanted when its turn comes.
    Call(u64, Frame),
    Credit(u64, usize),
    Cancel(u64),
    Pong,
    Shutdown,
}

/// What callers and the task share.
pub(super) struct Shared {
    pub(super) name: Arc<str>,
    pub(super) limits: Limits,
    /// How large a frame may be, either way: the smaller of the manifest's limit and the plugin's.
    pub(super) frames: MaxFrame,
    pub(super) on_event: OnEvent,
    /// Whether its first answer decides if it is called again; until then it has one call at a time.
    trial: bool,
    next_id: AtomicU64,
    /// Told when the plugin has a call that was given up.
    pub(super) given_up: Notify,
    /// Whether an answer to a ping is queued: one is enough.
    pong_queued: AtomicBool,
    state: Mutex<State>,
}

/// What waits for a call's answer.
pub(super) struct Waiter {
    answer: oneshot::Sender<Result<Reply, Failed>>,
    /// For what comes before it.
    inbox: Arc<Inbox>,
}

pub(super) struct State {
    pub(super) calls: Calls<Waiter>,
    /// Whether the plugin has answered a call, however it did.
    pub(super) answered: bool,
    /// Whether the plugin answers no more.
    down: bool,
}

/// Why a sidecar answers no more.
#[derive(Debug, Clone)]
pub(super) enum Down {
    /// The worker asked for it.
    Asked,
    HungUp,
    /// It went on with a call that was given up.
    Deaf,
    Exited(Exited),
    Malformed(String),
    TooLarge(u64),
}

impl Down {
    fn cause(&self, limits: &Limits, frames: MaxFrame) -> Cause {
        match self.clone() {
            Self::Asked => Cause::Closed { message: "it was shut down" },
            Self::HungUp => Cause::Closed { message: "it closed its socket, and was stopped" },
            Self::Deaf => {
                let grace = limits.cancel_grace;
                let message = format!(
                    "it went on with a cancelled call beyond `limits.cancel_grace` ({grace:?}), and \
                     was killed"
                );
                Cause::Crashed { message, exited: None }
            }
            Self::Exited(exited) => {
                Cause::Crashed { message: format!("it {exited}"), exited: Some(exited) }
            }
            Self::Malformed(message) => Cause::Malformed { message },
            Self::TooLarge(got) => frames.exceeded("the answer", got),
        }
    }
}

impl Shared {
    /// For a process that has said what it takes.
    pub(super) fn new(
        name: Arc<str>,
        limits: Limits,
        on_event: &OnEvent,
        (places, frames): (usize, MaxFrame),
        trial: bool,
    ) -> Self {
        Self {
            name,
            limits,
            frames,
            on_event: Arc::clone(on_event),
            trial,
            next_id: AtomicU64::new(1),
            given_up: Notify::new(),
            pong_queued: AtomicBool::new(false),
            state: Mutex::new(State { calls: Calls::new(places), answered: false, down: false }),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, id: u64, waiter: Waiter, kind: Kind) -> Result<(), Unanswered> {
        let mut state = self.state();
        if state.down {
            return Err(Unanswered::NotSent);
        }
        let no = |cause| Unanswered::Failed(Failed::new(cause, Executed::No));
        if self.trial && !state.answered && !state.calls.is_empty() {
            return Err(no(Cause::breaker_open(SystemClock.now())));
        }
        if state.calls.open(id, waiter, kind) {
            Ok(())
        } else {
            Err(no(Cause::Overloaded { limit: state.calls.limit() }))
        }
    }

    /// Passes an answer on.
    ///
    /// # Errors
    /// When no call was waiting for it, or it ends a batch too early.
    pub(super) fn answer(&self, id: u64, answer: Result<Reply, Failed>) -> Result<(), String> {
        let mut state = self.state();
        if state.down {
            return Ok(());
        }
        let whom = state.calls.answer(id);
        state.answered |= !matches!(whom, Answer::Unknown);
        drop(state);
        match whom {
            Answer::To(Waiter { answer: tell, inbox }) => {
                let missing = if answer.is_ok() { inbox.missing() } else { 0 };
                if missing > 0 {
                    let message = format!("an end of batch {id} with {missing} items unanswered");
                    let cause = Cause::Malformed { message: message.clone() };
                    let _ = tell.send(Err(Failed::new(cause, Executed::Maybe)));
                    return Err(message);
                }
                // Who gave up a moment ago is not there any more.
                let _ = tell.send(answer);
                Ok(())
            }
            Answer::Late => Ok(()),
            Answer::Unknown => Err(format!("an answer to call {id}, which is not under way")),
        }
    }

    /// Passes a part on.
    ///
    /// # Errors
    /// When it belongs to no call, or the call has no credit for it.
    pub(super) fn part(&self, id: u64, part: Reply) -> Result<(), String> {
        let mut state = self.state();
        if state.down {
            return Ok(());
        }
        match state.calls.part(id) {
            Answer::To(waiter) => waiter.inbox.part(part),
            Answer::Late => {}
            Answer::Unknown => {
                return Err(format!(
                    "a part for call {id}, which is not under way or has no credit"
                ));
            }
        }
        Ok(())
    }

    /// Passes an item's result on.
    ///
    /// # Errors
    /// When there is no such batch or item, or it has had its result.
    pub(super) fn item(
        &self,
        id: u64,
        n: usize,
        result: Result<Reply, Failed>,
    ) -> Result<(), String> {
        let state = self.state();
        if state.down {
            return Ok(());
        }
        let fits = match state.calls.item(id) {
            Answer::To(waiter) => waiter.inbox.item(n, result),
            Answer::Late => true,
            Answer::Unknown => false,
        };
        if fits {
            Ok(())
        } else {
            Err(format!("a result for item {n} of batch {id}, which has none to come"))
        }
    }

    /// The plugin is not stuck in a call. One that has just been answered needs no such sign.
    pub(super) fn progress(&self, id: u64) {
        if let Answer::To(waiter) = self.state().calls.sent(id) {
            waiter.inbox.progress();
        }
    }

    /// Whether a pong is to be queued, because none is.
    pub(super) fn pinged(&self) -> bool {
        !self.pong_queued.swap(true, Ordering::Relaxed)
    }

    /// The queued pong is on its way.
    pub(super) fn ponged(&self) {
        self.pong_queued.store(false, Ordering::Relaxed);
    }

    /// Fails all calls that the plugin has had; those it has not may go to the next process.
    pub(super) fn fail(&self, down: &Down) {
        let mut state = self.state();
        state.down = true;
        let waiting = state.calls.end();
        drop(state);
        for (waiter, sent) in waiting {
            if sent {
                let cause = down.cause(&self.limits, self.frames);
                let _ = waiter.answer.send(Err(Failed::new(cause, Executed::Maybe)));
            }
        }
    }
}

/// Gives a call up when its caller stops waiting, for whatever reason.
struct Waiting<'a> {
    process: &'a Process,
    id: u64,
}

impl Waiting<'_> {
    fn give_up(&self) -> GivenUp {
        let given_up = self.process.shared.state().calls.give_up(self.id, SystemClock.now());
        if given_up == GivenUp::Sent {
            self.process.shared.given_up.notify_one();
        }
        given_up
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.give_up() == GivenUp::Sent {
            // There is room for one a call; no receiver is no process.
            let _ = self.process.outgoing.try_send(Outgoing::Cancel(self.id));
        }
    }
}

impl Process {
    /// Sends a call and waits for its answer; gives credit as its caller takes parts.
    pub(super) async fn call(&self, call: &Call, deadline: Instant) -> Result<Reply, Unanswered> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = self.frame(id, call, deadline)?;
        let kind = match call.input {
            Input::One(_) => Kind::ONE,
            Input::Batch(_) => Kind::Batch,
        };
        let (tell, mut answer) = oneshot::channel();
        self.shared.open(id, Waiter { answer: tell, inbox: Arc::clone(&call.inbox) }, kind)?;
        let waiting = Waiting { process: self, id };
        // Fails only with the task gone, which then has ended the call.
        let _ = self.outgoing.try_send(Outgoing::Call(id, frame));
        loop {
            tokio::select! {
                biased;
                answered = timeout_at(deadline, &mut answer) => match answered {
                    Ok(answer) => return Ok(answer.map_err(|_| Unanswered::NotSent)??),
                    Err(_) => break,
                },
                parts = call.inbox.credit_due() => self.give_credit(id, parts),
            }
        }
        let executed = match waiting.give_up() {
            GivenUp::Unsent => Executed::No,
            GivenUp::Sent => Executed::Maybe,
            GivenUp::Answered => match answer.try_recv() {
                Ok(answer) => return Ok(answer?),
                Err(_) => Executed::Maybe,
            },
        };
        Err(Failed::new(Cause::Deadline { limit: call.timeout }, executed).into())
    }

    fn frame(&self, id: u64, call: &Call, deadline: Instant) -> Result<Frame, Failed> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let method = &call.method;
        let (message, tail) = match &call.input {
            Input::One(Item { params, payload }) => {
                (ToPlugin::Call { id, method, params, timeout_ms }, payload.clone())
            }
            Input::Batch(items) => wire::batch(id, method, items, timeout_ms),
        };
        let checked = encode(&message, tail).and_then(|frame| {
            self.shared.frames.check("the call", frame.size())?;
            Ok(frame)
        });
        checked.map_err(|cause| Failed::new(cause, Executed::No))
    }

    fn give_credit(&self, id: u64, parts: usize) {
        if self.shared.state().calls.give_credit(id, parts) {
            // There is room for it: a plugin with credit to come has been sent all before that.
            let _ = self.outgoing.try_send(Outgoing::Credit(id, parts));
        }
    }
}

pub(super) fn encode(message: &ToPlugin<'_>, tail: Bytes) -> Result<Frame, Cause> {
    message.frame(tail).map_err(|error| Cause::BadParams { message: error.to_string() })
}

/// The process, with its end as something to wait for. Dropping it kills the process and waits for
/// it.
pub(super) struct Child {
    pub(super) watched: Watched,
    pub(super) exit: watch::Receiver<Option<Exited>>,
}

impl Child {
    pub(super) fn handle(&self) -> Handle {
        self.watched.handle()
    }

    /// Waits until nothing of the process is left.
    pub(super) async fn exited(&mut self) -> Exited {
        match self.exit.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(exited)) => exited.clone(),
            _ => Exited { code: None, signal: None, stderr_tail: String::new() },
        }
    }

    pub(super) async fn exited_within(&mut self, wait: Duration) -> Option<Exited> {
        timeout(wait, self.exited()).await.ok()
    }

    pub(super) fn terminate(&self) {
        self.handle().signal(Signal::SIGTERM);
    }
}
