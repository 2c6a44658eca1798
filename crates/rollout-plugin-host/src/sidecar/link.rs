//! A sidecar's process and socket, for as long as they last: writes calls, reads answers, and ends
//! the process when it is told to or when the plugin breaks the protocol.

use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rollout_core::event::PluginExited;
use rollout_core::{Clock, SystemClock};
use tokio::io::{AsyncWriteExt, BufReader, BufWriter};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::frame::{Frame, FrameError};
use super::halves::{Reading, Writing};
use super::process::{Child, Down, Outgoing, Shared, encode};
use super::wire::{FromPlugin, ToPlugin};
use crate::call::{Failed, Reply};
use crate::error::{Cause, Executed, Exited};
use crate::event::HostEvent;

/// How long answers are read on after the process's end: another process may hold the socket open.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long the process's end is waited for after the socket's, so that the error says what it was.
/// A process that ends needs a moment, on a busy machine a long one; one that closes its socket and
/// stays is rare.
pub(super) const LAST_BREATH: Duration = Duration::from_secs(1);

/// What lasts as long as one process.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) child: Child,
    pub(super) halves: (Reading, Writing),
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    pub(super) queue: mpsc::Receiver<Outgoing>,
}

impl Link {
    /// The process's whole life; when this ends, nothing of it is left. Whether it answered a call.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) -> bool {
        let Self { shared, mut child, halves: (from, to), outgoing, queue } = self;
        let mut reading = pin!(read(&shared, from, &outgoing));
        let mut writing = pin!(write(&shared, queue, to));
        let down = tokio::select! {
            down = &mut reading => down,
            () = &mut writing => Down::HungUp,
            exited = child.exited() => Down::Exited(exited),
            () = unheeded(&shared) => Down::Deaf,
            // An error means that nobody can call any more.
            _ = stop.wait_for(|stop| *stop) => Down::Asked,
        };
        let down = match down {
            Down::HungUp => child.exited_within(LAST_BREATH).await.map_or(down, Down::Exited),
            Down::Exited(_) => {
                // Answers that it wrote before its end are still in the socket.
                let _ = timeout(LAST_WORDS, reading.as_mut()).await;
                down
            }
            down => down,
        };
        shared.fail(&down);
        let grace = shared.limits.shutdown_grace / 2;
        let expected = matches!(down, Down::Asked);
        let exited = match down {
            Down::Exited(exited) => exited,
            Down::Asked => {
                // There is room for it: it is sent once.
                let _ = outgoing.try_send(Outgoing::Shutdown);
                match asked(&mut child, grace, reading, writing).await {
                    Some(exited) => exited,
                    None => forced(&mut child, grace).await,
                }
            }
            Down::Deaf => {
                child.handle().kill();
                child.exited().await
            }
            _ => forced(&mut child, grace).await,
        };
        (shared.on_event)(HostEvent::Exited(PluginExited {
            name: shared.name.to_string(),
            code: exited.code,
            signal: exited.signal,
            stderr_tail: exited.stderr_tail,
            expected,
        }));
        shared.state().answered
    }
}

/// Waits until the plugin has gone on too long with a call that was given up.
async fn unheeded(shared: &Shared) {
    loop {
        let oldest = shared.state().calls.oldest_tombstone();
        let Some(since) = oldest else {
            shared.given_up.notified().await;
            continue;
        };
        let left = (since + shared.limits.cancel_grace).since(SystemClock.now());
        if left.is_zero() {
            return;
        }
        sleep(left).await;
    }
}

/// Lets the process end by itself, and reads on meanwhile so that it does not block on its last words.
async fn asked(
    child: &mut Child,
    grace: Duration,
    reading: Pin<&mut impl Future<Output = Down>>,
    writing: Pin<&mut impl Future<Output = ()>>,
) -> Option<Exited> {
    let traffic = async {
        tokio::join!(reading, writing);
        pending::<()>().await;
    };
    tokio::select! {
        exited = child.exited() => Some(exited),
        () = sleep(grace) => None,
        () = traffic => None,
    }
}

/// Ends the process against its will.
async fn forced(child: &mut Child, grace: Duration) -> Exited {
    child.terminate();
    if let Some(exited) = child.exited_within(grace).await {
        return exited;
    }
    child.handle().kill();
    child.exited().await
}

/// Writes what is queued; ends when the plugin reads no more.
async fn write(shared: &Shared, mut queue: mpsc::Receiver<Outgoing>, to: Writing) {
    let mut to = BufWriter::new(to);
    loop {
        let next = match queue.try_recv() {
            Ok(next) => next,
            Err(TryRecvError::Empty) => {
                if to.flush().await.is_err() {
                    return;
                }
                let Some(next) = queue.recv().await else { return };
                next
            }
            Err(TryRecvError::Disconnected) => return,
        };
        let frame = match next {
            Outgoing::Call(id, frame) => {
                if !shared.state().calls.send(id) {
                    continue;
                }
                Ok(frame)
            }
            Outgoing::Credit(id, n) => encode(&ToPlugin::Credit { id, n }, Bytes::new()),
            Outgoing::Pong => {
                shared.ponged();
                encode(&ToPlugin::Pong, Bytes::new())
            }
            Outgoing::Cancel(id) => encode(&ToPlugin::Cancel { id }, Bytes::new()),
            Outgoing::Shutdown => {
                let grace = shared.limits.shutdown_grace / 2;
                let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                encode(&ToPlugin::Shutdown { grace_ms }, Bytes::new())
            }
        };
        let Ok(frame) = frame else { continue };
        if frame.write(&mut to).await.is_err() {
            return;
        }
    }
}

/// Reads and passes on what the plugin sends; ends with the reason why it can't any more.
async fn read(shared: &Shared, from: Reading, outgoing: &mpsc::Sender<Outgoing>) -> Down {
    let mut from = BufReader::new(from);
    loop {
        let frame = match Frame::read(&mut from, shared.frames.bytes).await {
            Ok(Some(frame)) => frame,
            Ok(None) | Err(FrameError::Io(_)) => return Down::HungUp,
            Err(FrameError::TooLarge(got)) => return Down::TooLarge(got),
        };
        if let Err(message) = dispatch(shared, frame, outgoing) {
            return Down::Malformed(message);
        }
    }
}

fn dispatch(
    shared: &Shared,
    Frame { json, tail }: Frame,
    outgoing: &mpsc::Sender<Outgoing>,
) -> Result<(), String> {
    match FromPlugin::parse(&json)? {
        FromPlugin::Reply { id, result } => shared.answer(id, Ok(Reply { result, payload: tail })),
        FromPlugin::Error { id, error } => shared.answer(id, Err(failure(error, shared))),
        FromPlugin::Part { id, result } => shared.part(id, Reply { result, payload: tail }),
        FromPlugin::Item { id, n, result } => {
            let result = result.map(|result| Reply { result, payload: tail });
            shared.item(id, n, result.map_err(|error| failure(error, shared)))
        }
        FromPlugin::Progress { id } => {
            shared.progress(id);
            Ok(())
        }
        FromPlugin::Log(record) => {
            (shared.on_event)(record.event(&shared.name));
            Ok(())
        }
        FromPlugin::Ping => {
            if shared.pinged() {
                // There is room for it: one is queued at a time.
                let _ = outgoing.try_send(Outgoing::Pong);
            }
            Ok(())
        }
        FromPlugin::Pong => Ok(()),
        FromPlugin::Ready(_) | FromPlugin::Refuse { .. } => {
            Err("`ready` and `refuse` come once, as the first message".into())
        }
    }
}

fn failure(error: super::wire::Error, shared: &Shared) -> Failed {
    let super::wire::Error { code, message, traceback, got } = error;
    let (cause, executed) = match code.as_str() {
        "bad_params" => (Cause::BadParams { message }, Executed::Yes),
        "unknown_method" => (Cause::UnknownMethod { known: Vec::new() }, Executed::No),
        "cancelled" => (Cause::Cancelled { message }, Executed::Maybe),
        "too_large" => {
            (shared.frames.exceeded("the answer", got.unwrap_or_default()), Executed::Yes)
        }
        _ => (Cause::User { message, traceback }, Executed::Yes),
    };
    Failed::new(cause, executed)
}
