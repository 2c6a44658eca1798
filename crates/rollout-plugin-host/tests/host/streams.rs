//! What comes before an answer: parts with credit, batches' items, progress; from sidecars that speak
//! the wire by hand.

use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rollout_plugin_host::{Executed, Item, Ongoing, Plugin, PluginError, Update};
use serde_json::json;

use crate::bench::{Bench, LONG, assert_alive, call, failure, raw, result};
use crate::raw::{exited, odd, pid, start};

/// `odd` with `n` sends n parts, as credit allows, and is answered with the credit it was given.
/// `pid` is answered with the number of parts sent so far.
const STREAMS: &str = r#"
streams, sent = {}, 0
def pump(s):
    global sent
    for id, it in list(streams.items()):
        while it["credit"] and it["left"]:
            send(s, {"t": "part", "id": id, "result": it["n"]}, b"x" * it["n"])
            sent += 1
            it["n"] += 1; it["credit"] -= 1; it["left"] -= 1
        if not it["left"]:
            send(s, {"t": "reply", "id": id, "result": it["given"]})
            del streams[id]
s = connect(); ready(s)
while True:
    pump(s)
    m, tail = read(s)
    if m["t"] == "shutdown":
        sys.exit(0)
    if m["t"] == "cancel":
        if streams.pop(m["id"])["credit"]:
            send(s, {"t": "part", "id": m["id"], "result": "late"})
        send(s, {"t": "error", "id": m["id"], "code": "cancelled", "message": "as asked"})
    if m["t"] == "credit" and m["id"] in streams:
        streams[m["id"]]["credit"] += m["n"]; streams[m["id"]]["given"] += m["n"]
    if m["t"] == "call" and m["method"] == "odd":
        streams[m["id"]] = {"n": 0, "left": m["params"], "credit": 16, "given": 0}
    elif m["t"] == "call":
        result = sent if m["method"] == "pid" else m["params"]
        send(s, {"t": "reply", "id": m["id"], "result": result})
"#;

/// Passed to a call of `STREAMS`: more than anybody takes.
const FOR_EVER: i64 = -1;

fn stream(plugin: &Plugin, params: i64) -> Ongoing<'_> {
    plugin.stream("odd", &raw(json!(params)), Bytes::new(), None)
}

fn batch(plugin: &Plugin, items: usize) -> Ongoing<'_> {
    let item = |n| Item { params: raw(json!(n)), payload: Bytes::from(vec![b'p'; n]) };
    plugin.call_batch("odd", (0..items).map(item).collect(), None)
}

async fn next(ongoing: &mut Ongoing<'_>) -> Result<Update, PluginError> {
    tokio::time::timeout(LONG, ongoing.next()).await.unwrap().unwrap()
}

async fn part(ongoing: &mut Ongoing<'_>) -> (String, usize) {
    match next(ongoing).await.unwrap() {
        Update::Part(part) => (part.result.get().to_owned(), part.payload.len()),
        other => panic!("{other:?}"),
    }
}

async fn item(ongoing: &mut Ongoing<'_>) -> (usize, Result<(String, usize), PluginError>) {
    match next(ongoing).await.unwrap() {
        Update::Item(n, item) => {
            (n, item.map(|item| (item.result.get().to_owned(), item.payload.len())))
        }
        other => panic!("{other:?}"),
    }
}

async fn end(ongoing: &mut Ongoing<'_>) -> String {
    let end = match next(ongoing).await.unwrap() {
        Update::End(reply) => reply.result.get().to_owned(),
        other => panic!("{other:?}"),
    };
    assert!(ongoing.next().await.is_none(), "nothing comes after the answer");
    end
}

#[tokio::test]
async fn parts_come_in_order_with_their_bytes_before_the_answer() {
    let bench = Bench::new();
    let plugin = start(&bench, STREAMS, "").await.unwrap();
    let mut ongoing = stream(&plugin, 40);
    for n in 0..40 {
        assert_eq!(part(&mut ongoing).await, (n.to_string(), n));
    }
    let given: usize = end(&mut ongoing).await.parse().unwrap();
    assert!((24..=40).contains(&given), "credit for what was taken and no more: {given}");
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_wants_only_the_answer_is_not_kept_waiting_by_parts() {
    let bench = Bench::new();
    let plugin = start(&bench, STREAMS, "").await.unwrap();
    let given = result(&plugin, "odd", json!(100)).await;
    assert!((84..=100).contains(&given.as_u64().unwrap()), "{given}");
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_caller_that_takes_nothing_holds_its_own_stream_and_no_other_call() {
    let bench = Bench::new();
    let plugin = start(&bench, STREAMS, "").await.unwrap();
    let mut idle = stream(&plugin, FOR_EVER);
    assert_eq!(part(&mut idle).await.0, "0");
    assert_alive(&plugin).await;
    assert_eq!(result(&plugin, "pid", json!(null)).await, json!(16), "a window, and no part more");
    let mut slow = stream(&plugin, FOR_EVER);
    for n in 0..100 {
        assert_eq!(part(&mut slow).await.0, n.to_string());
        assert_alive(&plugin).await;
    }
    drop(slow);
    drop(idle);
    assert_alive(&plugin).await;
    assert!(bench.events().iter().find_map(exited).is_none());
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_part_beyond_the_credit_is_an_offence() {
    let bench = Bench::new();
    // One part; when it is called again, seventeen more, of which nobody has taken any.
    let script = r#"id = call["id"]
    send(s, {"t": "part", "id": id, "result": 0})
    read(s)
    for n in range(call["params"]): send(s, {"t": "part", "id": id, "result": n})
    send(s, {"t": "reply", "id": id, "result": None})
    time.sleep(60)"#;
    for (more, offence) in [(15, false), (16, true)] {
        let plugin = odd(&bench, script, "").await;
        let mut ongoing = stream(&plugin, more);
        part(&mut ongoing).await;
        let second =
            tokio::time::timeout(Duration::from_millis(300), call(&plugin, "echo", json!(1)));
        let _ = second.await;
        for _ in 0..15 {
            part(&mut ongoing).await;
        }
        if offence {
            let error = next(&mut ongoing).await.unwrap_err();
            assert_eq!((error.code(), error.executed), ("malformed", Executed::Maybe), "{error}");
            assert!(error.to_string().contains("has no credit"), "{error}");
        } else {
            assert_eq!(end(&mut ongoing).await, "null");
        }
        plugin.shutdown().await.unwrap();
    }
}

/// The rest of a script for `odd`, as a function of a batch `m` with its tail.
fn on_batch(rest: &str) -> String {
    format!(
        "s = connect(); ready(s)\ndef item(n, **more):\n    \
         send(s, {{\"t\": \"item\", \"id\": id, \"n\": n}} | more)\n\
         while True:\n    m, tail = read(s)\n    \
         if m[\"t\"] == \"shutdown\": sys.exit(0)\n    \
         if m[\"t\"] == \"call\":\n        result = os.getpid() if m[\"method\"] == \"pid\" else m[\"params\"]\n        \
         send(s, {{\"t\": \"reply\", \"id\": m[\"id\"], \"result\": result}})\n    \
         if m[\"t\"] != \"batch\": continue\n    id = m[\"id\"]\n    {}\n",
        rest.replace('\n', "\n    ")
    )
}

#[tokio::test]
async fn a_batchs_items_come_as_they_are_ready_with_their_own_bytes_and_errors() {
    let bench = Bench::new();
    let script = on_batch(
        "assert [i[\"n\"] for i in m[\"items\"]] == [0, 1, 2] and tail == b\"ppp\"\n\
         assert [i.get(\"tail\", 0) for i in m[\"items\"]] == [0, 1, 2]\n\
         send(s, {\"t\": \"item\", \"id\": id, \"n\": 2, \"result\": \"two\"}, tail[1:])\n\
         item(1, error={\"code\": \"user\", \"message\": \"no\", \"traceback\": \"line 1\"})\n\
         other, _ = read(s)\n\
         send(s, {\"t\": \"reply\", \"id\": other[\"id\"], \"result\": [1]})\n\
         item(0, result=\"zero\")\n\
         send(s, {\"t\": \"reply\", \"id\": id, \"result\": None})",
    );
    let plugin = start(&bench, &script, "").await.unwrap();
    let mut ongoing = batch(&plugin, 3);
    assert_eq!(item(&mut ongoing).await.1.unwrap(), ("\"two\"".into(), 2));
    let (n, refused) = item(&mut ongoing).await;
    let refused = refused.unwrap_err();
    assert_eq!((n, refused.code(), refused.executed), (1, "user", Executed::Yes));
    assert_eq!(refused.detail()["traceback"], "line 1");
    // Only now is the first item answered.
    assert_alive(&plugin).await;
    assert_eq!(item(&mut ongoing).await.1.unwrap(), ("\"zero\"".into(), 0));
    assert_eq!(end(&mut ongoing).await, "null");
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_batch_that_is_answered_wrongly_is_an_offence() {
    for (wrong, words) in [
        ("item(0, result=1); item(0, result=1)", "item 0 of batch 1"),
        ("item(2, result=1)", "item 2 of batch 1"),
        ("send(s, {\"t\": \"reply\", \"id\": id, \"result\": 1})", "2 items unanswered"),
        ("send(s, {\"t\": \"part\", \"id\": id, \"result\": 1})", "a part for call 1"),
        ("id += 1; item(0, result=1)", "item 0 of batch 2"),
    ] {
        let bench = Bench::new();
        let plugin = start(&bench, &on_batch(wrong), "").await.unwrap();
        let mut ongoing = batch(&plugin, 2);
        let error = loop {
            match next(&mut ongoing).await {
                Ok(Update::Item(0, Ok(_))) => {}
                Ok(other) => panic!("{wrong}: {other:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!((error.code(), error.executed), ("malformed", Executed::Maybe), "{wrong}");
        assert!(error.to_string().contains(words), "{wrong}: {error}");
        assert!(!bench.event(exited).await.expected, "{wrong}");
        plugin.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn items_that_were_answered_before_a_crash_stay_answered() {
    let bench = Bench::new();
    let script = on_batch("item(1, result=1); os._exit(9)");
    let plugin = start(&bench, &script, "").await.unwrap();
    let mut ongoing = batch(&plugin, 3);
    assert_eq!(item(&mut ongoing).await.0, 1);
    let error = next(&mut ongoing).await.unwrap_err();
    assert_eq!((error.code(), error.executed), ("crashed", Executed::Maybe));
    assert!(ongoing.next().await.is_none());
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_batch_that_no_process_has_had_goes_to_the_next_one() {
    let bench = Bench::new();
    let script = on_batch(
        "for n in range(2): item(n, result=os.getpid())\n\
         send(s, {\"t\": \"reply\", \"id\": id, \"result\": None})",
    );
    let plugin = start(&bench, &script, "").await.unwrap();
    let first = pid(&plugin).await;
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    bench.event(exited).await;
    let mut ongoing = batch(&plugin, 2);
    let (_, answered) = item(&mut ongoing).await;
    assert_ne!(answered.unwrap().0, first.to_string());
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline_and_a_batch_is_one_call() {
    let bench = Bench::new();
    let plugin = start(&bench, STREAMS, "[limits]\nmax_in_flight = 1").await.unwrap();
    let deadline = Some(Duration::from_millis(200));
    let mut ongoing = plugin.stream("odd", &raw(json!(FOR_EVER)), Bytes::new(), deadline);
    let error = loop {
        match next(&mut ongoing).await {
            Ok(Update::Part(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "deadline");
    plugin.shutdown().await.unwrap();
    let script = on_batch("read(s); os._exit(0)");
    let plugin = start(&bench, &script, "[limits]\nmax_in_flight = 1").await.unwrap();
    let mut ongoing = batch(&plugin, 3);
    let waiting = ongoing.next();
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    assert_eq!(failure(&plugin, "echo", json!(1)).await.code(), "overloaded");
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn progress_is_passed_on_and_a_flood_of_it_or_of_pings_costs_nothing() {
    let bench = Bench::new();
    let script = r#"for _ in range(20000):
        send(s, {"t": "progress", "id": call["id"]})
        send(s, {"t": "ping"})
    message, _ = read(s)
    send(s, {"t": "progress", "id": 999})
    send(s, {"t": "reply", "id": call["id"], "result": message["t"]})
    send(s, {"t": "progress", "id": call["id"]})"#;
    let plugin = odd(&bench, script, "").await;
    let mut ongoing = stream(&plugin, 0);
    let mut signs = 0;
    let end = loop {
        match next(&mut ongoing).await.unwrap() {
            Update::Progress => signs += 1,
            Update::End(reply) => break reply.result.get().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end, "\"pong\"");
    assert!((1..=20_000).contains(&signs));
    assert_alive(&plugin).await;
    plugin.shutdown().await.unwrap();
}
