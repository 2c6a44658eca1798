//! `rollout plugin check`: a plugin put through what a worker may do to it.

mod calls;
mod conduct;
mod limits;
mod live;
mod report;
mod suite;

use rollout_plugin_host::{Entry, Manifest, PluginError};

use self::report::Report;
use self::suite::Suite;
use super::args::CheckArgs;
use super::stage;
use crate::config::print;
use crate::error::CliError;

pub(super) fn run(args: &CheckArgs) -> Result<(), CliError> {
    let manifest = Manifest::load(&args.manifest)?;
    stage::run(async |stage| {
        let mut report = Report {
            plugin: manifest.name.clone(),
            version: manifest.version.clone(),
            boundary: match manifest.entry {
                Entry::Cdylib(_) => "cdylib",
                Entry::Sidecar(_) => "sidecar",
            },
            rows: Vec::new(),
        };
        let suite = Suite::new(manifest, stage, args);
        report.rows = suite.run().await;
        if args.json {
            print(&format!("{}\n", report.json()))?;
        } else {
            print(&report.table())?;
        }
        match report.failed() {
            0 => Ok(()),
            failed => Err(CliError::Conformance {
                failed,
                checked: report.rows.len(),
                plugin: report.plugin,
            }),
        }
    })
}

/// What went wrong with a plugin whose name the report says, in one line.
fn chain(error: &PluginError) -> String {
    rollout_core::chain(&*error.cause)
}
