//! What a child starts with, and what is left when it cannot start.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::getrlimit;
use nix::sys::signal::{SigSet, Signal};
use rollout_process::{Exit, Io, Resource, Spawn, SpawnError};

use crate::support::{Bare, LONG, sh};

fn stdout_of(spawn: Spawn) -> String {
    let output = spawn.output(Some(LONG)).unwrap();
    assert!(output.exit.success(), "{}", output.exit);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_exit_code_and_the_killing_signal_are_reported() {
    let exit = sh("exit 3").spawn().unwrap().wait();
    assert_eq!(exit, Exit { code: Some(3), signal: None });
    let exit = sh("kill -SEGV $$").spawn().unwrap().wait();
    assert_eq!(exit, Exit { code: None, signal: Some(11) });
}

#[test]
fn a_missing_program_is_named() {
    let error = Spawn::new("no-such-program").arg("x").spawn().unwrap_err();
    assert!(matches!(&error, SpawnError::Program { program, .. } if program == "no-such-program"));
    let error = Spawn::new("/etc/passwd").spawn().unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot start `/etc/passwd`: check that it exists and is executable"
    );
}

#[test]
fn a_missing_directory_is_blamed_rather_than_the_program() {
    let error = Spawn::new("true").current_dir("/no/such/dir").spawn().unwrap_err();
    assert!(matches!(&error, SpawnError::Directory { .. }));
    assert_eq!(
        error.to_string(),
        "cannot start `true` in /no/such/dir: create that directory or name another"
    );
}

#[test]
fn the_environment_and_the_directory_are_the_ones_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let spawn = Spawn::new("/usr/bin/env").env("LOST", "1").env_clear().env("KEPT", "2");
    assert_eq!(stdout_of(spawn.env("REMOVED", "3").env_remove("REMOVED")), "KEPT=2\n");
    assert_eq!(stdout_of(sh("pwd -P").current_dir(&dir)).trim_end(), dir.to_str().unwrap());
}

#[test]
fn the_streams_lead_where_asked() {
    let mut file = tempfile::tempfile().unwrap();
    let mut child = Spawn::new("cat")
        .stdin(Io::Pipe)
        .stdout(Io::File(file.try_clone().unwrap()))
        .stderr(Io::Null)
        .spawn()
        .unwrap();
    File::from(child.take_stdin().unwrap()).write_all(b"through").unwrap();
    assert!(child.take_stdin().is_none() && child.take_stdout().is_none());
    assert!(child.wait().success());
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
}

#[test]
fn a_child_reads_nothing_unless_told_otherwise() {
    let child = Spawn::new("cat").spawn().unwrap();
    assert_eq!(child.wait_timeout(LONG), Some(Exit { code: Some(0), signal: None }));
}

#[test]
fn a_child_inherits_no_file_but_its_three_streams() {
    let file = tempfile::tempfile().unwrap();
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    assert_eq!(stdout_of(sh("ls /proc/$$/fd; :")), "0\n1\n2\n");
}

#[test]
fn a_child_starts_with_no_signal_blocked_or_ignored() {
    let signals = thread::spawn(|| {
        SigSet::all().thread_block().unwrap();
        stdout_of(Spawn::new("grep").args(["-E", "^Sig(Blk|Ign)", "/proc/self/status"]))
    });
    // Two signals belong to the C library, which does not let them be changed.
    let ours = !(0b11 << 31);
    for line in signals.join().unwrap().lines() {
        let (_, set) = line.split_once('\t').unwrap();
        assert_eq!(u64::from_str_radix(set, 16).unwrap() & ours, 0, "{line}");
    }
}

#[test]
fn a_child_has_the_limits_it_is_given_and_its_guard_does_not() {
    let limits = |pid: &str| format!("grep 'open files' /proc/{pid}/limits");
    let script = format!("{}; {}", limits("$$"), limits("$PPID"));
    let own = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let told = stdout_of(sh(&script).limit(Resource::RLIMIT_NOFILE, 77));
    let told: Vec<Vec<&str>> =
        told.lines().map(|line| line.split_whitespace().skip(3).take(2).collect()).collect();
    let own = [own.0, own.1].map(|limit| limit.to_string());
    assert_eq!(told, [["77", "77"], [own[0].as_str(), own[1].as_str()]]);
    // More than this process may have is as much as it may have.
    let most = stdout_of(sh("ulimit -Hn; ulimit -Sn").limit(Resource::RLIMIT_NOFILE, u64::MAX - 1));
    assert_eq!(most, format!("{0}\n{0}\n", own[1]));
}

#[test]
fn a_child_leads_a_group_of_its_own() {
    let child = Spawn::new("sleep").arg("1000").spawn().unwrap();
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(child.pid()))).unwrap();
    assert_eq!(group.as_raw(), child.pid());
}

#[test]
fn output_is_cut_off_at_its_deadline_and_keeps_what_came() {
    let deadline = Duration::from_millis(200);
    let start = Instant::now();
    let script = "echo early; echo bad >&2; exec sleep 1000";
    let output = sh(script).stderr(Io::Pipe).output(Some(deadline)).unwrap();
    assert!(start.elapsed() >= deadline);
    assert!(output.timed_out && !output.exit.success());
    assert_eq!(output.exit.signal, Some(Signal::SIGKILL as i32));
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"early\n"[..], &b"bad\n"[..])
    );
}

#[test]
fn output_is_complete_however_much_it_is() {
    let output = sh("head -c 5000000 /dev/zero").output(Some(LONG)).unwrap();
    assert_eq!(output.stdout.len(), 5_000_000);
    assert!(!output.timed_out);
}

#[test]
fn a_hundred_children_at_once_leave_no_zombie_and_no_open_file() {
    // In a process of its own: other tests open files, too.
    let dir = tempfile::tempdir().unwrap();
    let mut crowd = Bare::role("crowd", dir.path());
    assert!(crowd.wait().success());
}

/// The other side of the test above.
pub(crate) fn crowd() {
    let entries = |path: &str| fs::read_dir(path).unwrap().count();
    let before = entries("/proc/self/fd");
    let spawn = |index: usize| match index % 4 {
        0 => assert!(Spawn::new("true").spawn().unwrap().wait().success()),
        1 => drop(sh("sleep 1000 & wait").stdout(Io::Pipe).spawn().unwrap()),
        2 => assert!(Spawn::new("no-such-program").spawn().is_err()),
        _ => assert_eq!(sh("echo $$").output(None).unwrap().exit.code, Some(0)),
    };
    thread::scope(|scope| {
        for index in 0..100 {
            scope.spawn(move || spawn(index));
        }
    });
    assert_eq!(entries("/proc/self/fd"), before);
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = threads.map(|it| fs::read_to_string(it.path().join("children")).unwrap());
    assert_eq!(children.collect::<String>(), "");
}

#[test]
fn a_program_started_and_ended_again_is_measured_for_the_record() {
    const ROUNDS: u32 = 50;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        assert!(Spawn::new("true").spawn().unwrap().wait().success());
    }
    println!("spawn to exit: {:?}", start.elapsed() / ROUNDS);
}
