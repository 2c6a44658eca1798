//! `rollout plugin` with real sidecars: good ones, and some that break what is promised.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use rollout_process::{Io, Signal, Spawn};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

/// Longer than anything takes here that takes place at all.
const LONG: Duration = Duration::from_secs(20);
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../python");

fn rollout(dir: &Path, args: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("rollout"));
    command.current_dir(dir).args(args).env("TMPDIR", dir.join("tmp")).assert()
}

/// A directory with a plugin whose class has these lines, and its manifest `plugin.toml`.
fn plugin(body: &str, more: &str) -> TempDir {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join("tmp")).unwrap();
    let body = body.replace('\n', "\n    ");
    let code = format!(
        "import logging, os, time\nfrom rollout_plugin import BadParams, Plugin, Reply, method, run\n\
         class It(Plugin):\n    name = 'it'\n    version = '1'\n    {body}\nrun(It)\n"
    );
    fs::write(dir.path().join("it.py"), code).unwrap();
    let manifest = format!(
        "[plugin]\nname = 'it'\nversion = '1'\n[entry.sidecar]\ncommand = ['python3', 'it.py']\n\
         env = {{ PYTHONPATH = '{SDK}' }}\n{more}"
    );
    fs::write(dir.path().join("plugin.toml"), manifest).unwrap();
    dir
}

const ECHO: &str = "\
@method
def echo(self, params, call):
    return Reply(params, call.payload)
";

/// What `check --json` says of a plugin, and its exit code.
fn check(dir: &TempDir, more: &[&str]) -> (Value, i32) {
    let args = [&["plugin", "check", "plugin.toml", "--json"], more].concat();
    let output = rollout(dir.path(), &args).get_output().clone();
    assert_nothing_left(dir);
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.code().unwrap())
}

fn verdict<'a>(report: &'a Value, check: &str) -> &'a str {
    let rows = report["checks"].as_array().unwrap();
    rows.iter().find(|row| row["check"] == check).unwrap()["verdict"].as_str().unwrap()
}

fn detail<'a>(report: &'a Value, check: &str) -> &'a str {
    let rows = report["checks"].as_array().unwrap();
    rows.iter().find(|row| row["check"] == check).unwrap()["detail"].as_str().unwrap()
}

fn assert_nothing_left(dir: &TempDir) {
    let left: Vec<_> = fs::read_dir(dir.path().join("tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_call_prints_the_result_alone_and_what_the_plugin_says_on_standard_error() {
    let body = "\
@method
def double(self, params, call):
    print('printed')
    logging.warning('logged')
    return Reply([params['n'] * 2], call.payload * 2)
";
    let dir = plugin(body, "");
    fs::write(dir.path().join("in"), b"ab\0").unwrap();
    let call = ["plugin", "call", "plugin.toml", "double", "--params", r#"{"n":21}"#];
    rollout(dir.path(), &[&call[..], &["--payload", "in", "--out", "out"]].concat())
        .success()
        .stdout("[42]\n")
        .stderr(contains("[it] stdout: printed").and(contains("[it] warn: root: logged")));
    assert_eq!(fs::read(dir.path().join("out")).unwrap(), b"ab\0ab\0");
    rollout(dir.path(), &[&call[..], &["--payload", "in"]].concat())
        .success()
        .stdout("[42]\n")
        .stderr(contains("6 bytes beside the result"));
    assert_nothing_left(&dir);
}

#[test]
fn a_call_that_fails_says_the_code_and_whether_it_was_executed() {
    let body = "\
@method
def fail(self, params, call):
    raise ValueError('no \\x1b[2Jluck')
@method
def pick(self, params, call):
    raise BadParams('an even number')
@method
def die(self, params, call):
    os._exit(3)
@method
def sleep(self, params, call):
    time.sleep(60)
";
    let dir = plugin(body, "");
    let too_large = vec![0; 16 << 20];
    fs::write(dir.path().join("large"), too_large).unwrap();
    for (method, more, exit, said) in [
        ("fail", None, 69, "code: user, executed: yes"),
        ("pick", None, 65, "code: bad_params, executed: yes"),
        ("die", None, 75, "code: crashed, executed: maybe; it may be tried again"),
        (
            "sleep",
            Some(["--timeout", "50ms"]),
            75,
            "no answer within 50ms\n  code: deadline, executed: maybe",
        ),
        ("jump", None, 64, "code: unknown_method, executed: no"),
        ("fail", Some(["--payload", "large"]), 65, "code: too_large, executed: no"),
    ] {
        let mut args = vec!["plugin", "call", "plugin.toml", method];
        args.extend(more.iter().flatten());
        rollout(dir.path(), &args).code(exit).stdout("").stderr(contains(said));
    }
    rollout(dir.path(), &["plugin", "call", "plugin.toml", "fail"]).failure().stderr(
        contains("Traceback").and(contains("\\u{1b}[2Jluck")).and(contains('\u{1b}').not()),
    );
    assert_nothing_left(&dir);
}

#[test]
fn a_signal_ends_a_call_and_its_plugin_and_leaves_nothing() {
    let body = "\
@method
def hang(self, params, call):
    with open('part', 'w') as file: file.write(str(os.getpid()))
    os.rename('part', 'pid')
    time.sleep(60)
";
    let dir = plugin(body, "");
    let child = Spawn::new(assert_cmd::cargo::cargo_bin!("rollout"))
        .args(["plugin", "call", "plugin.toml", "hang"])
        .current_dir(dir.path())
        .env("TMPDIR", dir.path().join("tmp"))
        .stdout(Io::Null)
        .stderr(Io::Null)
        .spawn()
        .unwrap();
    let pid = dir.path().join("pid");
    let end = Instant::now() + LONG;
    while !pid.exists() {
        assert!(Instant::now() < end, "the method is never called");
        sleep(Duration::from_millis(5));
    }
    child.handle().signal_main(Signal::SIGINT);
    let exit = child.wait_timeout(LONG).unwrap();
    assert_eq!(exit.code, Some(75), "{exit}");
    assert!(!Path::new("/proc").join(fs::read_to_string(pid).unwrap()).exists());
    assert_nothing_left(&dir);
}

#[test]
fn a_good_plugin_passes_every_check_and_its_table_is_at_most_80_columns_wide() {
    let dir = plugin(ECHO, "[probe]\nmethod = 'echo'\n");
    let table = rollout(dir.path(), &["plugin", "check", "plugin.toml"]).success();
    let table = String::from_utf8(table.get_output().stdout.clone()).unwrap();
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    for check in [
        "manifest",
        "start",
        "probe",
        "unknown method",
        "bad params",
        "max_frame",
        "concurrency",
        "deadline",
        "cancel",
        "shutdown",
        "leftovers",
    ] {
        let row = format!("{check:<14} pass ");
        assert!(table.lines().any(|line| line.starts_with(&row)), "{check}: {table}");
    }
    assert_nothing_left(&dir);
}

#[test]
fn a_method_that_dies_of_bad_params_fails_that_check_and_no_other() {
    let body =
        format!("{ECHO}@method\ndef die(self, params, call):\n    if params == []: os._exit(3)\n");
    // Its breaker is open then: the next check needs a plugin started anew.
    let more = "[probe]\nmethod = 'echo'\n[restart]\nmax_crashes = 1\n";
    let dir = plugin(&body, more);
    let (report, exit) = check(&dir, &[]);
    assert_eq!((exit, &report["failed"]), (69, &Value::from(1)));
    assert_eq!(verdict(&report, "bad params"), "fail");
    assert!(detail(&report, "bad params").starts_with("`die` with []: it exited with 3"));
    let (report, exit) = check(&dir, &["--method", "echo"]);
    assert_eq!((exit, &report["failed"]), (0, &Value::from(0)), "{report}");
}

#[test]
fn a_plugin_that_dies_of_a_large_payload_fails_the_max_frame_check_and_no_other() {
    let body = format!("{ECHO}    if len(call.payload) > 2 << 20: os._exit(4)\n")
        .replace("    return Reply(params, call.payload)\n", "")
        + "    return Reply(params, call.payload)\n";
    let dir = plugin(&body, "");
    let (report, exit) = check(&dir, &[]);
    assert_eq!((exit, &report["failed"]), (69, &Value::from(1)), "{report:#}");
    assert_eq!(verdict(&report, "max_frame"), "fail");
    assert!(detail(&report, "max_frame").contains("it exited with 4"));
}

#[test]
fn a_plugin_that_answers_nothing_fails_what_it_is_tried_with() {
    let dir = plugin("@method\ndef hang(self, params, call):\n    time.sleep(60)\n", "");
    let (report, exit) = check(&dir, &["--timeout", "100ms"]);
    assert_eq!(exit, 69);
    for name in ["unknown method", "bad params", "max_frame", "concurrency", "deadline", "cancel"] {
        assert_eq!(verdict(&report, name), "fail", "{report:#}");
    }
    assert!(detail(&report, "cancel").contains("no answer within 100ms"), "{report:#}");
}

#[test]
fn a_plugin_that_has_to_be_killed_at_the_end_fails_the_shutdown_check() {
    let body = format!("{ECHO}def shutdown(self):\n    time.sleep(60)\n");
    let dir = plugin(&body, "[limits]\nshutdown_grace = '200ms'\n");
    let (report, exit) = check(&dir, &[]);
    assert_eq!((exit, verdict(&report, "shutdown")), (69, "fail"));
    assert!(detail(&report, "shutdown").contains("shutdown_grace"));
    assert_eq!((verdict(&report, "leftovers"), verdict(&report, "probe")), ("pass", "skip"));
}

#[test]
fn answers_that_went_to_other_calls_fail_the_concurrency_check() {
    let body = "\
last = b''
@method
def echo(self, params, call):
    last, It.last = It.last, call.payload
    return Reply(params, call.payload if len(call.payload) != 8 else last)
";
    let dir = plugin(body, "");
    let (report, exit) = check(&dir, &[]);
    assert_eq!((exit, verdict(&report, "concurrency")), (69, "fail"));
}

#[test]
fn a_plugin_that_does_not_start_fails_and_the_rest_is_skipped() {
    let dir = plugin(ECHO, "");
    fs::write(dir.path().join("it.py"), "raise SystemExit('not today')").unwrap();
    let (report, exit) = check(&dir, &[]);
    assert_eq!((exit, &report["failed"]), (69, &Value::from(1)));
    assert!(detail(&report, "start").contains("not today"));
    assert_eq!((verdict(&report, "bad params"), verdict(&report, "shutdown")), ("skip", "skip"));
    rollout(dir.path(), &["plugin", "check", "no.toml"]).code(66);
    fs::write(dir.path().join("plugin.toml"), "[plugin]\n").unwrap();
    rollout(dir.path(), &["plugin", "check", "plugin.toml"]).code(78);
}

#[test]
fn a_new_python_plugin_passes_every_check_at_once_with_nothing_but_what_was_made() {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join("tmp")).unwrap();
    rollout(dir.path(), &["plugin", "new", "--lang", "python", "my-plugin"])
        .success()
        .stdout(contains("rollout plugin check my-plugin/plugin.toml"));
    let manifest = "my-plugin/plugin.toml";
    let report = rollout(dir.path(), &["plugin", "check", manifest, "--json"]).success();
    let report: Value = serde_json::from_slice(&report.get_output().stdout).unwrap();
    let rows = report["checks"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["verdict"] == "pass"), "{report:#}");
    let run = ["plugin", "call", manifest, "run", "--params"];
    let item = [&run[..], &[r#"{"item":0,"seed":3}"#]].concat();
    rollout(dir.path(), &item).success().stdout("{\"roll\":2}\n");
    rollout(dir.path(), &[&run[..], &["7"]].concat()).code(65).stderr(contains("is needed"));
    assert_runs_as_a_job(&dir, "my-plugin/job.toml", "my_plugin");
    assert_nothing_left(&dir);
}

#[test]
fn a_new_rust_plugin_builds_from_what_was_made_and_passes_every_check() {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join("tmp")).unwrap();
    let new = ["plugin", "new", "--lang", "rust", "it", "--name", "grader"];
    rollout(dir.path(), &new).success().stdout(contains("cargo build --release"));
    // What other tests have built is not built again: their target directory, and their profile.
    let built = assert_cmd::cargo::cargo_bin!("rollout").ancestors().nth(2).unwrap();
    std::os::unix::fs::symlink(built.join("plugins"), dir.path().join("it/target")).unwrap();
    let manifest = dir.path().join("it/plugin.toml");
    let debug = fs::read_to_string(&manifest).unwrap().replace("/release/", "/debug/");
    fs::write(&manifest, debug).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(dir.path().join("it")).args(["build", "--offline"]);
    cargo.env("CARGO_TARGET_DIR", built.join("plugins")).assert().success();
    let report = rollout(dir.path(), &["plugin", "check", "it/plugin.toml", "--json"]).success();
    let report: Value = serde_json::from_slice(&report.get_output().stdout).unwrap();
    let rows = report["checks"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["verdict"] == "pass"), "{report:#}");
    assert_runs_as_a_job(&dir, "it/job.toml", "grader");
    assert_nothing_left(&dir);
}

/// Each item of the job that comes with a new plugin has a result, and it is a die's.
fn assert_runs_as_a_job(dir: &TempDir, job: &str, name: &str) {
    rollout(dir.path(), &["run", job, "--workers", "1"]).success();
    let results = dir.path().join("runs").join(name).join("results.jsonl");
    let results = fs::read_to_string(results).unwrap();
    let rolls = results.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["result"]["roll"].as_u64().unwrap()
    });
    assert!(rolls.clone().all(|roll| (1..=6).contains(&roll)), "{results}");
    assert_eq!(rolls.count(), 100);
}

#[test]
fn a_new_plugin_goes_into_no_directory_that_has_something_in_it() {
    let dir = tempdir().unwrap();
    let new = ["plugin", "new", "--lang", "python"];
    fs::create_dir(dir.path().join("full")).unwrap();
    fs::write(dir.path().join("full/mine"), "").unwrap();
    rollout(dir.path(), &[&new[..], &["full"]].concat())
        .code(73)
        .stderr(contains("`full` is not empty"));
    assert_eq!(fs::read_dir(dir.path().join("full")).unwrap().count(), 1);
    rollout(dir.path(), &[&new[..], &["json"]].concat())
        .code(64)
        .stderr(contains("`json` can't be the name"));
    assert!(!dir.path().join("json").exists());
}

#[test]
fn a_bench_has_a_baseline_beside_each_figure_of_a_sidecar() {
    let dir = plugin(ECHO, "");
    let bench = ["plugin", "bench", "plugin.toml", "--seconds", "1", "--json"];
    let output = rollout(dir.path(), &bench).success().get_output().stdout.clone();
    let report: Value = serde_json::from_slice(&output).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let named = |row: &Value| (row["what"].as_str().unwrap().to_owned(), row["in_flight"].clone());
    let found: Vec<_> = rows.iter().map(named).collect();
    let want = [
        ("plugin", 1),
        ("raw socket", 1),
        ("raw python", 1),
        ("plugin", 64),
        ("raw socket", 64),
        ("raw python", 64),
        ("batches", 64),
        ("batches", 4096),
    ];
    let want = want.map(|(what, n)| (what.to_owned(), Value::from(n)));
    assert_eq!(found, want);
    assert!(rows.iter().all(|row| row["calls_per_s"].as_f64().unwrap() > 0.0), "{report:#}");
    assert!(rows.iter().all(|row| row["p50_us"].as_f64() <= row["p99_us"].as_f64()));
    // Neither this many bytes at a time through a raw socket, nor batches of them.
    let large = [&bench[..], &["--payload-size", "1048576"]].concat();
    let output = rollout(dir.path(), &large).success().get_output().stdout.clone();
    let report: Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(report["payload_bytes"], 1 << 20);
    let found: Vec<_> = report["rows"].as_array().unwrap().iter().map(named).collect();
    assert_eq!(found, want[..3]);
    // One call at a time, and two batches that want to be it.
    let alone = plugin(ECHO, "[limits]\nmax_in_flight = 1");
    let output = rollout(alone.path(), &bench).success().get_output().stdout.clone();
    let report: Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(report["rows"].as_array().unwrap().len(), 5, "{report:#}");
    rollout(dir.path(), &["plugin", "bench", "plugin.toml", "--method", "jump"])
        .code(64)
        .stderr(contains("no such method"));
    assert_nothing_left(&dir);
}
