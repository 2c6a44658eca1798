//! The plugin in plain C, built as its first comment says and run by a worker.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::Duration;

use rollout_acceptance::{Actor, Stage, edit_toml, set, text};
use rollout_core::event::Body;
use rollout_harness::binaries::workspace_root;
use rollout_process::{Io, Spawn};

const MANIFEST: &str = "plugins/c_sample/c_sample.toml";

/// A stage with the sample's source and manifest where the repository has them, and the library.
fn built() -> Stage {
    let stage = Stage::new();
    let at = |path: &str| stage.root().join(path);
    fs::create_dir_all(at("plugins/c_sample")).unwrap();
    fs::create_dir_all(at("target/plugins")).unwrap();
    std::os::unix::fs::symlink(workspace_root().join("crates"), at("crates")).unwrap();
    for file in [MANIFEST, "plugins/c_sample/c_sample.c"] {
        fs::copy(workspace_root().join(file), at(file)).unwrap();
    }
    let source = fs::read_to_string(at("plugins/c_sample/c_sample.c")).unwrap();
    let command =
        source.lines().find_map(|line| line.trim_start_matches([' ', '*']).strip_prefix("cc "));
    let command = command.unwrap().replace(".so ", &format!("{} ", std::env::consts::DLL_SUFFIX));
    let output = Spawn::new("cc")
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"])
        .args(command.split_whitespace())
        .current_dir(stage.root())
        .stderr(Io::Pipe)
        .output(Some(Duration::from_secs(60)))
        .unwrap();
    assert!(output.exit.success(), "{}", String::from_utf8_lossy(&output.stderr));
    stage
}

fn worker(stage: &Stage, address: &str) -> Actor {
    let config = stage.fixtures().join("worker.toml");
    edit_toml(&config, |table| set(table, &["coordinator"], address));
    let args = ["worker", "run", "--config", &text(&config), "--plugin", MANIFEST];
    stage.start("worker", &args)
}

#[test]
fn a_worker_loads_probes_and_ends_a_plugin_in_plain_c() {
    let stage = built();
    let (coordinator, address) = stage.coordinator();
    let mut worker = worker(&stage, &address);
    let ready = worker.event_where("log", |event| format!("{event:?}").contains("c_sample"));
    let ready = toml::Value::try_from(&ready).unwrap();
    assert_eq!(ready["message"].as_str(), Some("ready"));
    let loaded = worker.event("plugin_loaded");
    let Body::PluginLoaded(loaded) = &loaded.body else { unreachable!("{loaded:?}") };
    assert_eq!((&*loaded.name, &*loaded.version), ("c_sample", "0.1.0"));
    let probed = worker.event("plugin_probed");
    let Body::PluginProbed(probed) = &probed.body else { unreachable!("{probed:?}") };
    assert_eq!((&*probed.name, &*probed.method), ("c_sample", "echo"));
    let _ = worker.event("worker_registered");
    worker.stop();
    coordinator.stop();
}

#[test]
fn what_a_plugin_in_plain_c_refuses_stops_the_worker_in_its_own_words() {
    let stage = built();
    edit_toml(&stage.root().join(MANIFEST), |table| set(table, &["config", "key"], "value"));
    let worker = worker(&stage, "127.0.0.1:1");
    assert!(!worker.exit().success());
    let stderr = worker.stderr();
    assert!(stderr.contains("c_sample") && stderr.contains("it has no configuration"), "{stderr}");
}

#[test]
fn what_the_book_shows_of_the_plugin_is_what_is_there() {
    let read = |path| fs::read_to_string(workspace_root().join(path)).unwrap();
    let there = read("plugins/c_sample/c_sample.c") + &read(MANIFEST);
    let book = read("docs/src/plugin-c.md");
    let shown: Vec<_> = book.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert!(shown.len() > 40, "{shown:?}");
    for line in shown {
        assert!(there.contains(line.trim_end()), "{line}");
    }
}
