//! What comes before an answer from a library: parts, batches' items, progress.

use std::time::Duration;

use bytes::Bytes;
use rollout_plugin_host::{Executed, HostEvent, Item, Ongoing, Plugin, PluginError, Update};
use serde_json::{Value, json};

use crate::bench::{Bench, LONG, assert_alive, failure, raw, result};
use crate::cdylib::{start_c, started};

fn stream<'a>(plugin: &'a Plugin, method: &str, params: Value) -> Ongoing<'a> {
    plugin.stream(method, &raw(params), Bytes::new(), None)
}

async fn next(ongoing: &mut Ongoing<'_>) -> Result<Update, PluginError> {
    tokio::time::timeout(LONG, ongoing.next()).await.unwrap().unwrap()
}

/// Everything until the end, each update in a word or two, and the end.
async fn all(mut ongoing: Ongoing<'_>) -> (Vec<String>, Result<String, PluginError>) {
    let mut updates = Vec::new();
    loop {
        updates.push(match next(&mut ongoing).await {
            Ok(Update::Progress) => "progress".to_owned(),
            Ok(Update::Part(part)) => format!("{} {}", part.result, part.payload.len()),
            Ok(Update::Item(n, Ok(item))) => format!("{n}: {}", item.result),
            Ok(Update::Item(n, Err(error))) => format!("{n}: {}", error.code()),
            Ok(Update::End(reply)) => return (updates, Ok(reply.result.get().to_owned())),
            Err(error) => return (updates, Err(error)),
        });
    }
}

fn items(params: impl IntoIterator<Item = Value>) -> Vec<Item> {
    let item = |params| Item { params: raw(params), payload: Bytes::from_static(b"p") };
    params.into_iter().map(item).collect()
}

fn cancelled(event: &HostEvent) -> Option<()> {
    match event {
        HostEvent::Log { message, .. } if message == "cancelled" => Some(()),
        _ => None,
    }
}

#[tokio::test]
async fn parts_come_in_order_with_their_bytes_before_the_answer() {
    let bench = Bench::new();
    let plugin = started(&bench, "").await;
    let (parts, end) = all(stream(&plugin, "parts", json!(40))).await;
    assert_eq!(parts, (0..40).map(|n| format!("{n} {n}")).collect::<Vec<_>>());
    assert_eq!(end.unwrap(), "40");
    assert_eq!(result(&plugin, "parts", json!(100)).await, 100, "without anybody who wants them");
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_plugin_ahead_of_its_caller_waits_until_the_caller_takes_or_leaves() {
    let bench = Bench::new();
    let plugin = started(&bench, "").await;
    let mut idle = stream(&plugin, "endless", json!(null));
    assert!(matches!(next(&mut idle).await, Ok(Update::Part(_))));
    let other = started(&bench, "").await;
    assert_alive(&other).await;
    assert!(bench.events().is_empty());
    drop(idle);
    bench.event(cancelled).await;
    assert_alive(&plugin).await;

    let deadline = Some(Duration::from_millis(100));
    let mut late = plugin.stream("endless", &raw(json!(null)), Bytes::new(), deadline);
    assert!(matches!(next(&mut late).await, Ok(Update::Part(_))));
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_alive(&plugin).await;
    assert_eq!(all(late).await.1.unwrap_err().code(), "deadline");

    let mut idle = stream(&plugin, "endless", json!(null));
    assert!(matches!(next(&mut idle).await, Ok(Update::Part(_))));
    plugin.shutdown().await.unwrap();
    assert_eq!(all(idle).await.1.unwrap_err().code(), "cancelled");
}

#[tokio::test]
async fn a_part_that_is_too_large_or_no_json_or_of_no_call_is_refused_and_released() {
    let bench = Bench::new();
    let plugin = started(&bench, "[limits]\nmax_frame = 4096").await;
    let error = failure(&plugin, "heavy", json!(5000)).await;
    assert!(error.to_string().contains("larger than `limits.max_frame`"), "{error}");
    plugin.shutdown().await.unwrap();

    let plugin = start_c(&bench, &[]).await.unwrap();
    let part = async |method: &'static str, text: &'static [u8]| {
        let (parts, end) =
            all(plugin.stream(method, &raw(json!(null)), Bytes::from_static(text), None)).await;
        (parts, end.unwrap())
    };
    // 0, 2 and 4 are the codes OK, BAD_PARAMS and CANCELLED.
    let good = part("part", b"[1]").await;
    assert_eq!(good, (vec!["[1] 1".to_owned(), "progress".to_owned()], "0".to_owned()));
    assert_eq!(part("part", b"NaN").await.1, "2");
    let before = result(&plugin, "echo", json!(1)).await;
    assert_eq!(before, json!(1));
    assert_eq!(part("late_part", b"[1]").await, (Vec::new(), "4".to_owned()));
    let released = result(&plugin, "released", json!(null)).await;
    assert_eq!(released, json!(10), "two buffers a part, and the replies'");
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn progress_comes_as_one_sign_until_it_is_taken() {
    let bench = Bench::new();
    let plugin = started(&bench, "").await;
    let (updates, end) = all(stream(&plugin, "progress", json!(null))).await;
    assert_eq!(end.unwrap(), "null");
    let signs = updates.iter().filter(|update| *update == "progress").count();
    assert!((1..=3).contains(&signs) && updates.len() == signs + 1, "{updates:?}");
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_batch_has_a_result_or_an_error_for_each_item() {
    let bench = Bench::new();
    let plugin = started(&bench, "").await;
    let params = [json!(1), json!("two"), json!(3)];
    let (answers, end) = all(plugin.call_batch("sleep", items(params), None)).await;
    assert_eq!(answers, ["0: true", "1: bad_params", "2: true"]);
    end.unwrap();
    assert_eq!(result(&plugin, "count", json!(null)).await, 4, "each item is a call");
    let none = all(plugin.call_batch("echo", Vec::new(), None)).await;
    assert_eq!((none.0.len(), none.1.unwrap()), (0, "null".to_owned()));
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_batch_has_no_parts() {
    let bench = Bench::new();
    let plugin = started(&bench, "").await;
    // More than the window has, which nobody would take.
    let (answers, end) = all(plugin.call_batch("parts", items([json!(20), json!(2)]), None)).await;
    assert_eq!(answers, ["0: 20", "1: 2"]);
    end.unwrap();
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_panic_in_a_batch_leaves_the_answers_that_there_are() {
    let bench = Bench::new();
    let plugin = started(&bench, "").await;
    let params = [json!(false), json!(true), json!(false)];
    let (answers, end) = all(plugin.call_batch("panic_if", items(params), None)).await;
    assert_eq!(answers, ["0: false"]);
    let error = end.unwrap_err();
    assert_eq!((error.code(), error.executed), ("panicked", Executed::Maybe));
    assert_eq!(result(&plugin, "count", json!(null)).await, 1, "a new instance");
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_library_of_version_1_0_is_called_item_by_item() {
    let bench = Bench::new();
    let plugin = start_c(&bench, &[]).await.unwrap();
    let params = (0..3).map(|n| json!([n]));
    let (answers, end) = all(plugin.call_batch("echo", items(params), None)).await;
    assert_eq!(answers, ["0: [0]", "1: [1]", "2: [2]"]);
    end.unwrap();
    let (answers, end) = all(plugin.call_batch("fail", items([json!(1)]), None)).await;
    assert_eq!((answers, end.is_ok()), (vec!["0: user".to_owned()], true));
    plugin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_batch_that_is_given_up_stops_between_items() {
    let bench = Bench::new();
    let plugin = started(&bench, "").await;
    let deadline = Some(Duration::from_millis(150));
    let params = (0..100).map(|_| json!(50));
    let (answers, end) = all(plugin.call_batch("sleep", items(params), deadline)).await;
    assert_eq!(end.unwrap_err().code(), "deadline");
    assert!(answers.len() < 10, "{answers:?}");
    let calls = result(&plugin, "count", json!(null)).await;
    assert!(calls.as_u64().unwrap() < 10, "{calls}");
    plugin.shutdown().await.unwrap();

    let plugin = start_c(&bench, &[]).await.unwrap();
    let (_, end) = all(plugin.call_batch("nap", items((0..100).map(|n| json!(n))), deadline)).await;
    assert_eq!(end.unwrap_err().code(), "deadline");
    let released = result(&plugin, "released", json!(null)).await;
    assert!(released.as_u64().unwrap() < 20, "{released}");
    plugin.shutdown().await.unwrap();
}
