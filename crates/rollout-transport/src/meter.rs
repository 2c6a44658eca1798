//! What a connection sends that carries nothing: headers, resets, pings, settings, padding and empty
//! frames alike. HTTP/2 has many kinds of frame by which a peer can make work for the other side and
//! never end; a connection is closed when all of them together are more than any session needs.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What may arrive at once, beyond the content of bodies. What the streams of a connection may have
/// in flight before anybody reads it counts until it is read, and has room in here.
pub(crate) const BURST: u64 = 512 * 1024;
/// What may arrive so in a second in the long run. An idle session needs a few hundred bytes.
pub(crate) const PER_SECOND: u64 = 64 * 1024;
/// What a frame is besides its content.
const FRAME_HEADER: u64 = 9;

/// Shared by a connection's socket, which counts what arrives, and its bodies, which say what of it
/// was content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    content: AtomicU64,
    flooded: AtomicBool,
}

impl Meter {
    /// A frame of `length` bytes was read as content.
    pub(crate) fn content(&self, length: usize) {
        if length > 0 {
            let frame = FRAME_HEADER + u64::try_from(length).unwrap_or(u64::MAX - FRAME_HEADER);
            self.0.content.fetch_add(frame, Ordering::Relaxed);
        }
    }

    /// Whether the connection was ended for what it sent.
    pub(crate) fn has_flooded(&self) -> bool {
        self.0.flooded.load(Ordering::Relaxed)
    }
}

/// A socket whose incoming bytes are counted.
pub(crate) struct Metered<IO> {
    io: IO,
    meter: Meter,
    /// What has arrived, carries nothing as far as is known, and is not forgotten yet.
    level: u64,
    /// Of the content, what has been taken off the level.
    taken_off: u64,
    since: Instant,
}

impl<IO> Metered<IO> {
    pub(crate) fn new(io: IO, meter: Meter) -> Self {
        Self { io, meter, level: 0, taken_off: 0, since: Instant::now() }
    }

    /// Counts bytes that have arrived; whether they are too many.
    fn count(&mut self, arrived: usize, now: Instant) -> bool {
        let content = self.meter.0.content.load(Ordering::Relaxed);
        let elapsed = now.saturating_duration_since(self.since);
        let forgotten = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let forgotten = forgotten.saturating_mul(PER_SECOND) / 1_000_000;
        if forgotten > 0 {
            // Less than a byte's time is left for the next look.
            self.since = now;
        }
        self.level = self
            .level
            .saturating_add(u64::try_from(arrived).unwrap_or(u64::MAX))
            .saturating_sub(content - self.taken_off)
            .saturating_sub(forgotten);
        self.taken_off = content;
        self.level > BURST
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Metered<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, into))?;
        let arrived = into.filled().len().saturating_sub(before);
        if self.count(arrived, Instant::now()) {
            self.meter.0.flooded.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::Error::other("a flood of frames that carry nothing")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Metered<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_carries_nothing_is_too_much_beyond_the_burst_and_is_forgotten_at_the_rate() {
        let (meter, begun) = (Meter::default(), Instant::now());
        let mut io = Metered::new((), meter);
        let (burst, second) = (usize::try_from(BURST).unwrap(), Duration::from_secs(1));
        assert!(!io.count(burst, begun));
        assert!(io.count(1, begun));
        assert!(io.count(usize::try_from(PER_SECOND).unwrap(), begun + second));
        assert!(!io.count(0, begun + second * 2));
        let mut now = begun + second * 60;
        for _ in 0..10_000 {
            now += second / 100;
            assert!(!io.count(600, now), "slower than the rate for ever");
        }
    }

    #[test]
    fn content_is_never_too_much_however_small_its_frames_and_padding_is() {
        let (meter, now) = (Meter::default(), Instant::now());
        let mut io = Metered::new((), meter.clone());
        for _ in 0..100_000 {
            assert!(!io.count(9 + 20, now));
            meter.content(20);
        }
        let mut padded = 0;
        while !io.count(9 + 200, now) {
            meter.content(1);
            padded += 1;
        }
        assert!(padded < 3_000, "{padded}");
    }
}
