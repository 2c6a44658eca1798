//! One job twice, on real workers: what is killed, restarted and frozen meanwhile does not show in
//! the results. And the judge is not fooled by results of a real run that were tampered with.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "also in the helpers: a panic fails the test"
)]

use std::path::Path;
use std::time::Duration;

use rollout_acceptance::{built, conclusive};
use rollout_core::{TimeBudget, chain};
use rollout_harness::chaos::bundle::timeline;
use rollout_harness::report::{self, Look};
use rollout_harness::work::{Bounds, Case, Faults, Options, Run, Unwatched, judge, run};
use rollout_harness::{Interrupt, Outcome};

fn options(root: &Path) -> Options {
    Options {
        root: root.to_path_buf(),
        program: built().rollout.clone(),
        seed: 11,
        items: 2_000,
        workers: 3,
        in_flight: 2,
        timing: TimeBudget::default(),
        faults: Some(Faults {
            kill_every: Duration::from_millis(1_500),
            most_kills: 3,
            sidecar_every: Some(Duration::from_millis(1_800)),
            coordinator_kills: 1,
            // Long enough for its items to run elsewhere, too short for it to have failed.
            freeze: Some(Duration::from_secs(4)),
        }),
        bounds: Bounds::default(),
    }
}

fn carried_out(options: &Options) -> Run {
    let run = || {
        run(options, &mut Unwatched, &Interrupt::default())
            .unwrap_or_else(|error| panic!("{}", chain(&error)))
    };
    conclusive(
        |run: &Run| if is_short(run) { Outcome::Inconclusive } else { run.judgement.outcome },
        run,
    )
}

/// Whether all that is wrong is that the disturbed run was over before everything had been done to
/// it: the machine was slower when the undisturbed one was timed.
fn is_short(run: &Run) -> bool {
    let mut wrong = run.judgement.checks.iter().filter(|it| it.outcome == Outcome::Fail).peekable();
    wrong.peek().is_some() && wrong.all(|it| ["faults", "outlasted"].contains(&&*it.name))
}

fn story(run: &Run) -> String {
    let (_, seen) = run.case.disturbed.as_ref().unwrap();
    report::work(&run.case, &run.judgement, Look::default()) + &timeline(&seen.record)
}

/// The checks that fail once the disturbed run's results were changed.
fn failing(case: &Case, change: impl FnOnce(&mut Vec<String>)) -> Vec<String> {
    let mut case = case.clone();
    let (_, seen) = case.disturbed.as_mut().unwrap();
    let text = String::from_utf8(seen.results.take().unwrap()).unwrap();
    let mut lines: Vec<_> = text.lines().map(|line| format!("{line}\n")).collect();
    change(&mut lines);
    seen.results = Some(lines.concat().into_bytes());
    let checks = judge(&case).checks.into_iter();
    checks.filter(|it| it.outcome == Outcome::Fail).map(|it| it.name.into_owned()).collect()
}

#[test]
fn a_killed_run_ends_like_an_undisturbed_one_and_a_tampered_result_is_seen() {
    let _busy = rollout_acceptance::busy();
    let root = tempfile::tempdir().unwrap();
    let run = carried_out(&options(root.path()));
    assert_ne!(run.judgement.outcome, Outcome::Fail, "{}", story(&run));
    let both = ["disturbed-results", "identical"];
    assert_eq!(failing(&run.case, |lines| drop(lines.remove(777))), both);
    assert_eq!(failing(&run.case, |lines| lines.insert(777, lines[777].clone())), both);
    let taken = |lines: &mut Vec<String>| lines[777] = lines[778].replace(":778,", ":777,");
    assert_eq!(failing(&run.case, taken), both);
    assert_eq!(failing(&run.case, |lines| lines[777] = lines[777].replace(' ', "  ")), [""; 0]);
}
