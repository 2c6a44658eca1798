//! The stream to the coordinator: opened while the worker is registered, replaced when it is lost, with
//! the heart's back-off. On each new one everything is said again.

use std::pin::Pin;
use std::time::Duration;

use rollout_core::budget::Reconnect;
use rollout_core::{Mono, WorkerId};
use rollout_transport::work::{WorkDown, WorkUp};
use rollout_transport::{LineSink, LineStream, Remote, Tls};
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

type Opening = Pin<Box<dyn Future<Output = Result<Open, String>> + Send>>;

/// See the module.
pub(super) struct Link {
    coordinator: String,
    tls: Tls,
    reconnect: Reconnect,
    worker: WorkerId,
    plugins: Vec<String>,
    state: State,
    /// The next pause, before jitter.
    pause: Duration,
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
        let pause = reconnect.backoff_initial;
        let state = State::Down { until: Instant::now() };
        Self { coordinator, tls, reconnect, worker, plugins, state, pause, streams: 0 }
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
        self.state = State::Down { until: Instant::now() + jittered(self.pause) };
        self.pause = (self.pause * 2).min(self.reconnect.backoff_max);
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
                        self.lose(&why);
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
                            self.pause = self.reconnect.backoff_initial;
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
        let patience = self.reconnect.connect_timeout;
        let (worker_id, incarnation, plugins) =
            (self.worker, who.incarnation, self.plugins.clone());
        Box::pin(async move {
            let remote = Remote::open(&coordinator, &tls, patience);
            let remote = remote.await.map_err(|error| error.to_string())?;
            let opened = timeout(patience, remote.work()).await;
            let link = opened.map_err(|_| "no answer in time".to_owned())?;
            let link = link.map_err(|error| error.to_string())?;
            let hello = WorkUp::Hello { worker_id, incarnation, epoch, plugins };
            link.up.send(hello).await.map_err(|error| error.to_string())?;
            Ok(Open { remote, up: link.up, down: link.down, full: false })
        })
    }
}
