//! A parent that is killed leaves nothing behind.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;

use nix::sys::signal::{self, SigHandler, Signal};
use nix::unistd::Pid;
use rollout_process::Spawn;

use crate::support::{
    Bare, alive, bare_command, eventually, kill, parent_of, pid_in, role_command, role_spawn, tree,
    tree_pids,
};

/// Starts a tree and sleeps.
pub(crate) fn parent(dir: &Path) {
    let child = tree(dir).spawn().unwrap();
    child.wait();
}

/// Starts a parent and sleeps.
pub(crate) fn grandparent(dir: &Path) {
    let child = role_spawn("parent", dir).spawn().unwrap();
    fs::write(dir.join("parent"), format!("{}\n", child.pid())).unwrap();
    child.wait();
    fs::write(dir.join("parent-gone"), "").unwrap();
    loop {
        std::thread::park();
    }
}

/// Starts a guarded and an unguarded child, and ignores SIGINT itself.
pub(crate) fn interrupted(dir: &Path) {
    // SAFETY: no handler, so nothing that could be unsound in one.
    unsafe { signal::signal(Signal::SIGINT, SigHandler::SigIgn) }.unwrap();
    let mut unguarded = bare_command("sleep");
    // SAFETY: a plain system call, with no handler either.
    unsafe {
        unguarded.pre_exec(|| {
            signal::signal(Signal::SIGINT, SigHandler::SigDfl)?;
            Ok(())
        });
    }
    unguarded.arg("1000");
    let mut unguarded = Bare::start(unguarded);
    let guarded = Spawn::new("sleep").arg("1000").spawn().unwrap();
    fs::write(dir.join("guarded"), format!("{}\n", guarded.pid())).unwrap();
    unguarded.wait();
    fs::write(dir.join("unguarded-gone"), "").unwrap();
    guarded.wait();
}

fn none_alive(pids: [i32; 3]) {
    eventually(&format!("the end of {pids:?}"), || !pids.into_iter().any(alive));
}

#[test]
fn a_parent_that_is_sigkilled_leaves_neither_tree_nor_guard() {
    let dir = tempfile::tempdir().unwrap();
    let parent = Bare::role("parent", dir.path());
    let pids = tree_pids(dir.path());
    let guard = parent_of(pids[0]);
    assert!(pids.into_iter().all(alive));
    kill(parent.pid(), Signal::SIGKILL);
    none_alive(pids);
    eventually("the end of the guard", || !alive(guard));
}

#[test]
fn a_grandparent_that_is_sigkilled_leaves_none_of_the_nested_tree() {
    let dir = tempfile::tempdir().unwrap();
    let grandparent = Bare::role("grandparent", dir.path());
    let parent = pid_in(&dir.path().join("parent"));
    let pids = tree_pids(dir.path());
    kill(grandparent.pid(), Signal::SIGKILL);
    none_alive(pids);
    eventually("the end of the parent", || !alive(parent));
}

#[test]
fn a_nested_parent_that_is_sigkilled_takes_its_tree_along_and_spares_the_grandparent() {
    let dir = tempfile::tempdir().unwrap();
    let grandparent = Bare::role("grandparent", dir.path());
    let parent = pid_in(&dir.path().join("parent"));
    let pids = tree_pids(dir.path());
    kill(parent, Signal::SIGKILL);
    eventually("the grandparent sees its child's end", || dir.path().join("parent-gone").exists());
    // All of the tree was below the parent's guard, so its end includes theirs.
    assert!(!pids.into_iter().any(alive));
    assert!(alive(grandparent.pid()));
}

#[test]
fn an_interrupt_of_the_parents_group_does_not_reach_a_child() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = role_command("interrupted", dir.path());
    command.process_group(0);
    let parent = Bare::start(command);
    let guarded = pid_in(&dir.path().join("guarded"));
    signal::killpg(Pid::from_raw(parent.pid()), Signal::SIGINT).unwrap();
    eventually("the unguarded child's end", || dir.path().join("unguarded-gone").exists());
    assert!(alive(guarded));
    // It was out of reach, not deaf: that its parent ignores the signal is not passed on.
    kill(guarded, Signal::SIGINT);
    eventually("the guarded child's end", || !alive(guarded));
}
