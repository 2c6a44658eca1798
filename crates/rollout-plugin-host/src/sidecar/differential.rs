//! The wire's two decoders, of the host and of the Python SDK, on the same streams: whole ones, odd
//! ones and damaged ones. Where they differ, one side would hang or misread what the other sends.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rollout_process::{Io, Spawn};
use serde::Deserialize;
use serde_json::Value;

use super::fuzz::{End, Sent, sent};

const MAX_FRAME: usize = 2000;
const CASES: usize = 2000;

/// JSON that decoders disagree about, and JSON that is none.
const ODD: &[&[u8]] = &[
    b"",
    b" {}\n",
    b"[]",
    b"null",
    b"{",
    b"{}{}",
    b"{,}",
    b"{\"a\":1,}",
    b"{'a':1}",
    b"{\"a\" 1}",
    b"\xef\xbb\xbf{}",
    b"\0{}",
    b"{}\0",
    b"{\"a\":\"\xff\"}",
    b"{\"a\":\"\xed\xa0\x80\"}",
    b"{\"a\":\"\t\"}",
    b"{\"a\":\"\\x\"}",
    b"{\"a\":\"\\u12g4\"}",
    b"{\"a\":\"\\u00e9\\ud83d\\ude00\"}",
    b"{\"a\":1,\"a\":2}",
    b"{\"\":[]}",
    b"{\"a\":NaN}",
    b"{\"a\":-Infinity}",
    b"{\"a\":nan}",
    b"{\"a\":01}",
    b"{\"a\":+1}",
    b"{\"a\":1.}",
    b"{\"a\":.5}",
    b"{\"a\":-}",
    b"{\"a\":0x1}",
    b"{\"a\":1e5}",
    b"{\"a\":-0}",
    b"{\"a\":-0.0}",
    b"{\"a\":1E-7}",
    b"{\"a\":18446744073709551615}",
    b"{\"a\":123456789012345678901234567890}",
    b"{\"a\":tru}",
    b"{\"a\":true}\x0b",
    b"{\"a\":\"\x7f\"}",
    b"{\"a\":/**/1}",
    b"\xc2\xa0{}",
    b"{\"a\":\"\xe2\x80\xa8\"}",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn json() -> impl Strategy<Value = Vec<u8>> {
    let object = prop::collection::hash_map("[a-z]{1,3}", value(), 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()).to_string().into_bytes());
    let nested = (95usize..105, any::<bool>()).prop_map(|(levels, closed)| {
        let close = if closed { "]".repeat(levels) } else { String::new() };
        format!("{{\"a\":{}{close}}}", "[".repeat(levels)).into_bytes()
    });
    prop_oneof![
        6 => object,
        3 => prop::sample::select(ODD).prop_map(<[u8]>::to_vec),
        1 => nested,
    ]
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let tail = prop::collection::vec(any::<u8>(), 0..40);
    (json(), tail, 0..20u8).prop_map(|(json, tail, lie)| {
        let length = |n: usize| u32::try_from(n).unwrap();
        let claimed = if lie == 0 { u32::MAX - 3 } else { length(json.len()) };
        [&claimed.to_be_bytes()[..], &length(tail.len()).to_be_bytes(), &json, &tail].concat()
    })
}

/// A stream of frames, of which every second one is damaged somewhere.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let damage = prop::option::of((any::<prop::sample::Index>(), 0..4u8, any::<u8>()));
    (prop::collection::vec(frame(), 0..4), damage).prop_map(|(frames, damage)| {
        let mut bytes = frames.concat();
        if let Some((index, kind, byte)) = damage.filter(|_| !bytes.is_empty()) {
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    })
}

/// What the Python SDK made of a stream.
#[derive(Deserialize)]
struct Peer {
    frames: Vec<(String, String)>,
    end: String,
}

fn peers(streams: &[Vec<u8>]) -> Vec<Peer> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("streams");
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_be_bytes();
    let all: Vec<_> =
        streams.iter().flat_map(|bytes| [&length(bytes)[..], bytes].concat()).collect();
    std::fs::write(&file, all).unwrap();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../../python/tests/codec_peer.py");
    let spawn = Spawn::new("python3")
        .args(["-B", program])
        .arg(&file)
        .arg(MAX_FRAME.to_string())
        .stderr(Io::Pipe);
    let output = spawn.output(Some(Duration::from_secs(60))).unwrap();
    assert!(output.exit.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = str::from_utf8(&output.stdout).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Why the decoders disagree about a stream, if they do.
fn difference(bytes: &[u8], peer: &Peer) -> Option<String> {
    let (ours, end) = sent(bytes, MAX_FRAME);
    let mut theirs = peer.frames.iter();
    for Sent { json, tail, .. } in &ours {
        let Some((text, hex)) = theirs.next() else {
            // The host reads frames before it looks into them, Python both at once.
            let agreed = json.is_err() && peer.end == "malformed";
            return (!agreed).then(|| format!("{json:?}, Python: {}", peer.end));
        };
        let tail = rollout_core::hex(tail);
        if tail != *hex {
            return Some(format!("tail {tail}, Python: {hex}"));
        }
        match (json, serde_json::from_str::<Value>(text)) {
            (Ok(json), Ok(value)) if same(&Value::Object(json.clone()), &value) => {}
            // A float out of range, or half of a surrogate pair: JSON, but nothing the host's values
            // can hold. It passes them on as text.
            (Err(_), Err(_)) if text.contains("Infinity") || text.contains("\\ud") => {}
            (json, _) => return Some(format!("{json:?}, Python: {text}")),
        }
    }
    let want = match end {
        End::TooLarge => "too_large",
        // Python has no use for the difference.
        End::Clean | End::Cut => "end",
    };
    let more = theirs.next().is_some();
    (more || peer.end != want).then(|| format!("{end:?}, Python: {}", peer.end))
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            // One reads the last digit as written, the other as near as it is quick.
            (a - b).abs() <= a.abs() * 1e-15
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let each = |(key, a)| b.get(key).is_some_and(|b| same(a, b));
            a.len() == b.len() && a.iter().all(each)
        }
        _ => a == b,
    }
}

#[test]
fn the_host_and_the_python_sdk_read_the_same() {
    let mut runner = TestRunner::deterministic();
    let odd = ODD.iter().map(|json| {
        let length = u32::try_from(json.len()).unwrap().to_be_bytes();
        [&length[..], &[0; 4], json].concat()
    });
    let any = std::iter::repeat_with(|| stream().new_tree(&mut runner).unwrap().current());
    let streams: Vec<_> = odd.chain(any.take(CASES)).collect();
    let peers = peers(&streams);
    assert_eq!(peers.len(), streams.len());
    let mut kinds = std::collections::BTreeMap::<&str, usize>::new();
    for (bytes, peer) in streams.iter().zip(&peers) {
        if let Some(difference) = difference(bytes, peer) {
            panic!("{:?}: {difference}", String::from_utf8_lossy(bytes));
        }
        *kinds.entry(&peer.end).or_default() += 1;
    }
    // Each end was reached often enough to mean something.
    for end in ["end", "malformed", "too_large"] {
        assert!(kinds.get(end).is_some_and(|count| *count > CASES / 20), "{kinds:?}");
    }
}
