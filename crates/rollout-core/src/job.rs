//! A job as data: which method is called for which items, and how often an item may fail.
//!
//! Items are numbered from 0. An item's seed is a function of the job's seed and its number alone, so
//! that whoever runs it, and however often, it is the same item.

pub mod file;

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The most items of one job.
pub const MAX_ITEMS: u64 = 1 << 32;
/// The most items of one grant.
pub const MAX_BATCH: u32 = 4096;
/// The most that an item may fail or be lost before it is given up.
pub(crate) const MAX_TRIES: u32 = 1_000_000;
/// Results larger than this, in bytes, go into files of their own.
pub const MAX_INLINE_RESULT: usize = 64 * 1024;

/// What a job is: everything that its results depend on, and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// Its name, for people.
    pub name: String,
    /// The name of the plugin, as workers advertise it.
    pub plugin: String,
    /// The plugin's method.
    pub method: String,
    /// How many items there are; at most [`MAX_ITEMS`].
    pub items: u64,
    /// Whether each item has parameters of its own.
    pub has_params: bool,
    /// SHA-256, in hex, of the items' parameters, one a line; of nothing if they have none.
    pub params_sha256: String,
    /// SHA-256, in hex, of the plugin's manifest and configuration as the client has them; empty if
    /// the workers' own are taken.
    pub plugin_digest: String,
    /// What the items' seeds are made from.
    pub seed: u64,
    /// The limits.
    pub limits: JobLimits,
}

/// How long things may take and how often they may fail; no result depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobLimits {
    /// The most items that are handed out together, from 1 to [`MAX_BATCH`].
    pub batch: u32,
    /// After so many typed errors of the plugin, or items without progress, an item is a dead letter.
    pub max_attempts: u32,
    /// After so many crashes of the worker or the plugin under it, an item is a dead letter.
    pub max_losses: u32,
    /// When the items of a worker that is not heard of are given to another.
    pub redispatch: Redispatch,
    /// How long an item may take in all.
    #[serde(with = "crate::duration")]
    pub item_timeout: Duration,
    /// How long an item may go without a sign of progress.
    #[serde(with = "crate::duration")]
    pub progress_timeout: Duration,
    /// How long the job may find no worker that has its plugin.
    #[serde(with = "crate::duration")]
    pub start_timeout: Duration,
}

impl Default for JobLimits {
    fn default() -> Self {
        Self {
            batch: 64,
            max_attempts: 3,
            max_losses: 20,
            redispatch: Redispatch::Suspected,
            item_timeout: Duration::from_secs(600),
            progress_timeout: Duration::from_secs(120),
            start_timeout: Duration::from_secs(60),
        }
    }
}

/// When the items of a worker that is not heard of are given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Redispatch {
    /// A second after it is suspected. It may still run them at the same time; what it commits late is
    /// refused.
    Suspected,
    /// When it has failed: nothing ever runs twice at the same time.
    Failed,
}

/// Why a job is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` ({value}) must be {must}")]
pub struct JobError {
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What would be accepted.
    pub must: &'static str,
}

impl JobSpec {
    /// A job of so many items without parameters, with the seed 0, the default limits, and whatever
    /// plugin of this name the workers have.
    #[must_use]
    pub fn new(plugin: &str, method: &str, items: u64) -> Self {
        Self {
            name: "job".to_owned(),
            plugin: plugin.to_owned(),
            method: method.to_owned(),
            items,
            has_params: false,
            params_sha256: String::new(),
            plugin_digest: String::new(),
            seed: 0,
            limits: JobLimits::default(),
        }
    }

    /// Checks the ranges of all values.
    ///
    /// # Errors
    /// The first one that is outside.
    pub fn validate(&self) -> Result<(), JobError> {
        let refuse = |key, value: String, must| Err(JobError { key, value, must });
        for (key, text) in
            [("name", &self.name), ("plugin", &self.plugin), ("method", &self.method)]
        {
            if text.is_empty() || text.len() > 256 || text.chars().any(char::is_control) {
                return refuse(
                    key,
                    format!("{text:?}"),
                    "1 to 256 bytes without control characters",
                );
            }
        }
        if self.items == 0 || self.items > MAX_ITEMS {
            return refuse("items", self.items.to_string(), "from 1 to 4294967296");
        }
        let JobLimits { batch, max_attempts, max_losses, .. } = self.limits;
        if batch == 0 || batch > MAX_BATCH {
            return refuse("batch", batch.to_string(), "from 1 to 4096");
        }
        for (key, value) in [("max_attempts", max_attempts), ("max_losses", max_losses)] {
            if value == 0 || value > MAX_TRIES {
                return refuse(key, value.to_string(), "from 1 to 1000000");
            }
        }
        let JobLimits { item_timeout, progress_timeout, start_timeout, .. } = self.limits;
        for (key, value) in [
            ("item_timeout", item_timeout),
            ("progress_timeout", progress_timeout),
            ("start_timeout", start_timeout),
        ] {
            if value.is_zero() || value > crate::budget::MAX_DURATION {
                return refuse(key, format!("{value:?}"), "more than zero and at most a day");
            }
        }
        Ok(())
    }

    /// What of it differs from `other` in a way that makes it another job: names of keys. The limits do
    /// not count.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            ("plugin", self.plugin != other.plugin),
            ("method", self.method != other.method),
            ("items", self.items != other.items || self.has_params != other.has_params),
            ("the items' parameters", self.params_sha256 != other.params_sha256),
            ("the plugin's manifest", self.plugin_digest != other.plugin_digest),
            ("seed", self.seed != other.seed),
        ];
        differs.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }

    /// The seed of an item.
    #[must_use]
    pub fn item_seed(&self, item: u64) -> u64 {
        item_seed(self.seed, item)
    }
}

/// The seed of an item, from 0 up to 2^53 - 1, so that every reader of JSON holds it exactly.
///
/// Two rounds of `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
/// OOPSLA 2014), one for the job's seed and one for the item's number: neighbours have nothing in
/// common.
#[must_use]
pub const fn item_seed(seed: u64, item: u64) -> u64 {
    mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add(item.wrapping_mul(GOLDEN))) >> 11
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn spec() -> JobSpec {
        JobSpec { seed: 7, ..JobSpec::new("sample", "run", 10) }
    }

    #[test]
    fn seeds_fit_into_every_json_reader_differ_and_stay_what_they_are() {
        let seeds: HashSet<_> =
            (0..4).flat_map(|seed| (0..10_000).map(move |item| item_seed(seed, item))).collect();
        assert_eq!(seeds.len(), 40_000);
        assert!(seeds.iter().all(|seed| *seed < 1 << 53));
        // Results of earlier runs depend on these.
        assert_eq!([item_seed(0, 0), item_seed(7, 1)], [2537880150861722, 6498767946634617]);
    }

    #[test]
    fn a_value_outside_its_range_is_named() {
        assert_eq!(spec().validate(), Ok(()));
        type Change = fn(&mut JobSpec);
        let broken: [(&str, Change); 8] = [
            ("name", |spec| spec.name = "a\nb".into()),
            ("method", |spec| spec.method.clear()),
            ("items", |spec| spec.items = 0),
            ("items", |spec| spec.items = MAX_ITEMS + 1),
            ("batch", |spec| spec.limits.batch = MAX_BATCH + 1),
            ("max_attempts", |spec| spec.limits.max_attempts = 0),
            ("max_losses", |spec| spec.limits.max_losses = 0),
            ("item_timeout", |spec| spec.limits.item_timeout = Duration::ZERO),
        ];
        for (key, change) in broken {
            let mut spec = spec();
            change(&mut spec);
            assert_eq!(spec.validate().unwrap_err().key, key);
        }
    }

    #[test]
    fn only_what_results_depend_on_makes_it_another_job() {
        let mut other = spec();
        other.limits.batch = 1;
        other.name = "another name".into();
        assert_eq!(spec().differences(&other), [""; 0]);
        other.seed = 8;
        other.items = 11;
        assert_eq!(spec().differences(&other), ["items", "seed"]);
    }
}
