//! A sidecar's socket in two halves, each woken for its own sake only.
//!
//! A socket that is registered for both wakes its reader whenever the peer has read something: once
//! more in every call, for nothing. Here the reading half is registered for reading, and the writing
//! half for as long as the peer leaves no room.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// What the plugin sends.
pub(super) struct Reading(AsyncFd<UnixStream>);

/// What it is sent.
pub(super) struct Writing {
    stream: UnixStream,
    /// While the last write found no room.
    room: Option<AsyncFd<UnixStream>>,
}

/// The halves of a connected socket.
///
/// # Errors
/// When the system has no descriptor for the second one.
pub(super) fn split(stream: tokio::net::UnixStream) -> io::Result<(Reading, Writing)> {
    let stream = stream.into_std()?;
    let reading = register(&stream, Interest::READABLE)?;
    Ok((Reading(reading), Writing { stream, room: None }))
}

/// A second descriptor of the socket, of which tokio tells what it is interested in.
fn register(stream: &UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: a `UnixStream` has the same open descriptor from here until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(stream.try_clone()?, interest) };
    Ok(registered?)
}

impl AsyncRead for Reading {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let into = buffer.initialize_unfilled();
            match ready.try_io(|stream| uninterrupted(|| stream.get_ref().read(into))) {
                Ok(read) => return Poll::Ready(read.map(|count| buffer.advance(count))),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Writing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(room) = &self.room {
                let mut ready = ready!(room.poll_write_ready(cx))?;
                let write =
                    |stream: &AsyncFd<UnixStream>| uninterrupted(|| stream.get_ref().write(bytes));
                if let Ok(written) = ready.try_io(write) {
                    return Poll::Ready(written);
                }
                continue;
            }
            match uninterrupted(|| (&self.stream).write(bytes)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.room = Some(register(&self.stream, Interest::WRITABLE)?);
                }
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.room = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown(Shutdown::Write))
    }
}

fn uninterrupted<T>(mut doing: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match doing() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    /// More than a socket holds.
    const MUCH: usize = 8 << 20;

    #[tokio::test]
    async fn a_writer_waits_for_room_and_everything_arrives_in_order_either_way() {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let (mut from, mut to) = split(ours).unwrap();
        let (mut their_from, mut their_to) = theirs.into_split();
        let sent: Vec<u8> = (0..MUCH).map(|n| (n % 251) as u8).collect();
        let write = async {
            to.write_all(&sent).await.unwrap();
            to.flush().await.unwrap();
            assert!(to.room.is_none(), "it is not registered while there is room");
            to.shutdown().await.unwrap();
        };
        let send_back = async {
            let mut bytes = Vec::new();
            their_from.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(bytes, sent);
            their_to.write_all(&bytes).await.unwrap();
            drop(their_to);
        };
        let read = async {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).await.unwrap();
            bytes
        };
        let all = async { tokio::join!(write, send_back, read) };
        let ((), (), got) = timeout(Duration::from_secs(30), all).await.unwrap();
        assert_eq!(got, sent);
    }

    #[tokio::test]
    async fn a_write_to_a_peer_that_is_gone_fails_and_does_not_end_the_process() {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let (mut from, mut to) = split(ours).unwrap();
        drop(theirs);
        assert_eq!(from.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(to.write_all(b"x").await.is_err());
    }
}
