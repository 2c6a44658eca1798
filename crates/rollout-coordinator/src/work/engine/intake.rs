//! What workers say.

use std::collections::VecDeque;

use rollout_core::job::MAX_INLINE_RESULT;
use rollout_core::{JobId, Mono, WorkerId};
use rollout_transport::work::{
    Committed, End, Failure, Final, Outcome as Said, Stale, WorkDown, WorkUp,
};
use tokio::sync::mpsc;

use super::{Engine, Stream};
use crate::work::handle::{Hello, Input, StreamId};
use crate::work::ledger::words::{Accepted, Cause, What};
use crate::work::report;
use crate::work::store::{AckRecord, LeaseRecord, spans};
use crate::work::tx::After;

/// The messages of a worker of which it is remembered which outcomes were refused. One has no more on
/// their way.
const REMEMBERED: u64 = 32;

/// The longest text of a failure that is kept, in bytes.
const MAX_TEXT: usize = 16 << 10;

impl Engine {
    pub(super) fn take_in(&mut self, now: Mono, input: Input) {
        match input {
            Input::Hello(hello, down, reply) => {
                let mut effects = Vec::new();
                // The session that registered its epoch is ahead of it.
                self.read_board(now, &mut effects);
                self.carry_out(effects);
                let _ = reply.send(self.open(hello, down));
            }
            Input::Up(worker, stream, message) => self.up(now, worker, stream, message),
            Input::Closed(worker, stream) => self.closed(worker, stream),
            other => self.take_request(other),
        }
    }

    fn open(&mut self, hello: Hello, down: mpsc::Sender<WorkDown>) -> Result<StreamId, String> {
        let Hello { worker_id, incarnation, epoch, plugins } = hello;
        if self.incarnations.get(&worker_id) != Some(&(epoch, incarnation)) {
            return Err(format!("epoch {epoch} of this process is not current"));
        }
        let held = self
            .ledger
            .stream_up(worker_id, epoch, plugins)
            .map_err(|_| format!("epoch {epoch} is over"))?;
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        let told = std::collections::HashSet::new();
        self.streams.insert(worker_id, Stream { id, epoch, down, told });
        // Behind the transaction that may still hold some of them.
        self.tx.after.extend(held.into_iter().map(|grant| After::Grant(Some(id), grant)));
        Ok(id)
    }

    fn closed(&mut self, worker: WorkerId, stream: StreamId) {
        if self.streams.get(&worker).is_some_and(|current| current.id == stream) {
            self.streams.remove(&worker);
            self.ledger.stream_down(worker);
        }
    }

    /// A worker's stream is given up: the next one is told everything again.
    pub(super) fn hang_up(&mut self, worker: WorkerId) {
        self.streams.remove(&worker);
        self.ledger.stream_down(worker);
    }

    fn up(&mut self, now: Mono, worker: WorkerId, stream: StreamId, message: WorkUp) {
        let current = self.streams.get(&worker).filter(|current| current.id == stream);
        let Some(epoch) = current.map(|current| current.epoch) else { return };
        match message {
            WorkUp::Want { items } => self.ledger.want(worker, epoch, items),
            WorkUp::Progress { job, items } => {
                self.ledger.progress(now, worker, epoch, job, &items);
            }
            WorkUp::Return { job, leases } => {
                let mut effects = Vec::new();
                self.ledger.give_back(worker, epoch, job, &leases, &mut effects);
                self.carry_out(effects);
            }
            WorkUp::Done { seq, job, outcomes } => {
                let stale = match self.seen_before(worker, epoch, seq) {
                    Some(stale) => stale,
                    None => {
                        let stale = self.outcomes(now, (worker, epoch), job, outcomes);
                        self.remember(worker, epoch, seq, &stale);
                        stale
                    }
                };
                self.tx.after.push(After::Ack { worker, stream, seq, stale });
            }
            // A second one on the same stream: its own reader refuses that.
            WorkUp::Hello { .. } => {}
        }
    }

    /// What was refused of these outcomes when they were taken in before, on an earlier stream.
    fn seen_before(&self, worker: WorkerId, epoch: u64, seq: u64) -> Option<Vec<Stale>> {
        let seen = self.seen.get(&worker).filter(|s| s.epoch == epoch && seq <= s.seq)?;
        let refused = seen.refused.iter().find(|(of, _)| *of == seq);
        Some(refused.map(|(_, stale)| stale.clone()).unwrap_or_default())
    }

    fn remember(&mut self, worker: WorkerId, epoch: u64, seq: u64, stale: &[Stale]) {
        let new = || AckRecord { epoch, seq, refused: VecDeque::new() };
        let seen = self.seen.entry(worker).or_insert_with(new);
        if seen.epoch != epoch {
            *seen = new();
        }
        note(seen, seq, stale);
        self.tx.rows.acks.insert(worker, Some(seen.clone()));
    }

    fn outcomes(
        &mut self,
        now: Mono,
        (worker, epoch): (WorkerId, u64),
        job: JobId,
        outcomes: Vec<Said>,
    ) -> Vec<Stale> {
        let (mut stale, mut tried, mut unsaid) = (Vec::new(), Vec::new(), Vec::new());
        for Said { lease, end } in outcomes {
            let Some((what, end)) = self.judge(end) else {
                unsaid.push(lease);
                continue;
            };
            match self.ledger.outcome(now, worker, epoch, job, lease, what) {
                Err(token) => stale.push(Stale { lease, token }),
                Ok(Accepted::Again(trouble)) => {
                    tried.push(lease.item);
                    self.tx.rows.troubles.insert((job, lease.item), Some(trouble));
                }
                Ok(accepted) => self.end(worker, job, (lease.item, lease.attempt), accepted, end),
            }
        }
        if !tried.is_empty() {
            let (cause, spans) = (Cause::Tried, spans(tried));
            let record = LeaseRecord::Released { worker, cause, spans };
            self.log_lease(job, record);
        }
        if !unsaid.is_empty() {
            let mut effects = Vec::new();
            self.ledger.give_back(worker, epoch, job, &unsaid, &mut effects);
            self.carry_out(effects);
        }
        let events = report::rejected(job, epoch, &stale);
        self.tx.after.extend(events.into_iter().map(|event| After::Event(Some(worker), event)));
        stale
    }

    fn end(
        &mut self,
        worker: WorkerId,
        job: JobId,
        (item, attempt): (u64, u32),
        accepted: Accepted,
        end: Ended,
    ) {
        match (accepted, end) {
            (Accepted::Dead(trouble), Ended::Failure(failure)) => {
                self.bury(job, item, Some(worker), trouble, failure);
            }
            (_, Ended::Final(end)) => {
                if attempt > 1 {
                    self.tx.rows.troubles.insert((job, item), None);
                }
                self.tx.end(job, Committed { item, end });
            }
            // The ledger makes a dead letter of a failure alone, and done of a result alone.
            (_, Ended::Failure(_)) => {}
        }
    }

    /// What an outcome counts as. A large result that was not uploaded is none, and neither is one that
    /// should have been; one whose bytes have gone since is as if it had never been said.
    fn judge(&self, end: End) -> Option<(What, Ended)> {
        Some(match end {
            End::Result(result) if result.get().len() > MAX_INLINE_RESULT => {
                let message = format!(
                    "a result of {} bytes, and more than {MAX_INLINE_RESULT} are to be uploaded",
                    result.get().len()
                );
                let failure = Failure {
                    code: "result_too_large".into(),
                    message,
                    traceback: None,
                    stderr_tail: None,
                };
                (What::Failed, Ended::Failure(failure))
            }
            End::Result(result) => (What::Result, Ended::Final(Final::Result(result))),
            End::Blob(blob) if self.blobs.has(&blob.sha256, blob.bytes) => {
                (What::Result, Ended::Final(Final::Blob(blob)))
            }
            End::Blob(_) => return None,
            End::Failed(failure) => (What::Failed, Ended::Failure(clipped(failure))),
            End::Lost { failure, alone } => {
                (What::Lost { alone }, Ended::Failure(clipped(failure)))
            }
        })
    }
}

/// Remembers the newest message of a worker, and forgets what it will not say again.
fn note(seen: &mut AckRecord, seq: u64, stale: &[Stale]) {
    seen.seq = seq;
    seen.refused.retain(|(of, _)| of.saturating_add(REMEMBERED) > seq);
    if !stale.is_empty() {
        seen.refused.push_back((seq, stale.to_vec()));
    }
}

/// The failure, no text of it longer than [`MAX_TEXT`]: what was raised is said first, and what was
/// written before the end last.
fn clipped(mut failure: Failure) -> Failure {
    for text in [&mut failure.code, &mut failure.message] {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
    }
    for text in [&mut failure.traceback, &mut failure.stderr_tail].into_iter().flatten() {
        let cut = text.ceil_char_boundary(text.len().saturating_sub(MAX_TEXT));
        text.drain(..cut);
    }
    failure
}

/// The payload of an outcome.
enum Ended {
    Final(Final),
    Failure(Failure),
}

#[cfg(test)]
mod tests {
    use rollout_transport::work::{Lease, Token};

    use super::*;

    #[test]
    fn what_was_refused_is_remembered_as_long_as_it_may_be_said_again() {
        let stale = [Stale { lease: Lease { item: 1, attempt: 1 }, token: Token::State }];
        let mut seen = AckRecord { epoch: 1, seq: 0, refused: VecDeque::new() };
        for seq in 1..=100 {
            note(&mut seen, seq, &stale);
        }
        assert!(seen.refused.iter().map(|(of, _)| *of).eq(69..=100));
        (101..131).for_each(|seq| note(&mut seen, seq, &[]));
        assert!(seen.refused.iter().map(|(of, _)| *of).eq(99..=100));
        note(&mut seen, 132, &[]);
        assert!(seen.refused.is_empty());
    }
}
