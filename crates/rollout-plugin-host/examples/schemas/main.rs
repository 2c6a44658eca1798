//! Writes what is made from the types into a directory: the JSON Schemas of configuration, job, manifest
//! and event, and tables of the book. `cargo xtask generate` runs it.
//!
//! It is an example of this crate because here both the words of `rollout-core` and manifests are known,
//! and because only its build, and no other, then needs what schemas are made with.

mod tables;

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use rollout_core::schema::{of_file, of_line};
use rollout_core::{CoordinatorConfig, Event, JobFile, WorkerConfig};
use rollout_plugin_host::Manifest;
use schemars::{JsonSchema, Schema};

/// A configuration file: a coordinator's or a worker's.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is made")]
enum Config {
    Coordinator(CoordinatorConfig),
    Worker(WorkerConfig),
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = env::args_os().nth(1).ok_or("name the directory to write to")?;
    let dir = Path::new(&dir);
    let event = of_line::<Event>();
    for (kind, title, schema) in [
        ("config", "A configuration file of rollout", of_file::<Config>()),
        ("job", "A job file of rollout", of_file::<JobFile>()),
        ("manifest", "A plugin's manifest", of_file::<Manifest>()),
        ("event", "An event of rollout", event.clone()),
    ] {
        fs::write(dir.join(format!("{kind}.json")), text(title, schema)?)?;
    }
    let (coordinator, worker) = (of_file::<CoordinatorConfig>(), of_file::<WorkerConfig>());
    for (name, table) in tables::keys(&coordinator, &worker) {
        fs::write(dir.join(name), table)?;
    }
    fs::write(dir.join("topics.md"), tables::topics(&event))?;
    Ok(())
}

/// The schema as it is checked in.
fn text(title: &str, mut schema: Schema) -> Result<String, serde_json::Error> {
    schema.insert("title".into(), title.into());
    Ok(serde_json::to_string_pretty(&schema)? + "\n")
}
