//! The messages of the sidecar wire, version 1: what the host writes and what it accepts.

use std::sync::Arc;

use bytes::Bytes;
use rollout_core::Level;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::frame::Frame;
use crate::call::{Item, Method, clip};
use crate::event::HostEvent;
use crate::json;

/// The one version of the wire.
pub(super) const PROTO: u32 = 1;

/// What the host writes.
#[derive(Serialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(super) enum ToPlugin<'a> {
    Hello {
        /// The oldest and the newest version spoken.
        proto: [u32; 2],
        plugin: &'a str,
        config: &'a Map<String, Value>,
        limits: HelloLimits,
    },
    Call {
        id: u64,
        method: &'a str,
        params: &'a RawValue,
        timeout_ms: u64,
    },
    Batch {
        id: u64,
        method: &'a str,
        items: Vec<BatchItem<'a>>,
        timeout_ms: u64,
    },
    /// So many more parts may be sent.
    Credit {
        id: u64,
        n: usize,
    },
    Cancel {
        id: u64,
    },
    Pong,
    Shutdown {
        grace_ms: u64,
    },
}

/// One item of a batch.
#[derive(Serialize)]
pub(super) struct BatchItem<'a> {
    n: usize,
    params: &'a RawValue,
    /// Its share of the frame's tail, in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    tail: usize,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// The limits that a sidecar should know.
#[derive(Serialize)]
pub(super) struct HelloLimits {
    pub(super) max_frame: usize,
    pub(super) max_in_flight: usize,
    /// How many parts a call may send before it is given credit.
    pub(super) part_window: usize,
}

/// A batch's message and its tail, in which the items' payloads lie one after the other.
pub(super) fn batch<'a>(
    id: u64,
    method: &'a str,
    items: &'a [Item],
    timeout_ms: u64,
) -> (ToPlugin<'a>, Bytes) {
    let payloads: Vec<&[u8]> = items.iter().map(|item| &item.payload[..]).collect();
    let tail = payloads.concat().into();
    let numbered = items.iter().enumerate();
    let items = numbered
        .map(|(n, item)| BatchItem { n, params: &item.params, tail: item.payload.len() })
        .collect();
    (ToPlugin::Batch { id, method, items, timeout_ms }, tail)
}

impl ToPlugin<'_> {
    /// The message in a frame.
    pub(super) fn frame(&self, tail: Bytes) -> Result<Frame, serde_json::Error> {
        Ok(Frame { json: serde_json::to_vec(self)?, tail })
    }
}

/// What the host accepts.
#[derive(Debug)]
pub(super) enum FromPlugin {
    Ready(Ready),
    Refuse { message: String },
    Reply { id: u64, result: Box<RawValue> },
    Error { id: u64, error: Error },
    Part { id: u64, result: Box<RawValue> },
    Item { id: u64, n: usize, result: Result<Box<RawValue>, Error> },
    Progress { id: u64 },
    Log(Log),
    Ping,
    Pong,
}

/// An error as the plugin words it.
#[derive(Debug, Deserialize)]
pub(super) struct Error {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) traceback: Option<String>,
    /// With `too_large`: the size of the answer that was not sent.
    pub(super) got: Option<u64>,
}

impl Error {
    fn clipped(self) -> Self {
        let (message, traceback) = (clip(self.message), self.traceback.map(clip));
        Self { message, traceback, ..self }
    }
}

/// A log record.
#[derive(Debug)]
pub(super) struct Log {
    level: Level,
    target: String,
    message: String,
}

impl Log {
    pub(super) fn event(self, plugin: &Arc<str>) -> HostEvent {
        let Self { level, target, message } = self;
        HostEvent::Log { plugin: Arc::clone(plugin), level, target, message }
    }
}

/// A sidecar's answer to `hello`.
#[derive(Debug, Deserialize)]
pub(super) struct Ready {
    pub(super) proto: u32,
    /// As the host passed it in the environment.
    #[serde(default)]
    pub(super) token: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) methods: Vec<Method>,
    /// How many calls it takes at the same time, if it takes fewer than the host offers.
    pub(super) max_in_flight: Option<usize>,
    /// How large a frame it takes, in bytes, if that is less than the host offers.
    pub(super) max_frame: Option<usize>,
}

impl FromPlugin {
    /// Reads a message. Keys that are not known are ignored, so that minor additions pass; a `t` that
    /// is not known is refused.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        json::check_depth(bytes).map_err(|error| format!("a message is {error}"))?;
        let line: Line = serde_json::from_slice(bytes)
            .map_err(|error| format!("what it sent is no message: {error}"))?;
        let t = line.t.clone();
        line.sort().ok_or_else(|| match t.as_str() {
            "ready" | "refuse" | "reply" | "error" | "part" | "item" | "progress" | "log" => {
                format!("a `{t}` message lacks one of its keys")
            }
            _ => format!("a message of the unknown kind `{t:.40}`"),
        })
    }
}

/// Every key of every message, so that one pass reads it.
#[derive(Deserialize)]
struct Line {
    t: String,
    id: Option<u64>,
    /// Not an `Option`: null is a result.
    #[serde(default = "null")]
    result: Box<RawValue>,
    code: Option<String>,
    message: Option<String>,
    traceback: Option<String>,
    got: Option<u64>,
    n: Option<usize>,
    error: Option<Error>,
    level: Option<Level>,
    target: Option<String>,
    proto: Option<u32>,
    token: Option<String>,
    name: Option<String>,
    version: Option<String>,
    methods: Option<Vec<Method>>,
    max_in_flight: Option<usize>,
    max_frame: Option<usize>,
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

impl Line {
    /// The message, if its kind is known and its keys are there.
    fn sort(self) -> Option<FromPlugin> {
        Some(match self.t.as_str() {
            "ready" => FromPlugin::Ready(Ready {
                proto: self.proto?,
                token: self.token.unwrap_or_default(),
                name: self.name?,
                version: self.version?,
                methods: self.methods?,
                max_in_flight: self.max_in_flight,
                max_frame: self.max_frame,
            }),
            "refuse" => FromPlugin::Refuse { message: clip(self.message?) },
            "reply" => FromPlugin::Reply { id: self.id?, result: self.result },
            "error" => {
                let (code, message) = (self.code?, self.message?);
                let error = Error { code, message, traceback: self.traceback, got: self.got };
                FromPlugin::Error { id: self.id?, error: error.clipped() }
            }
            "part" => FromPlugin::Part { id: self.id?, result: self.result },
            "item" => {
                let result = self.error.map_or(Ok(self.result), |error| Err(error.clipped()));
                FromPlugin::Item { id: self.id?, n: self.n?, result }
            }
            "progress" => FromPlugin::Progress { id: self.id? },
            "ping" => FromPlugin::Ping,
            "pong" => FromPlugin::Pong,
            "log" => FromPlugin::Log(Log {
                level: self.level?,
                target: clip(self.target?),
                message: clip(self.message?),
            }),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_result_is_kept_byte_for_byte_and_null_is_a_result() {
        let reply = |text: &str| match FromPlugin::parse(text.as_bytes()).unwrap() {
            FromPlugin::Reply { id: 7, result } => result.get().to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(reply(r#"{"t":"reply","result": {"a" : 1.0} ,"id":7}"#), r#"{"a" : 1.0}"#);
        assert_eq!(reply(r#"{"t":"reply","id":7,"result":null}"#), "null");
    }

    #[test]
    fn a_message_that_is_none_is_refused_with_the_reason() {
        let deep = format!(r#"{{"t":"reply","id":1,"result":{}"#, "[".repeat(10_000));
        for (bad, reason) in [
            ("[]", "no message"),
            (r#"{"t":"rply","id":1}"#, "unknown kind `rply`"),
            (r#"{"t":"reply","result":1}"#, "`reply` message lacks"),
            (r#"{"t":"reply","id":-1,"result":1}"#, "no message"),
            (r#"{"t":"error","id":1,"code":"user"}"#, "`error` message lacks"),
            (r#"{"t":"reply","id":1,"result":NaN}"#, "no message"),
            ("\u{1}", "no message"),
            (&deep, "nested deeper"),
        ] {
            let error = FromPlugin::parse(bad.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{bad:.60}: {error}");
        }
        assert!(FromPlugin::parse(b"{\"t\":\"refuse\",\"message\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_text_that_is_passed_on_has_a_bounded_length() {
        let text = format!("a{}", "ü".repeat(100_000));
        let line = format!(r#"{{"t":"log","level":"info","target":"{text}","message":"{text}"}}"#);
        let FromPlugin::Log(log) = FromPlugin::parse(line.as_bytes()).unwrap() else { panic!() };
        assert_eq!((log.target.len(), log.message.len()), (16 * 1024 - 1, 16 * 1024 - 1));
        assert!(text.starts_with(&log.message));
    }

    #[test]
    fn a_call_is_written_as_the_wire_has_it() {
        let params = serde_json::value::to_raw_value(&[1]).unwrap();
        let call = ToPlugin::Call { id: 7, method: "echo", params: &params, timeout_ms: 5000 };
        let frame = call.frame(Bytes::from_static(b"tail")).unwrap();
        assert_eq!(
            str::from_utf8(&frame.json).unwrap(),
            r#"{"t":"call","id":7,"method":"echo","params":[1],"timeout_ms":5000}"#
        );
        assert_eq!(&frame.tail[..], b"tail");
    }

    #[test]
    fn a_batch_is_written_with_the_payloads_one_after_the_other() {
        let item = |n: u8, payload: &'static [u8]| Item {
            params: serde_json::value::to_raw_value(&n).unwrap(),
            payload: Bytes::from_static(payload),
        };
        let items = [item(7, b"abc"), item(8, b""), item(9, b"d")];
        let (message, tail) = batch(3, "m", &items, 10);
        let frame = message.frame(tail).unwrap();
        assert_eq!(
            str::from_utf8(&frame.json).unwrap(),
            r#"{"t":"batch","id":3,"method":"m","items":[{"n":0,"params":7,"tail":3},{"n":1,"params":8},{"n":2,"params":9,"tail":1}],"timeout_ms":10}"#
        );
        assert_eq!(&frame.tail[..], b"abcd");
    }

    #[test]
    fn an_item_has_a_result_or_an_error() {
        let item = |text: &str| match FromPlugin::parse(text.as_bytes()).unwrap() {
            FromPlugin::Item { id: 3, n: 1, result } => result,
            other => panic!("{other:?}"),
        };
        assert_eq!(item(r#"{"t":"item","id":3,"n":1,"result":[2]}"#).unwrap().get(), "[2]");
        let error = r#"{"t":"item","id":3,"n":1,"error":{"code":"user","message":"no"}}"#;
        assert_eq!(item(error).unwrap_err().message, "no");
        for bad in [
            r#"{"t":"item","id":3,"result":1}"#,
            r#"{"t":"item","id":3,"n":1,"error":{"code":"user"}}"#,
            r#"{"t":"part","result":1}"#,
            r#"{"t":"progress"}"#,
        ] {
            assert!(FromPlugin::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(junk in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = FromPlugin::parse(&junk);
        }
    }
}
