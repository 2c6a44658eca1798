//! A stream of JSON lines in the body of a request or response: the queue that fills one, and the
//! reader that takes one apart.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::meter::Meter;
use crate::queue::{self, NotQueued};
use crate::wire::WireError;

/// Lines that wait for a peer that reads slowly; past it the sender waits.
const QUEUE: usize = 64;
/// The same of lines that may be large.
pub(crate) const LARGE_QUEUE: usize = 4;
/// Lines queued together travel in one DATA frame of about this size at most.
const CHUNK: usize = 16 * 1024;
/// Room for an ordinary line, so that a beat costs one allocation.
const LINE: usize = 96;

/// The other side has ended the stream, or the connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream to the peer has ended")]
pub struct Gone;

/// Why a line was not queued at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError {
    /// The peer reads more slowly than lines are made.
    #[error("the queue to the peer is full")]
    Full,
    /// The other side has ended the stream, or the connection is lost.
    #[error("the stream to the peer has ended")]
    Gone,
}

/// What a line may be.
pub trait Line: DeserializeOwned {
    /// Reads a line, without its newline.
    ///
    /// # Errors
    /// When it is not the JSON of one of these.
    fn read(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }
}

/// A line of whatever it may be.
impl Line for Box<RawValue> {}

/// The sending end of a stream of lines. The stream ends when its last clone is dropped.
#[derive(Debug)]
pub struct LineSink<T>(queue::Sender<T>);

impl<T> Clone for LineSink<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> LineSink<T> {
    /// Queues a line, waiting while the queue is full.
    ///
    /// # Errors
    /// When the stream has ended.
    pub async fn send(&self, line: T) -> Result<(), Gone> {
        if self.0.send(line).await { Ok(()) } else { Err(Gone) }
    }

    /// Queues a line if there is room.
    ///
    /// # Errors
    /// When the queue is full or the stream has ended; the line is dropped.
    pub fn try_send(&self, line: T) -> Result<(), TrySendError> {
        self.0.try_send(line).map_err(|error| match error {
            NotQueued::Full(_) => TrySendError::Full,
            NotQueued::Closed => TrySendError::Gone,
        })
    }

    /// Whether a line can be queued at once; also when the stream has ended, which trying to says.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.0.has_room() || self.0.is_closed()
    }

    /// Returns once there is room for a line, or the stream has ended.
    pub async fn room(&self) {
        // Either way the next attempt to queue a line says what is the case.
        self.0.room().await;
    }

    /// Returns once the stream has ended, without a line having to be sent.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// A sink that does not keep the stream open.
    pub(crate) fn downgrade(&self) -> WeakSink<T> {
        WeakSink(self.0.downgrade())
    }
}

#[derive(Debug)]
pub(crate) struct WeakSink<T>(queue::WeakSender<T>);

impl<T> WeakSink<T> {
    pub(crate) fn upgrade(&self) -> Option<LineSink<T>> {
        self.0.upgrade().map(LineSink)
    }
}

/// A stream of lines: where they go in, and the body they come out of.
pub(crate) fn channel<T>() -> (LineSink<T>, LineBody<T>) {
    bounded(QUEUE)
}

/// The same with room for so many lines.
pub(crate) fn bounded<T>(lines: usize) -> (LineSink<T>, LineBody<T>) {
    let (sink, queue) = queue::bounded(lines);
    (LineSink(sink), LineBody(queue))
}

/// The body made of queued lines. While the peer's window is shut it is not polled, lines queue up
/// meanwhile and travel together after: a slow reader is sent few large frames, never many small
/// ones, and never an empty one.
#[derive(Debug)]
pub(crate) struct LineBody<T>(queue::Receiver<T>);

impl<T: Serialize> Body for LineBody<T> {
    type Data = Bytes;
    type Error = serde_json::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, serde_json::Error>>> {
        let Some(line) = ready!(self.0.poll_recv(cx)) else { return Poll::Ready(None) };
        let mut chunk = Vec::with_capacity(LINE);
        let mut next = Some(line);
        while let Some(line) = next {
            serde_json::to_writer(&mut chunk, &line)?;
            chunk.push(b'\n');
            if chunk.len() >= CHUNK {
                break;
            }
            next = self.0.try_recv();
        }
        Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
    }
}

impl<T> LineStream<T> {
    /// The rest of the stream as lines of another kind and length.
    pub(crate) fn retyped<U>(self, limit: usize) -> LineStream<U> {
        let Self { body, mut splitter, meter, kind: _ } = self;
        splitter.limit = limit;
        LineStream { body, splitter, meter, kind: PhantomData }
    }
}

/// The receiving end of a stream of lines.
#[derive(Debug)]
pub struct LineStream<T> {
    /// None once the stream has ended or failed.
    body: Option<Incoming>,
    splitter: Splitter,
    /// Told what of the connection's bytes was content.
    meter: Meter,
    kind: PhantomData<fn() -> T>,
}

impl<T: Line> LineStream<T> {
    pub(crate) const fn new(body: Incoming, limit: usize, meter: Meter) -> Self {
        Self { body: Some(body), splitter: Splitter::new(limit), meter, kind: PhantomData }
    }

    /// The next line; none when the peer has ended the stream. Cancel-safe.
    ///
    /// # Errors
    /// When a line is too long or malformed, or the stream is cut; it gives nothing afterwards.
    pub async fn next(&mut self) -> Result<Option<T>, WireError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same, polled: what waits for a line holds no more than this stream.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<T>, WireError>> {
        let next = ready!(self.poll_read(cx));
        if !matches!(next, Ok(Some(_))) {
            self.body = None;
        }
        Poll::Ready(next)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<T>, WireError>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(None)) };
        loop {
            if let Some(message) = self.splitter.message()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let chunk = frame.into_data().unwrap_or_default();
                    self.meter.content(chunk.len());
                    self.splitter.push(chunk);
                }
                Some(Err(error)) => return Poll::Ready(Err(WireError::Lost(error))),
                None if self.splitter.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(WireError::Truncated)),
            }
        }
    }
}

/// Cuts chunks into lines. A line inside one chunk is not copied; one over several is, up to the
/// limit.
#[derive(Debug)]
pub(crate) struct Splitter {
    limit: usize,
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    /// What has not been looked at. It is used up before the next chunk is pushed.
    chunk: Bytes,
}

impl Splitter {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, partial: Vec::new(), chunk: Bytes::new() }
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.chunk = chunk;
    }

    fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.chunk.is_empty()
    }

    /// What is held of a line whose end has not arrived.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn held(&self) -> usize {
        self.partial.len()
    }

    /// The next line's message, or none until more has been pushed.
    pub(crate) fn message<T: Line>(&mut self) -> Result<Option<T>, WireError> {
        let Some(line) = self.line()? else { return Ok(None) };
        T::read(&line).map(Some).map_err(WireError::Malformed)
    }

    /// The next whole line without its newline, or none until more has been pushed.
    fn line(&mut self) -> Result<Option<Bytes>, WireError> {
        let end = self.chunk.iter().position(|&byte| byte == b'\n');
        if self.partial.len() + end.unwrap_or(self.chunk.len()) > self.limit {
            return Err(WireError::Oversized { limit: self.limit });
        }
        let Some(end) = end else {
            self.partial.extend_from_slice(&mem::take(&mut self.chunk));
            return Ok(None);
        };
        let mut line = self.chunk.split_to(end + 1);
        line.truncate(end);
        if self.partial.is_empty() {
            return Ok(Some(line));
        }
        self.partial.extend_from_slice(&line);
        Ok(Some(mem::take(&mut self.partial).into()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    /// All lines up to the first that is too long, and whether there was one.
    fn split(chunks: &[Vec<u8>], limit: usize) -> (Vec<Vec<u8>>, bool) {
        let mut splitter = Splitter::new(limit);
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk.clone().into());
            loop {
                match splitter.line() {
                    Ok(Some(line)) => lines.push(line.to_vec()),
                    Ok(None) => break,
                    Err(_) => return (lines, true),
                }
            }
        }
        (lines, false)
    }

    fn naive(input: &[u8], limit: usize) -> (Vec<Vec<u8>>, bool) {
        let mut lines: Vec<Vec<u8>> = input.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
        match lines.iter().position(|line| line.len() > limit) {
            Some(first) => (lines[..first].to_vec(), true),
            None => {
                lines.pop();
                (lines, false)
            }
        }
    }

    proptest! {
        #[test]
        fn however_the_input_is_cut_the_lines_are_those_of_a_plain_split(
            chunks in prop::collection::vec(
                prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'x'), any::<u8>()], 0..12),
                0..12,
            ),
            limit in 1usize..10,
        ) {
            prop_assert_eq!(split(&chunks, limit), naive(&chunks.concat(), limit));
        }
    }

    fn poll<T: Serialize>(body: &mut LineBody<T>) -> Poll<Option<Bytes>> {
        Pin::new(body)
            .poll_frame(&mut Context::from_waker(Waker::noop()))
            .map(|frame| frame.map(|frame| frame.unwrap().into_data().unwrap()))
    }

    #[test]
    fn lines_queued_together_travel_together_and_an_idle_queue_sends_no_empty_frame() {
        let (sink, mut body) = channel();
        assert_eq!(poll(&mut body), Poll::Pending);
        for n in 1..=3 {
            sink.try_send(n).unwrap();
        }
        assert_eq!(poll(&mut body), Poll::Ready(Some("1\n2\n3\n".into())));
        assert_eq!(poll(&mut body), Poll::Pending);
        sink.try_send(4).unwrap();
        drop(sink);
        assert_eq!(poll(&mut body), Poll::Ready(Some("4\n".into())));
        assert_eq!(poll(&mut body), Poll::Ready(None));
    }

    #[test]
    fn a_full_queue_refuses_and_a_dropped_body_is_gone() {
        let (sink, body) = channel();
        for n in 0..QUEUE {
            sink.try_send(n).unwrap();
        }
        assert_eq!(sink.try_send(0), Err(TrySendError::Full));
        drop(body);
        assert_eq!(sink.try_send(0), Err(TrySendError::Gone));
    }
}
