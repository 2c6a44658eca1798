//! Every scenario of `tests/scenarios`, played by real processes, several at a time.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "also in the helpers: a panic fails the test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rollout_acceptance::{built, conclusive, faulty};
use rollout_core::{TimeBudget, chain};
use rollout_harness::binaries::workspace_root;
use rollout_harness::report::{Look, scenario as told};
use rollout_harness::scenario::{self, Options, Run, Scenario, Seen, Silent, Verdict};
use rollout_harness::{Interrupt, Outcome};

/// Scenarios at the same time. Nearly all of their time they wait.
const AT_ONCE: usize = 6;

fn all() -> BTreeMap<String, PathBuf> {
    scenario::list(&workspace_root().join("tests/scenarios")).expect("the scenarios are there")
}

/// For those that have no timing of their own: the specification's is tried by the gate.
fn quick() -> TimeBudget {
    TimeBudget {
        heartbeat_interval: Duration::from_millis(200),
        worker_self_fence_timeout: Duration::from_millis(1_200),
        coordinator_failure_timeout: Duration::from_millis(1_800),
        clock_skew_budget: Duration::from_millis(200),
    }
}

fn play(scenario: &Scenario) -> Run {
    let root = tempfile::tempdir().expect("a temporary directory");
    play_in(root.path(), scenario)
}

fn play_in(root: &Path, scenario: &Scenario) -> Run {
    let options = Options {
        root: root.to_path_buf(),
        fixtures: workspace_root().join("tests/smoke"),
        binaries: built().clone(),
        faulty: scenario.is_faulty().then(|| faulty().to_owned()),
        timing: Some(quick()),
        keep: false,
    };
    let run = || {
        scenario::run(scenario, &options, &mut Silent, &Interrupt::default())
            .unwrap_or_else(|error| panic!("{}: {}", scenario.name, chain(&error)))
    };
    conclusive(|run: &Run| run.verdict.outcome, run)
}

#[test]
fn every_scenario_passes_and_each_of_its_expectations_has_twins_that_fail() {
    let _busy = rollout_acceptance::busy();
    let scenarios = all().into_values().map(|path| Scenario::read(&path));
    let mut scenarios: Vec<_> = scenarios.collect::<Result<_, _>>().expect("each is valid");
    scenarios.retain(|scenario| !scenario.by_hand);
    assert!(scenarios.len() >= 15, "{}", scenarios.len());
    let (queue, failed) = (Mutex::new(scenarios), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no one panicked").pop();
                    let Some(scenario) = next else { return };
                    let root = tempfile::tempdir().expect("a temporary directory");
                    let run = play_in(root.path(), &scenario);
                    if run.verdict.outcome != Outcome::Pass {
                        // What it says is there has to be there.
                        let _ = root.keep();
                        let again = format!("cargo xtask scenario {}", scenario.name);
                        let text = told(&run, &again, Look::default());
                        let text = format!("{}\n{text}", scenario.name);
                        failed.lock().expect("no one panicked").push(text);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no one panicked");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_scenario_of_the_book_passes() {
    let chapter = workspace_root().join("docs/src/scenarios.md");
    let text = fs::read_to_string(&chapter).expect("the chapter is there");
    let example = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let example = example.expect("the chapter has an example");
    let scenario = Scenario::parse(&chapter, example).expect("it is valid");
    let run = play(&scenario);
    assert_eq!(run.verdict.outcome, Outcome::Pass, "{}", told(&run, "", Look::default()));
}

#[test]
fn what_was_seen_is_judged_the_same_when_it_is_read_again() {
    let scenario = Scenario::read(&all()["killed"]).expect("it is valid");
    let run = play(&scenario);
    let dir = tempfile::tempdir().expect("a temporary directory");
    run.seen.write(dir.path()).expect("it can be written");
    let read = Seen::read(dir.path()).expect("it was written");
    let again = Verdict::of(&scenario, &read);
    assert_eq!(again.checks, run.verdict.checks);
    assert_eq!(again.twins, run.verdict.twins);
    assert!(again.twins.len() >= again.checks.len() - 2, "{:?}", again.twins);
}

/// Switches a protection off.
fn off(faults: &mut toml::Table, protection: &str) {
    faults.insert(protection.to_owned(), "off".into());
}

#[test]
fn a_scenario_goes_red_when_the_protection_that_it_tries_is_switched_off() {
    type Spoil = fn(&mut Scenario);
    let cases: [(&str, Spoil, &str); 3] = [
        (
            "frozen",
            |it| off(&mut it.coordinator.faults, "epoch_check"),
            "the old epoch acts no more",
        ),
        ("black-hole", |it| off(&mut it.workers[0].faults, "fence"), "fenced before it is failed"),
        (
            "coordinator-stopped",
            |it| off(&mut it.coordinator.faults, "stall_credit"),
            "no worker_failed",
        ),
    ];
    thread::scope(|scope| {
        for (name, spoil, check) in cases {
            scope.spawn(move || {
                let mut scenario = Scenario::read(&all()[name]).expect("it is valid");
                spoil(&mut scenario);
                // What does not come is not waited for long.
                for wait in scenario.steps.iter_mut().filter_map(|step| step.wait.as_mut()) {
                    wait.within = wait.within.min(Duration::from_secs(4));
                }
                let run = play(&scenario);
                let names: Vec<_> = run.verdict.complaints().map(|check| &*check.name).collect();
                assert!(names.contains(&check), "{}", told(&run, "", Look::default()));
            });
        }
    });
}

#[test]
fn a_scenario_that_expects_what_does_not_happen_fails_by_that_expectation_alone() {
    let path = &all()["killed"];
    let text = fs::read_to_string(path).expect("it is there");
    let cases = [
        ("not_after = \"3s\"", "not_after = \"1s\"", "worker_failed(w1)"),
        ("reason = \"connection_lost\"", "reason = \"missed_beats\"", "worker_suspected(w1)"),
        ("signal = 9", "code = 0", "exit of w1"),
        (
            "none = \"worker_suspected\"\nworker = \"w2\"",
            "event = \"worker_suspected\"\nworker = \"w2\"",
            "worker_suspected(w2)",
        ),
    ];
    thread::scope(|scope| {
        for (from, to, name) in cases {
            let text = &text;
            scope.spawn(move || {
                assert!(text.contains(from), "{from}");
                let scenario = Scenario::parse(path, &text.replace(from, to));
                let run = play(&scenario.expect("it is valid"));
                let names: Vec<_> = run.verdict.complaints().map(|check| &*check.name).collect();
                assert_eq!(names, [name], "{}", told(&run, "", Look::default()));
            });
        }
    });
}
