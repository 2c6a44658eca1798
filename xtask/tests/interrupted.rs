//! A run that is stopped at a random point, by whatever signal, leaves no process behind, and
//! the next one is green.
#![cfg(test)]
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The points lie between the build and some way into the wait for the verdict.
const LATEST: u64 = 3000;
/// How long a tree may take to be gone once its parent is.
const GONE: Duration = Duration::from_secs(2);

const SMOKE: [&str; 3] = ["smoke", "--port", "0"];

/// Starts a run marked by its root, without a guard, which would hide what it leaves behind.
#[expect(clippy::disallowed_methods, reason = "a guard would clean up what xtask leaves behind")]
fn start(command: &[&str], root: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(command)
        .arg("--root")
        .arg(root)
        .env("ROLLOUT_TEST_ROOT", root)
        .stdin(Stdio::null())
        .stdout(fs::File::create(root.join("xtask.out")).unwrap())
        .stderr(fs::File::create(root.join("xtask.err")).unwrap())
        .spawn()
        .unwrap()
}

/// The processes that were started by a run with this root: all that inherit its environment, and
/// the sidecars, which do not, by their socket's path or by their directory.
fn marked(root: &Path) -> Vec<String> {
    let root = root.to_str().unwrap().as_bytes();
    let names = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let ours = names.filter(|proc| {
        let files =
            ["environ", "cmdline"].map(|name| fs::read(proc.join(name)).unwrap_or_default());
        files.iter().any(|file| file.windows(root.len()).any(|part| part == root))
    });
    let shown = |proc: std::path::PathBuf| {
        let line = fs::read(proc.join("cmdline")).unwrap_or_default();
        format!("{} {}", proc.display(), String::from_utf8_lossy(&line).replace('\0', " "))
    };
    ours.map(shown).collect()
}

fn stopped_by(signal: Signal, command: &[&str]) {
    let root = tempfile::tempdir().unwrap();
    let after = Duration::from_millis(rand::random_range(0..LATEST));
    let mut xtask = start(command, root.path());
    thread::sleep(after);
    assert!(!marked(root.path()).is_empty());
    kill(Pid::from_raw(xtask.id().try_into().unwrap()), signal).unwrap();
    let asked = Instant::now();
    let status = xtask.wait().unwrap();
    // An early signal finds xtask with its default action, which ends it by that signal.
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    assert_eq!(code, Some(128 + signal as i32), "{signal} after {after:?}: {status}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{signal} after {after:?}");
    let ended = Instant::now();
    while !marked(root.path()).is_empty() {
        let left = marked(root.path());
        assert!(ended.elapsed() < GONE, "{signal} after {after:?} left {left:#?}");
        thread::sleep(Duration::from_millis(5));
    }
    let status = start(command, root.path()).wait().unwrap();
    let told = fs::read_to_string(root.path().join("xtask.out")).unwrap();
    assert!(status.success(), "{signal} after {after:?}, then {status}:\n{told}");
    assert_eq!(marked(root.path()), Vec::<String>::new());
}

#[test]
fn ctrl_c_leaves_nothing_and_the_next_run_is_green() {
    stopped_by(Signal::SIGINT, &SMOKE);
}

#[test]
fn sigterm_leaves_nothing_and_the_next_run_is_green() {
    stopped_by(Signal::SIGTERM, &SMOKE);
}

#[test]
fn sigkill_leaves_nothing_and_the_next_run_is_green() {
    stopped_by(Signal::SIGKILL, &SMOKE);
}

#[test]
fn a_scenario_that_is_killed_leaves_nothing_and_the_next_one_is_green() {
    // One with a stopped process and links: what is stopped, too, is gone.
    stopped_by(Signal::SIGKILL, &["scenario", "frozen"]);
}

#[test]
fn ctrl_c_in_a_scenario_leaves_nothing_and_the_next_one_is_green() {
    stopped_by(Signal::SIGINT, &["scenario", "black-hole"]);
}
