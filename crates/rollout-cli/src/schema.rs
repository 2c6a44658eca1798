//! `rollout schema`: the JSON Schemas, as they were made from the types and checked in.
//!
//! They are not made here: what makes them would have to be built with every `rollout`.

use clap::ValueEnum;

/// What has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A coordinator's or a worker's configuration file, TOML
    Config,
    /// A job file, TOML
    Job,
    /// A plugin's manifest, TOML
    Manifest,
    /// A line of a process's standard output, JSON
    Event,
}

impl Kind {
    /// The schema's text.
    pub(crate) const fn schema(self) -> &'static str {
        match self {
            Self::Config => include_str!("../../../docs/schemas/config.json"),
            Self::Job => include_str!("../../../docs/schemas/job.json"),
            Self::Manifest => include_str!("../../../docs/schemas/manifest.json"),
            Self::Event => include_str!("../../../docs/schemas/event.json"),
        }
    }
}
