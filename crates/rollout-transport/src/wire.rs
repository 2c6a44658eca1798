//! The messages of a worker's session, one JSON object a line, and what can be wrong with a line.
//!
//! A reader ignores keys it does not know, so that a newer peer may add some.

use std::time::Duration;

use rollout_core::duration::as_ms;
use rollout_core::{Incarnation, RunId, TimeBudget, WorkerId};
use serde::{Deserialize, Serialize};

use crate::lines::Line;

/// From the worker to the coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Up {
    /// The first line of a session.
    Register {
        /// The id in the certificate.
        worker_id: WorkerId,
        /// The process that speaks.
        incarnation: Incarnation,
        /// The last epoch it was given, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<u64>,
        /// The run it insists on, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run_id: Option<RunId>,
        /// The version of `rollout` it runs.
        version: String,
        /// The names of its plugins.
        #[serde(default)]
        plugins: Vec<String>,
        /// What it was configured with.
        timing: Timing,
        /// Its wall clock, in milliseconds since 1970; for people alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unix_ms: Option<u64>,
    },
    /// A heartbeat.
    Beat {
        /// Counts up from 1 in a session.
        beat: u64,
        /// Its wall clock, in milliseconds since 1970, for people alone. Said only when every beat
        /// before is acknowledged: so it was read since the last of them was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unix_ms: Option<u64>,
    },
    /// It takes no more work.
    Draining,
    /// It is about to end, as it was asked to.
    Deregister,
}

impl Up {
    /// A heartbeat of somebody who does not say what time it is.
    #[must_use]
    pub const fn beat(beat: u64) -> Self {
        Self::Beat { beat, unix_ms: None }
    }
}

impl Line for Up {
    fn read(line: &[u8]) -> Result<Self, serde_json::Error> {
        as_written(line).map_or_else(|| serde_json::from_slice(line), Ok)
    }
}

/// A beat exactly as [`Up`] is written: it is nearly every line that a coordinator reads, and serde
/// keeps all the keys of a line on the heap until it has seen which of the messages it is. Nothing
/// if it is anything else, or written in any other way.
fn as_written(line: &[u8]) -> Option<Up> {
    let rest = line.strip_prefix(b"{\"type\":\"beat\",\"beat\":")?;
    let (beat, rest) = number(rest)?;
    let (unix_ms, rest) = match rest.strip_prefix(b",\"unix_ms\":") {
        Some(rest) => number(rest).map(|(unix_ms, rest)| (Some(unix_ms), rest))?,
        None => (None, rest),
    };
    (rest == b"}").then_some(Up::Beat { beat, unix_ms })
}

/// The number that the text begins with, as JSON writes it, and what follows.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at_checked(digits)?;
    if digits > 1 && number.first() == Some(&b'0') {
        return None;
    }
    Some((std::str::from_utf8(number).ok()?.parse().ok()?, rest))
}

/// The durations of a worker that the coordinator must agree with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// `heartbeat_interval`.
    pub heartbeat_interval_ms: f64,
    /// `worker_self_fence_timeout`.
    pub worker_self_fence_timeout_ms: f64,
}

impl Timing {
    /// The worker's interval, if it is a duration at all.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Option<Duration> {
        from_ms(self.heartbeat_interval_ms)
    }

    /// The worker's fence, if it is a duration at all.
    #[must_use]
    pub fn worker_self_fence_timeout(&self) -> Option<Duration> {
        from_ms(self.worker_self_fence_timeout_ms)
    }
}

impl From<&TimeBudget> for Timing {
    fn from(budget: &TimeBudget) -> Self {
        Self {
            heartbeat_interval_ms: as_ms(budget.heartbeat_interval),
            worker_self_fence_timeout_ms: as_ms(budget.worker_self_fence_timeout),
        }
    }
}

fn from_ms(ms: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(ms / 1e3).ok()
}

/// From the coordinator to the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Down {
    /// The worker is known; it may beat.
    Registered {
        /// The run the coordinator leads.
        run_id: RunId,
        /// The worker's epoch.
        epoch: u64,
        /// The coordinator's term.
        term: u64,
        /// Whether the incarnation was known already, so that its epoch and leases stand.
        resumed: bool,
        /// How long the registration took to be on disk, in whole milliseconds: the worker's
        /// deadline runs from its end, and so may its fence.
        #[serde(default, skip_serializing_if = "is_zero")]
        waited_ms: u64,
    },
    /// A beat was accepted.
    Ack {
        /// The newest accepted beat.
        beat: u64,
        /// The newest beat of this session that is on disk; 0 before the first.
        durable: u64,
    },
    /// The worker's epoch is over.
    Fenced {
        /// Why.
        reason: FenceReason,
    },
    /// The session is refused.
    Rejected {
        /// Why, for programs.
        reason: RejectReason,
        /// Why, for people.
        detail: String,
    },
    /// The worker is deregistered; it may end.
    Deregistered,
    /// The coordinator is about to end.
    Stopping,
}

const fn is_zero(ms: &u64) -> bool {
    *ms == 0
}

impl Line for Down {}

/// Why a worker's epoch is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceReason {
    /// It was declared failed; it may register anew.
    Failed,
    /// A newer process has its id; it must end.
    Superseded,
}

impl FenceReason {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

/// Why a session is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// The id is not the one in the certificate.
    Identity,
    /// A line is too long, malformed or out of order.
    Protocol,
    /// The coordinator leads another run.
    Run,
    /// The worker's durations do not fit the coordinator's.
    Timing,
    /// As many workers are known as may be.
    Capacity,
    /// It did not register in time. It may try again.
    Timeout,
    /// The worker registers or beats too often; it may try again.
    Rate,
}

impl RejectReason {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Protocol => "protocol",
            Self::Run => "run",
            Self::Timing => "timing",
            Self::Capacity => "capacity",
            Self::Timeout => "timeout",
            Self::Rate => "rate",
        }
    }
}

/// What is wrong with a stream of lines. Nothing can be read from it afterwards.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A line without end.
    #[error("a line is longer than {limit} bytes")]
    Oversized {
        /// The longest line accepted.
        limit: usize,
    },
    /// A line that is not one of the messages.
    #[error("a line is not a message of this protocol")]
    Malformed(#[source] serde_json::Error),
    /// The stream ended inside a line.
    #[error("the stream ended inside a line")]
    Truncated,
    /// The connection or the stream was cut.
    #[error("the connection was lost")]
    Lost(#[source] hyper::Error),
}

impl WireError {
    /// Whether the peer broke the protocol, rather than having gone away.
    #[must_use]
    pub const fn is_violation(&self) -> bool {
        matches!(self, Self::Oversized { .. } | Self::Malformed(_))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ULID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    #[test]
    fn the_words_on_the_wire_are_the_contract() {
        let register = Up::Register {
            worker_id: ULID.parse().unwrap(),
            incarnation: ULID.parse().unwrap(),
            epoch: None,
            run_id: None,
            version: "0.1.0".into(),
            plugins: vec!["echo".into()],
            timing: (&TimeBudget::default()).into(),
            unix_ms: None,
        };
        assert_eq!(
            serde_json::to_string(&register).unwrap(),
            format!(
                "{{\"type\":\"register\",\"worker_id\":\"{ULID}\",\"incarnation\":\"{ULID}\",\
                 \"version\":\"0.1.0\",\"plugins\":[\"echo\"],\"timing\":\
                 {{\"heartbeat_interval_ms\":500.0,\"worker_self_fence_timeout_ms\":4000.0}}}}"
            )
        );
        for (up, line) in [
            (Up::beat(7), "{\"type\":\"beat\",\"beat\":7}"),
            (
                Up::Beat { beat: 7, unix_ms: Some(9) },
                "{\"type\":\"beat\",\"beat\":7,\"unix_ms\":9}",
            ),
            (Up::Draining, "{\"type\":\"draining\"}"),
            (Up::Deregister, "{\"type\":\"deregister\"}"),
        ] {
            assert_eq!(serde_json::to_string(&up).unwrap(), line);
            assert_eq!(serde_json::from_str::<Up>(line).unwrap(), up);
        }
        for (down, line) in [
            (Down::Ack { beat: 7, durable: 5 }, "{\"type\":\"ack\",\"beat\":7,\"durable\":5}"),
            (Down::Deregistered, "{\"type\":\"deregistered\"}"),
            (Down::Stopping, "{\"type\":\"stopping\"}"),
        ] {
            assert_eq!(serde_json::to_string(&down).unwrap(), line);
        }
    }

    proptest! {
        /// Beats, and what comes of them when pieces of one are put together otherwise.
        #[test]
        fn a_line_read_quickly_is_what_serde_makes_of_it(
            (beat, unix_ms) in (any::<u64>(), any::<Option<u64>>()),
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "{", "}", "\"type\":\"beat\"", ",", "\"beat\":", "\"unix_ms\":", "0", "07",
                    "7", "18446744073709551615", "18446744073709551616", "-1", "1.0", "1e3", " ",
                    "null", "\"x\":1",
                ]),
                0..10,
            ),
        ) {
            let up = Up::Beat { beat, unix_ms };
            let line = serde_json::to_vec(&up).unwrap();
            prop_assert_eq!(as_written(&line), Some(up));
            let begun = "{\"type\":\"beat\",\"beat\":";
            for line in [pieces.concat(), format!("{begun}{}", pieces.concat())] {
                if let Some(quick) = as_written(line.as_bytes()) {
                    prop_assert_eq!(quick, serde_json::from_str(&line).unwrap());
                }
                let read = Up::read(line.as_bytes()).ok();
                prop_assert_eq!(read, serde_json::from_str(&line).ok());
            }
        }
    }

    #[test]
    fn reasons_have_one_word_each() {
        use RejectReason::{Capacity, Identity, Protocol, Rate, Run, Timeout, Timing};
        for reason in [Identity, Protocol, Run, Timing, Capacity, Timeout, Rate] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        for reason in [FenceReason::Failed, FenceReason::Superseded] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }

    #[test]
    fn what_is_no_duration_is_none() {
        for ms in [-1.0, 1e300, f64::NAN] {
            let timing = Timing { heartbeat_interval_ms: ms, worker_self_fence_timeout_ms: 0.5 };
            assert_eq!(timing.heartbeat_interval(), None);
            assert_eq!(timing.worker_self_fence_timeout(), Some(Duration::from_micros(500)));
        }
    }
}
