//! The command line as a person meets it: help, mistakes, certificates. What the processes do once
//! they run is tried by the acceptance tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::tempdir;

fn rollout(args: &[&str]) -> assert_cmd::assert::Assert {
    rollout_in(Path::new("."), args)
}

fn rollout_in(dir: &Path, args: &[&str]) -> assert_cmd::assert::Assert {
    Command::new(assert_cmd::cargo::cargo_bin!("rollout")).current_dir(dir).args(args).assert()
}

const COORDINATOR: &str = "listen = \"127.0.0.1:0\"\nstorage = \"c.db\"\ntls_dir = \"tls\"\n";
const WORKER: &str = "coordinator = \"127.0.0.1:1\"\nstorage = \"w.db\"\ntls_dir = \"tls\"\n\
                      sidecar_dir = \"s\"\n";

#[test]
fn version_and_help_are_no_errors_and_every_command_that_runs_has_an_example() {
    rollout(&["--version"]).success().stdout(contains(env!("CARGO_PKG_VERSION")));
    rollout(&["--help"]).success().stdout(contains("Exit codes: 0 success, 64 usage"));
    for command in [
        vec!["run"],
        vec!["resume"],
        vec!["status"],
        vec!["events"],
        vec!["coordinator", "run"],
        vec!["worker", "run"],
        vec!["plugin", "new"],
        vec!["plugin", "check"],
        vec!["plugin", "bench"],
        vec!["plugin", "call"],
        vec!["config", "check"],
        vec!["cert", "init"],
        vec!["cert", "issue"],
        vec!["cert", "show"],
        vec!["completions"],
    ] {
        let args = [command.as_slice(), &["--help"]].concat();
        let example = format!("Example: rollout {}", command.join(" "));
        rollout(&args).success().stdout(contains(example));
    }
}

#[test]
fn a_wrong_command_line_exits_64() {
    for args in [
        &["fly"][..],
        &["coordinator", "run"],
        &["coordinator", "run", "--config", "c", "--run-id", "1"],
        &["worker", "run", "--config", "w", "--worker-id", "x"],
        &["plugin", "call", "m.toml", "echo", "--params", "{"],
        &["plugin", "call", "m.toml", "echo", "--timeout", "0s"],
        &["cert", "issue", "--dir", "d", "--out", "o", "--identity", "/root"],
    ] {
        rollout(args).code(64).stderr(contains("error:"));
    }
    rollout(&["completions", "bash"]).success().stdout(contains("_rollout()"));
}

#[test]
fn a_missing_file_exits_66_and_names_it() {
    let dir = tempdir().unwrap();
    let missing = ["coordinator", "run", "--config", "no.toml"];
    rollout_in(dir.path(), &missing).code(66).stderr(contains("cannot read `no.toml`"));
    let missing = ["worker", "run", "--config", "no.toml"];
    rollout_in(dir.path(), &missing).code(66).stderr(contains("cannot read `no.toml`"));
}

#[test]
fn a_broken_configuration_exits_78_before_anything_is_opened() {
    let timing = "[timing]\nworker_self_fence_timeout = \"6s\"\n";
    let rule = "worker_self_fence_timeout (6s) must be less than coordinator_failure_timeout (5s)";
    for (kind, good) in [("coordinator", COORDINATOR), ("worker", WORKER)] {
        let dir = tempdir().unwrap();
        for (name, text, message) in [
            ("rule.toml", format!("{good}{timing}"), rule),
            ("key.toml", format!("{good}colour = 1\n"), "unknown field `colour`"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
            rollout_in(dir.path(), &[kind, "run", "--config", name])
                .code(78)
                .stdout("")
                .stderr(contains(message).and(contains(name)));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing but the two files");
    }
}

#[test]
fn config_check_says_what_each_file_is_and_what_is_wrong() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("c.toml"), COORDINATOR).unwrap();
    fs::write(dir.path().join("w.toml"), WORKER).unwrap();
    fs::write(dir.path().join("x.toml"), "a = 1\n").unwrap();
    fs::write(dir.path().join("j.toml"), "[job]\nplugin = \"p.toml\"\nitems = 3\n").unwrap();
    rollout_in(dir.path(), &["config", "check", "c.toml", "w.toml", "j.toml"]).success().stdout(
        "c.toml: a valid coordinator configuration\nw.toml: a valid worker configuration\n\
         j.toml: a valid job file\n",
    );
    rollout_in(dir.path(), &["config", "check", "c.toml", "x.toml"])
        .code(78)
        .stdout(contains("c.toml: a valid"))
        .stderr(contains("`x.toml` is neither"));
}

#[test]
fn certificates_made_by_hand_say_whose_they_are_and_keep_their_keys_private() {
    let dir = tempdir().unwrap();
    let id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let identity = format!("/worker/{id}");
    let issue = ["cert", "issue", "--dir", "ca", "--identity", &identity, "--out", "w"];
    rollout_in(dir.path(), &issue).failure().stderr(contains("ca"));
    rollout_in(dir.path(), &["cert", "init", "--dir", "ca"]).success();
    rollout_in(dir.path(), &["cert", "init", "--dir", "ca"])
        .code(73)
        .stderr(contains("is there already"));
    let issued = rollout_in(dir.path(), &issue).success().get_output().stdout.clone();
    let issued = String::from_utf8(issued).unwrap();
    let file = |key: &str| {
        let line = issued.lines().find(|line| line.starts_with(key)).unwrap();
        dir.path().join(line.split('"').nth(1).unwrap())
    };
    let mode = fs::metadata(file("key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!dir.path().join("w/ca.key").exists(), "the CA's key stays where it is");
    let cert = file("cert");
    rollout_in(dir.path(), &["cert", "show", cert.to_str().unwrap()])
        .success()
        .stdout(contains(&identity).and(contains("days left")));
}
