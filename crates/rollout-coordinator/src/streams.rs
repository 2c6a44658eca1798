//! A worker's stream of work: what it says goes to the ledger, in order; what it is told goes out.

use std::time::Duration;

use rollout_core::chain;
use rollout_transport::work::{WorkDown, WorkUp};
use rollout_transport::{LineSink, LineStream, RejectReason, WireError, WorkSession};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::mailbox::Rejection;
use crate::work::{Hello, Work, WorkSink};

/// The most plugins of a worker, and the longest name of one, in bytes.
const MAX_PLUGINS: usize = 64;
const MAX_NAME: usize = 256;
/// The most outcomes of one line, and the most items or leases. Both are more than a worker puts in one.
const MAX_OUTCOMES: usize = 8_192;
const MAX_LISTED: usize = 100_000;

/// Leads the stream until either side ends it. The ledger takes a line when it has room, and no more
/// is read meanwhile: a worker that says too much waits.
///
/// # Errors
/// Why the worker was refused, which it has been told, for the event stream.
pub(crate) async fn lead(
    work: &Work,
    mut session: WorkSession,
    patience: Duration,
) -> Result<(), Rejection> {
    let led = match hello(&mut session, patience).await {
        Ok(Some(hello)) => serve(work, hello, &mut session).await,
        Ok(None) => Ok(()),
        Err(rejection) => Err(rejection),
    };
    if let Err(Rejection { detail, .. }) = &led {
        // One that does not read is cut off without a word.
        let _ = session.down.try_send(WorkDown::Refused { detail: detail.clone() });
    }
    led
}

/// What the stream begins with, if it does not end before, and if it may begin with that.
async fn hello(session: &mut WorkSession, patience: Duration) -> Result<Option<Hello>, Rejection> {
    let refuse = |reason, detail: String| Err(Rejection::new(reason, detail));
    let first = timeout(patience, session.up.next());
    let hello = match session.closing.run_until_cancelled(first).await {
        None => {
            // It hears it by the connection's end otherwise.
            let _ = session.down.try_send(WorkDown::Stopping);
            return Ok(None);
        }
        Some(Ok(Ok(Some(WorkUp::Hello { worker_id, incarnation, epoch, plugins })))) => {
            Hello { worker_id, incarnation, epoch, plugins }
        }
        Some(Ok(Ok(Some(_)))) => {
            return refuse(RejectReason::Protocol, "the first line is not a hello".to_owned());
        }
        Some(Ok(Ok(None) | Err(WireError::Lost(_) | WireError::Truncated))) => return Ok(None),
        Some(Ok(Err(error))) => return refuse(RejectReason::Protocol, chain(&error)),
        Some(Err(_)) => {
            return refuse(RejectReason::Timeout, format!("no hello within {patience:?}"));
        }
    };
    let worker = session.worker;
    if hello.worker_id != worker {
        let detail = format!("the certificate is worker {worker}'s, not {}'s", hello.worker_id);
        return refuse(RejectReason::Identity, detail);
    }
    if hello.plugins.len() > MAX_PLUGINS || hello.plugins.iter().any(|name| name.len() > MAX_NAME) {
        let detail = format!("more than {MAX_PLUGINS} plugins, or a name of over {MAX_NAME} bytes");
        return refuse(RejectReason::Protocol, detail);
    }
    Ok(Some(hello))
}

/// Takes the stream to the ledger, and back what the worker is to be told.
async fn serve(work: &Work, hello: Hello, session: &mut WorkSession) -> Result<(), Rejection> {
    let WorkSession { up, down, .. } = session;
    let (sink, told) = match work.open(hello).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(detail)) => {
            // Its epoch is over, as a worker's may be: nothing that somebody must look at.
            let _ = down.try_send(WorkDown::Refused { detail });
            return Ok(());
        }
        Err(_) => {
            let _ = down.try_send(WorkDown::Stopping);
            return Ok(());
        }
    };
    let violation = tokio::select! {
        violation = hear(up, &sink) => violation,
        () = tell(told, down) => None,
    };
    sink.close().await;
    violation.map_or(Ok(()), |detail| Err(Rejection::new(RejectReason::Protocol, detail)))
}

/// Hands on what the worker says; how it broke the protocol, if it did.
async fn hear(up: &mut LineStream<WorkUp>, sink: &WorkSink) -> Option<String> {
    loop {
        match up.next().await {
            Ok(Some(line)) => match excess(&line) {
                None => sink.send(line).await.ok()?,
                excess => return excess,
            },
            Ok(None) => return None,
            Err(error) => return error.is_violation().then(|| chain(&error)),
        }
    }
}

/// What the line has too much of.
fn excess(line: &WorkUp) -> Option<String> {
    let (found, limit, of) = match line {
        WorkUp::Done { outcomes, .. } => (outcomes.len(), MAX_OUTCOMES, "outcomes"),
        WorkUp::Progress { items, .. } => (items.len(), MAX_LISTED, "items"),
        WorkUp::Return { leases, .. } => (leases.len(), MAX_LISTED, "leases"),
        WorkUp::Hello { .. } | WorkUp::Want { .. } => return None,
    };
    (found > limit).then(|| format!("a line of {found} {of}, where {limit} are allowed"))
}

/// Hands on what it is told, until the ledger has no more for it.
async fn tell(mut told: mpsc::Receiver<WorkDown>, down: &LineSink<WorkDown>) {
    while let Some(line) = told.recv().await {
        if down.send(line).await.is_err() {
            return;
        }
    }
}
