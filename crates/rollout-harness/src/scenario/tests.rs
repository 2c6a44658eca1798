//! Made-up runs: a good one passes, and each that is a little worse fails by name.

use std::time::UNIX_EPOCH;

use rollout_core::{Body, Event, Level};
use serde_json::{Map, Value, json};

use super::*;
use crate::log::Log;
use crate::record::{Ended, Fault, Life, Process, Role, What};

/// The instants of a made-up run: a beat every 500 ms, a kill, the deadline 5.75 s after the last
/// beat.
const START: Mono = Mono(1_000_000_000_000);

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const TEXT: &str = r#"
about = "a test"
[[workers]]
name = "w1"
[[workers]]
name = "w2"
[[steps]]
label = "kill"
do = "kill"
to = "w1"
[[expect]]
name = "failed"
event = "worker_failed"
worker = "w1"
where = { epoch = 1 }
since = "kill"
not_before = "deadline"
not_after = "8s"
[[expect]]
name = "beats on"
event = "worker_heartbeat"
worker = "w2"
since = "kill"
until = "end"
at_least = 5
[[expect]]
none = "worker_failed"
worker = "w2"
[[expect]]
exit = "w1"
signal = 9
[[expect]]
stderr = "w1"
contains = "farewell"
"#;

fn scenario(text: &str) -> Scenario {
    Scenario::parse(Path::new("made-up.toml"), text).unwrap()
}

/// A log under construction.
struct Stream(RunId, Vec<Event>);

impl Stream {
    fn say(&mut self, at: Mono, topic: &str, worker: Option<WorkerId>, attrs: Value) {
        let Value::Object(attrs) = attrs else { panic!("{attrs}") };
        let seq = self.1.len() as u64 + 1;
        let event = sample::event(topic, at, self.0, worker, &attrs).unwrap();
        self.1.push(Event { seq, at: UNIX_EPOCH, ..event });
    }

    fn log(&self) -> Log {
        let lines = self.1.iter().map(|event| serde_json::to_string(event).unwrap() + "\n");
        Log::from(lines.collect::<String>().as_str())
    }
}

/// A run in which everything went as it should.
fn good() -> Seen {
    let (run, w1, w2) = (RunId::generate(), WorkerId::generate(), WorkerId::generate());
    let mut stream = Stream(run, Vec::new());
    stream.say(START, "coordinator_started", None, json!({}));
    for beat in 0..20 {
        let at = START + ms(500 * beat);
        if beat < 3 {
            stream.say(at, "worker_heartbeat", Some(w1), json!({ "beat": beat }));
        }
        stream.say(at + ms(1), "worker_heartbeat", Some(w2), json!({ "beat": beat }));
    }
    let kill = START + ms(1_010);
    let failed = START + ms(1_000 + 5_750 + 2);
    stream.say(failed, "worker_failed", Some(w1), json!({}));
    let end = START + ms(9_600);
    let life = |code, signal| Life {
        pid: 7,
        began: START.before(ms(100)),
        ended: Some(Ended { at: end + ms(10), code, signal }),
    };
    let process = |name: &str, role, life, log, stderr: &str| Process {
        name: name.into(),
        role,
        lives: vec![life],
        log,
        stderr: stderr.into(),
    };
    let fault =
        |target: &str, what, began| Fault { target: target.into(), what, began, ended: None };
    let step = |label: &str, at| Played {
        title: label.into(),
        label: Some(label.into()),
        at,
        took: ms(1),
        result: Ok(String::new()),
    };
    let record = Record {
        title: "a test".into(),
        run,
        timing: TimeBudget::default(),
        began: START.before(ms(100)),
        ended: end + ms(20),
        processes: vec![
            process("coord", Role::Coordinator, life(Some(0), None), stream.log(), ""),
            process("w1", Role::Worker { id: w1 }, life(None, Some(9)), Log::default(), "farewell"),
            process("w2", Role::Worker { id: w2 }, life(Some(0), None), Log::default(), ""),
        ],
        faults: vec![
            fault("w1", What::Kill, kill),
            fault("w2", What::Terminate, end),
            fault("coord", What::Terminate, end + ms(5)),
        ],
        harness_late: ms(3),
        leftovers: Vec::new(),
    };
    Seen {
        record,
        steps: vec![step("ready", START + ms(600)), step("kill", kill), step("end", end)],
    }
}

fn judged(text: &str, spoil: impl FnOnce(&mut Seen)) -> (Outcome, Vec<String>) {
    let mut seen = good();
    spoil(&mut seen);
    let verdict = Verdict::of(&scenario(text), &seen);
    (verdict.outcome, verdict.complaints().map(|check| check.name.to_string()).collect())
}

/// Changes the events of the coordinator.
fn events(seen: &mut Seen, edit: impl Fn(&mut Event)) {
    seen.record.processes[0].log.edit(|lines| {
        lines.iter_mut().filter_map(|line| line.event.as_mut().ok()).for_each(edit);
    });
}

fn is_failed(event: &Event) -> bool {
    matches!(event.body, Body::WorkerFailed(_))
}

#[test]
fn a_good_run_passes_its_figures_are_right_and_every_check_has_twins_that_fail() {
    let verdict = Verdict::of(&scenario(TEXT), &good());
    let complaints: Vec<_> = verdict.complaints().collect();
    assert_eq!(verdict.outcome, Outcome::Pass, "{complaints:?}");
    let measured = verdict.measured["failed"];
    assert_eq!(measured.latency_ms, Some(5_742.0));
    assert_eq!(measured.overshoot_ms, Some(2.0));
    let of = |name: &str| {
        let twins = verdict.twins.iter().filter(|twin| twin.check == name);
        twins.map(|twin| twin.spoilt.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(
        of("failed"),
        [
            "too few come",
            "one too many comes",
            "one comes too early",
            "one comes too late",
            "it is about another worker",
            "its epoch is another",
        ]
    );
    assert_eq!(
        of("beats on"),
        [
            "too few come",
            "too few come in time",
            "too few come after its beginning",
            "it is about another worker",
        ]
    );
    assert_eq!(of("no worker_failed(w2)"), ["one comes"]);
    assert_eq!(of("exit of w1"), ["w1 exited with 0"]);
    assert_eq!(of("stderr of w1"), ["w1 does not say it"]);
    assert_eq!(of("logs").len(), 2);
    for standing in ["steps", "exits", "clean", "nothing-left"] {
        assert!(!of(standing).is_empty(), "{standing}");
    }
}

#[test]
fn a_verdict_a_little_too_early_or_too_late_or_credited_and_not_waited_for_fails() {
    let moved = |by: fn(&mut Event)| {
        judged(TEXT, |seen| {
            events(seen, |event| {
                if is_failed(event) {
                    by(event)
                }
            })
        })
    };
    let failed = (Outcome::Fail, vec!["failed".to_owned()]);
    let early = Duration::from_micros(2_001);
    assert_eq!(moved(|event| event.mono = event.mono.before(ms(2))).0, Outcome::Pass);
    let too_early = judged(TEXT, |seen| {
        events(seen, |event| {
            if is_failed(event) {
                event.mono = event.mono.before(early)
            }
        });
    });
    assert_eq!(too_early, failed);
    assert_eq!(moved(|event| event.mono = START + ms(9_011)), failed);
    let credited = |event: &mut Event| {
        if let Body::WorkerFailed(body) = &mut event.body {
            body.credited_ms = 10.0;
        }
    };
    assert_eq!(moved(credited), failed);
}

#[test]
fn a_restarted_coordinators_deadline_counts_from_its_start() {
    let restarted = |seen: &mut Seen| {
        let at = START + ms(3_000);
        let run = seen.record.run;
        let event = sample::event("coordinator_started", at, run, None, &Map::new()).unwrap();
        let raw = serde_json::to_string(&event).unwrap();
        seen.record.processes[0].log.edit(|lines| {
            lines.push(crate::log::Line { raw, event: Ok(event) });
        });
    };
    assert_eq!(judged(TEXT, restarted), (Outcome::Fail, vec!["failed".to_owned()]));
}

#[test]
fn a_starved_machine_excuses_a_late_verdict_and_neither_an_early_nor_a_missing_one() {
    let starved = |mono: Option<Mono>| {
        judged(TEXT, |seen| {
            seen.record.harness_late = ms(900);
            seen.record.processes[0].log.edit(|lines| {
                lines.retain(|line| mono.is_some() || !line.event.as_ref().is_ok_and(is_failed));
            });
            events(seen, |event| {
                if let Some(mono) = mono.filter(|_| is_failed(event)) {
                    event.mono = mono;
                }
            });
        })
    };
    let failed = |outcome| (outcome, vec!["failed".to_owned()]);
    assert_eq!(starved(Some(START + ms(9_100))), failed(Outcome::Inconclusive));
    assert_eq!(starved(Some(START + ms(6_000))), failed(Outcome::Fail));
    assert_eq!(starved(None), failed(Outcome::Fail));
}

#[test]
fn what_every_scenario_has_to_bear_out_is_found_broken_by_name() {
    let only = |name: &str| (Outcome::Fail, vec![name.to_owned()]);
    let end = |seen: &mut Seen, process: usize, code| {
        if let Some(ended) = &mut seen.record.processes[process].lives[0].ended {
            ended.code = code;
        }
    };
    assert_eq!(judged(TEXT, |seen| end(seen, 2, Some(101))), only("exits"));
    assert_eq!(judged(TEXT, |seen| seen.record.processes[2].lives[0].ended = None), only("exits"));
    let twice = |seen: &mut Seen| {
        let began = seen.record.faults[1].began;
        let (target, what) = ("w2".to_owned(), What::Kill);
        seen.record.faults.push(Fault { target, what, began, ended: None });
    };
    assert_eq!(judged(TEXT, twice), only("exits"));
    let said = |seen: &mut Seen| seen.record.processes[2].stderr = "rollout: no".into();
    assert_eq!(judged(TEXT, said), only("clean"));
    let log = |level| {
        move |seen: &mut Seen| {
            events(seen, |event| {
                if event.seq == 1 {
                    event.level = level
                }
            });
        }
    };
    assert_eq!(judged(TEXT, log(Level::Error)), only("clean"));
    assert_eq!(judged(TEXT, log(Level::Warn)).0, Outcome::Pass);
    let other = |seen: &mut Seen| {
        events(seen, |event| {
            if event.seq == 3 {
                event.run_id = Some(RunId::generate())
            }
        });
    };
    assert_eq!(judged(TEXT, other), only("logs"));
    let left = |seen: &mut Seen| seen.record.leftovers.push("w1.db is still locked".into());
    assert_eq!(judged(TEXT, left), only("nothing-left"));
    let stuck = |seen: &mut Seen| seen.steps[1].result = Err("not within 1 s".into());
    assert_eq!(judged(TEXT, stuck), only("steps"));
}

#[test]
fn a_run_that_did_not_come_to_an_instant_is_judged_by_the_step_that_stopped_it() {
    let stopped = |seen: &mut Seen| {
        seen.steps.truncate(1);
        seen.steps[0].result = Err("coord exited with 78".into());
    };
    assert_eq!(judged(TEXT, stopped), (Outcome::Fail, vec!["steps".to_owned()]));
}

#[test]
fn an_expectation_that_cannot_fail_is_a_failure_of_the_scenario() {
    // A text of no length would be said by everybody; the file refuses it, so it is made here.
    let mut scenario = scenario(TEXT);
    for expect in &mut scenario.expect {
        if let file::Claim::Stderr { contains, .. } = &mut expect.claim {
            contains.clear();
        }
    }
    let verdict = Verdict::of(&scenario, &good());
    let wrong: Vec<_> = verdict.complaints().map(|check| check.detail.as_str()).collect();
    assert_eq!(verdict.outcome, Outcome::Fail);
    assert_eq!(wrong, ["stderr of w1, w1 does not say it: it passed all the same"]);
}

#[test]
fn what_was_seen_reads_back_and_is_judged_the_same() {
    let (dir, seen) = (tempfile::tempdir().unwrap(), good());
    seen.write(dir.path()).unwrap();
    let read = Seen::read(dir.path()).unwrap();
    let checks = |seen: &Seen| Verdict::of(&scenario(TEXT), seen).checks;
    assert_eq!(checks(&read), checks(&seen));
}
