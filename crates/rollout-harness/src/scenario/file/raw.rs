//! The keys of a scenario's file.

use std::collections::BTreeMap;
use std::time::Duration;

use rollout_core::TimeBudget;
use serde::Deserialize;
use toml::{Table, Value};

/// A duration with its unit.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(super) struct Span(#[serde(with = "rollout_core::duration")] pub(super) Duration);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    pub(super) about: String,
    #[serde(default)]
    pub(super) by_hand: bool,
    pub(super) timing: Option<TimeBudget>,
    #[serde(default)]
    pub(super) coordinator: Coordinator,
    pub(super) workers: Vec<Worker>,
    #[serde(default)]
    pub(super) steps: Vec<Step>,
    pub(super) expect: Vec<Expect>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Coordinator {
    pub(super) config: Table,
    pub(super) faults: Table,
    pub(super) disk: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Worker {
    pub(super) name: String,
    #[serde(default)]
    pub(super) config: Table,
    #[serde(default)]
    pub(super) faults: Table,
    #[serde(default)]
    pub(super) disk: bool,
    #[serde(default)]
    pub(super) link: bool,
    #[serde(default)]
    pub(super) plugins: Vec<String>,
    pub(super) id_of: Option<String>,
    #[serde(default)]
    pub(super) late: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) label: Option<String>,
    pub(super) at: Option<Span>,
    pub(super) after: Option<Span>,
    pub(super) wait: Option<Wait>,
    #[serde(rename = "do")]
    pub(super) verb: Option<Verb>,
    pub(super) to: Option<String>,
    pub(super) by: Option<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verb {
    Start,
    Kill,
    Terminate,
    Stop,
    Continue,
    KillSidecars,
    Cut,
    BlackHole,
    Delay,
    Heal,
    DiskStall,
    DiskFull,
    DiskError,
    DiskHeal,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    pub(super) event: Option<String>,
    pub(super) from: Option<String>,
    pub(super) worker: Option<String>,
    #[serde(rename = "where", default)]
    pub(super) attrs: BTreeMap<String, Value>,
    pub(super) count: Option<usize>,
    pub(super) since: Option<String>,
    pub(super) exit: Option<String>,
    pub(super) within: Option<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub(super) name: Option<String>,
    pub(super) event: Option<String>,
    pub(super) none: Option<String>,
    pub(super) exit: Option<String>,
    pub(super) stderr: Option<String>,
    pub(super) from: Option<String>,
    pub(super) worker: Option<String>,
    #[serde(rename = "where", default)]
    pub(super) attrs: BTreeMap<String, Value>,
    pub(super) count: Option<usize>,
    pub(super) at_least: Option<usize>,
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
    pub(super) not_before: Option<String>,
    pub(super) not_after: Option<Span>,
    pub(super) life: Option<usize>,
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) contains: Option<String>,
}

impl Expect {
    /// The keys that are set, beside the one that says what is expected.
    pub(super) fn set(&self) -> Vec<&'static str> {
        let set = [
            ("from", self.from.is_some()),
            ("worker", self.worker.is_some()),
            ("where", !self.attrs.is_empty()),
            ("count", self.count.is_some()),
            ("at_least", self.at_least.is_some()),
            ("since", self.since.is_some()),
            ("until", self.until.is_some()),
            ("not_before", self.not_before.is_some()),
            ("not_after", self.not_after.is_some()),
            ("life", self.life.is_some()),
            ("code", self.code.is_some()),
            ("signal", self.signal.is_some()),
            ("contains", self.contains.is_some()),
        ];
        set.into_iter().filter_map(|(key, set)| set.then_some(key)).collect()
    }
}
