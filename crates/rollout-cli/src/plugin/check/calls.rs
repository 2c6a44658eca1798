//! Checks of what is called: the probe, a method that is not there, parameters of every kind.

use std::iter::repeat_n;

use bytes::Bytes;
use rollout_plugin_host::Executed;
use serde_json::value::RawValue;

use super::chain;
use super::conduct::{Conduct, complaint};
use super::live::Live;
use super::report::{Finding, Verdict};

pub(super) async fn probe(live: &Live) -> Finding {
    match live.plugin.probe().await {
        Ok(Some(probed)) => {
            let micros = probed.took.as_micros();
            Finding::pass(format!("`{}` answered in {micros} us", probed.method))
        }
        Ok(None) => {
            Finding::skip("the manifest has no [probe]: a worker would start without a call")
        }
        Err(error) => Finding::fail(format!("{} ({})", chain(&error), error.code())),
    }
}

pub(super) async fn unknown_method(live: &Live) -> Finding {
    let name = "rollout_check.no_such_method";
    let ended = live.plugin.call(name, RawValue::NULL, Bytes::new(), Some(live.timeout)).await;
    match ended {
        Err(error) if error.code() == "unknown_method" && error.executed == Executed::No => {
            Finding::pass("refused with `unknown_method`, and not executed")
        }
        Err(error) => Finding::fail(format!("it ended in `{}`: {}", error.code(), chain(&error))),
        Ok(_) => Finding::fail("it was answered"),
    }
}

/// Parameters of every JSON type, as text.
fn bad_values() -> Vec<String> {
    let deep: String = repeat_n('[', 32).chain(repeat_n(']', 32)).collect();
    let plain = ["null", "true", "0", "-1", "1.5e300", "\"\"", "[]", "{}", "[null]", "{\"\":[]}"];
    let unicode = "\"\\u0000 \\ud83d\\ude00 \u{e9}\"".to_owned();
    let long = format!("\"{}\"", "a".repeat(64 * 1024));
    plain.iter().map(|&text| text.to_owned()).chain([unicode, deep, long]).collect()
}

pub(super) async fn bad_params(live: &Live) -> Finding {
    let (mut calls, mut refused, mut worst) = (0, 0, None::<Finding>);
    for method in &live.methods {
        for value in bad_values() {
            // All of them are JSON.
            let Ok(params) = RawValue::from_string(value) else { continue };
            let ended = live.plugin.call(method, &params, Bytes::new(), Some(live.timeout)).await;
            calls += 1;
            refused += usize::from(ended.is_err());
            let conduct = Conduct::of(&ended);
            let shown: String = params.get().chars().take(20).collect();
            if let Some(found) = complaint(&format!("`{method}` with {shown}"), &ended) {
                if found.verdict == Verdict::Fail {
                    return found;
                }
                worst = worst.or(Some(found));
            }
            if conduct == Conduct::Late {
                if let Some(found) = live.settled().await {
                    return found;
                }
                // The others would be waited for as long.
                break;
            }
        }
    }
    let methods = live.methods.len();
    worst.unwrap_or_else(|| {
        let plural = if methods == 1 { "" } else { "s" };
        Finding::pass(format!(
            "{calls} calls of {methods} method{plural}: {} results, {refused} typed errors",
            calls - refused
        ))
    })
}
