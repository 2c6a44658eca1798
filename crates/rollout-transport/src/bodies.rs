//! Bodies that are bytes and not lines: blobs, in pieces of any size.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use tokio::sync::mpsc;

use crate::lines::Gone;
use crate::meter::Meter;

/// Pieces that wait for a peer that reads slowly.
const QUEUE: usize = 1;

/// Where the pieces of a response go in. The body ends when it is dropped.
#[derive(Debug)]
pub struct PieceSink(mpsc::Sender<io::Result<Bytes>>);

impl PieceSink {
    /// Queues a piece, waiting while the peer does not read.
    ///
    /// # Errors
    /// When the peer has gone.
    pub async fn send(&self, piece: Bytes) -> Result<(), Gone> {
        self.0.send(Ok(piece)).await.map_err(|_| Gone)
    }

    /// Returns once the peer has gone, without a piece having to be sent.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// Cuts the body: the peer does not take what it has for the whole.
    pub async fn fail(self, error: io::Error) {
        // One who has gone need not be told.
        let _ = self.0.send(Err(error)).await;
    }
}

/// The body that they come out of.
#[derive(Debug)]
pub(crate) struct PieceBody(mpsc::Receiver<io::Result<Bytes>>);

pub(crate) fn pieces() -> (PieceSink, PieceBody) {
    let (sink, queue) = mpsc::channel(QUEUE);
    (PieceSink(sink), PieceBody(queue))
}

impl Body for PieceBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// Why a body of bytes ends early.
#[derive(Debug, thiserror::Error)]
pub enum PieceError {
    /// It is larger than it may be.
    #[error("more than {most} bytes")]
    TooLarge {
        /// The most that are taken.
        most: u64,
    },
    /// The connection or the stream was cut.
    #[error("the connection was lost")]
    Lost(#[source] hyper::Error),
}

/// The pieces of a body that arrives.
#[derive(Debug)]
pub struct PieceStream {
    body: Incoming,
    meter: Meter,
    most: u64,
    taken: u64,
}

impl PieceStream {
    pub(crate) const fn new(body: Incoming, most: u64, meter: Meter) -> Self {
        Self { body, meter, most, taken: 0 }
    }

    /// The next piece; none at the end. Cancel-safe.
    ///
    /// # Errors
    /// When there is too much, or the stream is cut.
    pub async fn next(&mut self) -> Result<Option<Bytes>, PieceError> {
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            let Some(frame) = frame else { return Ok(None) };
            let piece = frame.map_err(PieceError::Lost)?.into_data().unwrap_or_default();
            self.meter.content(piece.len());
            self.taken += piece.len() as u64;
            if self.taken > self.most {
                return Err(PieceError::TooLarge { most: self.most });
            }
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }
}
