//! Large results on their way into files of their own, which the coordinator has before it hears of
//! them.

use bytes::Bytes;
use rollout_transport::work::{End, Failure};
use rollout_transport::{CallError, Remote};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::desk::{Desk, Large};

/// Uploads at the same time.
const AT_ONCE: usize = 4;

/// The uploads under way. Dropped, they are given up.
#[derive(Debug, Default)]
pub(super) struct Uploads(JoinSet<Ended>);

/// What came of one.
pub(super) enum Ended {
    Tried(Large, Result<String, CallError>),
    /// Its task failed: a defect of rollout.
    Panicked,
}

impl Uploads {
    /// Begins those that can be begun.
    pub(super) fn begin(&mut self, desk: &mut Desk, remote: Option<&Remote>) {
        let Some(remote) = remote else { return };
        while self.0.len() < AT_ONCE
            && let Some(large) = desk.next_large()
        {
            self.0.spawn(upload(remote.clone(), large));
        }
    }

    /// Waits for one to end; forever while there is none.
    pub(super) async fn next(&mut self) -> Ended {
        match self.0.join_next().await {
            Some(ended) => ended.unwrap_or(Ended::Panicked),
            None => std::future::pending().await,
        }
    }

    /// Takes in what came of one; whether the connection is of no use any more.
    pub(super) fn ended(&mut self, desk: &mut Desk, ended: Ended) -> bool {
        let Ended::Tried(large, outcome) = ended else { return false };
        let bytes = large.result.get().len();
        let failure = match outcome {
            Ok(sha256) => {
                desk.uploaded(large.job, large.lease, bytes, Desk::blob(sha256, bytes));
                return false;
            }
            Err(CallError::Refused { status, detail }) if (400..500).contains(&status) => detail,
            Err(error) => {
                tracing::warn!("a large result was not uploaded and is tried again: {error}");
                desk.not_uploaded(large);
                return true;
            }
        };
        let message = format!("the coordinator refused the result's {bytes} bytes: {failure}");
        let code = "result_refused".into();
        let failure = Failure { code, message, traceback: None, stderr_tail: None };
        desk.uploaded(large.job, large.lease, bytes, End::Failed(failure));
        false
    }
}

async fn upload(remote: Remote, large: Large) -> Ended {
    let bytes = Bytes::copy_from_slice(large.result.get().as_bytes());
    let hashed = bytes.clone();
    // Off the thread that everything else runs on.
    let Ok(sha256) = tokio::task::spawn_blocking(move || hex(&hashed)).await else {
        return Ended::Panicked;
    };
    let outcome = remote.put_blob(&sha256, bytes).await;
    Ended::Tried(large, outcome.map(|()| sha256))
}

/// The name of a blob.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
