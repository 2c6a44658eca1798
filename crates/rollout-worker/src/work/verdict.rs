//! What an error of a plugin says about the items that had no result.

use std::time::Duration;

use rollout_core::Mono;
use rollout_plugin_host::{Cause, Executed, Exited, PluginError, Reply};
use rollout_transport::work::Failure;
use serde_json::value::RawValue;

/// What came of one item of a call.
#[derive(Debug)]
pub(super) enum Answer {
    /// Its result.
    Result(Box<RawValue>),
    /// A typed error.
    Failed(Failure),
    /// It was not run.
    NotRun,
}

/// What has become of a call, for the items that had no answer of their own.
#[derive(Debug)]
pub(super) enum CallEnd {
    /// There are none.
    Answered,
    /// One of them is to blame, and none is known to be.
    Suspect(Failure),
    /// Each of them would end so again.
    Hopeless(Failure),
    /// The plugin's process ended under them.
    Crashed(Failure),
    /// The plugin's process was killed because of another call.
    Killed,
    /// The plugin never had them, and is not to be called for so long, if it says.
    NotRun(Option<Duration>),
}

/// What an item's own answer means.
pub(super) fn of_item(answer: Result<Reply, PluginError>) -> Answer {
    match answer {
        Ok(reply) => Answer::Result(one_line(reply.result)),
        Err(error) if error.executed == Executed::No && error.retryable() => Answer::NotRun,
        Err(error) => Answer::Failed(failure(&error)),
    }
}

/// What the end of a call means that was given so much time.
pub(super) fn of_call(error: &PluginError, timeout: Duration) -> CallEnd {
    if error.executed == Executed::No {
        return match &*error.cause {
            Cause::BreakerOpen { wait, .. } => CallEnd::NotRun(Some(*wait)),
            _ if error.retryable() => CallEnd::NotRun(None),
            Cause::UnknownMethod { .. } => CallEnd::Hopeless(failure(error)),
            // The items may be too much together, or one of them unfit for any call.
            _ => CallEnd::Suspect(failure(error)),
        };
    }
    match &*error.cause {
        // The only process that ends without a status of its own is one that the host killed.
        Cause::Crashed { exited: None, .. } => CallEnd::Killed,
        Cause::Crashed { .. } | Cause::Closed { .. } | Cause::Malformed { .. } => {
            CallEnd::Crashed(failure(error))
        }
        Cause::TooLarge { .. } if error.executed == Executed::Maybe => {
            CallEnd::Crashed(failure(error))
        }
        Cause::Deadline { limit } => CallEnd::Suspect(late(*limit, timeout)),
        _ => CallEnd::Suspect(failure(error)),
    }
}

/// No answer in time: the job's, or less if the plugin's manifest says so.
fn late(limit: Duration, timeout: Duration) -> Failure {
    let (code, message) = if limit < timeout {
        let why = "the plugin's manifest gives `limits.call_timeout`, less than the job's";
        ("deadline", format!("no answer within {limit:?}: {why} `item_timeout` ({timeout:?})"))
    } else {
        ("item_timeout", format!("it was not done in time (`item_timeout` is {limit:?})"))
    };
    Failure { code: code.into(), message, traceback: None, stderr_tail: None }
}

fn failure(error: &PluginError) -> Failure {
    let (mut traceback, mut stderr_tail) = (None, None);
    let message = match &*error.cause {
        Cause::User { message, traceback: raised } => {
            traceback.clone_from(raised);
            message.clone()
        }
        Cause::Crashed { exited: Some(exited), .. } => {
            stderr_tail = Some(exited.stderr_tail.clone()).filter(|tail| !tail.is_empty());
            ended(exited)
        }
        cause => cause.to_string(),
    };
    Failure { code: error.code().into(), message, traceback, stderr_tail }
}

fn ended(exited: &Exited) -> String {
    match (exited.code, exited.signal) {
        (Some(code), _) => format!("the plugin's process exited with {code}"),
        (None, Some(signal)) => format!("the plugin's process was killed by signal {signal}"),
        (None, None) => "the plugin's process ended".into(),
    }
}

/// The end of a call whose task failed.
pub(super) fn defect() -> CallEnd {
    let message = "the worker failed unexpectedly; its panic is on standard error".into();
    let code = "internal".into();
    CallEnd::Suspect(Failure { code, message, traceback: None, stderr_tail: None })
}

/// An item that was stopped by the worker.
pub(super) fn overdue(code: &str, what: &str, limit: Duration, since: Mono, now: Mono) -> Failure {
    let message = format!("{what} (`{code}` is {limit:?}; it was {:?})", now.since(since));
    Failure { code: code.into(), message, traceback: None, stderr_tail: None }
}

/// A result travels in a line. White space between tokens is the only place where JSON has line
/// breaks, and there a space is as good.
fn one_line(result: Box<RawValue>) -> Box<RawValue> {
    if !result.get().bytes().any(|byte| byte == b'\n' || byte == b'\r') {
        return result;
    }
    let text = result.get().replace(['\n', '\r'], " ");
    // It was JSON before, and still is.
    RawValue::from_string(text).unwrap_or(result)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn error(executed: Executed, cause: Cause) -> PluginError {
        PluginError { plugin: "p".into(), method: Some("m".into()), executed, cause: cause.into() }
    }

    #[test]
    fn only_what_the_plugin_may_have_had_is_held_against_anybody() {
        let limit = Duration::from_secs(1);
        let closed = || Cause::Closed { message: "gone" };
        let exited = Exited { code: None, signal: Some(11), stderr_tail: "boom".into() };
        let crashed = |exited| Cause::Crashed { message: "x".into(), exited };
        let end = |executed, cause| of_call(&error(executed, cause), limit);
        assert!(matches!(end(Executed::No, closed()), CallEnd::NotRun(None)));
        assert!(matches!(end(Executed::No, Cause::Overloaded { limit: 1 }), CallEnd::NotRun(None)));
        assert!(matches!(end(Executed::No, Cause::Deadline { limit }), CallEnd::NotRun(None)));
        let open = Cause::BreakerOpen { until: Mono(0), wait: limit };
        assert!(matches!(end(Executed::No, open), CallEnd::NotRun(Some(wait)) if wait == limit));
        assert!(matches!(end(Executed::Maybe, Cause::Deadline { limit }), CallEnd::Suspect(_)));
        assert!(matches!(end(Executed::Maybe, closed()), CallEnd::Crashed(_)));
        assert!(matches!(end(Executed::Maybe, crashed(None)), CallEnd::Killed));
        let CallEnd::Crashed(failure) = end(Executed::Maybe, crashed(Some(exited))) else {
            panic!("a crash")
        };
        assert_eq!(failure.code, "crashed");
        assert_eq!(failure.message, "the plugin's process was killed by signal 11");
        assert_eq!(failure.stderr_tail.as_deref(), Some("boom"));
        let unknown = Cause::UnknownMethod { known: Vec::new() };
        assert!(matches!(end(Executed::No, unknown), CallEnd::Hopeless(_)));
        let large = || Cause::TooLarge { what: "it", limit: 1, got: 2, key: "k" };
        assert!(matches!(end(Executed::No, large()), CallEnd::Suspect(_)));
        assert!(matches!(end(Executed::Maybe, large()), CallEnd::Crashed(_)));
    }

    #[test]
    fn an_item_that_is_late_is_told_whose_limit_it_was() {
        let limit = Duration::from_secs(60);
        let of =
            |timeout| match of_call(&error(Executed::Maybe, Cause::Deadline { limit }), timeout) {
                CallEnd::Suspect(failure) => failure,
                other => panic!("{other:?}"),
            };
        let (job, manifest) = (of(limit), of(2 * limit));
        assert_eq!((&*job.code, &*manifest.code), ("item_timeout", "deadline"));
        let key = "the plugin's manifest gives `limits.call_timeout`";
        assert!(
            manifest.message.contains(key) && manifest.message.contains("120s"),
            "{manifest:?}"
        );
        assert!(job.message.contains("`item_timeout` is 60s"), "{job:?}");
    }

    #[test]
    fn a_result_stays_as_it_is_but_for_line_breaks_between_its_tokens() {
        let answer = |text: &str| {
            let result = RawValue::from_string(text.into()).unwrap();
            match of_item(Ok(Reply { result, payload: Bytes::new() })) {
                Answer::Result(result) => result.get().to_owned(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(answer("{\"a\" : 1.0e2}"), "{\"a\" : 1.0e2}");
        assert_eq!(answer("{\r\n \"a\\n\":\n1}"), "{   \"a\\n\": 1}");
    }
}
