//! No process outlives its worker.

use rollout_acceptance::{Stage, built};
use rollout_harness::Interrupt;
use rollout_harness::binaries::workspace_root;
use rollout_harness::orphans::{self, Options};

#[test]
fn thirty_workers_killed_at_random_moments_leave_no_process() {
    let _busy = rollout_acceptance::busy();
    let stage = Stage::new();
    let options = Options {
        root: stage.root().join("orphans"),
        fixtures: workspace_root().join("tests/smoke"),
        binaries: built().clone(),
        kills: 30,
        seed: 7,
    };
    let report = orphans::run(&options, &Interrupt::default(), |_| ());
    let report = report.unwrap_or_else(|error| panic!("{}", rollout_core::chain(&error)));
    assert_eq!(report.left, [""; 0]);
    assert_eq!(report.kills, 30);
    assert!(report.processes > 30, "sidecars were among them: {}", report.processes);
}
