//! What the plugin promises, asked as a worker would ask it.

use rollout_plugin_sdk::testing::{Code, TestHost};
use serde_json::json;

use super::Sample;

#[test]
fn echo_answers_with_the_params_and_the_payload_unchanged() {
    let mut host = TestHost::<Sample>::new(&json!({})).unwrap();
    let answer = host.call_with("echo", &json!({ "hello": [1, null] }), b"\0payload").unwrap();
    assert_eq!(answer.result, json!({ "hello": [1, null] }));
    assert_eq!(answer.payload, b"\0payload");
    host.shutdown().unwrap();
}

#[test]
fn every_other_method_is_unknown() {
    let mut host = TestHost::<Sample>::new(&json!({})).unwrap();
    assert_eq!(host.call("ech", &json!(null)).unwrap_err().code, Code::UnknownMethod);
}

#[test]
fn it_takes_no_configuration() {
    let failure = TestHost::<Sample>::new(&json!({ "key": "value" })).unwrap_err();
    assert!(failure.message.contains("unknown field `key`"), "{failure}");
}
