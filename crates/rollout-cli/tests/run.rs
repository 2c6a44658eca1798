//! `rollout run` as a person meets it: with real processes, which are stopped, killed and resumed.

#[path = "run/fleet.rs"]
mod fleet;
#[path = "run/stage.rs"]
mod stage;
#[path = "schema/validator.rs"]
mod validator;

use std::collections::BTreeSet;

use rollout_process::Signal;
use serde_json::Value;

use crate::stage::{Stage, kill_alone};

/// The items of a file of lines, in its order.
fn items(text: &str) -> Vec<u64> {
    let item = |line| serde_json::from_str::<Value>(line).ok()?["item"].as_u64();
    text.lines().filter_map(item).collect()
}

/// What an undisturbed run of the same job gives.
fn undisturbed(items: u64) -> String {
    let stage = Stage::new(items, "seed = 7", "");
    stage.exits(0, &["run", "job.toml", "--out", "out"]);
    stage.read("out/results.jsonl")
}

#[test]
fn a_run_gives_every_result_in_the_order_of_items_and_leaves_nothing_running() {
    let stage = Stage::new(50, "seed = 7", "");
    let said = stage.exits(0, &["run", "job.toml"]);
    assert!(said.contains("tried: 50 of 50 items done"), "{said}");
    let results = stage.read("runs/tried/results.jsonl");
    assert_eq!(items(&results), (0..50).collect::<Vec<_>>());
    let seed = rollout_core::job::item_seed(7, 3);
    let third = format!("{{\"item\":3,\"result\":{{\"item\":3,\"seed\":{seed},\"params\":null}}}}");
    assert_eq!(results.lines().nth(3), Some(third.as_str()));
    assert_eq!(stage.read("runs/tried/dead.jsonl"), "");
    let report = stage.json("runs/tried/run.json");
    assert_eq!((&report["exit"], &report["finished"]), (&0.into(), &true.into()));
    assert_eq!((&report["counts"]["done"], &report["term"]), (&50.into(), &1.into()));
    assert!(!stage.path("runs/tried/state").exists(), "only an unfinished run needs it");
    assert!(!stage.path("runs/tried/results.partial.jsonl").exists());
    stage.await_nobody();
    // A finished run is left alone: the next one goes elsewhere, and resuming says how it ended.
    let said = stage.exits(73, &["run", "job.toml", "--out", "runs/tried"]);
    assert!(said.contains("holds a finished run: name another --out"), "{said}");
    assert!(stage.exits(0, &["resume", "runs/tried"]).contains("is finished: 50 results"));
    stage.exits(0, &["run", "job.toml", "--count", "2"]);
    assert_eq!(items(&stage.read("runs/tried-2/results.jsonl")), [0, 1]);
    assert!(stage.rollout(&["status", "runs/tried"]).1.contains("50 of 50 items done, 0 dead"));
    let (code, events, _) = stage.rollout(&["events", "runs/tried", "--topic", "worker_ready"]);
    let ready = events.lines().all(|line| line.contains("\"topic\":\"worker_ready\""));
    // The other worker may have come when all was done.
    assert!(code == Some(0) && ready && (1..=2).contains(&events.lines().count()), "{events}");
}

#[test]
fn items_with_parameters_get_them_and_large_results_are_files() {
    let stage = Stage::new(3, "", "");
    stage.write("in.jsonl", "{\"a\" : 1}\n[2]\nnull\n");
    stage.write(
        "job.toml",
        "[job]\nname = \"three\"\nplugin = \"plugin.toml\"\nitems = \"in.jsonl\"\n\
         [config]\nlarge = [2]\n[output]\ndir = \"there\"\nformat = \"jsonl\"\n[workers]\ncount = 1\n",
    );
    stage.exits(0, &["run", "job.toml"]);
    let results = stage.read("there/results.jsonl");
    let lines: Vec<Value> = results.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["result"]["params"], serde_json::json!({ "a": 1 }));
    assert_eq!(lines[1]["result"]["params"], serde_json::json!([2]));
    let blob = &lines[2]["result"]["$blob"];
    let text = stage.read(&format!("there/blobs/{}", blob["sha256"].as_str().unwrap()));
    assert_eq!(text, format!("\"{}\"", "x".repeat(100_000)));
    assert_eq!(blob["bytes"], text.len());
}

#[test]
fn what_fails_for_good_is_a_dead_letter_with_its_traceback_and_exits_75() {
    let stage = Stage::new(40, "max_attempts = 2", "fail = [3, 17, 39]");
    let said = stage.exits(75, &["run", "job.toml", "--out", "out"]);
    assert!(said.contains("37 of 40 items done") && said.contains("3 dead"), "{said}");
    let first = said.lines().find(|line| line.contains("the first ")).unwrap();
    assert!(first.contains(" item 3: ") && first.contains("item 3 does not work"), "{said}");
    let dead = stage.read("out/dead.jsonl");
    assert_eq!(items(&dead), [3, 17, 39]);
    for line in dead.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        assert_eq!(line["failures"], 2, "{line}");
        let wrong = format!("item {} does not work", line["item"]);
        assert!(line["message"].as_str().unwrap().contains(&wrong), "{line}");
        assert!(line["traceback"].as_str().unwrap().contains("tried.py"), "{line}");
    }
    let rest: Vec<_> = (0..40).filter(|item| ![3, 17, 39].contains(item)).collect();
    assert_eq!(items(&stage.read("out/results.jsonl")), rest);
    let report = stage.json("out/run.json");
    assert_eq!((&report["exit"], &report["counts"]["dead"]), (&75.into(), &3.into()));
    assert!(stage.exits(75, &["resume", "out"]).contains("3 dead letters"));
}

#[test]
fn every_line_that_a_run_writes_is_as_the_schema_of_events_says_and_none_that_was_changed_is() {
    let schema = serde_json::from_str(include_str!("../../../docs/schemas/event.json")).unwrap();
    let is_valid = |line: &Value| validator::violations(&schema, line).is_empty();
    let stage = Stage::new(40, "max_attempts = 2", "fail = [3]");
    stage.exits(75, &["run", "job.toml", "--out", "out"]);
    let (_, events, _) = stage.rollout(&["events", "out"]);
    let lines: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        assert_eq!(validator::violations(&schema, line), [""; 0], "{line}");
    }
    let topics: BTreeSet<_> = lines.iter().filter_map(|line| line["topic"].as_str()).collect();
    for topic in ["coordinator_started", "worker_ready", "plugin_loaded", "item_dead_lettered"] {
        assert!(topics.contains(topic), "{topics:?}");
    }
    type Change = fn(&mut Value);
    let changes: [Change; 7] = [
        |line| line["topic"] = "items_done".into(),
        |line| line["level"] = "trace".into(),
        |line| line["kind"] = "log".into(),
        |line| line["odd"] = 1.into(),
        |line| line["run_id"] = "run-1".into(),
        |line| line["attrs"]["ranges"] = 1.into(),
        |line| drop(line.as_object_mut().unwrap().remove("run_id")),
    ];
    let of_items = lines.iter().find(|line| line["topic"] == "items_committed").unwrap();
    for change in changes {
        let mut line = of_items.clone();
        change(&mut line);
        assert!(!is_valid(&line), "{line}");
    }
}

#[test]
fn an_item_that_is_too_slow_for_the_manifest_is_a_dead_letter_that_names_the_key() {
    let stage = Stage::new(1, "max_attempts = 1", "sleep_ms = 3000");
    let manifest = stage.read("plugin.toml");
    let limited = manifest.replace("[limits]", "[limits]\ncall_timeout = \"200ms\"");
    stage.write("plugin.toml", &limited);
    stage.exits(75, &["run", "job.toml", "--out", "out"]);
    let dead = stage.json("out/dead.jsonl");
    assert_eq!(dead["code"], "deadline", "{dead}");
    let said = dead["message"].as_str().unwrap();
    let words = ["within 200ms", "`limits.call_timeout`", "`item_timeout` (600s)"];
    assert!(words.iter().all(|words| said.contains(words)), "{dead}");
}

#[test]
fn workers_are_asked_to_end_once_and_their_plugins_are_shut_down() {
    let stage = Stage::new(4, "", "");
    let shutdown = "    def shutdown(self):\n        time.sleep(0.3)\n        \
                    open(f\"shut-{id(self)}-{time.time_ns()}\", \"w\").close()\n\nrun(Tried)";
    let plugin = stage.read("tried.py");
    stage.write("tried.py", &plugin.replace("run(Tried)", shutdown));
    stage.exits(0, &["run", "job.toml", "--workers", "1", "--out", "out"]);
    let files = std::fs::read_dir(stage.path(".")).unwrap().flatten();
    let shut = files.filter(|file| file.file_name().to_string_lossy().starts_with("shut-"));
    assert_eq!(shut.count(), 1, "{}", stage.read("out/events/worker-1.stderr"));
    let (_, events, _) = stage.rollout(&["events", "out", "--topic", "worker_deregistered"]);
    assert_eq!(events.lines().count(), 2, "said by the worker and the coordinator: {events}");
}

#[test]
fn ctrl_c_finishes_what_is_in_hand_and_a_resumed_run_ends_like_an_undisturbed_one() {
    let stage = Stage::new(200, "seed = 7", "sleep_ms = 20");
    let running = stage.start(&["run", "job.toml", "--out", "out"]);
    stage.await_lines("out/results.partial.jsonl", 20);
    let second = stage.exits(69, &["run", "job.toml", "--out", "out"]);
    assert!(second.contains("another `rollout run`"), "{second}");
    assert!(stage.exits(69, &["resume", "out"]).contains("another `rollout run`"));
    let (code, status, _) = stage.rollout(&["status", "out"]);
    assert!(code == Some(0) && status.contains("ready") && status.contains("tried"), "{status}");
    running.signal(Signal::SIGINT);
    let (exit, said) = running.end();
    assert_eq!(exit.code, Some(75), "{said}");
    assert!(said.contains("go on with: rollout resume out"), "{said}");
    stage.await_nobody();
    let report = stage.json("out/run.json");
    assert_eq!((&report["finished"], &report["why"]), (&false.into(), &"stopped by SIGINT".into()));
    let so_far = stage.read("out/results.partial.jsonl").lines().count() as u64;
    assert_eq!(report["counts"]["done"], so_far);
    assert!((20..200).contains(&so_far), "{so_far}");
    assert_eq!(report["counts"]["losses"], 0, "what was in hand was finished");
    let said = stage.exits(0, &["resume", "out"]);
    assert!(said.contains("200 of 200 items done"), "{said}");
    assert_eq!(stage.read("out/results.jsonl"), undisturbed(200));
    stage.await_nobody();
}

#[test]
fn a_second_ctrl_c_stops_at_once_and_the_run_can_be_resumed() {
    let stage = Stage::new(4, "seed = 7", "sleep_ms = 60000");
    let running = stage.start(&["run", "job.toml", "--out", "out"]);
    stage.await_text("out/events/coordinator.ndjson", "items_leased");
    running.signal(Signal::SIGINT);
    running.signal(Signal::SIGTERM);
    let (exit, said) = running.end();
    assert_eq!(exit.code, Some(75), "{said}");
    stage.await_nobody();
    assert!(stage.exits(73, &["run", "job.toml", "--out", "out"]).contains("rollout resume out"));
}

#[test]
fn a_killed_run_leaves_nothing_running_and_a_resumed_one_ends_like_an_undisturbed_one() {
    let stage = Stage::new(200, "seed = 7", "sleep_ms = 20");
    kill_alone(&stage, &["run", "job.toml", "--out", "out"], || {
        stage.await_lines("out/results.partial.jsonl", 20);
    });
    let (code, _, said) = stage.rollout(&["status", "out"]);
    assert_eq!(code, Some(75), "{said}");
    stage.exits(0, &["resume", "out"]);
    assert_eq!(stage.read("out/results.jsonl"), undisturbed(200));
}

#[test]
fn a_changed_job_is_not_resumed_and_it_says_what_changed() {
    let stage = Stage::new(200, "seed = 7", "sleep_ms = 20");
    let running = stage.start(&["run", "job.toml", "--out", "out"]);
    stage.await_lines("out/results.partial.jsonl", 4);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0.code, Some(75));
    stage.job(201, "seed = 8");
    let said = stage.exits(78, &["resume", "out"]);
    assert!(said.contains("these differ: items, seed;"), "{said}");
    stage.job(200, "seed = 7\nmax_attempts = 9\nname = \"another\"");
    let plugin = stage.read("plugin.toml");
    stage.write("plugin.toml", &plugin.replace("sleep_ms = 20", "sleep_ms = 21"));
    let said = stage.exits(78, &["resume", "out"]);
    assert!(said.contains("these differ: the plugin's manifest;"), "{said}");
    // So is a key of the job's that takes the place of one of the manifest's.
    stage.write("plugin.toml", &plugin);
    let job = stage.read("job.toml");
    stage.write("job.toml", &format!("{job}[config]\nsleep_ms = 21\n"));
    let said = stage.exits(78, &["resume", "out"]);
    assert!(said.contains("these differ: the plugin's manifest;"), "{said}");
    stage.write("job.toml", &job);
    stage.exits(0, &["resume", "out"]);
}

#[test]
fn a_killed_coordinator_and_killed_workers_cost_nothing_but_time() {
    let stage = Stage::new(300, "seed = 7", "sleep_ms = 10");
    let running = stage.start(&["run", "job.toml", "--out", "out"]);
    for (lines, victim) in [(20, "coordinator run"), (80, "worker run"), (140, "worker run")] {
        stage.await_lines("out/results.partial.jsonl", lines);
        stage.kill_one(victim);
    }
    let (exit, said) = running.end();
    assert_eq!(exit.code, Some(0), "{said}");
    assert!(said.contains("the coordinator killed by signal 9"), "{said}");
    assert_eq!(stage.read("out/results.jsonl"), undisturbed(300));
    assert!(stage.json("out/run.json")["counts"]["dead"] == 0);
}

#[test]
fn a_run_whose_program_is_replaced_still_starts_its_workers_anew() {
    let stage = Stage::new(200, "seed = 7", "sleep_ms = 20");
    // Beside the program, as a link goes nowhere else.
    let beside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = beside.path().join("rollout");
    std::fs::hard_link(assert_cmd::cargo::cargo_bin!("rollout"), &program).unwrap();
    let running = stage.start_program(&program, &["run", "job.toml", "--out", "out"]);
    stage.await_lines("out/results.partial.jsonl", 20);
    std::fs::remove_file(&program).unwrap();
    stage.kill_one("worker run");
    stage.kill_one("coordinator run");
    let (exit, said) = running.end();
    assert_eq!(exit.code, Some(0), "{said}");
    assert!(said.contains("the coordinator killed by signal 9"), "{said}");
}

#[test]
fn a_mistake_ends_a_run_before_it_starts_and_is_named() {
    let stage = Stage::new(3, "", "");
    for (job, code, words) in [
        ("[job]\nplugin = \"plugin.toml\"\nitems = 3\ncolour = 1\n", 78, "unknown field `colour`"),
        ("[job]\nplugin = \"none.toml\"\nitems = 3\n", 66, "none.toml"),
        ("[job]\nplugin = \"plugin.toml\"\nitems = 0\n", 78, "`items` (0) must be from 1"),
        ("[job]\nplugin = \"plugin.toml\"\nitems = \"no.jsonl\"\n", 66, "no.jsonl"),
        ("[job]\nplugin = \"plugin.toml\"\nitems = \"bad.jsonl\"\n", 65, "line 2: not one JSON"),
    ] {
        stage.write("job.toml", job);
        stage.write("bad.jsonl", "1\n{\n");
        let said = stage.exits(code, &["run", "job.toml"]);
        assert!(said.contains(words), "{said}");
    }
    assert!(stage.exits(66, &["run", "no.toml"]).contains("cannot read"));
    assert!(stage.exits(64, &["run"]).contains("JOB"));
    assert!(stage.exits(64, &["run", "--plugin", "plugin.toml"]).contains("--count N"));
    assert!(stage.exits(66, &["resume", "nowhere"]).contains("holds no run"));
    stage.write("foreign/file", "");
    assert!(stage.exits(66, &["resume", "foreign"]).contains("holds no run"));
    assert!(!stage.path("foreign/.lock").exists(), "a directory of others is left as it is");
    assert!(stage.exits(66, &["status"]).contains("holds no run"));
    stage.write("dir/file", "");
    assert!(
        stage
            .exits(73, &["run", "--plugin", "plugin.toml", "--count", "1", "--out", "dir"])
            .contains("holds other files")
    );
    assert!(!stage.path("runs").exists(), "nothing was begun");
}

#[test]
fn a_plugin_that_never_starts_ends_the_run_with_its_own_words() {
    let stage = Stage::new(3, "", "");
    stage.write("tried.py", "raise SystemExit('no, not today')\n");
    let said = stage.exits(69, &["run", "job.toml", "--out", "out"]);
    assert!(said.contains("cannot start") && said.contains("no, not today"), "{said}");
    stage.await_nobody();
}

#[test]
fn json_progress_is_one_object_a_line_and_ends_with_the_report() {
    let stage = Stage::new(20, "", "");
    let (code, out, err) = stage.rollout(&["run", "job.toml", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["type"], "progress");
    let last = lines.last().unwrap();
    assert_eq!((&last["type"], &last["report"]["counts"]["done"]), (&"ended".into(), &20.into()));
}
