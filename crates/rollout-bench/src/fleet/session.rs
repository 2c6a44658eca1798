//! One worker's session, as `rollout worker run` leads it: without plugins, a store and a fence.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rollout_core::{Attempts, Clock, Incarnation, Mono, SystemClock};
use rollout_transport::wire::Timing;
use rollout_transport::{ConnectError, Down, Link, Patience, Up};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::crew::Member;
use super::load::{PROBE, Shared, now};

/// How long a registration may take, as a worker has it.
const REGISTRATION: Duration = Duration::from_secs(5);

pub(super) struct Session {
    shared: Arc<Shared>,
    member: Member,
    incarnation: Incarnation,
    epoch: Option<u64>,
    interval: Duration,
    /// An instant at which it beats.
    phase: Instant,
    probes: bool,
    beat: u64,
    /// What is not acknowledged, oldest first.
    pending: VecDeque<(u64, Mono)>,
    /// What is not known to be on disk; a probe's.
    volatile: VecDeque<(u64, Mono)>,
    /// When the newest acknowledged beat was sent.
    heard: Mono,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, member: Member, phase: Instant, probes: bool) -> Self {
        let interval = if probes { PROBE } else { shared.budget.heartbeat_interval };
        Self {
            shared,
            member,
            incarnation: Incarnation::generate(),
            epoch: None,
            interval,
            phase,
            probes,
            beat: 0,
            pending: VecDeque::new(),
            volatile: VecDeque::new(),
            heard: Mono::default(),
        }
    }

    /// Beats until it is cut.
    pub(super) async fn run(mut self) {
        let mut turn = Arc::clone(&self.shared.opening).acquire_owned().await.ok();
        let link = self.shared.budget.reconnect();
        let mut attempts = Attempts::new(link);
        loop {
            let patience = Patience { reach: link.connect_timeout, whole: attempts.patience() };
            let connecting =
                rollout_transport::connect(&self.shared.addr, &self.member.tls, patience);
            let ended = match connecting.await {
                Ok(link) => self.lead(link, attempts.patience(), &mut turn).await,
                Err(ConnectError::Timeout { .. }) => Ended::Unanswered,
                Err(_) => Ended::Refused,
            };
            let counts = &self.shared.counts;
            match ended {
                Ended::Lost => attempts.answered(),
                Ended::Unanswered => attempts.unanswered(),
                Ended::Refused => {}
            }
            let happened = if ended == Ended::Lost { &counts.lost } else { &counts.unanswered };
            happened.fetch_add(1, Relaxed);
            sleep(attempts.pause().mul_f64(rand::random_range(0.5..=1.0))).await;
        }
    }

    /// How the session ended.
    async fn lead(
        &mut self,
        mut link: Link,
        patience: Duration,
        turn: &mut Option<OwnedSemaphorePermit>,
    ) -> Ended {
        let sent = now();
        let patience = self.epoch.map_or(REGISTRATION, |_| patience);
        match timeout(patience, self.register(&mut link)).await {
            Ok(true) => {}
            Ok(false) => return Ended::Refused,
            Err(_) => return Ended::Unanswered,
        }
        if self.heard == Mono::default() {
            self.heard = sent;
        }
        let open = Open::new(Arc::clone(&self.shared));
        self.shared.record(|samples| samples.opened.push(now()));
        let first = match turn.take() {
            Some(_) => self.next_after(Instant::now()),
            // Who comes back beats at once.
            None => Instant::now(),
        };
        self.beat_over(&mut link, first).await;
        drop(open);
        Ended::Lost
    }

    async fn register(&mut self, link: &mut Link) -> bool {
        let register = Up::Register {
            worker_id: self.member.id,
            incarnation: self.incarnation,
            epoch: self.epoch,
            run_id: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            plugins: Vec::new(),
            timing: Timing::from(&self.shared.budget),
            unix_ms: Some(SystemClock.unix_ms()),
        };
        if link.up.send(register).await.is_err() {
            return false;
        }
        match link.down.next().await {
            Ok(Some(Down::Registered { epoch, .. })) => {
                self.epoch = Some(epoch);
                self.pending.clear();
                self.volatile.clear();
                true
            }
            Ok(Some(Down::Fenced { .. })) => {
                self.shared.counts.anew.fetch_add(1, Relaxed);
                (self.epoch, self.incarnation) = (None, Incarnation::generate());
                false
            }
            _ => false,
        }
    }

    /// The next instant of its own phase.
    fn next_after(&self, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.phase).as_secs_f64();
        let turns = (since / self.interval.as_secs_f64()).ceil();
        self.phase + self.interval.mul_f64(turns)
    }

    /// Beats until the session ends.
    async fn beat_over(&mut self, link: &mut Link, first: Instant) {
        let ack_timeout = self.shared.budget.reconnect().ack_timeout;
        let mut due = first;
        let mut timer = pin!(sleep_until(due));
        loop {
            tokio::select! {
                biased;
                line = link.down.next() => match line {
                    Ok(Some(Down::Ack { beat, durable })) => self.acknowledged(beat, durable),
                    _ => return,
                },
                () = timer.as_mut() => {
                    let at = now();
                    let late = due.elapsed();
                    // What is late here was perhaps answered long ago, and is not read yet.
                    let patience = ack_timeout + late * 4;
                    if self.pending.front().is_some_and(|(_, sent)| at.since(*sent) > patience) {
                        return;
                    }
                    self.beat += 1;
                    let heard_of_all = self.pending.is_empty();
                    let unix_ms = heard_of_all.then(|| SystemClock.unix_ms());
                    let beat = Up::Beat { beat: self.beat, unix_ms };
                    if link.up.send(beat).await.is_err() {
                        return;
                    }
                    self.pending.push_back((self.beat, at));
                    if self.probes {
                        self.volatile.push_back((self.beat, at));
                    }
                    self.shared.record(|samples| samples.late.push(late.as_secs_f64()));
                    due = (due + self.interval).max(Instant::now());
                    timer.as_mut().reset(due);
                }
            }
        }
    }

    fn acknowledged(&mut self, beat: u64, durable: u64) {
        let at = now();
        self.shared.acks.fetch_add(1, Relaxed);
        while let Some((_, sent)) = self.pending.pop_front_if(|(sent, _)| *sent <= beat) {
            if at.since(self.heard) >= self.shared.budget.worker_self_fence_timeout {
                self.shared.counts.fenced.fetch_add(1, Relaxed);
            }
            self.heard = sent;
            self.shared.record(|samples| samples.acks.push(at.since(sent).as_secs_f64()));
        }
        while let Some((_, sent)) = self.volatile.pop_front_if(|(sent, _)| *sent <= durable) {
            self.shared.record(|samples| samples.durable.push(at.since(sent).as_secs_f64()));
        }
    }
}

/// How an attempt ended.
#[derive(PartialEq, Eq)]
enum Ended {
    /// After it was registered.
    Lost,
    /// There was no answer in time.
    Unanswered,
    Refused,
}

/// Counts as an open session for as long as it lives.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Relaxed);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}
