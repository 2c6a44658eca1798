//! Frames of the sidecar wire: two lengths (big-endian `u32`), a JSON object, a raw tail. A length is
//! checked against the limit before memory is taken, and memory is taken as bytes arrive.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The bytes before the JSON.
const HEADER: usize = 8;
/// The most memory taken for bytes that have not arrived yet.
const AHEAD: usize = 64 * 1024;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) json: Vec<u8>,
    pub(super) tail: Bytes,
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The stream is broken, or ended inside a frame.
    #[error("the socket failed")]
    Io(#[from] io::Error),
    /// The frame is larger than the limit.
    #[error("a frame of {0} bytes")]
    TooLarge(u64),
}

impl Frame {
    /// The frame's size as the limit counts it: JSON and tail.
    pub(super) fn size(&self) -> usize {
        self.json.len().saturating_add(self.tail.len())
    }

    /// Writes the frame; its size has been checked against the limit, which is below 4 GiB.
    pub(super) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&length(&self.json)?.to_be_bytes());
        header[4..].copy_from_slice(&length(&self.tail)?.to_be_bytes());
        to.write_all(&header).await?;
        to.write_all(&self.json).await?;
        to.write_all(&self.tail).await
    }

    /// Reads a frame of at most `max` bytes; `None` at the end of the stream.
    pub(super) async fn read(
        from: &mut (impl AsyncRead + Unpin),
        max: usize,
    ) -> Result<Option<Self>, FrameError> {
        let mut header = [0; HEADER];
        match from.read(&mut header).await? {
            0 => return Ok(None),
            got => from.read_exact(&mut header[got..]).await?,
        };
        let [a, b, c, d, e, f, g, h] = header;
        let (json, tail) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        let size = u64::from(json) + u64::from(tail);
        if size > max as u64 {
            return Err(FrameError::TooLarge(size));
        }
        let json = exactly(from, json as usize).await?;
        let tail = exactly(from, tail as usize).await?.into();
        Ok(Some(Self { json, tail }))
    }
}

async fn exactly(from: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length.min(AHEAD));
    from.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn encoded(frames: &[Frame]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            run(frame.write(&mut bytes)).unwrap();
        }
        bytes
    }

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..300);
        let frame = (bytes(), bytes()).prop_map(|(json, tail)| Frame { json, tail: tail.into() });
        prop::collection::vec(frame, 0..5)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_every_cut_is_an_error_but_between_frames(
            frames in frames(), cut in any::<prop::sample::Index>(),
        ) {
            let whole = encoded(&frames);
            let mut from = &whole[..];
            for frame in &frames {
                let read = run(Frame::read(&mut from, 600)).unwrap();
                prop_assert_eq!(read.as_ref(), Some(frame));
            }
            prop_assert_eq!(run(Frame::read(&mut from, 600)).unwrap(), None);

            let cut = cut.index(whole.len() + 1);
            let mut from = &whole[..cut];
            let mut read = Vec::new();
            let end = loop {
                match run(Frame::read(&mut from, 600)) {
                    Ok(Some(frame)) => read.push(frame),
                    end => break end,
                }
            };
            prop_assert_eq!(&read[..], &frames[..read.len()]);
            let between = encoded(&read).len() == cut;
            prop_assert_eq!(between, matches!(end, Ok(None)));
            prop_assert_eq!(!between, matches!(end, Err(FrameError::Io(_))));
        }

        #[test]
        fn junk_never_panics_nor_gives_more_than_the_limit(
            junk in prop::collection::vec(any::<u8>(), 0..64), max in 0usize..100,
        ) {
            if let Ok(Some(frame)) = run(Frame::read(&mut &junk[..], max)) {
                prop_assert!(frame.size() <= max);
            }
        }
    }

    #[test]
    fn a_header_that_claims_too_much_is_refused_from_the_header_alone() {
        let huge = [0xff; HEADER];
        let error = run(Frame::read(&mut &huge[..], 1 << 30)).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge(size) if size == 2 * u64::from(u32::MAX)));
        let just_over = [0, 0, 0, 60, 0, 0, 0, 41];
        let error = run(Frame::read(&mut &just_over[..], 100)).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge(101)));
    }
}
