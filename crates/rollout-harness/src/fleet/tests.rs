//! What a fleet refuses, and that an interrupt ends what it waits for.

use std::path::Path;

use nix::sys::signal::Signal;

use super::*;
use crate::fixtures::FixtureError;

fn options(root: &Path, program: &str) -> FleetOptions {
    FleetOptions {
        title: "a test".into(),
        layout: Layout { root: root.into(), dir: "data/test".into() },
        program: program.into(),
        faulty: None,
        timing: TimeBudget::default(),
        run: RunId::generate(),
        interrupt: Interrupt::default(),
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(options(root.path(), "/no/such/program")).unwrap();
    fleet.add(Spec::coordinator()).unwrap();
    fleet.add(Spec { disk: true, ..Spec::worker("w1") }).unwrap();
    let said = |result: Result<(), FleetError>| result.unwrap_err().to_string();
    assert_eq!(said(fleet.add(Spec::worker("w1"))), "the fleet has a process `w1` already");
    assert_eq!(said(fleet.start("w7")), "the fleet has no process `w7`");
    assert_eq!(said(fleet.kill("w1")), "w1 does not run");
    assert!(said(fleet.cut("w1")).contains("w1 has no link"));
    assert!(said(fleet.disk("coord", DiskFault::Full)).contains("coord has no disk"));
    assert!(said(fleet.start("w1")).contains("the coordinator does not listen"));
    assert_eq!(said(fleet.start("coord")), "cannot start coord");
    assert_eq!(fleet.faults(), [], "what was not done is not noted");
}

#[test]
fn a_disk_is_controlled_by_a_file_that_is_never_seen_half_written() {
    let root = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(options(root.path(), "rollout")).unwrap();
    fleet.add(Spec { disk: true, ..Spec::coordinator() }).unwrap();
    let says = || fs::read_to_string(root.path().join("data/test/logs/coord.disk")).unwrap();
    fleet.disk("coord", DiskFault::Stall).unwrap();
    assert_eq!(says(), "stall");
    fleet.disk("coord", DiskFault::Error).unwrap();
    assert_eq!(says(), "error");
    fleet.heal_disk("coord").unwrap();
    assert_eq!(says(), "");
    let done: Vec<_> = fleet.faults().iter().map(|f| (f.what, f.ended.is_some())).collect();
    assert_eq!(done, [(What::DiskStall, true), (What::DiskError, true)]);
}

#[test]
fn an_interrupt_ends_every_wait() {
    let root = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(options(root.path(), "rollout")).unwrap();
    assert_eq!(fleet.wait(Duration::from_millis(5), |_| None::<()>).unwrap(), None);
    fleet.options.interrupt = Interrupt::asked(Signal::SIGINT);
    let stopped = fleet.wait(Duration::from_secs(60), |_| None::<()>);
    assert!(matches!(stopped, Err(FleetError::Interrupted(Signal::SIGINT))));
}

#[test]
fn who_ends_before_all_beat_is_named_without_waiting_for_the_others() {
    let root = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new(options(root.path(), "false")).unwrap();
    fleet.add(Spec::coordinator()).unwrap();
    fleet.add(Spec::worker("w1")).unwrap();
    fleet.start("coord").unwrap();
    let began = now();
    let Err(FleetError::NotUp(why)) = fleet.beating() else { panic!("it is up") };
    assert!(why.contains("coord") && why.contains("exited with 1"), "{why}");
    assert!(now().since(began) < UP_WITHIN, "{why}");
}

#[test]
fn why_a_fleet_cannot_go_on_is_told_by_the_exit_code() {
    let taken = FixtureError::Taken { dir: "data".into() };
    for (error, code) in [
        (FleetError::File(taken), 69),
        (FleetError::NotRunning("w1".into()), 70),
        (FleetError::NotUp("w1 does not beat".into()), 1),
        (FleetError::Interrupted(Signal::SIGTERM), 143),
    ] {
        assert_eq!(error.exit_code(), code, "{error}");
    }
}
