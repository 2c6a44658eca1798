//! What fuzzers call: the decoder of a session's lines, in both directions, with nothing behind it.
//! Not for users.
#![expect(clippy::panic, reason = "a panic is how a fuzzer learns of a defect")]

use std::fmt::Debug;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::lines::{Line, Splitter};
use crate::wire::{Down, Up};

/// Reads bytes as what a worker sends, as the coordinator reads it: the first two say how long a
/// line may be and how the rest arrives in pieces.
///
/// # Panics
/// As [`down`] does, or when a duration is accepted that is none.
pub fn up(bytes: &[u8]) {
    for message in read::<Up>(bytes) {
        let Up::Register { timing, .. } = &message else {
            same(&message, &again(&message));
            continue;
        };
        let again = again(&message);
        let Up::Register { timing: timing_again, .. } = &again else {
            panic!("{message:?} came back as {again:?}")
        };
        // A float's last digit may change on the way; no duration depends on it.
        let near = |a: f64, b: f64| (a - b).abs() <= a.abs() * 1e-12;
        assert!(near(timing.heartbeat_interval_ms, timing_again.heartbeat_interval_ms));
        assert!(near(
            timing.worker_self_fence_timeout_ms,
            timing_again.worker_self_fence_timeout_ms
        ));
        for ms in [timing.heartbeat_interval(), timing.worker_self_fence_timeout()] {
            assert!(ms.is_none_or(|ms| ms.as_millis() < u128::MAX));
        }
        same(&with_timing(message.clone(), &again), &again);
    }
}

/// Reads bytes as what a coordinator sends, as a worker reads it.
///
/// # Panics
/// When more of a line is held than it may be long, when the pieces change what is read, or when a
/// message that was accepted does not survive being written and read again.
pub fn down(bytes: &[u8]) {
    for message in read::<Down>(bytes) {
        same(&message, &again(&message));
    }
}

/// The messages up to the first bad line.
fn read<T: Line + PartialEq + Debug>(bytes: &[u8]) -> Vec<T> {
    let [limit, piece, stream @ ..] = bytes else { return Vec::new() };
    let (limit, piece) = (usize::from(*limit) * 8, usize::from(*piece) + 1);
    let whole = pieces(stream.chunks(usize::MAX), limit);
    let cut = pieces(stream.chunks(piece), limit);
    assert_eq!(whole, cut, "what is read depends on how it arrives");
    whole.0
}

fn pieces<'a, T: Line>(
    pieces: impl Iterator<Item = &'a [u8]>,
    limit: usize,
) -> (Vec<T>, Option<&'static str>) {
    let mut splitter = Splitter::new(limit);
    let mut messages = Vec::new();
    for piece in pieces {
        splitter.push(Bytes::copy_from_slice(piece));
        loop {
            match splitter.message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) if error.is_violation() => return (messages, Some("violation")),
                Err(_) => return (messages, Some("other")),
            }
        }
        assert!(splitter.held() <= limit, "{} bytes of a line are held", splitter.held());
    }
    (messages, None)
}

fn again<T: Serialize + DeserializeOwned + Debug>(message: &T) -> T {
    let line = serde_json::to_vec(message);
    let line = line.unwrap_or_else(|error| panic!("{message:?} cannot be written: {error}"));
    assert!(!line.contains(&b'\n'), "a message is one line");
    serde_json::from_slice(&line).unwrap_or_else(|error| panic!("{message:?}: {error}"))
}

fn same<T: PartialEq + Debug>(message: &T, again: &T) {
    assert_eq!(message, again, "a message does not survive being written and read again");
}

/// The registration `of`, with the timing that `from` has.
fn with_timing(mut of: Up, from: &Up) -> Up {
    if let (Up::Register { timing, .. }, Up::Register { timing: other, .. }) = (&mut of, from) {
        *timing = *other;
    }
    of
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    const ULID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    fn session() -> String {
        format!(
            "{{\"type\":\"register\",\"worker_id\":\"{ULID}\",\"incarnation\":\"{ULID}\",\
             \"epoch\":1,\"run_id\":\"{ULID}\",\"version\":\"0\",\"plugins\":[\"a\"],\"timing\":\
             {{\"heartbeat_interval_ms\":5e2,\"worker_self_fence_timeout_ms\":4000.5}}}}\n\
             {{\"type\":\"beat\",\"beat\":7}}\n{{\"type\":\"draining\"}}\n\
             {{\"type\":\"registered\",\"run_id\":\"{ULID}\",\"epoch\":1,\"term\":2,\
             \"resumed\":true}}\n{{\"type\":\"ack\",\"beat\":7,\"durable\":5}}\n\
             {{\"type\":\"rejected\",\"reason\":\"rate\",\"detail\":\"x\"}}\n"
        )
    }

    proptest! {
        #[test]
        fn a_damaged_session_never_panics(
            head in any::<[u8; 2]>(),
            from in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            cut in 0usize..12,
            put in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..6),
                "[\\[\\]{}\",:.\n0-9a-zE+-]{0,12}".prop_map(String::into_bytes),
                (0usize..2_000).prop_map(|deep| b"[".repeat(deep)),
            ],
        ) {
            let session = session();
            let lines: Vec<_> = session.split_inclusive('\n').collect();
            let mut bytes = lines[from.index(lines.len())..].concat().into_bytes();
            let start = at.index(bytes.len());
            let end = bytes.len().min(start + cut);
            bytes.splice(start..end, put);
            let bytes = [&head[..], &bytes].concat();
            super::up(&bytes);
            super::down(&bytes);
        }
    }

    #[test]
    fn the_smoke_test_reaches_the_messages() {
        let session = session();
        for (line, line_text) in session.lines().enumerate() {
            let bytes = [&[255, 3], line_text.as_bytes(), b"\n"].concat();
            let read = if line < 3 {
                super::read::<super::Up>(&bytes).len()
            } else {
                super::read::<super::Down>(&bytes).len()
            };
            assert_eq!(read, 1, "{line_text}");
        }
    }
}
