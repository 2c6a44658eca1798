//! The newest lines of the event stream, kept for whoever reads them from afar.
//!
//! Whoever writes events hands each line over and goes on: it waits for a reader at most while that
//! copies one piece out of memory. A reader that is slower than the lines are made loses the oldest,
//! and is told how many of those it wanted.

mod ring;
#[cfg(test)]
mod ring_tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rollout_core::event::Body;
use rollout_transport::{Denied, EventsQuery, PieceSink};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use self::ring::{Cursor, Found, Ring};

/// The most lines that are kept.
const LINES: usize = 4096;
/// The most bytes of them.
const BYTES: usize = 4 * 1024 * 1024;
/// A reader is sent about so much together.
const PIECE: usize = 64 * 1024;
/// A reader is sent a piece so often at most. What comes meanwhile travels together, and what all
/// readers cost together is bounded, however many lines there are.
const PAUSE: Duration = Duration::from_millis(20);
/// The most that read at the same time.
const READERS: usize = 16;

/// The newest lines of the coordinator's event stream; cheap to clone.
#[derive(Clone)]
pub struct Tail(Arc<Shared>);

struct Shared {
    ring: Mutex<Ring>,
    /// Whether the last line has been handed over; readers also look when it is said again.
    ended: watch::Sender<bool>,
    places: Arc<Semaphore>,
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").finish_non_exhaustive()
    }
}

impl Default for Tail {
    fn default() -> Self {
        Self(Arc::new(Shared {
            ring: Mutex::new(Ring::new(LINES, BYTES)),
            ended: watch::Sender::new(false),
            places: Arc::new(Semaphore::new(READERS)),
        }))
    }
}

impl Tail {
    /// Keeps a line, with its newline, that says `body`. Readers see it when
    /// [`publish`](Self::publish) is called next.
    pub fn push(&self, body: &Body, line: &[u8]) {
        self.ring().push(body.place(), line);
    }

    /// Tells readers that there are new lines.
    pub fn publish(&self) {
        // Who comes to read later looks at what is there first.
        if self.0.ended.receiver_count() > 0 {
            self.0.ended.send_modify(|_| ());
        }
    }

    /// Readers are sent what there is, and no more.
    pub(crate) fn end(&self) {
        self.0.ended.send_replace(true);
    }

    /// Begins to read; what this returns feeds `lines`.
    pub(crate) fn read(
        &self,
        query: EventsQuery,
        lines: PieceSink,
    ) -> Result<impl Future<Output = ()> + Send + 'static, Denied> {
        let Ok(place) = Arc::clone(&self.0.places).try_acquire_owned() else {
            return Err(Denied::Conflict(format!("{READERS} read the events already")));
        };
        let cursor = self.ring().open(query.topics, query.follow);
        let tail = self.clone();
        Ok(async move {
            tokio::select! {
                () = tail.feed(cursor, &lines) => {}
                () = lines.closed() => {}
            }
            drop(place);
        })
    }

    async fn feed(&self, mut cursor: Cursor, lines: &PieceSink) {
        let mut changes = self.0.ended.subscribe();
        loop {
            // Before looking, so that what comes in between is seen the next time.
            let ended = *changes.borrow_and_update();
            let next = Instant::now() + PAUSE;
            let Found { missed, mut bytes, more } = self.ring().read(&mut cursor, PIECE);
            if missed > 0 {
                let line = format!("{{\"type\":\"missed\",\"lines\":{missed}}}\n");
                bytes.splice(..0, line.into_bytes());
            }
            if !bytes.is_empty() && lines.send(bytes.into()).await.is_err() {
                return;
            }
            if !more && (ended || !cursor.is_following() || changes.changed().await.is_err()) {
                return;
            }
            sleep_until(next).await;
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics while it is held.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
