//! The stream to the coordinator: opened while the worker is registered, replaced when it is lost, with
//! the heart's back-off. On each new one everything is said again.

use std::pin::Pin;

use rollout_core::budget::Reconnect;
use rollout_core::{Attempts, Mono, WorkerId};
use rollout_transport::work::{WorkDown, WorkUp};
use rollout_transport::{ConnectError, LineSink, LineStream, Patience, Remote, Tls};
use tokio::time::{Instant, sleep_until, timeout};

use super::desk::Desk;
use crate::heart::jittered;
use crate::pulse::Pulse;

/// What came of waiting.
#[derive(Debug)]
pub(super) enum Event {
    /// There is a stream, a new one.
    Opened,
    /// The coordinator says something.
    Heard(WorkDown),
    /// The stream is lost, or has room for more.
    Changed,
}

type Opening = Pin<Box<dyn Future<Output = Result<Open, NotOpen>> + Send>>;

/// Why there is no stream.
enum NotOpen {
    /// There was no answer in time.
    Unanswered,
    Other(String),
}

impl NotOpen {
    fn other(error: &impl ToString) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<ConnectError> for NotOpen {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Timeout { .. } => Self::Unanswered,
            other => Self::other(&other),
        }
    }
}

/// See the module.
pub(super) struct Link {
    coordinator: String,
    tls: Tls,
    reconnect: Reconnect,
    worker: WorkerId,
    plugins: Vec<String>,
    state: State,
    attempts: Attempts,
    /// How many streams there were: the number of the present one.
    streams: u64,
}

enum State {
    Down { until: Instant },
    Opening(Opening),
    Open(Box<Open>),
}

struct Open {
    remote: Remote,
    up: LineSink<WorkUp>,
    down: LineStream<WorkDown>,
    /// Whether there may be lines that found no room.
    full: bool,
}

impl Link {
    pub(super) fn new(
        coordinator: String,
        tls: Tls,
        reconnect: Reconnect,
        worker: WorkerId,
        plugins: Vec<String>,
    ) -> Self {
        let attempts = Attempts::new(reconnect);
        let state = State::Down { until: Instant::now() };
        Self { coordinator, tls, reconnect, worker, plugins, state, attempts, streams: 0 }
    }

    /// The connection, for uploads, and the number of its stream.
    pub(super) fn remote(&self) -> Option<(&Remote, u64)> {
        match &self.state {
            State::Open(open) => Some((&open.remote, self.streams)),
            _ => None,
        }
    }

    /// Whether lines can be sent now.
    pub(super) fn speaks(&self) -> bool {
        matches!(&self.state, State::Open(open) if !open.full)
    }

    /// Sends what there is to say, as long as there is room.
    pub(super) fn send(&mut self, desk: &mut Desk, now: Mono) {
        let State::Open(open) = &mut self.state else { return };
        while open.up.has_room() {
            open.full = false;
            let Some(line) = desk.next_line(now) else { return };
            if open.up.try_send(line).is_err() {
                return self.lose("it was ended");
            }
        }
        open.full = true;
    }

    /// The stream is of no use: another one after a pause.
    pub(super) fn lose(&mut self, why: &str) {
        tracing::debug!("the stream of work is lost: {why}");
        self.state = State::Down { until: Instant::now() + jittered(self.attempts.pause()) };
    }

    fn not_opened(&mut self, why: &NotOpen) {
        match why {
            NotOpen::Unanswered => {
                self.attempts.unanswered();
                self.lose("no answer in time");
            }
            NotOpen::Other(why) => self.lose(why),
        }
    }

    /// Another stream, at once.
    pub(super) fn renew(&mut self) {
        self.state = State::Down { until: Instant::now() };
    }

    /// Waits for what comes next. With `may_connect` unset no stream is opened, and one that is open
    /// stays. Can be dropped while it waits, and called again.
    pub(super) async fn next(&mut self, may_connect: bool, who: Pulse) -> Event {
        loop {
            match &mut self.state {
                State::Down { until } => {
                    let Some(epoch) = who.epoch.filter(|_| may_connect) else {
                        return std::future::pending().await;
                    };
                    sleep_until(*until).await;
                    self.state = State::Opening(self.open(who, epoch));
                }
                State::Opening(opening) => match opening.await {
                    Ok(open) => {
                        self.state = State::Open(Box::new(open));
                        self.streams += 1;
                        return Event::Opened;
                    }
                    Err(why) => {
                        self.not_opened(&why);
                        return Event::Changed;
                    }
                },
                State::Open(open) => {
                    let Open { up, down, full, .. } = &mut **open;
                    let line = tokio::select! {
                        line = down.next() => line,
                        () = up.room(), if *full => {
                            *full = false;
                            return Event::Changed;
                        }
                    };
                    match line {
                        Ok(Some(line)) => {
                            self.attempts.answered();
                            return Event::Heard(line);
                        }
                        Ok(None) => self.lose("the coordinator ended it"),
                        Err(error) => self.lose(&error.to_string()),
                    }
                    return Event::Changed;
                }
            }
        }
    }

    fn open(&self, who: Pulse, epoch: u64) -> Opening {
        let (coordinator, tls) = (self.coordinator.clone(), self.tls.clone());
        let patience =
            Patience { reach: self.reconnect.connect_timeout, whole: self.attempts.patience() };
        let (worker_id, incarnation, plugins) =
            (self.worker, who.incarnation, self.plugins.clone());
        Box::pin(async move {
            let remote = Remote::open(&coordinator, &tls, patience).await?;
            let opened = timeout(patience.whole, remote.work()).await;
            let link = opened.map_err(|_| NotOpen::Unanswered)?;
            let link = link.map_err(|error| NotOpen::other(&error))?;
            let hello = WorkUp::Hello { worker_id, incarnation, epoch, plugins };
            link.up.send(hello).await.map_err(|error| NotOpen::other(&error))?;
            Ok(Open { remote, up: link.up, down: link.down, full: false })
        })
    }
}
