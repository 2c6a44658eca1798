//! The Python SDK's own tests, with the interpreter that runs the sidecars.

use std::time::Duration;

use rollout_harness::binaries::workspace_root;
use rollout_process::{Io, Spawn};

#[test]
fn the_python_sdk_passes_its_own_tests() {
    let _busy = rollout_acceptance::busy();
    let spawn = Spawn::new("python3")
        .args(["-B", "-m", "unittest", "discover", "--start-directory", "python"])
        .current_dir(workspace_root())
        .stderr(Io::Pipe);
    let output = spawn.output(Some(Duration::from_secs(120))).unwrap();
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.exit.success(), "{report}");
    // `unittest` also succeeds when it finds nothing.
    assert!(report.contains("\nRan ") && !report.contains("\nRan 0 tests"), "{report}");
}
