//! A job file, as types: what the keys are, which are optional, and their ranges. Reading the file is
//! the caller's business, and so are the paths in it, which are relative to where it lies.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::{JobError, JobLimits, JobSpec, Redispatch};
#[cfg(feature = "schema")]
use super::{MAX_BATCH, MAX_ITEMS, MAX_TRIES};
use crate::config::ConfigError;

/// The most workers that one machine is asked to run.
pub const MAX_WORKERS: usize = 1024;

/// A job file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// What is called, for which items, and the limits.
    pub job: JobTable,
    /// Keys that replace those of the manifest's own `[config]`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Table"))]
    pub config: toml::Table,
    /// Where the results go.
    #[serde(default)]
    pub output: OutputTable,
    /// Who works, if the run starts its own workers.
    #[serde(default)]
    pub workers: WorkersTable,
}

/// The table `[job]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct JobTable {
    /// Its name, for people; by default the plugin's.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 256)))]
    pub name: Option<String>,
    /// The plugin's manifest; on a running fleet, the plugin's name will do.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 256)))]
    pub plugin: String,
    /// The plugin's method.
    #[serde(default = "default_method")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 256)))]
    pub method: String,
    /// The items.
    pub items: Items,
    /// What the items' seeds are made from.
    #[serde(default)]
    pub seed: u64,
    /// The most items that are handed out together.
    #[serde(default = "default_batch")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_BATCH)))]
    pub batch: u32,
    /// After so many typed errors, or items without progress, an item is a dead letter.
    #[serde(default = "default_attempts")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_TRIES)))]
    pub max_attempts: u32,
    /// After so many crashes under it, an item is a dead letter.
    #[serde(default = "default_losses")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_TRIES)))]
    pub max_losses: u32,
    /// When the items of a worker that is not heard of are given to another.
    #[serde(default = "default_redispatch")]
    pub redispatch: Redispatch,
    /// How long an item may take in all; more than zero and at most a day, as all three.
    #[serde(with = "crate::duration::AsText", default = "default_item_timeout")]
    pub item_timeout: Duration,
    /// How long an item may go without a sign of progress.
    #[serde(with = "crate::duration::AsText", default = "default_progress_timeout")]
    pub progress_timeout: Duration,
    /// How long the job may find no worker that has its plugin.
    #[serde(with = "crate::duration::AsText", default = "default_start_timeout")]
    pub start_timeout: Duration,
}

fn default_method() -> String {
    "run".to_owned()
}

fn default_batch() -> u32 {
    JobLimits::default().batch
}

fn default_attempts() -> u32 {
    JobLimits::default().max_attempts
}

fn default_losses() -> u32 {
    JobLimits::default().max_losses
}

fn default_redispatch() -> Redispatch {
    JobLimits::default().redispatch
}

fn default_item_timeout() -> Duration {
    JobLimits::default().item_timeout
}

fn default_progress_timeout() -> Duration {
    JobLimits::default().progress_timeout
}

fn default_start_timeout() -> Duration {
    JobLimits::default().start_timeout
}

impl JobTable {
    /// A job with default limits.
    #[must_use]
    pub fn new(plugin: String, items: Items) -> Self {
        let limits = JobLimits::default();
        Self {
            name: None,
            plugin,
            method: default_method(),
            items,
            seed: 0,
            batch: limits.batch,
            max_attempts: limits.max_attempts,
            max_losses: limits.max_losses,
            redispatch: limits.redispatch,
            item_timeout: limits.item_timeout,
            progress_timeout: limits.progress_timeout,
            start_timeout: limits.start_timeout,
        }
    }

    /// The job, without what only the manifest and the parameters can tell: the plugin's name and the
    /// digests.
    #[must_use]
    pub fn spec(&self) -> JobSpec {
        let (items, has_params) = match self.items {
            Items::Count(count) => (count, false),
            Items::Params(_) => (1, true),
        };
        let plain = JobSpec::new(&self.plugin, &self.method, items);
        JobSpec {
            name: self.name.clone().unwrap_or_else(|| plain.name.clone()),
            has_params,
            seed: self.seed,
            limits: JobLimits {
                batch: self.batch,
                max_attempts: self.max_attempts,
                max_losses: self.max_losses,
                redispatch: self.redispatch,
                item_timeout: self.item_timeout,
                progress_timeout: self.progress_timeout,
                start_timeout: self.start_timeout,
            },
            ..plain
        }
    }
}

/// The items of a job: how many, or the parameters of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Items {
    /// So many, which differ by their number and seed alone.
    Count(#[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_ITEMS)))] u64),
    /// One for each line of this file, which holds one JSON value a line.
    Params(#[cfg_attr(feature = "schema", schemars(length(min = 1)))] PathBuf),
}

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Items;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a count, or the path of a file with one JSON value a line")
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Items, E> {
                Ok(Items::Count(count))
            }

            fn visit_i64<E: de::Error>(self, count: i64) -> Result<Items, E> {
                u64::try_from(count)
                    .map(Items::Count)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(count), &self))
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<Items, E> {
                Ok(Items::Params(path.into()))
            }
        }

        from.deserialize_any(Either)
    }
}

/// The table `[output]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct OutputTable {
    /// The directory of the results.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub dir: Option<PathBuf>,
    /// Their form.
    pub format: Format,
}

/// The form of the results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Jsonl,
}

/// The table `[workers]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct WorkersTable {
    /// How many; by default one for each processor.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = MAX_WORKERS)))]
    pub count: Option<usize>,
}

impl JobFile {
    /// Reads and validates the text of a job file.
    ///
    /// # Errors
    /// The first thing wrong with it: syntax, an unknown key, a value.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: Self = toml::from_str(text)?;
        file.job.spec().validate()?;
        if let Some(count) = file.workers.count.filter(|count| !(1..=MAX_WORKERS).contains(count)) {
            return Err(ConfigError::Range {
                key: "workers.count",
                value: count.to_string(),
                must: "from 1 to 1024",
            });
        }
        for (key, path) in [("output.dir", &file.output.dir), ("items", &file.job.items.path())] {
            if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
                let must = "a path, not an empty text";
                return Err(ConfigError::Range { key, value: String::new(), must });
            }
        }
        Ok(file)
    }
}

impl Items {
    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Count(_) => None,
            Self::Params(path) => Some(path.clone()),
        }
    }
}

impl From<JobError> for ConfigError {
    fn from(JobError { key, value, must }: JobError) -> Self {
        Self::Range { key, value, must }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[job]\nplugin = \"plugin.toml\"\nitems = 3\n";

    fn refusal(text: &str) -> String {
        JobFile::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_least_file_has_the_default_limits() {
        let file = JobFile::parse(LEAST).unwrap();
        assert_eq!(file.job, JobTable::new("plugin.toml".into(), Items::Count(3)));
        let spec = file.job.spec();
        assert_eq!((spec.limits, spec.seed, spec.has_params), (JobLimits::default(), 0, false));
        assert_eq!((spec.method.as_str(), file.workers.count), ("run", None));
    }

    #[test]
    fn every_key_has_its_effect() {
        let file = JobFile::parse(
            "[job]\nname = \"n\"\nplugin = \"p\"\nmethod = \"m\"\nitems = \"in.jsonl\"\nseed = 7\n\
             batch = 16\nmax_attempts = 2\nmax_losses = 4\nredispatch = \"failed\"\n\
             item_timeout = \"1m\"\nprogress_timeout = \"30s\"\nstart_timeout = \"5s\"\n\
             [config]\nsteps = 5\n[output]\ndir = \"out\"\nformat = \"jsonl\"\n\
             [workers]\ncount = 3\n",
        )
        .unwrap();
        let limits = JobLimits {
            batch: 16,
            max_attempts: 2,
            max_losses: 4,
            redispatch: Redispatch::Failed,
            item_timeout: Duration::from_secs(60),
            progress_timeout: Duration::from_secs(30),
            start_timeout: Duration::from_secs(5),
        };
        let spec = file.job.spec();
        assert_eq!((spec.limits, spec.seed, spec.has_params), (limits, 7, true));
        assert_eq!(
            (spec.name.as_str(), spec.plugin.as_str(), spec.method.as_str()),
            ("n", "p", "m")
        );
        assert_eq!(file.job.items, Items::Params("in.jsonl".into()));
        assert_eq!(file.config.get("steps").and_then(toml::Value::as_integer), Some(5));
        let output = OutputTable { dir: Some("out".into()), format: Format::Jsonl };
        assert_eq!((file.output, file.workers.count), (output, Some(3)));
    }

    #[test]
    fn an_unknown_key_is_named_wherever_it_stands() {
        for (text, key) in [
            ("colour = 1\n", "colour"),
            ("[output]\nfolder = \"x\"\n", "folder"),
            ("[workers]\nnumber = 1\n", "number"),
            ("[limits]\nbatch = 1\n", "limits"),
        ] {
            let error = refusal(&format!("{LEAST}{text}"));
            assert!(error.contains(&format!("unknown field `{key}`")), "{error}");
        }
    }

    #[test]
    fn a_value_outside_its_range_is_named_with_what_would_do() {
        for (from, to, words) in [
            ("items = 3", "items = 0", "`items` (0) must be from 1 to 4294967296"),
            ("items = 3", "items = -1", "a count, or the path of a file"),
            ("items = 3", "items = \"\"", "`items` () must be a path"),
            ("items = 3", "items = 1.5", "a count, or the path of a file"),
            ("plugin = \"plugin.toml\"", "plugin = \"\"", "`plugin` (\"\") must be 1 to 256 bytes"),
            ("items = 3", "items = 3\nbatch = 5000", "`batch` (5000) must be from 1 to 4096"),
            ("items = 3", "items = 3\nmax_attempts = 0", "`max_attempts` (0) must be from 1"),
            ("items = 3", "items = 3\nmax_losses = 0", "`max_losses` (0) must be from 1"),
            ("items = 3", "items = 3\nredispatch = \"never\"", "unknown variant `never`"),
            ("items = 3", "items = 3\nitem_timeout = 5", "expected a string"),
            ("items = 3", "items = 3\nprogress_timeout = \"0s\"", "`progress_timeout`"),
            ("items = 3", "items = 3\nstart_timeout = \"2d\"", "at most a day"),
            ("items = 3", "items = 3\nseed = -1", "expected u64"),
            ("items = 3", "items = 3\n[output]\nformat = \"csv\"", "unknown variant `csv`"),
            ("items = 3", "items = 3\n[output]\ndir = \"\"", "`output.dir` () must be a path"),
            ("items = 3", "items = 3\n[workers]\ncount = 0", "`workers.count` (0) must be from 1"),
        ] {
            let error = refusal(&LEAST.replace(from, to));
            assert!(error.contains(words), "{to}: {error}");
        }
        assert!(refusal("[job]\nitems = 3\n").contains("missing field `plugin`"));
    }
}
