//! The work thread: feeds the ledger, records its effects and tells them once they are on disk.
//!
//! One transaction is under way at a time; what arrives meanwhile, from whichever worker, shares the
//! next. In memory the ledger is ahead of the disk, but nobody is told of what is not on it: a grant
//! goes out, and a commit is acknowledged, after the fsync. If that fails, the coordinator ends.

mod intake;
mod jobs;
mod tell;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rollout_core::event::Emit;
use rollout_core::{Clock, Incarnation, JobId, Mono, WorkerId};
use rollout_storage::{Priority, StorageError, Store};
use rollout_transport::work::{Committed, Failure, Final, Lease, WorkDown};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::blobs::Blobs;
use super::board::Board;
use super::handle::{Input, StreamId, View};
use super::ledger::Ledger;
use super::ledger::words::{Cause, Effect, Tally, Trouble};
use super::report;
use super::store::{self, AckRecord, JobRecord, LeaseRecord, Next, spans};
use super::tx::{After, Tx};
use crate::own_thread::Outcome;

/// Messages taken at once.
const BATCH: usize = 256;
/// Bytes of results that wait for the disk; with more, nothing is taken in and the workers wait.
const MAX_WAITING: usize = 16 << 20;
/// The longest nap.
const TICK: Duration = Duration::from_millis(50);
/// Lateness above which the thread was stopped or starved, which is nobody's fault.
const TOLERATED: Duration = Duration::from_millis(250);
/// How often a standing that changes without a commit is told.
const TELL: Duration = Duration::from_millis(200);

/// A worker's stream.
struct Stream {
    id: StreamId,
    epoch: u64,
    down: mpsc::Sender<WorkDown>,
    /// The jobs that it was told of.
    told: HashSet<JobId>,
}

/// A job beside the ledger.
struct JobState {
    record: JobRecord,
    next: Next,
    /// The newest commit on disk.
    durable: u64,
    /// What it has been through, as it was recorded last.
    tally: Tally,
    view: watch::Sender<View>,
}

/// The transaction that is under way.
struct Flying {
    outcome: oneshot::Receiver<Outcome>,
    after: Vec<After>,
    since: Mono,
}

/// The work thread's state.
pub(crate) struct Engine {
    pub(super) ledger: Ledger,
    pub(super) store: Arc<Store>,
    pub(super) term: u64,
    pub(super) blobs: Blobs,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) emit: Arc<dyn Emit>,
    pub(super) board: Arc<Board>,
    pub(super) inbox: mpsc::Receiver<Input>,
    streams: HashMap<WorkerId, Stream>,
    next_stream: u64,
    incarnations: HashMap<WorkerId, (u64, Incarnation)>,
    jobs: BTreeMap<JobId, JobState>,
    /// Jobs whose parameters are being written, as long as the claims are held.
    coming: HashMap<JobId, Weak<()>>,
    /// The newest outcomes of each worker that were taken in.
    seen: HashMap<WorkerId, AckRecord>,
    params: tell::Cache,
    tx: Tx,
    flying: Option<Flying>,
    /// All the time that the thread was stopped or starved.
    stalled: Duration,
    looked: Mono,
    told: Mono,
}

/// What the engine starts from.
pub(crate) struct Start {
    pub(crate) ledger: Ledger,
    pub(crate) store: Arc<Store>,
    pub(crate) term: u64,
    pub(crate) blobs: Blobs,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) emit: Arc<dyn Emit>,
    pub(crate) board: Arc<Board>,
    pub(crate) inbox: mpsc::Receiver<Input>,
    pub(crate) incarnations: HashMap<WorkerId, (u64, Incarnation)>,
    pub(crate) restored: super::store::Restored,
}

impl Engine {
    pub(crate) fn new(start: Start) -> Self {
        let Start { ledger, store, term, blobs, clock, emit, board, inbox, incarnations, restored } =
            start;
        let now = clock.now();
        let state = |(job, (record, next)): (JobId, (JobRecord, Next))| {
            let view = watch::Sender::new(View::default());
            let tally = restored.tallies.get(&job).copied().unwrap_or_default();
            (job, JobState { record, durable: next.seq, next, tally, view })
        };
        let jobs = restored.jobs.into_iter().map(state).collect();
        Self {
            ledger,
            store,
            term,
            blobs,
            clock,
            emit,
            board,
            inbox,
            streams: HashMap::new(),
            next_stream: 1,
            incarnations,
            jobs,
            coming: HashMap::new(),
            seen: restored.acks.into_iter().collect(),
            params: tell::Cache::default(),
            tx: Tx::default(),
            flying: None,
            stalled: Duration::ZERO,
            looked: now,
            told: now,
        }
    }

    /// Runs until it is stopped or the records fail; then everything taken in is on disk.
    pub(crate) async fn run(mut self, effects: Vec<Effect>) -> Outcome {
        self.carry_out(effects);
        self.tell_standings();
        let mut inputs = Vec::with_capacity(BATCH);
        loop {
            let now = self.look();
            let mut stopping = false;
            for input in inputs.drain(..) {
                match input {
                    Input::Stop => stopping = true,
                    other => self.take_in(now, other),
                }
            }
            self.advance(now)?;
            if stopping {
                return self.finish().await;
            }
            let room = self.tx.bytes < MAX_WAITING;
            let nap = self.ledger.next_wake().map_or(TICK, |wake| wake.since(now).min(TICK));
            tokio::select! {
                biased;
                outcome = landed(&mut self.flying, &self.store) => self.landed(outcome)?,
                () = self.board.changed() => {}
                received = self.inbox.recv_many(&mut inputs, BATCH), if room => if received == 0 {
                    return self.finish().await;
                },
                () = sleep(nap) => {}
            }
        }
    }

    /// The ledger's time: the clock's, less all that the thread was stopped or starved.
    fn look(&mut self) -> Mono {
        let now = self.clock.now();
        let passed = now.since(self.looked);
        let late = Some(passed.saturating_sub(TICK)).filter(|late| *late > TOLERATED);
        self.stalled += late.unwrap_or_default();
        // While the disk is slow, workers are not told and perhaps not listened to.
        if let Some(flying) = &self.flying {
            let slow = now.since(self.looked.max(flying.since + TOLERATED));
            self.ledger.credit(slow.min(passed.saturating_sub(late.unwrap_or_default())));
        }
        self.looked = now;
        now.before(self.stalled)
    }

    /// Everything that follows from the news, the time and the inputs.
    fn advance(&mut self, now: Mono) -> Outcome {
        let mut effects = Vec::new();
        self.read_board(now, &mut effects);
        self.ledger.expire(now, &mut effects);
        self.ledger.grant(now, &mut effects);
        self.carry_out(effects);
        if self.looked.since(self.told) > TELL {
            self.tell_standings();
        }
        self.send_off()
    }

    fn read_board(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        for (worker, news) in self.board.take() {
            if let Some(incarnation) = news.incarnation {
                self.incarnations.insert(worker, (news.epoch, incarnation));
            }
            match news.standing {
                Some(standing) => self.ledger.worker(now, worker, news.epoch, standing, effects),
                None => {
                    self.ledger.forget(worker, effects);
                    self.incarnations.remove(&worker);
                    self.seen.remove(&worker);
                    self.tx.rows.acks.insert(worker, None);
                }
            }
        }
        // A stream of an epoch that is over is ended: its worker's next one says more.
        self.streams.retain(|worker, stream| {
            let (ledger, down) = (&self.ledger, &stream.down);
            let current = ledger.speaks(*worker, stream.epoch);
            if !current {
                let detail = format!("epoch {} is over", stream.epoch);
                let _ = down.try_send(WorkDown::Refused { detail });
            }
            current
        });
    }

    /// Records the ledger's effects in the transaction that is being gathered.
    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Granted(grant) => {
                    let (worker, epoch) = (grant.worker, grant.epoch);
                    let (attempt, first, count) = (grant.attempt, grant.first, grant.count);
                    let record = LeaseRecord::Granted { worker, epoch, attempt, first, count };
                    self.log_lease(grant.job, record);
                    let stream = self.streams.get(&worker).map(|stream| stream.id);
                    self.tx.after.push(After::Grant(stream, grant));
                }
                Effect::Released { job, worker, leases, cause } => {
                    let spans = spans(leases.iter().map(|(item, _)| *item));
                    self.log_lease(job, LeaseRecord::Released { worker, cause, spans });
                    let event = report::redispatched(job, cause, &leases);
                    self.tx.after.push(After::Event(Some(worker), event));
                    if cause != Cause::Returned {
                        let lease = |(item, attempt)| Lease { item, attempt };
                        let leases = leases.into_iter().map(lease).collect();
                        self.tx.after.push(After::Revoke { worker, job, leases });
                    }
                }
                Effect::Troubled { job, item, trouble } => {
                    self.tx.rows.troubles.insert((job, item), Some(trouble));
                }
                Effect::Settled { job, worker, epoch } => {
                    self.log_lease(job, LeaseRecord::Settled { worker, epoch });
                }
                Effect::Dead { job, item, worker, cause, trouble } => {
                    self.bury(job, item, Some(worker), trouble, last_straw(worker, cause));
                }
            }
        }
    }

    /// The item is a dead letter.
    fn bury(
        &mut self,
        job: JobId,
        item: u64,
        worker: Option<WorkerId>,
        trouble: Trouble,
        failure: Failure,
    ) {
        let event = report::dead(job, item, trouble, &failure);
        self.tx.after.push(After::Event(worker, event));
        self.tx.rows.troubles.insert((job, item), None);
        let Trouble { failures, losses, .. } = trouble;
        self.tx.end(job, Committed { item, end: Final::Dead { failure, failures, losses } });
    }

    fn log_lease(&mut self, job: JobId, record: LeaseRecord) {
        if let Some(state) = self.jobs.get_mut(&job) {
            self.tx.rows.leases.push((job, state.next.take_lease(), record));
        }
    }

    /// Lets long logs of leases begin anew. What the ledger has come to is then all on its way.
    fn shorten_logs(&mut self, tx: &mut Tx) {
        for (job, state) in self.jobs.iter_mut().filter(|(_, state)| state.next.is_long()) {
            if let Some(snapshot) = self.ledger.snapshot(*job) {
                tx.begin_log(*job, &mut state.next, store::beginning(snapshot));
            }
        }
    }

    /// Records what jobs have been through, together with what has brought it about: all that the
    /// ledger has come to is on its way.
    fn keep_tallies(&mut self, tx: &mut Tx) {
        for (job, state) in &mut self.jobs {
            if let Some(tally) = self.ledger.tally(*job).filter(|tally| *tally != state.tally) {
                state.tally = tally;
                tx.rows.tallies.push((*job, tally));
            }
        }
    }

    /// Sends the gathered transaction off, unless one is under way.
    fn send_off(&mut self) -> Outcome {
        if self.flying.is_some() {
            return Ok(());
        }
        let mut tx = std::mem::take(&mut self.tx);
        self.shorten_logs(&mut tx);
        self.keep_tallies(&mut tx);
        tx.seal(|job| {
            let next = &mut self.jobs.get_mut(&job)?.next;
            next.seq += 1;
            Some(next.seq)
        });
        if tx.rows.is_empty() {
            return self.tell(tx.after);
        }
        let (done, outcome) = oneshot::channel();
        let (rows, term) = (tx.rows, self.term);
        self.store.submit(
            Priority::Control,
            move |batch| rows.write(batch, term),
            move |result| {
                // Whoever waited has ended with an earlier failure.
                let _ = done.send(result);
            },
        );
        self.flying = Some(Flying { outcome, after: tx.after, since: self.clock.now() });
        Ok(())
    }

    /// The transaction that was under way is on disk.
    fn landed(&mut self, outcome: Outcome) -> Outcome {
        outcome?;
        let Some(Flying { after, .. }) = self.flying.take() else { return Ok(()) };
        for state in self.jobs.values_mut() {
            state.durable = state.next.seq;
        }
        self.tell(after)?;
        self.tell_standings();
        Ok(())
    }

    /// Writes what was taken in, and says goodbye.
    async fn finish(&mut self) -> Outcome {
        self.inbox.close();
        loop {
            self.send_off()?;
            if self.flying.is_none() {
                break;
            }
            let outcome = landed(&mut self.flying, &self.store).await;
            self.landed(outcome)?;
        }
        for stream in self.streams.values() {
            let _ = stream.down.try_send(WorkDown::Stopping);
        }
        Ok(())
    }
}

/// Waits for the transaction that is under way, forever if there is none.
async fn landed(flying: &mut Option<Flying>, store: &Store) -> Outcome {
    match flying {
        Some(flying) => (&mut flying.outcome).await.unwrap_or_else(|_| {
            // The writer ended without an answer: a panic, which is on standard error.
            Err(Arc::new(StorageError::Closed { path: store.path().to_owned() }))
        }),
        None => std::future::pending().await,
    }
}

/// The failure of an item about which no worker says anything.
fn last_straw(worker: WorkerId, cause: Cause) -> Failure {
    let (code, message) = match cause {
        Cause::NoProgress => ("no_progress", format!("worker {worker} reported no progress")),
        // Of an item that was lost too often, and that its last worker has not finished either.
        Cause::Suspected | Cause::Returned | Cause::Tried => {
            ("worker_lost", format!("workers were lost while they ran it; {worker} had it last"))
        }
        Cause::Failed | Cause::Superseded => {
            ("worker_lost", format!("worker {worker} was lost while it ran: {}", cause.word()))
        }
    };
    Failure { code: code.into(), message, traceback: None, stderr_tail: None }
}
