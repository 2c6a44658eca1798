//! Uploads against a desk, without a coordinator.

use std::sync::Arc;

use rollout_core::job::JobLimits;
use rollout_core::{JobId, Mono};
use rollout_transport::work::{Outcome, WorkDown, WorkUp};
use serde_json::value::RawValue;

use super::*;
use crate::work::desk::Bench;
use crate::work::verdict::Answer;

const NOW: Mono = Mono(1 << 40);

/// A desk with a large result to upload.
fn desk() -> Desk {
    let mut desk = Desk::new(vec![Bench { name: "p".into(), places: 1 }], 1);
    let (job, limits) = (JobId::generate(), JobLimits::default());
    let hear = |desk: &mut Desk, line| desk.heard(NOW, line).unwrap();
    let (plugin, method) = ("p".into(), "m".into());
    hear(&mut desk, WorkDown::Job { job, plugin, method, seed: 7, limits });
    let (attempt, first, count) = (1, 0, 1);
    hear(&mut desk, WorkDown::Grant { job, attempt, first, count, alone: false, params: None });
    let call = desk.next_call(NOW).unwrap().call;
    let text = format!("\"{}\"", "x".repeat(70_000));
    desk.answered(NOW, call, 0, Answer::Result(RawValue::from_string(text).unwrap()));
    desk
}

/// What is said of the item once its upload, on stream 3, has come to this; and what `ended` says.
async fn after(task: impl Future<Output = Tried> + Send + 'static) -> (Desk, Option<u64>) {
    let (mut desk, mut uploads) = (desk(), Uploads::default());
    let large = desk.next_large().unwrap();
    let task = uploads.tasks.spawn(task);
    uploads.sent.insert(task.id(), Sent { large, stream: 3 });
    let ended = uploads.next().await;
    let lost = uploads.ended(&mut desk, ended);
    assert!(uploads.sent.is_empty());
    (desk, lost)
}

fn outcome(desk: &mut Desk) -> Option<Arc<str>> {
    let later = NOW + std::time::Duration::from_secs(60);
    let lines = std::iter::from_fn(|| desk.next_line(later));
    let ends = lines.filter_map(|line| match line {
        WorkUp::Done { outcomes, .. } => Some(outcomes),
        _ => None,
    });
    ends.flatten().map(|Outcome { end, .. }| format!("{end:?}").into()).next()
}

#[tokio::test]
async fn an_item_whose_upload_panics_or_is_refused_for_good_fails_and_keeps_the_stream() {
    let refused = CallError::Refused { status: 413, detail: "too large".into() };
    let (mut desk, lost) = after(async { Err(refused) }).await;
    assert!(outcome(&mut desk).is_some_and(|end| end.contains("result_refused")));
    assert_eq!(lost, None);
    let (mut desk, lost) = after(async { panic!("on purpose") }).await;
    assert!(outcome(&mut desk).is_some_and(|end| end.contains("internal")));
    assert_eq!(lost, None);
}

#[tokio::test]
async fn an_upload_that_may_do_better_on_another_stream_is_tried_again_there() {
    let refused = |status| CallError::Refused { status, detail: "not now".into() };
    for error in [refused(403), refused(429), refused(503), CallError::Lost { why: "x".into() }] {
        let (mut desk, lost) = after(async { Err(error) }).await;
        assert_eq!(outcome(&mut desk), None);
        assert_eq!(lost, Some(3), "the stream that it was on");
        assert!(desk.next_large().is_some());
    }
}
