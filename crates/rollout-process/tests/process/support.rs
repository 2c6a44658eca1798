//! Trees to kill, ways to look at them, and this test program run again in another role.

use std::fs;
#[cfg(target_os = "linux")]
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use rollout_process::Spawn;

/// Longer than anything here takes: reached only when a test fails.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Names the role, and tells the program that it has one.
const ROLE: &str = "ROLLOUT_PROCESS_TEST_ROLE";
/// The directory in which a role leaves its traces.
const DIR: &str = "ROLLOUT_PROCESS_TEST_DIR";

pub(crate) fn sh(script: &str) -> Spawn {
    Spawn::new("sh").arg("-c").arg(script)
}

/// A main process with a child in its group and a descendant that left the group and lost its
/// parent. Each writes its pid into `dir`.
pub(crate) fn tree(dir: &Path) -> Spawn {
    let script = "setsid -f sh -c 'echo $$ > left; exec sleep 1000'
                  sleep 1000 & echo $! > member
                  echo $$ > main
                  wait";
    sh(script).current_dir(dir)
}

/// The pids of a [`tree`], once all have been written.
pub(crate) fn tree_pids(dir: &Path) -> [i32; 3] {
    ["main", "member", "left"].map(|name| pid_in(&dir.join(name)))
}

pub(crate) fn pid_in(path: &Path) -> i32 {
    let mut text = String::new();
    eventually(&format!("a pid in {}", path.display()), || {
        text = fs::read_to_string(path).unwrap_or_default();
        text.ends_with('\n')
    });
    text.trim().parse().unwrap()
}

/// Waits for a condition.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "never came: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process is there and not a zombie.
pub(crate) fn alive(pid: i32) -> bool {
    signal::kill(Pid::from_raw(pid), None).is_ok() && state(pid) != Some('Z')
}

fn state(pid: i32) -> Option<char> {
    stat_field(pid, 0)?.chars().next()
}

pub(crate) fn parent_of(pid: i32) -> i32 {
    stat_field(pid, 1).unwrap().parse().unwrap()
}

/// A field of a process's `stat`, counted from the one after its name.
fn stat_field(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(index).map(str::to_owned)
}

pub(crate) fn kill(pid: i32, signal: Signal) {
    signal::kill(Pid::from_raw(pid), signal).unwrap();
}

/// A process without a guard, so that a role's end is seen by the guards below it alone. Killed
/// when dropped, and on Linux when the test's thread is no more.
pub(crate) struct Bare(process::Child);

impl Bare {
    pub(crate) fn start(mut command: process::Command) -> Self {
        // SAFETY: a plain system call between `fork` and `exec`.
        #[cfg(target_os = "linux")]
        unsafe {
            command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
        }
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    /// This program in one of the roles of [`play_a_role`].
    pub(crate) fn role(role: &str, dir: &Path) -> Self {
        Self::start(role_command(role, dir))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    pub(crate) fn wait(&mut self) -> process::ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a process that must not have a guard")]
pub(crate) fn bare_command(program: impl AsRef<std::ffi::OsStr>) -> process::Command {
    process::Command::new(program)
}

pub(crate) fn role_command(role: &str, dir: &Path) -> process::Command {
    let mut command = bare_command(std::env::current_exe().unwrap());
    command.args(["--exact", "support::play_a_role", "--nocapture"]).env(ROLE, role).env(DIR, dir);
    command
}

/// Not a claim: what this program does when a test runs it again as another process.
#[test]
fn play_a_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = std::env::var_os(DIR).unwrap();
    let dir = Path::new(&dir);
    match role.as_str() {
        "parent" => crate::parent_death::parent(dir),
        "grandparent" => crate::parent_death::grandparent(dir),
        "interrupted" => crate::parent_death::interrupted(dir),
        "crowd" => crate::spawn::crowd(),
        _ => panic!("no role {role}"),
    }
}

/// A [`Spawn`] of this program in a role.
pub(crate) fn role_spawn(role: &str, dir: &Path) -> Spawn {
    let command = role_command(role, dir);
    Spawn::new(command.get_program()).args(command.get_args()).env(ROLE, role).env(DIR, dir)
}
