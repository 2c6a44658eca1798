//! The event stream: one thread that owns standard output.
//!
//! Whoever emits never waits. Up to 4,096 waiting lines everything is taken; beyond that, heartbeat
//! lines and log records are dropped and counted, and beyond 65,536 every line is. What was dropped
//! is said in a `lines_dropped` event as soon as the reader takes lines again. A reader that has
//! gone away costs every later line, and nothing else.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, SystemTime};

use rollout_coordinator::Tail;
use rollout_core::event::{Body, Emit, Event, Level, LinesDropped};
use rollout_core::{Clock, Mono, RunId, WorkerId};
use serde_json::{Map, Value};

const CROWDED: usize = 4_096;
const FULL: usize = 65_536;
/// Lines are written together up to this many bytes.
const CHUNK: usize = 64 * 1024;
/// How long the last lines may take when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

struct Line {
    at: Mono,
    wall: SystemTime,
    worker: Option<WorkerId>,
    message: Option<String>,
    body: Body,
}

enum Item {
    Line(Line),
    Lead(RunId),
    Keep(Tail),
    /// The last one.
    Close,
}

#[derive(Default)]
struct Counters {
    queued: AtomicUsize,
    heartbeats_dropped: AtomicU64,
    others_dropped: AtomicU64,
}

/// What events are handed to; cheap to clone.
#[derive(Clone)]
pub(crate) struct Voice {
    items: Sender<Item>,
    counters: Arc<Counters>,
    clock: Arc<dyn Clock>,
}

/// The thread behind it.
pub(crate) struct Stream {
    items: Sender<Item>,
    written: Receiver<()>,
}

/// Starts the writer of standard output.
pub(crate) fn open(clock: Arc<dyn Clock>) -> io::Result<(Voice, Stream)> {
    let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    start(out, clock)
}

fn start<W: Write + Send + 'static>(out: W, clock: Arc<dyn Clock>) -> io::Result<(Voice, Stream)> {
    let (items, inbox) = mpsc::channel();
    let (done, written) = mpsc::sync_channel(1);
    let counters = Arc::new(Counters::default());
    let stream = Stream { items: items.clone(), written };
    let owned = Arc::clone(&counters);
    let voice = Voice { items, counters, clock: Arc::clone(&clock) };
    thread::Builder::new().name("events".into()).spawn(move || {
        let writer =
            Writer { out: Some(out), clock, counters: owned, run: None, seq: 0, tail: None };
        writer.run(&inbox);
        // Nobody waits any more if the process is past its last words.
        let _ = done.send(());
    })?;
    Ok((voice, stream))
}

impl Stream {
    /// Waits until every line handed over so far is written, at most a second: a blocked reader
    /// must not keep the process.
    pub(crate) fn close(self) {
        let _ = self.items.send(Item::Close);
        let _ = self.written.recv_timeout(LAST_WORDS);
    }
}

impl Voice {
    /// From now on, the newest lines are also kept there, as they are written.
    pub(crate) fn keep(&self, tail: Tail) {
        let _ = self.items.send(Item::Keep(tail));
    }

    fn offer(&self, line: Line) {
        let heartbeat = matches!(line.body, Body::WorkerHeartbeat(_));
        let limit = if heartbeat || matches!(line.body, Body::Log(..)) { CROWDED } else { FULL };
        if self.counters.queued.fetch_add(1, Ordering::Relaxed) >= limit {
            self.counters.queued.fetch_sub(1, Ordering::Relaxed);
            let dropped = if heartbeat {
                &self.counters.heartbeats_dropped
            } else {
                &self.counters.others_dropped
            };
            dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // What is said after the stream is closed is lost with the process.
        let _ = self.items.send(Item::Line(line));
    }
}

impl Emit for Voice {
    fn emit(&self, at: Mono, worker: Option<WorkerId>, body: Body) {
        self.offer(Line { at, wall: self.clock.wall(), worker, message: None, body });
    }

    fn log(
        &self,
        at: Mono,
        worker: Option<WorkerId>,
        level: Level,
        message: String,
        attrs: Map<String, Value>,
    ) {
        let body = Body::Log(level, attrs);
        self.offer(Line { at, wall: self.clock.wall(), worker, message: Some(message), body });
    }

    fn lead(&self, run: RunId) {
        let _ = self.items.send(Item::Lead(run));
    }
}

struct Writer<W> {
    /// Nothing once the reader has gone.
    out: Option<W>,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    run: Option<RunId>,
    seq: u64,
    tail: Option<Tail>,
}

impl<W: Write> Writer<W> {
    fn run(mut self, inbox: &Receiver<Item>) {
        let mut chunk = Vec::new();
        let mut open = true;
        while open && let Ok(first) = inbox.recv() {
            open = self.take(first, &mut chunk);
            while open
                && chunk.len() < CHUNK
                && let Ok(next) = inbox.try_recv()
            {
                open = self.take(next, &mut chunk);
            }
            self.write(&mut chunk);
            self.confess(&mut chunk);
        }
    }

    /// Whether there may be more.
    fn take(&mut self, item: Item, chunk: &mut Vec<u8>) -> bool {
        match item {
            Item::Lead(run) => self.run = Some(run),
            Item::Keep(tail) => self.tail = Some(tail),
            Item::Line(line) => {
                self.counters.queued.fetch_sub(1, Ordering::Relaxed);
                self.format(line, chunk);
            }
            Item::Close => return false,
        }
        true
    }

    fn format(&mut self, line: Line, chunk: &mut Vec<u8>) {
        self.seq += 1;
        let event = Event {
            seq: self.seq,
            at: line.wall,
            mono: line.at,
            level: line.body.level(),
            run_id: self.run,
            worker_id: line.worker,
            message: line.message,
            body: line.body,
        };
        let start = chunk.len();
        // Writing to memory cannot fail, and no event holds a map with keys that are not text.
        if serde_json::to_writer(&mut *chunk, &event).is_err() {
            chunk.truncate(start);
            return;
        }
        chunk.push(b'\n');
        if let Some(tail) = &self.tail {
            tail.push(&event.body, &chunk[start..]);
        }
    }

    fn write(&mut self, chunk: &mut Vec<u8>) {
        // Before it is written: readers from afar need not wait for one that is here.
        if let Some(tail) = &self.tail {
            tail.publish();
        }
        if let Some(out) = &mut self.out
            && let Err(error) = out.write_all(chunk).and_then(|()| out.flush())
        {
            self.out = None;
            eprintln!("rollout: standard output is gone ({error}); events are no longer written");
        }
        chunk.clear();
    }

    /// Says what was dropped since the last time.
    fn confess(&mut self, chunk: &mut Vec<u8>) {
        let heartbeats = self.counters.heartbeats_dropped.swap(0, Ordering::Relaxed);
        let others = self.counters.others_dropped.swap(0, Ordering::Relaxed);
        if heartbeats + others == 0 {
            return;
        }
        let (at, wall) = (self.clock.now(), self.clock.wall());
        let body = LinesDropped { heartbeats, others }.into();
        self.format(Line { at, wall, worker: None, message: None, body }, chunk);
        self.write(chunk);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use rollout_core::SystemClock;
    use rollout_core::event::{WorkerFailed, WorkerHeartbeat};

    use super::*;

    /// A reader that takes nothing until it is let go.
    #[derive(Clone, Default)]
    struct Reader(Arc<Gate>);

    #[derive(Default)]
    struct Gate {
        state: Mutex<Taken>,
        opened: Condvar,
    }

    #[derive(Default)]
    struct Taken {
        open: bool,
        bytes: Vec<u8>,
    }

    impl Reader {
        fn let_go(&self) {
            self.0.state.lock().unwrap().open = true;
            self.0.opened.notify_all();
        }

        fn events(&self) -> Vec<Event> {
            let text = String::from_utf8(self.0.state.lock().unwrap().bytes.clone()).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let state = self.0.state.lock().unwrap();
            let mut state = self.0.opened.wait_while(state, |s| !s.open).unwrap();
            state.bytes.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn heartbeat(n: u64) -> Body {
        WorkerHeartbeat { epoch: 1, beat: n }.into()
    }

    fn failed() -> Body {
        WorkerFailed { epoch: 1, overdue_ms: 0.0, overshoot_ms: 0.0, credited_ms: 0.0 }.into()
    }

    #[test]
    fn lines_come_out_in_order_numbered_and_with_their_run() {
        let (reader, run) = (Reader::default(), RunId::generate());
        reader.let_go();
        let (voice, stream) = start(reader.clone(), Arc::new(SystemClock)).unwrap();
        voice.emit(Mono(1), None, heartbeat(1));
        voice.lead(run);
        voice.log(Mono(2), None, Level::Info, "hello".into(), Map::new());
        stream.close();
        let events = reader.events();
        assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(events.iter().map(|e| e.run_id).collect::<Vec<_>>(), [None, Some(run)]);
        assert_eq!(events[1].message.as_deref(), Some("hello"));
    }

    #[test]
    fn a_blocked_reader_costs_counted_heartbeats_and_no_verdict() {
        let reader = Reader::default();
        let (voice, stream) = start(reader.clone(), Arc::new(SystemClock)).unwrap();
        for n in 0..10_000 {
            voice.emit(Mono(n), None, heartbeat(n));
        }
        for n in 0..100 {
            voice.emit(Mono(n), None, failed());
        }
        reader.let_go();
        stream.close();
        let events = reader.events();
        let count = |topic| events.iter().filter(|e| e.body.topic() == topic).count() as u64;
        let dropped: u64 = events
            .iter()
            .filter_map(|e| match &e.body {
                Body::LinesDropped(lost) => Some(lost.heartbeats + lost.others),
                _ => None,
            })
            .sum();
        assert_eq!(count("worker_failed"), 100);
        assert!(dropped > 0);
        assert_eq!(count("worker_heartbeat") + dropped, 10_000);
    }
}
