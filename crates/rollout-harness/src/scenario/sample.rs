//! An event of each topic, made up: for the names of its attributes, and for the twins that add one.

use rollout_core::{Event, Incarnation, JobId, Mono, PluginId, RunId, WorkerId};
use serde_json::{Map, Value, json};

/// An event of this topic with plausible attributes; none for a topic that does not exist.
pub(super) fn event(
    topic: &str,
    at: Mono,
    run: RunId,
    worker: Option<WorkerId>,
    attrs: &Map<String, Value>,
) -> Option<Event> {
    // A signal, and a code, is a name in one topic and a number in another.
    let kinds = [(json!("SIGTERM"), json!("user")), (Value::Null, json!(1))];
    kinds.into_iter().find_map(|(signal, code)| {
        let mut all = all(signal, code);
        all.extend(attrs.clone());
        let level = if topic == "worker_failed" { "error" } else { "info" };
        let mut line = json!({
            "seq": 1, "ts": "2026-01-01T00:00:00Z", "mono_ns": at, "level": level,
            "kind": "event", "topic": topic, "run_id": run, "attrs": all,
        });
        if let (Some(worker), Some(line)) = (worker, line.as_object_mut()) {
            line.insert("worker_id".to_owned(), json!(worker));
        }
        serde_json::from_value(line).ok()
    })
}

/// The attributes of a topic, with plausible values.
pub(super) fn attributes(topic: &str) -> Map<String, Value> {
    let event = event(topic, Mono(0), RunId::generate(), None, &Map::new());
    event.map(|event| of(&event)).unwrap_or_default()
}

/// The attributes of an event.
pub(super) fn of(event: &Event) -> Map<String, Value> {
    match serde_json::to_value(event) {
        Ok(Value::Object(mut line)) => match line.remove("attrs") {
            Some(Value::Object(attrs)) => attrs,
            _ => Map::new(),
        },
        _ => Map::new(),
    }
}

/// The event with these attributes, if they still are attributes of its topic.
pub(super) fn with(event: &Event, attrs: Map<String, Value>) -> Option<Event> {
    let mut line = serde_json::to_value(event).ok()?;
    line.as_object_mut()?.insert("attrs".to_owned(), Value::Object(attrs));
    serde_json::from_value(line).ok()
}

/// Every attribute that any topic has.
fn all(signal: Value, code: Value) -> Map<String, Value> {
    let of_processes = json!({
        "epoch": 1, "incarnation": Incarnation::generate(), "version": "0", "plugins": [],
        "reason": "unacknowledged", "detail": "", "peer": "127.0.0.1:1", "beat": 1, "gap_ms": 1.0,
        "overdue_ms": 1.0, "overshoot_ms": 1.0, "credited_ms": 0.0, "unacknowledged_ms": 1.0,
        "term": 1, "listen_addr": "127.0.0.1:1", "known_workers": 1, "ms": 1.0, "signal": signal,
        "plugin_id": PluginId::generate(), "name": "p", "boundary": "sidecar", "digest": "",
        "method": "m", "took_ms": 1.0, "code": code, "stderr_tail": "", "expected": false,
        "crashes": 1, "down_ms": 1.0, "heartbeats": 1, "others": 1, "skew_ms": 1,
        "suppressed": 0,
    });
    let of_work = json!({
        "job": JobId::generate(), "items": 1, "ranges": [[0, 0]], "seq": 1, "dead": 0,
        "stale": "attempt", "cause": "worker_failed", "item": 0, "failures": 1, "losses": 0,
        "message": "",
    });
    let maps = [of_processes, of_work].into_iter().filter_map(|all| match all {
        Value::Object(all) => Some(all),
        _ => None,
    });
    maps.flatten().collect()
}

#[cfg(test)]
mod tests {
    use rollout_core::Body;

    use super::*;

    #[test]
    fn there_is_a_sample_of_every_topic() {
        for topic in Body::TOPICS {
            let event = event(topic, Mono(7), RunId::generate(), None, &Map::new());
            let event = event.unwrap_or_else(|| panic!("no sample of {topic}: add its attributes"));
            assert_eq!(event.body.topic(), *topic);
        }
        assert!(attributes("worker_failed").contains_key("credited_ms"));
        assert!(attributes("no_such_topic").is_empty());
    }
}
