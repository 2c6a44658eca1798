//! Sidecars: the caller's side, which hands calls to the task that owns the process and its socket.

mod calls;
mod frame;
mod link;
mod python;
mod socket;
mod start;
mod wire;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rollout_process::{Handle, Signal, Watched};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::{Cause, Executed, Exited};
use crate::manifest::Limits;
use crate::plugin::{Call, Failed, OnEvent, Reply, check_size};

use self::calls::{Answer, Calls, GivenUp};
use self::frame::Frame;
pub(crate) use self::socket::private_dir;
use self::wire::ToPlugin;

/// A sidecar that has become ready.
pub(crate) struct Process {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Outgoing>,
    stop: watch::Sender<bool>,
    /// True once nothing of the process is left.
    ended: watch::Receiver<bool>,
    /// Holds the task that owns process and socket; dropped, it kills the process.
    _task: JoinSet<()>,
}

/// A message on its way to the socket.
enum Outgoing {
    /// Sent only if it is still wanted when its turn comes.
    Call(u64, Frame),
    Cancel(u64),
    Shutdown,
}

/// What callers and the task share.
struct Shared {
    name: Arc<str>,
    limits: Limits,
    on_event: OnEvent,
    next_id: AtomicU64,
    state: Mutex<State>,
}

struct State {
    calls: Calls<oneshot::Sender<Result<Reply, Failed>>>,
    /// Why the plugin answers no more, once it does not.
    down: Option<Down>,
}

/// Why a sidecar answers no more.
#[derive(Debug, Clone)]
enum Down {
    /// The worker asked for it.
    Asked,
    HungUp,
    Exited(Exited),
    Malformed(String),
    TooLarge(u64),
}

impl Down {
    fn cause(&self, limits: &Limits) -> Cause {
        match self.clone() {
            Self::Asked => Cause::Closed { message: "it was shut down" },
            Self::HungUp => Cause::Closed { message: "it closed its socket, and was stopped" },
            Self::Exited(exited) => {
                Cause::Crashed { message: format!("it {exited}"), exited: Some(exited) }
            }
            Self::Malformed(message) => Cause::Malformed { message },
            Self::TooLarge(got) => too_large_answer(got, limits),
        }
    }
}

fn too_large_answer(got: u64, limits: &Limits) -> Cause {
    let limit = limits.max_frame;
    Cause::TooLarge { what: "the answer", limit, got, key: "limits.max_frame" }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, id: u64, waiter: oneshot::Sender<Result<Reply, Failed>>) -> Result<(), Cause> {
        let mut state = self.state();
        if let Some(down) = &state.down {
            return Err(down.cause(&self.limits));
        }
        if state.calls.open(id, waiter) {
            Ok(())
        } else {
            Err(Cause::Overloaded { limit: state.calls.limit() })
        }
    }

    /// Passes an answer on; false if no call was waiting for one.
    fn answer(&self, id: u64, answer: Result<Reply, Failed>) -> bool {
        let mut state = self.state();
        if state.down.is_some() {
            return true;
        }
        let whom = state.calls.answer(id);
        drop(state);
        match whom {
            Answer::To(waiter) => {
                // Who gave up a moment ago is not there any more.
                let _ = waiter.send(answer);
                true
            }
            Answer::Late => true,
            Answer::Unknown => false,
        }
    }

    /// Fails all calls under way and all to come.
    fn fail(&self, down: &Down) {
        let mut state = self.state();
        state.down = Some(down.clone());
        let waiting = state.calls.end();
        drop(state);
        for (waiter, sent) in waiting {
            let executed = if sent { Executed::Maybe } else { Executed::No };
            let _ = waiter.send(Err(Failed::new(down.cause(&self.limits), executed)));
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
        self.process.shared.state().calls.give_up(self.id)
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
    /// Sends a call and waits for its answer.
    pub(crate) async fn call(&self, call: Call) -> Result<Reply, Failed> {
        let Call { method, params, payload, timeout: limit } = call;
        let no = |cause| Failed::new(cause, Executed::No);
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let message = ToPlugin::Call { id, method: &method, params: &params, timeout_ms };
        let frame = encode(&message, payload).map_err(no)?;
        check_size("the call", frame.size(), &self.shared.limits).map_err(no)?;
        let (waiter, mut answer) = oneshot::channel();
        self.shared.open(id, waiter).map_err(no)?;
        let waiting = Waiting { process: self, id };
        // Fails only with the task gone, which then has failed the call.
        let _ = self.outgoing.try_send(Outgoing::Call(id, frame));
        let closed = || Failed::new(Down::HungUp.cause(&self.shared.limits), Executed::Maybe);
        if let Ok(answer) = timeout(limit, &mut answer).await {
            return answer.unwrap_or_else(|_| Err(closed()));
        }
        let executed = match waiting.give_up() {
            GivenUp::Unsent => Executed::No,
            GivenUp::Sent => Executed::Maybe,
            GivenUp::Answered => match answer.try_recv() {
                Ok(answer) => return answer,
                Err(_) => Executed::Maybe,
            },
        };
        Err(Failed::new(Cause::Deadline { limit }, executed))
    }

    /// Ends the process and waits until nothing of it is left.
    pub(crate) async fn shutdown(&self) -> Result<(), Cause> {
        self.stop.send_replace(true);
        let mut ended = self.ended.clone();
        // An error means that the task is gone, and the process with it.
        let _ = ended.wait_for(|ended| *ended).await;
        Ok(())
    }
}

fn encode(message: &ToPlugin<'_>, tail: Bytes) -> Result<Frame, Cause> {
    message.frame(tail).map_err(|error| Cause::BadParams { message: error.to_string() })
}

/// The process, with its end as something to wait for. Dropping it kills the process and waits for
/// it.
struct Child {
    watched: Watched,
    exit: watch::Receiver<Option<Exited>>,
}

impl Child {
    fn handle(&self) -> Handle {
        self.watched.handle()
    }

    /// Waits until nothing of the process is left.
    async fn exited(&mut self) -> Exited {
        match self.exit.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(exited)) => exited.clone(),
            _ => Exited { code: None, signal: None, stderr_tail: String::new() },
        }
    }

    async fn exited_within(&mut self, wait: std::time::Duration) -> Option<Exited> {
        timeout(wait, self.exited()).await.ok()
    }

    fn terminate(&self) {
        self.handle().signal(Signal::SIGTERM);
    }
}
