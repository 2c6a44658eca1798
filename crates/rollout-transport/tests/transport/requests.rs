//! What a peer asks for beyond its session: who may, how it is asked, and how often.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use rollout_core::{JobId, JobSpec};
use rollout_transport::{CallError, Identity, RefusalKind, Remote};

use crate::support::{Fleet, LONG, soon, worker};

const JOB: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

fn ask(method: Method, path: &str, body: &'static str) -> Request<Full<Bytes>> {
    let uri = format!("https://any.name{path}");
    Request::builder().method(method).uri(uri).body(Full::new(body.into())).unwrap()
}

fn client() -> Identity {
    Identity::Client("ann".into())
}

fn spec() -> String {
    serde_json::to_string(&JobSpec::new("p", "run", 1)).unwrap()
}

#[tokio::test]
async fn who_may_not_ask_is_refused_with_a_word_and_an_event() {
    let mut fleet = Fleet::new();
    let (of_worker, of_client) = (worker(), client());
    let blob = format!("/v1/blobs/{}", "0".repeat(64));
    let job = |rest: &str| format!("/v1/jobs/{JOB}{rest}");
    for (identity, method, path) in [
        (&of_worker, Method::PUT, job("")),
        (&of_worker, Method::DELETE, job("")),
        (&of_worker, Method::POST, job("/pause")),
        (&of_worker, Method::POST, job("/resume")),
        (&of_worker, Method::GET, job("/follow")),
        (&of_worker, Method::GET, "/v1/status".into()),
        (&of_worker, Method::GET, "/v1/events?follow=true".into()),
        (&of_worker, Method::GET, blob.clone()),
        (&of_client, Method::POST, "/v1/work".into()),
        (&of_client, Method::PUT, blob),
    ] {
        let mut http = fleet.http(identity).await;
        let (status, text) = http.ask(ask(method.clone(), &path, "")).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}");
        assert!(text.starts_with("only a "), "{text}");
        let (proven, refusal) = fleet.refusal().await;
        assert_eq!((proven.as_ref(), refusal.kind), (Some(identity), RefusalKind::Identity));
        assert_eq!(text, format!("{}\n", refusal.detail));
    }
    assert!(fleet.refusals.try_recv().is_err());
}

#[tokio::test]
async fn a_request_that_is_malformed_is_told_so_before_anybody_looks_at_it() {
    let mut fleet = Fleet::new();
    let mut http = fleet.http(&client()).await;
    let path = format!("/v1/jobs/{JOB}");
    let long = Box::leak(format!("\"{}\"\n", "x".repeat(70_000)).into_boxed_str());
    for (method, path, body, status, words) in [
        (Method::PUT, "/v1/jobs/7", "", 400, "ULID"),
        (Method::GET, &format!("{path}/follow?after=x"), "", 400, "after="),
        (Method::GET, "/v1/blobs/7", "", 400, "SHA-256"),
        (Method::GET, "/v1/events?topic=worker", "", 400, "worker_failed, "),
        (Method::GET, "/v1/events?follow=yes", "", 400, "follow=true"),
        (Method::PUT, &path, "", 400, "the first line"),
        (Method::PUT, &path, "{}\n", 400, "missing field"),
        (Method::PUT, &path, "{}", 400, "inside a line"),
        (Method::PUT, &path, long, 413, "longer than 65536"),
        (Method::POST, &path, "", 405, "PUT, DELETE"),
        (Method::GET, "/v1/jobs", "", 404, "no such path"),
    ] {
        let (found, text) = http.ask(ask(method.clone(), path, body)).await;
        assert_eq!(found.as_u16(), status, "{method} {path}: {text}");
        assert!(text.contains(words), "{text}");
    }
    // What is understood is the handler's: this one knows sessions alone.
    let known = Box::leak(format!("{}\n", spec()).into_boxed_str());
    let (status, text) = http.ask(ask(Method::PUT, &path, known)).await;
    assert_eq!((status, text.as_str()), (StatusCode::NOT_FOUND, "there is no work here\n"));
    assert!(fleet.refusals.try_recv().is_err());
    fleet.still_serves().await;
}

#[tokio::test]
async fn requests_of_blobs_have_a_budget_of_their_own_and_those_that_fail_have_not() {
    let mut fleet = Fleet::new();
    // Nobody has blobs here: each of these fails.
    let remote = Remote::open(&fleet.addr, &fleet.pki.tls(&client()), LONG).await.unwrap();
    let mut failed = 0;
    loop {
        match soon("an answer", remote.get_blob(&"0".repeat(64))).await {
            Err(CallError::NotFound { .. }) => failed += 1,
            Err(CallError::Lost { .. } | CallError::Refused { status: 429, .. }) => break,
            other => panic!("{:?}", other.map(|_| ())),
        }
        assert!(failed < 20_000);
    }
    assert!((900..4_000).contains(&failed), "{failed}");
    let (_, refusal) = fleet.refusal().await;
    assert_eq!(refusal.kind, RefusalKind::Flood);
    assert!(refusal.detail.contains("more than 1000 requests"), "{refusal:?}");
    soon("the connection's end", remote.closed()).await;
    fleet.still_serves().await;
}

#[tokio::test]
async fn whether_a_blob_is_there_may_be_asked_before_each_of_many_uploads() {
    let mut fleet = Fleet::new();
    let mut http = fleet.http(&worker()).await;
    let path = format!("/v1/blobs/{}", "0".repeat(64));
    for _ in 0..1_500 {
        let (status, _) = http.ask(ask(Method::HEAD, &path, "")).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
    assert!(fleet.refusals.try_recv().is_err());
    fleet.still_serves().await;
}

#[tokio::test]
async fn a_connection_that_is_dropped_with_its_last_clone_is_closed_and_an_open_one_is_not() {
    let fleet = Fleet::new();
    let remote = Remote::open(&fleet.addr, &fleet.pki.tls(&client()), LONG).await.unwrap();
    let clone = remote.clone();
    drop(remote);
    let answer = clone.pause(JobId::generate()).await;
    assert!(matches!(answer, Err(CallError::NotFound { .. })), "{answer:?}");
}
