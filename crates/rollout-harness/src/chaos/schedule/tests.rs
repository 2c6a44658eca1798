//! What a schedule may hold, and what a seed draws.

use proptest::prelude::*;

use super::*;

fn plan(seed: u64, workers: usize, seconds: u64, disk: bool) -> Plan {
    Plan {
        seed,
        workers,
        length: Duration::from_secs(seconds),
        timing: short_timing(),
        disk,
        sidecars: true,
    }
}

proptest! {
    #[test]
    fn the_same_seed_gives_the_same_schedule_and_it_can_be_played(
        seed: u64, workers in 1usize..10, seconds in 1u64..200, disk: bool,
    ) {
        let schedule = plan(seed, workers, seconds, disk).draw().unwrap();
        prop_assert_eq!(&schedule, &plan(seed, workers, seconds, disk).draw().unwrap());
        prop_assert!(schedule.check().is_ok(), "{:?}", schedule.check());
        let quiet = schedule.length.saturating_sub(draw::quiet(&schedule.timing));
        prop_assert!(schedule.steps.iter().all(|step| step.at <= quiet));
        let disks = |step: &Step| matches!(step.act, Act::StallDisk | Act::FreeDisk);
        prop_assert!(disk || !schedule.steps.iter().any(disks));
    }

    #[test]
    fn a_schedule_reads_back_as_it_was_written(seed: u64) {
        let schedule = plan(seed, 6, 60, true).draw().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), schedule.text()).unwrap();
        prop_assert_eq!(Schedule::read(file.path()).unwrap(), schedule);
    }

    #[test]
    fn every_schedule_of_twelve_seconds_or_more_has_what_no_broken_promise_survives(
        seed: u64, workers in 3usize..10, seconds in 12u64..30,
    ) {
        let schedule = plan(seed, workers, seconds, false).draw().unwrap();
        let deadline = draw::deadline(&schedule.timing);
        for (act, of_coordinator) in [
            (Act::BlackHole, false), (Act::Stop, false), (Act::Stop, true), (Act::Kill, true),
        ] {
            let long_enough = schedule.steps.iter().any(|step| {
                let undone = schedule.steps.iter().find(|other| {
                    other.target == step.target && other.at > step.at
                        && Some(other.act) == step.act.undone_by()
                });
                step.act == act && (step.target == Target::Coordinator) == of_coordinator
                    && (act == Act::Kill
                        || undone.is_some_and(|undone| undone.at - step.at > deadline))
            });
            prop_assert!(long_enough, "{act:?} of coordinator: {of_coordinator}");
        }
    }
}

#[test]
fn another_seed_gives_another_schedule() {
    assert_ne!(
        plan(1, 6, 60, false).draw().unwrap().steps,
        plan(2, 6, 60, false).draw().unwrap().steps
    );
}

#[test]
fn two_minutes_hold_every_kind_of_fault_often() {
    let schedule = plan(1, 6, 120, true).draw().unwrap();
    let count =
        |fits: &dyn Fn(&Step) -> bool| schedule.steps.iter().filter(|step| fits(step)).count();
    let coordinator = |step: &Step| step.target == Target::Coordinator;
    for (name, least, found) in [
        ("kill", 20, count(&|s| s.act == Act::Kill && !coordinator(s))),
        ("terminate", 5, count(&|s| s.act == Act::Terminate)),
        ("stop", 20, count(&|s| s.act == Act::Stop && !coordinator(s))),
        ("cut", 10, count(&|s| s.act == Act::Cut)),
        ("black hole", 10, count(&|s| s.act == Act::BlackHole)),
        ("delay", 5, count(&|s| matches!(s.act, Act::Delay { .. }))),
        ("sidecar", 3, count(&|s| s.act == Act::KillSidecars)),
        ("disk", 3, count(&|s| s.act == Act::StallDisk)),
        ("kill of the coordinator", 4, count(&|s| s.act == Act::Kill && coordinator(s))),
        ("stop of the coordinator", 4, count(&|s| s.act == Act::Stop && coordinator(s))),
    ] {
        assert!(found >= least, "{name}: {found}");
    }
}

#[test]
fn what_cannot_be_played_is_refused_with_its_reason() {
    let good = plan(1, 3, 20, false).draw().unwrap();
    let with = |steps: &[(u64, &str, Act)]| Schedule {
        steps: steps
            .iter()
            .map(|(ms, target, act)| Step {
                at: Duration::from_millis(*ms),
                target: target.parse().unwrap(),
                act: *act,
            })
            .collect(),
        ..good.clone()
    };
    for (schedule, why) in [
        (with(&[(1, "w4", Act::KillSidecars)]), "no such worker"),
        (with(&[(1, "coord", Act::Cut)]), "neither a link"),
        (with(&[(1, "w1", Act::Stop)]), "never undone"),
        (with(&[(1, "w1", Act::Stop), (2, "w2", Act::Continue)]), "never undone"),
        (with(&[(30_000, "w1", Act::KillSidecars)]), "after the end"),
        (
            with(&[(2, "w1", Act::KillSidecars), (1, "w1", Act::KillSidecars)]),
            "before the step above",
        ),
        (Schedule { workers: 0, ..good.clone() }, "1 to 64"),
        (Schedule { length: Duration::ZERO, ..good.clone() }, "one second"),
    ] {
        let error = schedule.check().unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let killed = [(1, "w1", Act::Stop), (2, "w1", Act::Kill), (3, "w1", Act::Start)];
    assert!(with(&killed).check().is_ok());
    assert!("w0".parse::<Target>().is_err() && "coordinator".parse::<Target>().is_err());
}
