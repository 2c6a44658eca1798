//! The own tests of the plugins that stand outside the workspace.

use std::time::Duration;

use rollout_harness::binaries::{cargo_command, workspace_root};
use rollout_process::Io;

#[test]
fn the_rust_sample_passes_its_own_tests() {
    let _busy = rollout_acceptance::busy();
    let root = workspace_root();
    let output = cargo_command()
        .args(["test", "--locked", "--manifest-path"])
        .arg(root.join("plugins/rust_cdylib_sample/Cargo.toml"))
        .arg("--target-dir")
        .arg(root.join("target/plugins"))
        .stderr(Io::Pipe)
        .output(Some(Duration::from_secs(300)))
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.exit.success(), "{report}\n{complaints}");
    // cargo also succeeds when there is nothing to test.
    assert!(report.contains(" passed") && !report.contains(" 0 passed"), "{report}");
}
