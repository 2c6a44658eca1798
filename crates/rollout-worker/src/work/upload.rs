//! Large results on their way into files of their own, which the coordinator has before it hears of
//! them.

use std::collections::HashMap;

use bytes::Bytes;
use rollout_core::hex;
use rollout_transport::work::{End, Failure};
use rollout_transport::{CallError, Remote};
use sha2::{Digest, Sha256};
use tokio::task::{Id, JoinError, JoinSet};

use super::desk::{Desk, Large};

/// Uploads at the same time.
const AT_ONCE: usize = 4;

/// The uploads under way. Dropped, they are given up.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    tasks: JoinSet<Tried>,
    /// What each of them uploads, whatever becomes of the task.
    sent: HashMap<Id, Sent>,
}

/// A large result on its way.
#[derive(Debug)]
struct Sent {
    large: Large,
    /// The stream whose connection it takes.
    stream: u64,
}

/// The blob's name, once the coordinator has it.
type Tried = Result<String, CallError>;

/// What came of one.
pub(super) type Ended = Result<(Id, Tried), JoinError>;

impl Uploads {
    /// Begins those that can be begun, on the connection of a stream.
    pub(super) fn begin(&mut self, desk: &mut Desk, remote: Option<(&Remote, u64)>) {
        let Some((remote, stream)) = remote else { return };
        while self.tasks.len() < AT_ONCE
            && let Some(large) = desk.next_large()
        {
            let bytes = Bytes::copy_from_slice(large.result.get().as_bytes());
            let task = self.tasks.spawn(upload(remote.clone(), bytes));
            self.sent.insert(task.id(), Sent { large, stream });
        }
    }

    /// Waits for one to end; forever while there is none.
    pub(super) async fn next(&mut self) -> Ended {
        match self.tasks.join_next_with_id().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Takes in what came of one; the stream whose connection is of no use any more, if it is.
    pub(super) fn ended(&mut self, desk: &mut Desk, ended: Ended) -> Option<u64> {
        let (id, tried) = match ended {
            Ok((id, tried)) => (id, Ok(tried)),
            Err(error) => (error.id(), Err(error)),
        };
        let Sent { large, stream } = self.sent.remove(&id)?;
        let bytes = large.result.get().len();
        let end = match tried {
            Ok(Ok(sha256)) => Desk::blob(sha256, bytes),
            Ok(Err(CallError::Refused { status, detail })) if is_final(status) => {
                let why = format!("the coordinator refused the result's {bytes} bytes: {detail}");
                failed("result_refused", why)
            }
            Ok(Err(error)) => {
                tracing::warn!("a large result was not uploaded and is tried again: {error}");
                desk.not_uploaded(large);
                return Some(stream);
            }
            Err(error) => {
                tracing::error!("an upload's task failed: {error}");
                let why = "the worker failed unexpectedly; its panic is on standard error";
                failed("internal", why.into())
            }
        };
        desk.uploaded(large.job, large.lease, bytes, end);
        None
    }
}

/// Whether the coordinator would say so again. Who is not its worker at the moment (403) or asks too
/// much at once (429) is told of itself, not of the result.
fn is_final(status: u16) -> bool {
    (400..500).contains(&status) && ![403, 429].contains(&status)
}

fn failed(code: &str, message: String) -> End {
    End::Failed(Failure { code: code.into(), message, traceback: None, stderr_tail: None })
}

async fn upload(remote: Remote, bytes: Bytes) -> Tried {
    let hashed = bytes.clone();
    // Off the thread that everything else runs on.
    let hashing = tokio::task::spawn_blocking(move || name(&hashed));
    let sha256 = match hashing.await {
        Ok(sha256) => sha256,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only a runtime that ends gives it up, and this task with it.
        Err(_) => std::future::pending().await,
    };
    remote.put_blob(&sha256, bytes).await.map(|()| sha256)
}

/// The name of a blob.
fn name(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
