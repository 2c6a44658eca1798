//! A tree ends as a whole: by itself, by the ladder, by drop.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rollout_process::{Exit, Io, Ladder, Signal, Spawn};

use crate::support::{LONG, alive, eventually, kill, parent_of, pid_in, sh, tree, tree_pids};

const KILLED: Exit = Exit { code: None, signal: Some(9) };

#[test]
fn dropping_a_child_leaves_none_of_its_tree() {
    let dir = tempfile::tempdir().unwrap();
    let child = tree(dir.path()).spawn().unwrap();
    let pids = tree_pids(dir.path());
    let guard = parent_of(child.pid());
    assert_eq!(pids[0], child.pid());
    assert!(pids.into_iter().all(alive));
    drop(child);
    assert!(!pids.into_iter().any(alive));
    assert!(!fs::exists(format!("/proc/{guard}")).unwrap(), "the guard is a zombie");
}

#[test]
fn what_the_main_process_leaves_behind_is_gone_when_wait_returns() {
    let dir = tempfile::tempdir().unwrap();
    let script = "setsid -f sh -c 'echo $$ > left; exec sleep 1000'
                  sleep 1000 & echo $! > member
                  until [ -s left ]; do :; done
                  exit 5";
    let child = sh(script).current_dir(dir.path()).spawn().unwrap();
    assert_eq!(child.wait(), Exit { code: Some(5), signal: None });
    assert!(!alive(pid_in(&dir.path().join("left"))));
    assert!(!alive(pid_in(&dir.path().join("member"))));
}

#[test]
fn a_grandchild_that_holds_stdout_does_not_delay_the_end() {
    let script = "sleep 1000 & setsid -f sleep 1000; echo done";
    let output = sh(script).output(Some(LONG)).unwrap();
    assert!(!output.timed_out);
    assert!(output.exit.success());
    assert_eq!(output.stdout, b"done\n");
}

#[test]
fn a_child_that_heeds_sigterm_is_not_killed() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap 'exit 7' TERM; echo $$ > main; sleep 1000 & wait";
    let child = sh(script).current_dir(dir.path()).spawn().unwrap();
    pid_in(&dir.path().join("main"));
    let start = Instant::now();
    assert_eq!(child.stop(Ladder { grace: LONG }), Exit { code: Some(7), signal: None });
    assert!(start.elapsed() < LONG);
}

#[test]
fn a_tree_that_ignores_sigterm_is_killed_when_the_grace_is_over_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap '' TERM
                  setsid -f sh -c 'echo $$ > left; exec sleep 1000'
                  sleep 1000 & echo $! > member
                  echo $$ > main
                  wait";
    let child = sh(script).current_dir(dir.path()).spawn().unwrap();
    let pids = tree_pids(dir.path());
    let grace = Duration::from_millis(200);
    let start = Instant::now();
    assert_eq!(child.stop(Ladder { grace }), KILLED);
    assert!(start.elapsed() >= grace);
    assert!(!pids.into_iter().any(alive));
}

#[test]
fn a_frozen_tree_can_be_killed() {
    let dir = tempfile::tempdir().unwrap();
    let child = tree(dir.path()).spawn().unwrap();
    let pids = tree_pids(dir.path());
    child.handle().signal(Signal::SIGSTOP);
    child.handle().kill();
    assert_eq!(child.wait(), KILLED);
    assert!(!pids.into_iter().any(alive));
}

#[test]
fn signal_main_spares_the_group_and_signal_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let script = "trap 'echo $$ > heard' USR1
                  sh -c 'echo $$ > member; exec sleep 1000' & member=$!
                  while kill -0 $member; do wait $member; done 2>/dev/null
                  exit 3";
    let child = sh(script).current_dir(dir.path()).spawn().unwrap();
    let member = pid_in(&dir.path().join("member"));
    child.handle().signal_main(Signal::SIGUSR1);
    pid_in(&dir.path().join("heard"));
    assert!(alive(member));
    child.handle().signal(Signal::SIGUSR1);
    assert_eq!(child.wait_timeout(LONG), Some(Exit { code: Some(3), signal: None }));
    assert!(!alive(member));
}

#[test]
fn one_thread_can_wait_while_another_kills() {
    let child = Spawn::new("sleep").arg("1000").spawn().unwrap();
    let handle = child.handle();
    thread::scope(|scope| {
        let waits = [(); 3].map(|()| scope.spawn(|| child.wait()));
        assert_eq!(child.wait_timeout(Duration::from_millis(20)), None);
        scope.spawn(move || handle.kill());
        for wait in waits {
            assert_eq!(wait.join().unwrap(), KILLED);
        }
    });
    assert_eq!(child.try_wait(), Some(KILLED));
    // Nothing is there to be hit, and nothing else is.
    child.handle().signal(Signal::SIGKILL);
    child.handle().kill();
}

#[test]
fn wait_timeout_gives_up_on_time_and_leaves_the_child_alone() {
    let child = Spawn::new("sleep").arg("1000").spawn().unwrap();
    let timeout = Duration::from_millis(50);
    let start = Instant::now();
    assert_eq!(child.wait_timeout(timeout), None);
    assert!(start.elapsed() >= timeout);
    assert_eq!(child.try_wait(), None);
    assert!(alive(child.pid()));
}

#[test]
fn a_killed_guard_takes_the_main_process_along_and_is_told_apart() {
    let child = Spawn::new("sleep").arg("1000").spawn().unwrap();
    kill(parent_of(child.pid()), Signal::SIGKILL);
    let exit = child.wait();
    assert!(exit.guard_lost(), "{exit}");
    assert!(!exit.success());
    eventually("the main process's end", || !alive(child.pid()));
}

#[test]
fn a_guard_holds_nothing_but_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let child = sh("exec sleep 1000").current_dir(dir.path()).stdout(Io::Pipe).spawn().unwrap();
    let guard = parent_of(child.pid());
    let proc = |name: &str| format!("/proc/{guard}/{name}");
    eventually("the guard has settled", || {
        fs::read(proc("comm")).unwrap() == b"rollout-guard\n"
            && fs::read_dir(proc("fd")).unwrap().count() == 1
    });
    assert!(fs::read_link(proc("fd/0")).unwrap().to_str().unwrap().starts_with("socket:"));
    assert_eq!(fs::read_link(proc("cwd")).unwrap().to_str(), Some("/"));
    // As much of the name as its parent's arguments leave room for.
    let command_line = fs::read_to_string(proc("cmdline")).unwrap();
    let name = command_line.trim_end_matches('\0');
    assert!("rollout-guard".starts_with(name) && !name.is_empty(), "{name}");
    let own = fs::read("/proc/self/cmdline").unwrap();
    assert!(!own.starts_with(b"rollout-guard"), "the guard wrote into its parent");
}
