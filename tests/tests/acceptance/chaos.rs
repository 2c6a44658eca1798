//! Random harm to a fleet of real workers: every promise holds, and without any one of the
//! protections the judge sees that it does not.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "also in the helpers: a panic fails the test"
)]

use std::path::Path;
use std::time::Duration;

use rollout_acceptance::{built, conclusive, faulty};
use rollout_core::chain;
use rollout_harness::chaos::{
    Options, Plan, Protection, Run, Unwatched, bundle, judge, run, short_timing,
};
use rollout_harness::judge::LATENESS_LIMIT;
use rollout_harness::report::{self, Look};
use rollout_harness::{Interrupt, Outcome, Record};

fn options(root: &Path, workers: usize, without: Option<Protection>) -> Options {
    let plan = Plan {
        seed: 7,
        workers,
        length: Duration::from_secs(12),
        timing: short_timing(),
        disk: false,
        sidecars: false,
    };
    Options {
        root: root.to_path_buf(),
        binaries: built().clone(),
        faulty: without.map(|_| faulty().to_owned()),
        schedule: plan.draw().unwrap(),
        without,
        plugins: false,
        keep: false,
    }
}

fn carried_out(options: &Options) -> Run {
    let run = || {
        run(options, &mut Unwatched, &Interrupt::default())
            .unwrap_or_else(|error| panic!("{}", chain(&error)))
    };
    conclusive(|run: &Run| run.judgement.outcome, run)
}

fn story(run: &Run) -> String {
    report::chaos(&run.record, &run.judgement, Look::default()) + &bundle::timeline(&run.record)
}

fn missed(without: Protection, check: &str) {
    let root = tempfile::tempdir().unwrap();
    let run = carried_out(&options(root.path(), 3, Some(without)));
    let outcome = run.judgement.check(check).map(|check| check.outcome);
    assert_eq!(outcome, Some(Outcome::Fail), "{check} does not fail:\n{}", story(&run));
}

#[test]
fn a_fleet_keeps_every_promise_and_its_bundle_is_judged_the_same_again() {
    let root = tempfile::tempdir().unwrap();
    let options = options(root.path(), 4, None);
    let run = carried_out(&options);
    let late = run.record.harness_late > LATENESS_LIMIT;
    let outcome = run.judgement.outcome;
    assert!(
        outcome == Outcome::Pass || late && outcome == Outcome::Inconclusive,
        "{}",
        story(&run)
    );
    let dir = root.path().join("bundle");
    bundle::write(&dir, &run, &options.schedule, &options.binaries.rollout).unwrap();
    let read = Record::read(&dir).unwrap();
    assert_eq!(judge(&read).checks, run.judgement.checks);
    assert!(run.judgement.figures.verdicts >= 3, "{}", story(&run));
}

#[test]
fn without_the_fence_a_worker_that_is_cut_off_is_seen_not_to_fence_itself() {
    missed(Protection::Fence, "fence-in-time");
}

#[test]
fn without_the_epoch_check_the_beat_of_a_thawed_worker_is_seen_to_be_stale() {
    missed(Protection::EpochCheck, "stale-beats");
}

#[test]
fn without_the_stall_credit_a_verdict_is_seen_to_lack_it() {
    missed(Protection::StallCredit, "stall-credit");
}
