//! The commands as a person types them: what they say and the code they exit with.

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;
use rollout_harness::fixtures::Claim;

fn xtask() -> Command {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
}

#[test]
fn help_documents_every_exit_code() {
    let codes = ["0  ", "1  ", "2  ", "3  ", "64 ", "69 ", "128 + n"];
    let documented = |text: &str| {
        let table = text.split("Exit codes:").nth(1).unwrap_or_default();
        codes.iter().all(|code| table.lines().any(|line| line.trim_start().starts_with(code)))
    };
    for args in
        [&["--help"][..], &["smoke", "--help"], &["scenario", "--help"], &["chaos", "--help"]]
    {
        xtask().args(args).assert().success().stdout(predicate::function(documented));
    }
}

#[test]
fn a_wrong_command_line_exits_64_and_names_what_is_wrong() {
    xtask().args(["smoke", "--repeat", "0"]).assert().code(64).stderr(contains("--repeat"));
    xtask().arg("smock").assert().code(64).stderr(contains("smoke"));
    xtask().assert().code(64);
}

#[test]
fn scenarios_are_listed_and_one_that_is_not_there_or_makes_no_sense_is_named() {
    let listed = contains("killed").and(contains("smoke")).and(contains("black-hole"));
    xtask().args(["scenario", "--list"]).assert().success().stdout(listed);
    let unknown = contains("no scenario `kiled`").and(contains("killed, "));
    xtask().args(["scenario", "kiled"]).assert().code(64).stderr(unknown);
    xtask().arg("scenario").assert().code(64).stderr(contains("<NAME>"));
    xtask().args(["scenario", "/nonexistent.toml"]).assert().code(66);
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("odd.toml");
    std::fs::write(&file, "about = \"x\"\nworkers = []\nexpect = []\nodd = 1\n").unwrap();
    xtask().arg("scenario").arg(&file).assert().code(78).stderr(contains("`odd`"));
    std::fs::write(&file, "about = \"x\"\nworkers = []\nexpect = []\n").unwrap();
    let nothing = contains("odd.toml: expect: ");
    xtask().arg("scenario").arg(&file).assert().code(78).stderr(nothing);
}

#[test]
fn a_schedule_that_cannot_be_played_and_a_bundle_that_is_none_are_named_before_anything_runs() {
    xtask().args(["chaos", "--workers", "0"]).assert().code(64).stderr(contains("1 to 64"));
    let both = xtask().args(["chaos", "--seed", "1", "--schedule", "x"]).assert().code(64);
    both.stderr(contains("cannot be used with"));
    xtask().args(["chaos", "--schedule", "/nonexistent"]).assert().code(66);
    xtask().args(["judge", "/nonexistent"]).assert().code(66).stderr(contains("/nonexistent"));
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("record.json");
    std::fs::write(&file, "{}").unwrap();
    xtask().arg("judge").arg(root.path()).assert().code(65).stderr(contains("is no bundle"));
    xtask().args(["chaos", "--schedule"]).arg(&file).assert().code(78).stderr(contains("is no"));
}

#[test]
fn preflight_passes_here_and_names_each_tool() {
    let tools = contains("cargo").and(contains("C compiler")).and(contains("Python 3."));
    xtask().arg("preflight").assert().success().stdout(tools);
}

#[test]
fn on_a_bare_machine_preflight_and_smoke_exit_3_with_advice_and_nothing_is_made() {
    let root = tempfile::tempdir().unwrap();
    let bare = || {
        let mut xtask = xtask();
        xtask.env("PATH", root.path()).env_remove("CARGO").env_remove("CC");
        xtask
    };
    let advice = || contains("rustup.rs").and(contains("pyenv install 3.13.3"));
    bare().arg("preflight").assert().code(3).stdout(advice());
    bare().args(["smoke", "--root"]).arg(root.path()).assert().code(3).stderr(advice());
    assert_eq!(root.path().read_dir().unwrap().count(), 0);
}

#[test]
fn missing_fixtures_are_named() {
    let root = tempfile::tempdir().unwrap();
    let mut smoke = xtask();
    smoke.args(["smoke", "--root"]).arg(root.path());
    smoke.args(["--fixtures", "/nonexistent"]).assert().code(74).stderr(contains("/nonexistent"));
}

#[test]
fn a_second_smoke_run_in_the_same_directory_is_refused_and_touches_nothing() {
    let root = tempfile::tempdir().unwrap();
    let first = Claim::take(root.path()).unwrap();
    first.clear(false).unwrap();
    std::fs::write(first.layout.log("coord"), "first").unwrap();
    let mut second = xtask();
    second.args(["smoke", "--root"]).arg(root.path());
    second.assert().code(69).stderr(contains("another run is at work"));
    assert_eq!(std::fs::read_to_string(first.layout.log("coord")).unwrap(), "first");
}
