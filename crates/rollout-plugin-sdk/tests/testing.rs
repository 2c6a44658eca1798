//! The test host: what a plugin's own tests see is what a worker would have seen.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rollout_plugin_sdk::testing::{Code, Log, TestHost};
use rollout_plugin_sdk::{Call, Error, Host, Level, Method, Plugin, Reply};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Refuses to be made.
    #[serde(default)]
    refuse: bool,
    /// Shuts down with an error.
    #[serde(default)]
    untidy: bool,
}

/// Whether a call of `wait` is running.
static WAITING: AtomicBool = AtomicBool::new(false);

struct Subject {
    host: Host,
    untidy: bool,
    calls: u64,
}

impl Plugin for Subject {
    type Config = Config;
    const METHODS: &[Method] = &[
        Method::new("echo", ""),
        Method::new("count", ""),
        Method::new("parts", ""),
        Method::new("panic_if", ""),
        Method::new("add", ""),
        Method::new("deep", ""),
        Method::new("fail", ""),
        Method::new("panic", ""),
        Method::new("cancelled", ""),
        Method::new("wait", ""),
        Method::new("thread", ""),
        Method::new("forgotten", "is in the list and nowhere else"),
    ];

    fn create(config: Config, host: Host) -> Result<Self, Error> {
        if config.refuse {
            return Err(Error::new("refused"));
        }
        host.log(Level::Debug, "subject", "made");
        Ok(Self { host, untidy: config.untidy, calls: 0 })
    }

    fn call(&mut self, call: &Call<'_>) -> Result<Reply, Error> {
        self.calls += 1;
        match call.method() {
            "echo" => Ok(Reply::new(call.params::<&RawValue>()?)?.with_payload(call.payload())),
            "parts" => {
                call.progress();
                for n in 0..call.params()? {
                    call.part(Reply::new(&n)?.with_payload(vec![7; n]))?;
                }
                Reply::new("all")
            }
            "panic_if" => {
                if call.params()? {
                    panic!("as asked");
                }
                Reply::new(&self.calls)
            }
            "count" => Reply::new(&self.calls),
            "add" => Reply::new(&(self.calls + call.params::<u64>()?)),
            "deep" => Reply::new(&nested(call.params()?)),
            "unlisted" => Reply::new(&()),
            "fail" => Err("x".parse::<u8>().unwrap_err().into()),
            "panic" => panic!("on purpose"),
            "cancelled" => Reply::new(&call.cancelled()),
            "wait" => {
                WAITING.store(true, Ordering::Release);
                while !call.cancelled() {
                    thread::yield_now();
                }
                Err(Error::cancelled())
            }
            "thread" => {
                let host = self.host.clone();
                let spoken = thread::spawn(move || host.log(Level::Info, "thread", "spoke")).join();
                Reply::new(&spoken.is_ok())
            }
            _ => Err(call.unknown_method()),
        }
    }

    fn shutdown(&mut self) -> Result<(), Error> {
        self.host.log(Level::Warn, "subject", "shut down");
        if self.untidy { Err(Error::new("untidy")) } else { Ok(()) }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.host.log(Level::Trace, "subject", "dropped");
    }
}

fn host() -> TestHost<Subject> {
    TestHost::new(&json!({})).unwrap()
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

fn messages(logs: &[Log]) -> Vec<&str> {
    logs.iter().map(|log| log.message.as_str()).collect()
}

#[test]
fn a_call_brings_back_its_result_and_its_payload() {
    let mut host = host();
    let answer = host.call_with("echo", &json!({ "a": [1, null] }), b"\0\xff").unwrap();
    assert_eq!((answer.result, answer.payload), (json!({ "a": [1, null] }), b"\0\xff".to_vec()));
    let answer = host.call("echo", "text").unwrap();
    assert_eq!((answer.result, answer.payload), (json!("text"), Vec::new()));
    assert_eq!(host.call("count", &()).unwrap().result, 3, "one instance for all calls");
}

#[test]
fn each_kind_of_failure_has_its_code_and_the_plugins_words() {
    let mut host = host();
    let failure = host.call("fail", &()).unwrap_err();
    assert_eq!(failure.code, Code::User);
    assert_eq!(failure.to_string(), "user: invalid digit found in string");
    let failure = host.call("forgotten", &()).unwrap_err();
    assert_eq!((failure.code, &*failure.message), (Code::UnknownMethod, "no method `forgotten`"));
    let failure = host.call("add", &"one").unwrap_err();
    assert_eq!(failure.code, Code::BadParams);
    assert!(failure.message.contains("expected u64"), "{failure}");
}

#[test]
fn what_a_worker_would_not_pass_on_does_not_reach_the_plugin_or_the_test() {
    let mut host = host();
    let failure = host.call("unlisted", &()).unwrap_err();
    assert_eq!(failure.code, Code::UnknownMethod);
    assert!(failure.message.contains("METHODS, which has: echo, count,"), "{failure}");
    assert_eq!(host.call("echo", &nested(101)).unwrap_err().code, Code::BadParams);
    assert_eq!(host.call("count", &()).unwrap().result, 1, "neither was executed");
    assert_eq!(host.call("echo", &nested(100)).unwrap().result, nested(100));
    assert_eq!(host.call("deep", &100).unwrap().result, nested(100));
    assert_eq!(host.call("deep", &101).unwrap_err().code, Code::Malformed);
}

#[test]
fn a_panic_is_a_failure_and_the_next_call_finds_a_new_instance() {
    let mut host = host();
    host.call("count", &()).unwrap();
    let failure = host.call("panic", &()).unwrap_err();
    assert_eq!(failure.code, Code::Panicked);
    assert!(failure.message.starts_with("on purpose (") && failure.message.contains("testing.rs:"));
    assert_eq!(host.call("count", &()).unwrap().result, 1);
    assert_eq!(messages(&host.logs().take()), ["made", "dropped", "made"]);
}

#[test]
fn a_plugin_that_cannot_be_made_says_why() {
    let refused = TestHost::<Subject>::new(&json!({ "refuse": true })).unwrap_err();
    assert_eq!((refused.code, &*refused.message), (Code::User, "refused"));
    let unfit = TestHost::<Subject>::new(&json!({ "refusal": 1 })).unwrap_err();
    assert_eq!(unfit.code, Code::BadParams);
    assert!(unfit.message.contains("[config]: unknown field `refusal`"), "{unfit}");
}

#[test]
fn a_cancel_is_for_the_running_call_or_else_the_next_and_for_no_other() {
    let mut host = host();
    let canceller = host.canceller();
    canceller.cancel();
    assert_eq!(host.call("cancelled", &()).unwrap().result, true);
    assert_eq!(host.call("cancelled", &()).unwrap().result, false);
    let other = thread::spawn(move || {
        while !WAITING.load(Ordering::Acquire) {
            thread::yield_now();
        }
        canceller.cancel();
    });
    assert_eq!(host.call("wait", &()).unwrap_err().code, Code::Cancelled);
    other.join().unwrap();
    assert_eq!(host.call("cancelled", &()).unwrap().result, false);
}

#[test]
fn logs_come_from_any_thread_in_order_and_are_taken_once() {
    let mut host = host();
    let log = |level, target: &str, message: &str| Log {
        level,
        target: target.into(),
        message: message.into(),
    };
    assert_eq!(host.call("thread", &()).unwrap().result, true);
    let logged = [log(Level::Debug, "subject", "made"), log(Level::Info, "thread", "spoke")];
    assert_eq!(host.logs().take(), logged);
    assert_eq!(host.logs().take(), []);
}

#[test]
fn a_shutdown_tells_the_plugins_error_and_a_dropped_host_drops_the_plugin_without_one() {
    let untidy = TestHost::<Subject>::new(&json!({ "untidy": true })).unwrap();
    let logs = untidy.logs();
    let failure = untidy.shutdown().unwrap_err();
    assert_eq!((failure.code, &*failure.message), (Code::User, "untidy"));
    assert_eq!(messages(&logs.take()), ["made", "shut down", "dropped"]);

    assert_eq!(host().shutdown(), Ok(()));
    let logs = host().logs();
    assert_eq!(messages(&logs.take()), ["made", "dropped"]);
}

#[test]
fn parts_are_those_of_the_call_in_their_order() {
    let mut host = TestHost::<Subject>::new(&json!({})).unwrap();
    for _ in 0..2 {
        let (parts, answer) = host.stream("parts", &3, b"");
        assert_eq!(answer.unwrap().result, "all");
        let seen: Vec<_> = parts.iter().map(|part| (&part.result, part.payload.len())).collect();
        assert_eq!(seen, [(&json!(0), 0), (&json!(1), 1), (&json!(2), 2)]);
    }
    assert_eq!(host.call("parts", &40).unwrap().result, "all", "nobody has to take them");
    let (parts, answer) = host.stream("nowhere", &3, b"");
    assert_eq!((parts.len(), answer.unwrap_err().code), (0, Code::UnknownMethod));
}

#[test]
fn a_batch_has_an_answer_for_each_until_a_panic() {
    let mut host = TestHost::<Subject>::new(&json!({})).unwrap();
    let answers = host.batch("panic_if", &[json!(false), json!("?"), json!(false)]).unwrap();
    assert_eq!(answers[0].as_ref().unwrap().result, 1);
    assert_eq!(answers[1].as_ref().unwrap_err().code, Code::BadParams);
    assert_eq!(answers[2].as_ref().unwrap().result, 3);
    let answers = host.batch("panic_if", &[false, true, false]).unwrap();
    assert_eq!(answers[0].as_ref().unwrap().result, 4);
    let failed = |n: usize| answers[n].as_ref().unwrap_err().code;
    assert_eq!((failed(1), failed(2)), (Code::Panicked, Code::Panicked));
    assert_eq!(host.call("count", &()).unwrap().result, 1, "a new instance");
}
