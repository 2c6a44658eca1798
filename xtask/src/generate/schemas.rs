//! The JSON Schemas, and the tables of keys and topics in the book: an example of `rollout-plugin-host`
//! makes them from the types, in a build of its own, so that no other build pays for what makes them.

use std::fs;

use rollout_core::ExitCode;
use rollout_harness::Interrupt;

use super::Made;
use crate::cargo::cargo;
use crate::complain;

/// What the example writes, and where it belongs.
const FILES: [(&str, &str); 4] = [
    ("config.json", "docs/schemas/config.json"),
    ("job.json", "docs/schemas/job.json"),
    ("manifest.json", "docs/schemas/manifest.json"),
    ("event.json", "docs/schemas/event.json"),
];
const SECTIONS: [(&str, &str); 4] = [
    ("keys-of-both", "docs/src/configuration.md"),
    ("keys-of-coordinator", "docs/src/configuration.md"),
    ("keys-of-worker", "docs/src/configuration.md"),
    ("topics", "docs/src/events.md"),
];

/// Builds and runs the example.
pub(super) fn make(interrupt: &Interrupt) -> Result<Vec<Made>, u8> {
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        complain(&format!("{what}: {error}"));
        ExitCode::Io.code()
    };
    let dir = tempfile::tempdir().map_err(|error| fail("a directory for schemas", &error))?;
    let to = dir.path().to_string_lossy();
    let build = ["run", "--quiet", "--locked", "--package", "rollout-plugin-host"];
    let run = ["--features", "schema", "--example", "schemas", "--", &*to];
    match cargo(&[&build[..], &run].concat(), interrupt) {
        0 => {}
        code => return Err(code),
    }
    let read =
        |name: &str| fs::read_to_string(dir.path().join(name)).map_err(|error| fail(name, &error));
    let files = FILES.iter().map(|&(name, path)| Ok(Made::File { path, text: read(name)? }));
    let sections = SECTIONS
        .iter()
        .map(|&(name, path)| Ok(Made::Section { path, name, text: read(&format!("{name}.md"))? }));
    files.chain(sections).collect()
}
