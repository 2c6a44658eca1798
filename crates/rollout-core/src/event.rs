//! The event envelope and its topics: one JSON object a line on a process's standard output.
//!
//! The order of the envelope's keys is part of the contract (`grep 'worker_failed.*<ULID>'` finds
//! the event), so it is written by hand here and nowhere else.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::{Map, Value};

use crate::{Mono, RunId, WorkerId};

mod topics;

pub use topics::{TOPICS, Topics, UnknownTopic};

/// How much an event matters to a reader.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Detail for whoever debugs rollout.
    Trace,
    /// Detail for whoever debugs a run.
    Debug,
    /// The normal course.
    Info,
    /// Worth a look.
    Warn,
    /// Something failed.
    Error,
}

/// Whether a line is a fact of the contract or a tracing record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A fact with a stable topic and attributes.
    Event,
    /// A tracing record, for people.
    Log,
}

/// What a worker's record says when it is acknowledged again after it had fenced itself: judges and
/// reports end the fence there.
pub const FENCE_LIFTED: &str = "acknowledged again: the fence is lifted";

/// Takes events; the one way by which a part of rollout says what happened.
pub trait Emit: Send + Sync {
    /// Hands over what happened at `at` to `worker`, if to one. Never blocks.
    fn emit(&self, at: Mono, worker: Option<WorkerId>, body: Body);

    /// Hands over a record for people: `message`, and `attrs` beside it. Never blocks.
    fn log(
        &self,
        at: Mono,
        worker: Option<WorkerId>,
        level: Level,
        message: String,
        attrs: Map<String, Value>,
    );

    /// From now on, what happens belongs to this run.
    fn lead(&self, run: RunId);
}

/// One line of the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Position in its process's stream, from 1.
    pub seq: u64,
    /// The wall clock, for people.
    pub at: SystemTime,
    /// This host's monotonic clock, for judges on the same host.
    pub mono: Mono,
    /// How much it matters.
    pub level: Level,
    /// The run, once it is known.
    pub run_id: Option<RunId>,
    /// The worker it is about.
    pub worker_id: Option<WorkerId>,
    /// The message of a tracing record.
    pub message: Option<String>,
    /// Topic and attributes.
    pub body: Body,
}

macro_rules! topics {
    ($($(#[$doc:meta])* $name:ident = $topic:literal, $level:ident
        { $($(#[$fdoc:meta])* $field:ident: $ty:ty),* $(,)? })*) => {
        /// What happened: the topic and its attributes.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Body {
            $($(#[$doc])* $name($name),)*
            /// A tracing record; its target and fields are the attributes.
            Log(Level, Map<String, Value>),
        }

        $($(#[$doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }

        impl From<$name> for Body {
            fn from(body: $name) -> Self { Self::$name(body) }
        })*

        #[derive(Clone, Copy)]
        enum Place { $($name,)* Log }

        impl Body {
            /// Every topic a process may write, save `log`.
            pub const TOPICS: &[&str] = &[$($topic),*];

            /// The topic's place in [`TOPICS`](Self::TOPICS); that of `log` is behind the last.
            #[must_use]
            pub const fn place(&self) -> usize {
                (match self { $(Self::$name(_) => Place::$name,)* Self::Log(..) => Place::Log })
                    as usize
            }

            /// The topic's name on the wire.
            #[must_use]
            pub const fn topic(&self) -> &'static str {
                match self { $(Self::$name(_) => $topic,)* Self::Log(..) => "log" }
            }

            /// How much such an event matters.
            #[must_use]
            pub const fn level(&self) -> Level {
                match self { $(Self::$name(_) => Level::$level,)* Self::Log(level, _) => *level }
            }

            /// Each topic but `log`, with its level and the schema of its attributes.
            #[cfg(feature = "schema")]
            pub(crate) fn schemas(
                made: &mut schemars::SchemaGenerator,
            ) -> Vec<(&'static str, Level, schemars::Schema)> {
                vec![$(($topic, Level::$level, made.subschema_for::<$name>()),)*]
            }

            fn attrs<S: SerializeStruct>(&self, to: &mut S) -> Result<(), S::Error> {
                match self {
                    $(Self::$name(attrs) => to.serialize_field("attrs", attrs),)*
                    Self::Log(_, attrs) => to.serialize_field("attrs", attrs),
                }
            }

            fn parse(topic: &str, level: Level, attrs: Value) -> Result<Self, serde_json::Error> {
                fn to<T: DeserializeOwned>(attrs: Value) -> Result<T, serde_json::Error> {
                    serde_json::from_value(attrs)
                }
                match topic {
                    $($topic => to(attrs).map(Self::$name),)*
                    "log" => to(attrs).map(|attrs| Self::Log(level, attrs)),
                    other => Err(serde_json::Error::custom(format!("unknown topic `{other}`"))),
                }
            }
        }
    };
}

topics! {
    /// A worker process registered under a new epoch.
    WorkerRegistered = "worker_registered", Info {
        /// Its epoch: grows by one with each registration.
        epoch: u64,
        /// The process's incarnation.
        incarnation: crate::Incarnation,
        /// The version of rollout it runs.
        version: String,
        /// The plugins it loaded, as `name version`.
        plugins: Vec<String>,
    }
    /// A worker process that had lost its connection is back, with its epoch.
    WorkerResumed = "worker_resumed", Info {
        /// The epoch it kept.
        epoch: u64,
    }
    /// A peer was refused.
    WorkerRejected = "worker_rejected", Warn {
        /// Why, as a word: `certificate`, `identity`, `protocol`, `timeout`, `flood`, `capacity`,
        /// `run`, `timing`, `rate`.
        reason: String,
        /// Why, in a sentence.
        detail: String,
        /// The peer's address.
        peer: String,
        /// How many others were refused for this reason since the last such event.
        suppressed: u64,
    }
    /// A beat was accepted.
    WorkerHeartbeat = "worker_heartbeat", Info {
        /// The worker's epoch.
        epoch: u64,
        /// The beat's number within its process.
        beat: u64,
    }
    /// A registered worker's first beat arrived: it may be given work.
    WorkerReady = "worker_ready", Info {
        /// The worker's epoch.
        epoch: u64,
    }
    /// A worker is given no more work; a hint, never a verdict.
    WorkerSuspected = "worker_suspected", Warn {
        /// The worker's epoch.
        epoch: u64,
        /// `connection_lost` or `missed_beats`.
        reason: Cow<'static, str>,
    }
    /// A suspected worker beats again.
    WorkerRecovered = "worker_recovered", Info {
        /// The worker's epoch.
        epoch: u64,
        /// Time since its last accepted beat, in milliseconds.
        gap_ms: f64,
    }
    /// A worker's wall clock and the coordinator's certainly differ by more than `clock_skew_budget`,
    /// however long its messages took. No verdict depends on it.
    ClockSkewExceeded = "clock_skew_exceeded", Warn {
        /// The worker's epoch.
        epoch: u64,
        /// How far the worker's clock is ahead, in milliseconds, less the time that its messages
        /// take; negative when it is behind.
        skew_ms: i64,
    }
    /// The verdict: the worker's deadline has passed.
    WorkerFailed = "worker_failed", Error {
        /// The epoch that failed.
        epoch: u64,
        /// Time since its next beat was due, in milliseconds.
        overdue_ms: f64,
        /// Time since the deadline, in milliseconds.
        overshoot_ms: f64,
        /// Time added to the deadline, for the coordinator's own stalls and for a crowd at its door,
        /// in milliseconds.
        credited_ms: f64,
    }
    /// The worker's own view: it has stopped pulling and committing.
    WorkerFenced = "worker_fenced", Warn {
        /// `unacknowledged`, `failed` or `superseded`.
        reason: Cow<'static, str>,
        /// Time since its last acknowledged beat was sent, in milliseconds.
        unacknowledged_ms: f64,
    }
    /// A worker was asked to end and takes no more work.
    WorkerDraining = "worker_draining", Info {
        /// The worker's epoch.
        epoch: u64,
    }
    /// A worker left in good order; it is not awaited any more.
    WorkerDeregistered = "worker_deregistered", Info {
        /// The worker's epoch.
        epoch: u64,
    }
    /// The coordinator listens.
    CoordinatorStarted = "coordinator_started", Info {
        /// Its term: grows by one with each start on the same database.
        term: u64,
        /// The address it listens on.
        listen_addr: String,
        /// The version of rollout it runs.
        version: String,
        /// Workers it knows from before.
        known_workers: u64,
    }
    /// The coordinator itself was stopped or starved, and every deadline is credited; or a crowd stood
    /// at its door after a restart, and only those are credited who are not back.
    CoordinatorStalled = "coordinator_stalled", Warn {
        /// For how long, in milliseconds.
        ms: f64,
    }
    /// The coordinator was asked to end and accepts nothing more.
    CoordinatorStopping = "coordinator_stopping", Info {
        /// The signal that asked.
        signal: String,
    }
    /// A plugin is loaded.
    PluginLoaded = "plugin_loaded", Info {
        /// Its id in this process.
        plugin_id: crate::PluginId,
        /// Its name.
        name: String,
        /// Its version.
        version: String,
        /// `cdylib` or `sidecar`.
        boundary: String,
        /// SHA-256 of the library or of the manifest's command line.
        digest: String,
    }
    /// A plugin answered the probe of its manifest.
    PluginProbed = "plugin_probed", Info {
        /// Its id in this process.
        plugin_id: crate::PluginId,
        /// Its name.
        name: String,
        /// The method called.
        method: String,
        /// How long the answer took, in milliseconds.
        took_ms: f64,
    }
    /// A sidecar's process ended.
    PluginExited = "plugin_exited", Warn {
        /// Its name.
        name: String,
        /// Its exit code, if it exited.
        code: Option<i32>,
        /// The signal that killed it, if one did.
        signal: Option<i32>,
        /// The last it wrote to standard error.
        stderr_tail: String,
        /// Whether the worker had asked for it.
        expected: bool,
    }
    /// A sidecar that had ended unasked is ready again, as a new process.
    PluginRestarted = "plugin_restarted", Info {
        /// Its name.
        name: String,
        /// How often it ended within its manifest's `restart.window`.
        crashes: u64,
        /// Time from its end until it was ready again, in milliseconds.
        down_ms: f64,
    }
    /// A worker was granted items; the grants are on disk.
    ItemsLeased = "items_leased", Info {
        /// The job.
        job: crate::JobId,
        /// The worker's epoch.
        epoch: u64,
        /// How many items.
        items: u64,
        /// Which, as pairs of the first and the last.
        ranges: Vec<(u64, u64)>,
    }
    /// Items have come to their end; the commit is on disk.
    ItemsCommitted = "items_committed", Info {
        /// The job.
        job: crate::JobId,
        /// The commit's number in the job's ledger.
        seq: u64,
        /// How many items.
        items: u64,
        /// How many of them are dead letters.
        dead: u64,
        /// Which, as pairs of the first and the last.
        ranges: Vec<(u64, u64)>,
    }
    /// Outcomes of a worker were refused.
    CommitRejected = "commit_rejected", Warn {
        /// The job.
        job: crate::JobId,
        /// The epoch that the worker spoke for.
        epoch: u64,
        /// The token that is not current: `state`, `attempt`, `epoch` or `job`.
        stale: Cow<'static, str>,
        /// How many items.
        items: u64,
        /// Which, as pairs of the first and the last.
        ranges: Vec<(u64, u64)>,
    }
    /// Items that a worker had wait for another.
    ItemsRedispatched = "items_redispatched", Warn {
        /// The job.
        job: crate::JobId,
        /// `worker_suspected`, `worker_failed`, `worker_superseded`, `no_progress` or `returned`.
        cause: Cow<'static, str>,
        /// How many items.
        items: u64,
        /// Which, as pairs of the first and the last.
        ranges: Vec<(u64, u64)>,
    }
    /// An item has failed for the last time.
    ItemDeadLettered = "item_dead_lettered", Error {
        /// The job.
        job: crate::JobId,
        /// The item.
        item: u64,
        /// How often it failed.
        failures: u32,
        /// How often something crashed under it.
        losses: u32,
        /// The last failure's code.
        code: String,
        /// The last failure's message.
        message: String,
    }
    /// Lines that a slow or blocked reader of this stream has cost.
    LinesDropped = "lines_dropped", Warn {
        /// Heartbeat lines lost.
        heartbeats: u64,
        /// Other lines lost.
        others: u64,
    }
}

impl Event {
    /// Whether the line is a fact of the contract or a tracing record.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.body {
            Body::Log(..) => Kind::Log,
            _ => Kind::Event,
        }
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut line = to.serialize_struct("Event", 10)?;
        line.serialize_field("seq", &self.seq)?;
        line.serialize_field("ts", &format_args!("{}", humantime::format_rfc3339_micros(self.at)))?;
        line.serialize_field("mono_ns", &self.mono)?;
        line.serialize_field("level", &self.level)?;
        line.serialize_field("kind", &self.kind())?;
        line.serialize_field("topic", self.body.topic())?;
        line.serialize_field("run_id", &self.run_id)?;
        if let Some(worker) = &self.worker_id {
            line.serialize_field("worker_id", worker)?;
        }
        if let Some(message) = &self.message {
            line.serialize_field("message", message)?;
        }
        self.body.attrs(&mut line)?;
        line.end()
    }
}

/// The envelope as it is read.
#[derive(serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    /// Position in this process's stream, from 1.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    seq: u64,
    /// The wall clock, RFC 3339 in UTC; for people.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = crate::schema::INSTANT)))]
    ts: String,
    /// The host's monotonic clock, in nanoseconds; for judges on the same host.
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    mono_ns: Mono,
    /// How much it matters.
    level: Level,
    /// Whether it is a fact of the contract or a tracing record.
    kind: Kind,
    /// What happened.
    topic: String,
    /// The run; null until it is known.
    run_id: Option<RunId>,
    /// The worker, if it is about one.
    worker_id: Option<WorkerId>,
    /// The message of a tracing record.
    message: Option<String>,
    /// The topic's own attributes.
    attrs: Value,
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let line = Line::deserialize(from)?;
        let event = Self {
            seq: line.seq,
            at: humantime::parse_rfc3339(&line.ts).map_err(D::Error::custom)?,
            mono: line.mono_ns,
            level: line.level,
            run_id: line.run_id,
            worker_id: line.worker_id,
            message: line.message,
            body: Body::parse(&line.topic, line.level, line.attrs).map_err(D::Error::custom)?,
        };
        if event.kind() != line.kind {
            return Err(D::Error::custom(format!("topic `{}` is not of that kind", line.topic)));
        }
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn failed() -> Event {
        Event {
            seq: 3,
            at: UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001),
            mono: Mono(17),
            level: Level::Error,
            run_id: Some("01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap()),
            worker_id: Some("01BX5ZZKBKACTAV9WEVGEMMVRZ".parse().unwrap()),
            message: None,
            body: WorkerFailed {
                epoch: 1,
                overdue_ms: 5250.5,
                overshoot_ms: 0.5,
                credited_ms: 0.0,
            }
            .into(),
        }
    }

    #[test]
    fn the_order_of_the_envelope_is_the_contract() {
        assert_eq!(
            serde_json::to_string(&failed()).unwrap(),
            "{\"seq\":3,\"ts\":\"2023-11-14T22:13:20.000001Z\",\"mono_ns\":17,\"level\":\"error\",\
             \"kind\":\"event\",\"topic\":\"worker_failed\",\
             \"run_id\":\"01ARZ3NDEKTSV4RRFFQ69G5FAV\",\
             \"worker_id\":\"01BX5ZZKBKACTAV9WEVGEMMVRZ\",\
             \"attrs\":{\"epoch\":1,\"overdue_ms\":5250.5,\"overshoot_ms\":0.5,\"credited_ms\":0.0}}"
        );
    }

    #[test]
    fn a_line_reads_back_as_it_was_written() {
        let log = Event {
            worker_id: None,
            level: Level::Warn,
            message: Some("a \"quoted\"\nmessage".into()),
            body: Body::Log(Level::Warn, Map::from_iter([("target".into(), "x::y".into())])),
            ..failed()
        };
        for event in [failed(), log] {
            let line = serde_json::to_string(&event).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
    }

    #[test]
    fn an_unknown_topic_key_or_kind_is_refused() {
        let line = serde_json::to_string(&failed()).unwrap();
        for (from, to) in [
            ("worker_failed", "worker_flew"),
            ("\"seq\"", "\"sequence\""),
            ("\"epoch\"", "\"age\""),
            ("\"kind\":\"event\"", "\"kind\":\"log\""),
        ] {
            assert!(serde_json::from_str::<Event>(&line.replace(from, to)).is_err(), "{to}");
        }
    }
}
