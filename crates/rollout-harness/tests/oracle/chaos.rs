//! The judge of chaos, judged: a made-up run that passes, the edges that pass too, and what breaks
//! each promise.

use rollout_core::Body;
use rollout_core::event::{CoordinatorStalled, FENCE_LIFTED, WorkerHeartbeat, WorkerResumed};
use rollout_harness::chaos::{Judgement, judge};
use rollout_harness::record::What;
use rollout_harness::{Outcome, Record};

use crate::evidence::ms;
use crate::scene::{DEADLINE, STALL, Scene, at, failed, fenced, suspected};

fn story(judgement: &Judgement) -> String {
    let lines = judgement
        .checks
        .iter()
        .map(|check| format!("{:?} {}: {}\n", check.outcome, check.name, check.detail));
    lines.collect()
}

fn judged(spoil: impl FnOnce(&mut Scene)) -> Judgement {
    let mut scene = Scene::good();
    spoil(&mut scene);
    judge(&scene.record())
}

#[test]
fn a_good_run_passes_every_check_and_each_says_what_it_looked_at() {
    let judgement = judged(|_| {});
    assert_eq!(judgement.outcome, Outcome::Pass, "{}", story(&judgement));
    assert_eq!(judgement.checks.len(), 23, "{}", story(&judgement));
    let says = |name: &str, what: &str| {
        let detail = &judgement.check(name).unwrap().detail;
        assert!(detail.contains(what), "{name}: {detail}");
    };
    says("deaths", "2 deaths: 2 failed, 0 replaced");
    says("failed-once", "4 verdicts");
    says("epochs", "7 registrations");
    says("terms", "2 terms");
    says("fenced-first", "1 fenced before their verdict, 1 as they thawed, 2 were dead");
    says("stall-credit", "1 verdicts");
    says("suspected-in-time", "1 hung up");
    assert_eq!(judgement.figures.verdicts, 4);
    assert_eq!(judgement.figures.suspicion_ms, [20.0]);
}

#[test]
fn a_record_that_was_written_and_read_is_judged_the_same() {
    let (dir, record) = (tempfile::tempdir().unwrap(), Scene::good().record());
    record.write(dir.path()).unwrap();
    let again = judge(&Record::read(dir.path()).unwrap());
    assert_eq!(again.checks, judge(&record).checks);
}

type Spoil = fn(&mut Scene);

/// What breaks which promise.
const BROKEN: &[(&str, &str, Spoil)] = &[
    ("streams", "a line is no event", |scene| scene.workers[1].junk.push((0, "oops\n".into()))),
    ("streams", "a torn line, of who was not killed", |scene| {
        scene.coordinator.junk.push((1, "{\"seq\":".into()));
    }),
    ("terms", "a term repeats", |scene| {
        edit(scene, |body| {
            if let Body::CoordinatorStarted(body) = body {
                body.term = 1;
            }
        });
    }),
    ("epochs", "a second process gets the first one's epoch", |scene| {
        scene.workers[0].lives[1].1.remove("worker_resumed");
        edit_registrations(scene, 6_000, 1);
    }),
    ("stale-beats", "a beat under the epoch before", |scene| {
        scene.say(6_500, 1, WorkerHeartbeat { epoch: 1, beat: 9 });
    }),
    ("stale-beats", "a beat after the verdict", |scene| {
        scene.say(6_050, 2, WorkerHeartbeat { epoch: 1, beat: 9 });
    }),
    ("stale-beats", "a beat after the restart, of who has not come back", |scene| {
        scene.say(12_750, 3, WorkerHeartbeat { epoch: 1, beat: 9 });
    }),
    ("ghosts", "a beat from a dead process", |scene| {
        scene.say(3_700, 1, WorkerHeartbeat { epoch: 1, beat: 9 });
    }),
    ("ghosts", "a beat through a black hole", |scene| {
        scene.say(15_100, 3, WorkerHeartbeat { epoch: 1, beat: 9 });
    }),
    ("durable", "the restarted coordinator knows one too few", |scene| known(scene, 2)),
    ("durable", "the restarted coordinator knows one who had failed", |scene| known(scene, 4)),
    ("durable", "one who had failed resumes after the restart", |scene| {
        scene.say(12_900, 4, WorkerResumed { epoch: 1 });
    }),
    ("recovery-pairs", "suspected twice", |scene| {
        scene.say(3_800, 2, suspected(1, "missed_beats"));
    }),
    ("recovery-pairs", "beats on, never recovered", |scene| {
        scene.coordinator.lives[0].1.remove("worker_recovered");
    }),
    ("deaths", "a death without a verdict", |scene| remove_verdict(scene, 4)),
    ("none-missing", "a death without a verdict", |scene| remove_verdict(scene, 4)),
    ("none-missing", "a verdict that never comes for who is cut off", |scene| {
        remove_verdict(scene, 3);
        edit_registrations(scene, 18_200, 2);
    }),
    ("failed-once", "failed twice in a term", |scene| {
        let (_, body) = failed(2_910, 5_000, 1, 0);
        scene.say(5_000, 1, body);
    }),
    ("failed-once", "failed again after the restart, long after the verdict", |scene| {
        let (when, body) = failed(12_700, 12_700 + DEADLINE + 1, 1, 0);
        scene.say(when, 4, body);
    }),
    ("failed-once", "failed under an epoch that is over", |scene| {
        let (_, body) = failed(2_910, 6_900, 1, 0);
        scene.say(6_900, 1, body);
    }),
    ("not-early", "a verdict a millisecond early", |scene| {
        verdict(scene, 1, 2_910, DEADLINE - 1, 0);
    }),
    ("not-early", "a verdict that says it is later than it is", |scene| {
        edit(scene, |body| {
            if let Body::WorkerFailed(body) = body {
                body.overshoot_ms += 1.0;
            }
        });
    }),
    ("in-time", "a verdict half a second late", |scene| {
        verdict(scene, 1, 2_910, DEADLINE + 500, 0);
    }),
    ("no-false-failure", "nothing had been done to the failed worker", |scene| {
        scene.faults.retain(|fault| fault.what != What::BlackHole);
    }),
    ("no-false-failure", "failed for the coordinator's own stop", |scene| {
        for time in [9_600, 9_810, 10_010, 10_210] {
            scene.coordinator.lives[0].1.retain(|event| {
                event.mono < at(time) || event.mono > at(time + 20) || event.worker_id.is_none()
            });
        }
        let (_, body) = failed(6_910, 9_565, 1, 0);
        scene.say(9_565, 3, body);
    }),
    ("stall-credit", "no credit for the coordinator's stop", |scene| {
        verdict(scene, 4, 6_910, STALL + DEADLINE + 1, 0);
    }),
    ("stall-credit", "a credit for no stop", |scene| {
        verdict(scene, 1, 2_910, DEADLINE + 501, 500);
    }),
    ("fenced-first", "failed and cut off, and not fenced", |scene| unfence(scene, 3, "unacknow")),
    ("fenced-first", "thawed, and resumed before it was fenced", |scene| {
        unfence(scene, 2, "unacknow");
        unfence(scene, 2, "failed");
    }),
    ("fence-in-time", "cut off, and not fenced", |scene| unfence(scene, 3, "unacknow")),
    ("fence-in-time", "cut off just after it resumed, and fenced only from then on", |scene| {
        scene.fault("w1", What::Cut, 17_000, Some(17_200));
        scene.fault("w1", What::BlackHole, 17_300, Some(18_700));
        let id = scene.workers[0].id;
        scene.coordinator.lives[1].1.retain(|event| {
            event.worker_id != id || event.mono < at(17_000) || event.mono > at(18_700)
        });
        scene.resumes(1, 17_250, 2);
        scene.own(18_500, 1, fenced("unacknowledged", 1_490));
    }),
    ("fence-in-time", "fenced while it was acknowledged a moment ago", |scene| {
        scene.own(2_000, 3, fenced("unacknowledged", 1_100));
    }),
    ("no-false-fence", "fenced although it was heard", |scene| {
        scene.own(4_000, 3, fenced("unacknowledged", 1_300));
    }),
    ("suspected-in-time", "suspected only for its missed beats", |scene| {
        let id = scene.workers[0].id;
        let stream = &mut scene.coordinator.lives[0].1;
        stream.retain(|event| event.mono != at(3_020) || event.worker_id != id);
        scene.say(3_511, 1, suspected(1, "missed_beats"));
    }),
    ("serves", "the restarted coordinator never listens", |scene| {
        scene.coordinator.lives[1].1.remove("coordinator_started");
    }),
    ("comes-back", "failed, healed, and never heard of again", |scene| {
        let id = scene.workers[0].id;
        let stream = &mut scene.coordinator.lives[1].1;
        stream.retain(|event| event.worker_id != id || event.mono < at(13_500));
        let (when, body) = failed(13_410, 13_410 + DEADLINE + 1, 2, 0);
        scene.say(when, 1, body);
    }),
    ("exits", "somebody exits of itself", |scene| {
        scene.faults.retain(|fault| fault.what != What::Terminate || fault.target != "w2");
    }),
    ("exits", "somebody is killed by nobody", |scene| {
        scene.faults.retain(|fault| fault.what != What::Kill || fault.target != "w4");
    }),
    ("nothing-left", "a process is left", |scene| scene.leftovers.push("process 7".into())),
];

#[test]
fn what_breaks_a_promise_fails_its_check() {
    for (name, what, spoil) in BROKEN {
        let judgement = judged(spoil);
        let check = judgement.check(name).unwrap_or_else(|| panic!("{what}: no check {name}"));
        assert_eq!(check.outcome, Outcome::Fail, "{what}: {name}\n{}", story(&judgement));
        assert_eq!(judgement.outcome, Outcome::Fail);
    }
}

#[test]
fn every_check_has_something_that_fails_it() {
    let judgement = judged(|_| {});
    for check in judgement.checks.iter().filter(|check| check.name != "conditions") {
        assert!(BROKEN.iter().any(|(name, _, _)| *name == check.name), "{}", check.name);
    }
}

#[test]
fn what_lies_just_inside_a_bound_passes() {
    let edges: &[(&str, Spoil)] = &[
        ("a verdict at its very deadline", |scene| verdict(scene, 1, 2_910, DEADLINE, 0)),
        ("a verdict 200 ms late", |scene| verdict(scene, 1, 2_910, DEADLINE + 200, 0)),
        ("a torn line of who was killed", |scene| {
            scene.workers[0].junk.push((0, "{\"seq\":99,\"ts\":".into()));
        }),
        ("a suspicion after 200 ms", |scene| {
            let id = scene.workers[0].id;
            let stream = &mut scene.coordinator.lives[0].1;
            stream.retain(|event| event.mono != at(3_020) || event.worker_id != id);
            scene.say(3_200, 1, suspected(1, "connection_lost"));
        }),
        ("a verdict that the killed coordinator may have forgotten, repeated once", |scene| {
            let extra = STALL + 300;
            edit_stall(scene, extra);
            verdict(scene, 4, 6_910, DEADLINE + extra + 1, extra);
            known(scene, 4);
            let (when, body) = failed(12_700, 12_700 + DEADLINE + 1, 1, 0);
            scene.say(when, 4, body);
        }),
        ("a beat that was on its way when its process died", |scene| {
            scene.say(3_100, 1, WorkerHeartbeat { epoch: 1, beat: 9 });
            verdict(scene, 1, 3_100, DEADLINE + 1, 0);
            let stream = &mut scene.coordinator.lives[0].1;
            stream.retain(|event| {
                event.mono != at(3_020) || event.body.topic() != "worker_suspected"
            });
            scene.say(3_110, 1, suspected(1, "connection_lost"));
        }),
        ("a beat a millisecond before it is noted that the black hole is over", |scene| {
            scene.fault("w1", What::BlackHole, 16_050, Some(16_590));
            let id = scene.workers[0].id;
            scene.coordinator.lives[1].1.retain(|event| {
                event.worker_id != id || event.mono < at(16_050) || event.mono > at(16_590)
            });
            scene.say(16_589, 1, WorkerHeartbeat { epoch: 2, beat: 9 });
        }),
        ("a fence that an acknowledgement lifts", |scene| {
            scene.fault("w3", What::Stop, 2_000, Some(3_500));
            let id = scene.workers[2].id;
            scene.coordinator.lives[0].1.retain(|event| {
                event.worker_id != id || event.mono < at(2_000) || event.mono > at(3_500)
            });
            scene.own(3_501, 3, fenced("unacknowledged", 1_591));
            scene.workers[2].log_line(3_511, FENCE_LIFTED);
        }),
    ];
    for (what, edit) in edges {
        let judgement = judged(edit);
        assert_eq!(judgement.outcome, Outcome::Pass, "{what}\n{}", story(&judgement));
    }
}

#[test]
fn a_starved_machine_excuses_what_starving_can_cause_and_nothing_else() {
    let starved: &[(&str, Spoil)] = &[
        ("the harness was late", |scene| scene.late = ms(300)),
        ("the coordinator stalled, and nobody had stopped it", |scene| {
            scene.coordinator.say(4_000, None, CoordinatorStalled { ms: 700.0 });
        }),
    ];
    for (what, starve) in starved {
        let late = judged(|scene| {
            starve(scene);
            verdict(scene, 1, 2_910, DEADLINE + 500, 0);
        });
        assert_eq!(late.outcome, Outcome::Inconclusive, "{what}\n{}", story(&late));
        let early = judged(|scene| {
            starve(scene);
            verdict(scene, 1, 2_910, DEADLINE - 1, 0);
        });
        assert_eq!(early.outcome, Outcome::Fail, "{what}\n{}", story(&early));
    }
}

#[test]
fn what_the_coordinator_says_of_itself_does_not_excuse_a_false_failure() {
    let judgement = |late| {
        judged(|scene| {
            scene.coordinator.say(4_000, None, CoordinatorStalled { ms: 700.0 });
            scene.late = ms(late);
            scene.faults.retain(|fault| fault.what != What::BlackHole);
        })
    };
    let outcome = |late| judgement(late).check("no-false-failure").unwrap().outcome;
    assert_eq!(outcome(3), Outcome::Fail);
    assert_eq!(outcome(300), Outcome::Inconclusive);
}

#[test]
fn a_record_of_nothing_fails() {
    let mut record = Scene::good().record();
    for process in &mut record.processes {
        process.log = rollout_harness::log::Log::default();
    }
    let judgement = judge(&record);
    for name in ["streams", "terms", "epochs", "stale-beats", "deaths"] {
        let outcome = judgement.check(name).map(|check| check.outcome);
        assert_eq!(outcome, Some(Outcome::Fail), "{name}\n{}", story(&judgement));
    }
}

/// Edits every event of the coordinator.
fn edit(scene: &mut Scene, change: impl Fn(&mut Body)) {
    for (_, stream) in &mut scene.coordinator.lives {
        stream.edit_all(|event| change(&mut event.body));
    }
}

fn edit_stall(scene: &mut Scene, to: u64) {
    edit(scene, |body| {
        if let Body::CoordinatorStalled(body) = body {
            body.ms = to as f64;
        }
    });
}

fn known(scene: &mut Scene, workers: u64) {
    edit(scene, |body| {
        if let Body::CoordinatorStarted(body) = body
            && body.term == 2
        {
            body.known_workers = workers;
        }
    });
}

/// Gives the registration at an instant another epoch, in both logs.
fn edit_registrations(scene: &mut Scene, when: u64, epoch: u64) {
    let actors = scene.workers.iter_mut().chain([&mut scene.coordinator]);
    for (_, stream) in actors.flat_map(|actor| &mut actor.lives) {
        stream.edit("worker_registered", |event| {
            if event.mono >= at(when)
                && event.mono <= at(when + 5)
                && let Body::WorkerRegistered(body) = &mut event.body
            {
                body.epoch = epoch;
            }
        });
    }
}

fn remove_verdict(scene: &mut Scene, worker: usize) {
    let id = scene.workers[worker - 1].id;
    for (_, stream) in &mut scene.coordinator.lives {
        stream.retain(|event| event.worker_id != id || event.body.topic() != "worker_failed");
    }
}

/// Replaces the verdict about a worker: so long after the beat that it is counted from.
fn verdict(scene: &mut Scene, worker: usize, beat: u64, after: u64, credited: u64) {
    remove_verdict(scene, worker);
    let (when, body) = failed(beat, beat + after, 1, credited);
    scene.say(when, worker, body);
}

/// Removes what a worker says of its fence for a reason.
fn unfence(scene: &mut Scene, worker: usize, reason: &str) {
    for (_, stream) in &mut scene.workers[worker - 1].lives {
        stream.retain(|event| match &event.body {
            Body::WorkerFenced(body) => !body.reason.starts_with(reason),
            _ => true,
        });
    }
}
