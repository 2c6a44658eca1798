//! The wire's decoder, for fuzzers and for the comparison with the Python SDK's.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use serde_json::{Map, Value};

use super::frame::{Frame, FrameError};
use super::wire::FromPlugin;
use crate::json;

/// A frame that was read.
#[derive(Debug)]
pub struct Sent {
    /// The JSON object, or what is wrong with it.
    pub json: Result<Map<String, Value>, String>,
    /// Whether the object is a message that the host accepts.
    pub is_message: bool,
    /// The bytes behind it.
    pub tail: Vec<u8>,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Between two frames.
    Clean,
    /// Inside a frame.
    Cut,
    /// With a header that claims too much.
    TooLarge,
}

/// Reads bytes as a sidecar's stream, as the host reads it.
///
/// # Panics
/// When more is read than the limit allows, or a message is accepted that is no JSON object.
#[must_use]
pub fn sent(bytes: &[u8], max_frame: usize) -> (Vec<Sent>, End) {
    let mut from = bytes;
    let mut all = Vec::new();
    loop {
        match now(Frame::read(&mut from, max_frame)) {
            Ok(Some(frame)) => {
                assert!(frame.size() <= max_frame, "a frame over the limit");
                let json = object(&frame.json);
                let is_message = FromPlugin::parse(&frame.json).is_ok();
                all.push(Sent { json, is_message, tail: frame.tail.to_vec() });
            }
            Ok(None) => return (all, End::Clean),
            Err(FrameError::Io(_)) => return (all, End::Cut),
            Err(FrameError::TooLarge(_)) => return (all, End::TooLarge),
        }
    }
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    json::check_depth(bytes).map_err(|error| error.to_string())?;
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// The result of a future that has nothing to wait for, as a read from memory.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
}
