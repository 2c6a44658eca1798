//! Controls for the judge: made-up evidence of a good run, spoilt in one way at a time. The judge
//! has to see each of them, by the right name.

use std::borrow::Cow;
use std::cell::RefCell;
use std::time::Duration;

use crate::evidence::{KILL, Stream, good, kill_event, ms};
use rollout_core::event::{
    CoordinatorStalled, LinesDropped, PluginExited, WorkerDeregistered, WorkerFailed,
    WorkerHeartbeat, WorkerSuspected,
};
use rollout_core::{Event, Level, Mono, RunId, WorkerId};
use rollout_harness::judge::{LATENESS_LIMIT, Outcome};
use rollout_harness::log::Log;
use rollout_harness::smoke::{Evidence, judge};
use rollout_harness::{Check, Step, StepReport};
use rollout_process::Exit;

/// Judges evidence spoilt by `spoil`: the outcome, and the names of the checks that did not pass.
fn spoilt(spoil: impl FnOnce(&mut Evidence, &mut Stream)) -> (Outcome, Vec<&'static str>) {
    let (mut evidence, mut stream) = good();
    spoil(&mut evidence, &mut stream);
    evidence.coordinator.log = stream.log();
    let verdict = judge(&evidence);
    (verdict.outcome, verdict.complaints().map(name).collect())
}

fn name(check: &Check) -> &'static str {
    match &check.name {
        Cow::Borrowed(name) => name,
        Cow::Owned(name) => panic!("a name that was made up: {name}"),
    }
}

fn failed(credited_ms: f64) -> WorkerFailed {
    WorkerFailed { epoch: 1, overdue_ms: 5251.0, overshoot_ms: 1.0, credited_ms }
}

#[test]
fn a_good_run_passes_every_check_and_its_figures_are_right() {
    let (mut evidence, stream) = good();
    evidence.coordinator.log = stream.log();
    let verdict = judge(&evidence);
    let complaints: Vec<_> = verdict.complaints().collect();
    assert_eq!(verdict.outcome, Outcome::Pass, "{complaints:?}");
    assert_eq!(verdict.checks.len(), 16);
    let measured = verdict.measured.unwrap();
    assert!((measured.latency_ms - 5741.0).abs() < 1e-6, "{measured:?}");
    assert!((measured.overshoot_ms - 1.0).abs() < 1e-6, "{measured:?}");
    assert!((measured.spare_ms - 2259.0).abs() < 1e-6, "{measured:?}");
}

#[test]
fn a_missing_verdict_fails() {
    let (outcome, names) = spoilt(|_, stream| stream.remove("worker_failed"));
    assert_eq!((outcome, names), (Outcome::Fail, vec!["failed-once", "in-time", "grep"]));
}

#[test]
fn a_verdict_on_the_other_worker_fails() {
    let (outcome, names) = spoilt(|evidence, stream| {
        let other = evidence.w2.id;
        stream.edit("worker_failed", |event| event.worker_id = Some(other));
    });
    assert_eq!(outcome, Outcome::Fail);
    for name in ["failed-once", "in-time", "grep", "w2-untouched", "clean"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
}

#[test]
fn a_verdict_on_a_worker_nobody_knows_beside_the_right_one_fails() {
    let (outcome, names) =
        spoilt(|_, s| s.insert(kill_event() + ms(10), Some(WorkerId::generate()), failed(0.0)));
    assert_eq!((outcome, names), (Outcome::Fail, vec!["failed-once", "clean"]));
}

#[test]
fn a_verdict_before_its_deadline_fails_however_little_too_early() {
    let (outcome, names) = spoilt(|_, stream| {
        stream.edit("worker_failed", |event| event.mono = event.mono.before(ms(2)));
    });
    assert_eq!((outcome, names), (Outcome::Fail, vec!["not-early"]));
    let just = Duration::from_nanos(1_000_001);
    let (outcome, _) = spoilt(|_, stream| {
        stream.edit("worker_failed", |event| event.mono = event.mono.before(just));
    });
    assert_eq!(outcome, Outcome::Fail);
}

#[test]
fn a_verdict_exactly_at_its_deadline_passes() {
    let (outcome, names) = spoilt(|_, stream| {
        stream.edit("worker_failed", |event| event.mono = event.mono.before(ms(1)));
    });
    assert_eq!((outcome, names), (Outcome::Pass, vec![]));
}

#[test]
fn a_verdict_after_eight_seconds_fails() {
    let late =
        |by| spoilt(move |_, s| s.edit("worker_failed", |event| event.mono = KILL + ms(8000) + by));
    assert_eq!(late(Duration::from_nanos(1)), (Outcome::Fail, vec!["in-time"]));
    assert_eq!(late(Duration::ZERO), (Outcome::Pass, vec![]));
}

#[test]
fn two_verdicts_on_the_same_worker_fail() {
    let (outcome, names) =
        spoilt(|e, stream| stream.insert(kill_event() + ms(10), Some(e.w1.id), failed(0.0)));
    assert_eq!((outcome, names), (Outcome::Fail, vec!["failed-once", "grep"]));
}

#[test]
fn a_verdict_on_another_epoch_fails() {
    let (outcome, names) = spoilt(|evidence, stream| {
        stream.remove("worker_failed");
        let failed = WorkerFailed { epoch: 2, ..failed(0.0) };
        stream.insert(kill_event(), Some(evidence.w1.id), failed);
    });
    assert_eq!((outcome, names), (Outcome::Fail, vec!["epoch"]));
}

#[test]
fn suspicion_of_the_second_worker_fails() {
    let (outcome, names) = spoilt(|evidence, stream| {
        let body = WorkerSuspected { epoch: 1, reason: "missed_beats".into() };
        stream.insert(KILL + ms(2000), Some(evidence.w2.id), body);
    });
    assert_eq!((outcome, names), (Outcome::Fail, vec!["w2-untouched"]));
}

/// Evidence in which the beats of w2 that `lost` picks, by their instant, are missing.
fn lost_beats(lost: impl Fn(Mono) -> bool) -> (Outcome, Vec<&'static str>) {
    spoilt(|evidence, stream| {
        let id = evidence.w2.id;
        let beat = |event: &Event| event.body.topic() == "worker_heartbeat";
        stream.retain(|event| event.worker_id != Some(id) || !beat(event) || !lost(event.mono));
    })
}

#[test]
fn a_second_worker_that_falls_silent_before_or_after_the_kill_fails() {
    let failed = (Outcome::Fail, vec!["w2-beats"]);
    assert_eq!(lost_beats(|at| at > KILL + ms(2000)), failed);
    assert_eq!(
        lost_beats(|at| (KILL.before(ms(2100))..KILL.before(ms(100))).contains(&at)),
        failed
    );
    let one = KILL + ms(2000)..KILL + ms(2500);
    assert_eq!(lost_beats(|at| one.contains(&at)), (Outcome::Pass, vec![]));
}

#[test]
fn a_second_worker_that_beats_too_seldom_fails_without_any_long_gap() {
    let mut due = 0..;
    let every_third = RefCell::new(move || due.next().is_none_or(|beat| beat % 3 != 2));
    let seldom = lost_beats(|at| at > KILL && every_third.borrow_mut()());
    assert_eq!(seldom, (Outcome::Fail, vec!["w2-beats"]));
}

#[test]
fn a_second_worker_that_is_not_deregistered_or_before_its_time_fails() {
    let (outcome, names) = spoilt(|_, stream| stream.remove("worker_deregistered"));
    assert_eq!((outcome, names), (Outcome::Fail, vec!["w2-deregistered"]));
    let (outcome, names) = spoilt(|_, s| s.edit("worker_deregistered", |event| event.mono = KILL));
    assert_eq!((outcome, names), (Outcome::Fail, vec!["w2-deregistered"]));
    let (outcome, names) = spoilt(|e, stream| {
        stream.insert(KILL, Some(e.w1.id), WorkerDeregistered { epoch: 1 });
    });
    assert_eq!((outcome, names), (Outcome::Fail, vec!["w2-deregistered"]));
}

#[test]
fn a_credited_stall_or_lost_lines_or_a_late_harness_are_inconclusive() {
    let stalled = spoilt(|_, s| s.insert(KILL + ms(1), None, CoordinatorStalled { ms: 300.0 }));
    assert_eq!(stalled, (Outcome::Inconclusive, vec!["conditions"]));
    let dropped = spoilt(|_, s| {
        s.insert(KILL + ms(1), None, LinesDropped { heartbeats: 1, others: 0 });
    });
    assert_eq!(dropped, (Outcome::Inconclusive, vec!["conditions"]));
    let late = spoilt(|evidence, _| evidence.harness_late = LATENESS_LIMIT + ms(1));
    assert_eq!(late, (Outcome::Inconclusive, vec!["conditions"]));
    let on_time = spoilt(|evidence, _| evidence.harness_late = LATENESS_LIMIT);
    assert_eq!(on_time, (Outcome::Pass, vec![]));
    let credited = spoilt(|evidence, stream| {
        stream.remove("worker_failed");
        stream.insert(kill_event() + ms(300), Some(evidence.w1.id), failed(300.0));
    });
    assert_eq!(credited, (Outcome::Inconclusive, vec!["conditions"]));
}

#[test]
fn a_stall_excuses_a_late_verdict_and_a_slow_step_and_nothing_else() {
    let late = spoilt(|evidence, stream| {
        evidence.harness_late = ms(900);
        stream.edit("worker_failed", |event| event.mono = KILL + ms(8001));
    });
    assert_eq!(late, (Outcome::Inconclusive, vec!["conditions", "in-time"]));
    let early = spoilt(|evidence, stream| {
        stream.remove("worker_failed");
        stream.insert(kill_event(), Some(evidence.w1.id), failed(300.0));
    });
    assert_eq!(early, (Outcome::Fail, vec!["conditions", "not-early"]));
    let missing = spoilt(|evidence, stream| {
        evidence.harness_late = ms(900);
        stream.remove("worker_failed");
    });
    assert_eq!(missing.0, Outcome::Fail);
}

#[test]
fn an_error_line_or_a_panic_in_any_process_fails() {
    let logged = spoilt(|_, stream| stream.log_line(KILL, Level::Error, "disk on fire"));
    assert_eq!(logged, (Outcome::Fail, vec!["clean"]));
    let warned = spoilt(|_, stream| stream.log_line(KILL, Level::Warn, "disk warm"));
    assert_eq!(warned, (Outcome::Pass, vec![]));
    let panic = "thread 'main' panicked at src/main.rs:1:1:";
    let line = spoilt(|_, stream| stream.log_line(KILL, Level::Info, panic));
    assert_eq!(line, (Outcome::Fail, vec!["clean"]));
    for said in [panic, "rollout: cannot open it"] {
        let panicked = spoilt(|e, _| e.w2.seen.stderr = said.to_owned());
        assert_eq!(panicked, (Outcome::Fail, vec!["clean"]), "{said}");
    }
}

#[test]
fn a_plugin_that_is_not_loaded_or_answers_no_call_fails() {
    for (topic, worker) in [("plugin_probed", 1), ("plugin_probed", 2), ("plugin_loaded", 1)] {
        let (outcome, names) = spoilt(|evidence, _| {
            let witness = if worker == 1 { &mut evidence.w1 } else { &mut evidence.w2 };
            let mut stream = Stream::of(&witness.seen.log);
            stream.remove_one(topic);
            witness.seen.log = stream.log();
        });
        assert_eq!((outcome, names), (Outcome::Fail, vec!["plugins"]), "{topic} on w{worker}");
    }
    let none = spoilt(|evidence, _| evidence.plugins.clear());
    assert_eq!(none, (Outcome::Fail, vec!["plugins"]));
}

#[test]
fn a_sidecar_that_ends_by_itself_fails_and_one_that_was_asked_to_does_not() {
    for (expected, outcome) in [(false, Outcome::Fail), (true, Outcome::Pass)] {
        let result = spoilt(|evidence, _| {
            let mut stream = Stream::of(&evidence.w2.seen.log);
            let (code, signal) = (Some(1), None);
            let (name, stderr_tail) = ("sidecar".to_owned(), String::new());
            stream.insert(KILL, None, PluginExited { name, code, signal, stderr_tail, expected });
            evidence.w2.seen.log = stream.log();
        });
        assert_eq!(result.0, outcome);
    }
}

#[test]
fn a_junk_line_a_lost_line_or_another_runs_line_fails() {
    let (mut evidence, stream) = good();
    for (spoil, at) in [
        (stream.text().replacen('{', "Hello\n{", 1), "coord.log:1 is no event"),
        (stream.text().replacen("\"seq\":3,", "\"seq\":4,", 1), "coord.log:3 has seq 4"),
        (
            stream.text().replacen(&evidence.run.to_string(), &RunId::generate().to_string(), 1),
            "coord.log:1 is of another run",
        ),
        (stream.text().trim_end().to_owned(), "coord.log ends within a line"),
    ] {
        evidence.coordinator.log = Log::from(spoil.as_str());
        let verdict = judge(&evidence);
        let check = verdict.complaints().find(|check| check.name == "logs").unwrap();
        assert_eq!(check.outcome, Outcome::Fail);
        assert!(check.detail.contains(at), "{}", check.detail);
    }
}

#[test]
fn a_wrong_exit_or_something_left_or_a_silent_ca_fails() {
    let crashed = Exit { code: Some(101), signal: None };
    let exit = spoilt(|evidence, _| evidence.coordinator.exit = Some(crashed));
    assert_eq!(exit, (Outcome::Fail, vec!["exits"]));
    let survived = spoilt(|e, _| e.w1.seen.exit = Some(Exit { code: Some(0), signal: None }));
    assert_eq!(survived, (Outcome::Fail, vec!["exits"]));
    let left = spoilt(|evidence, _| evidence.leftovers.push("process 7 runs on".into()));
    assert_eq!(left, (Outcome::Fail, vec!["nothing-left"]));
    let silent = spoilt(|evidence, _| evidence.coordinator.stderr.clear());
    assert_eq!(silent, (Outcome::Fail, vec!["dev-ca"]));
    let twice = spoilt(|e, _| e.w2.seen.stderr = e.coordinator.stderr.clone());
    assert_eq!(twice, (Outcome::Fail, vec!["dev-ca"]));
}

#[test]
fn a_step_over_its_budget_fails() {
    let (outcome, names) = spoilt(|evidence, _| {
        let took = Step::Stable.budget().limit().unwrap() + ms(1);
        evidence.steps.push(StepReport { step: Step::Stable, took, result: Ok(String::new()) });
    });
    assert_eq!((outcome, names), (Outcome::Fail, vec!["timeline"]));
}

#[test]
fn a_run_that_never_came_to_the_kill_fails_by_the_step_that_stopped_it_alone() {
    let (mut evidence, _) = good();
    evidence.coordinator.log = Log::default();
    for worker in [&mut evidence.w1, &mut evidence.w2] {
        worker.seen = rollout_harness::smoke::Witness::default();
    }
    evidence.coordinator.exit = Some(Exit { code: Some(78), signal: None });
    (evidence.kill, evidence.w2_stop) = (None, None);
    let result = Err("coord exited with 78".to_owned());
    evidence.steps = vec![StepReport { step: Step::Coordinator, took: ms(5), result }];
    let verdict = judge(&evidence);
    let names: Vec<_> = verdict.complaints().map(name).collect();
    assert_eq!((verdict.outcome, names), (Outcome::Fail, vec!["timeline", "exits"]));
    assert!(verdict.complaints().any(|check| check.detail.contains("exited with 78")));
}

#[test]
fn a_deadline_beyond_the_bound_is_given_as_the_reason() {
    let (mut evidence, mut stream) = good();
    evidence.timing.coordinator_failure_timeout = ms(9000);
    stream.remove("worker_failed");
    evidence.coordinator.log = stream.log();
    let verdict = judge(&evidence);
    let check = verdict.complaints().find(|check| check.name == "in-time").unwrap();
    let why = "coordinator_failure_timeout = 9s puts the deadline 9.75 s after the last beat, \
               beyond the specification's 8 s";
    assert!(check.detail.contains(why), "{}", check.detail);
}

#[test]
fn a_fault_free_run_judged_as_if_w1_had_been_killed_fails() {
    let (outcome, names) = spoilt(|evidence, stream| {
        stream.remove("worker_failed");
        for beat in 0..12 {
            let at = KILL + ms(500 * beat);
            stream.insert(at, Some(evidence.w1.id), WorkerHeartbeat { epoch: 1, beat: 9 + beat });
        }
        evidence.w1.seen.exit = Some(Exit { code: Some(0), signal: None });
    });
    assert_eq!(outcome, Outcome::Fail);
    assert_eq!(names, ["failed-once", "in-time", "grep", "exits"]);
}
