//! Describing a child, and starting it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::child::Child;
use crate::exit::Exit;
use crate::guard;
use crate::watch::{Outputs, Stream};

/// Where one of a child's three standard streams leads.
#[derive(Debug)]
pub enum Io {
    /// `/dev/null`.
    Null,
    /// Where this process's own leads. A child may write to a terminal, but being in a group of
    /// its own it is stopped if it reads from one.
    Inherit,
    /// This file.
    File(File),
    /// A pipe to this process, for [`Child::watch`] or the `take` methods of [`Child`].
    Pipe,
}

impl From<Io> for Stdio {
    fn from(io: Io) -> Self {
        match io {
            Io::Null => Self::null(),
            Io::Inherit => Self::inherit(),
            Io::File(file) => file.into(),
            Io::Pipe => Self::piped(),
        }
    }
}

/// Why a child could not be started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program could not be executed.
    #[error("cannot start `{program}`: check that it exists and is executable")]
    Program {
        /// The program as given.
        program: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The directory to start it in is not one.
    #[error("cannot start `{program}` in {}: create that directory or name another", .dir.display())]
    Directory {
        /// The program as given.
        program: String,
        /// The directory as given.
        dir: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The system has no room for the child and its guard, or something killed the guard at once.
    #[error("cannot start `{program}`: check the limits on processes, memory and open files")]
    Resources {
        /// The program as given.
        program: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The thread that reads the child's output could not be started.
    #[error("cannot read the output of process {pid}: check the limit on threads")]
    Thread {
        /// The main process, killed by now.
        pid: i32,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// What a child wrote and how it ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// All it wrote to standard output.
    pub stdout: Vec<u8>,
    /// All it wrote to standard error, if that was a pipe.
    pub stderr: Vec<u8>,
    /// Whether it was killed because its time was over.
    pub timed_out: bool,
}

/// A child to be started: program, arguments, environment, directory, streams.
///
/// Standard input and output lead nowhere unless said otherwise; standard error is this process's
/// own, so that complaints are seen. The child starts with default signal handling, in a process
/// group of its own, and inherits no other open file.
#[derive(Debug)]
pub struct Spawn {
    command: Command,
    limits: Vec<(Resource, u64)>,
}

impl Spawn {
    /// A child that runs `program`, looked for on `PATH` if it is a plain name.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one place that starts processes"
        )]
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        Self { command, limits: Vec::new() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable on top of those inherited.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Leaves an environment variable out.
    #[must_use]
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Leaves out the whole environment, including what was set so far.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.command.env_clear();
        self
    }

    /// Sets the directory to start in.
    #[must_use]
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Limits what the child, and each process that it starts, may take of a resource; to what this
    /// process itself is limited to, if that is less. The guard is not limited.
    #[must_use]
    pub fn limit(mut self, resource: Resource, most: u64) -> Self {
        self.limits.push((resource, most));
        self
    }

    /// Sets where standard input leads.
    #[must_use]
    pub fn stdin(mut self, io: Io) -> Self {
        self.command.stdin(io);
        self
    }

    /// Sets where standard output leads.
    #[must_use]
    pub fn stdout(mut self, io: Io) -> Self {
        self.command.stdout(io);
        self
    }

    /// Sets where standard error leads.
    #[must_use]
    pub fn stderr(mut self, io: Io) -> Self {
        self.command.stderr(io);
        self
    }

    /// Starts the child. When this returns, the program is being executed.
    ///
    /// # Errors
    /// [`SpawnError`], if any step failed, up to and including the program's execution.
    pub fn spawn(mut self) -> Result<Child, SpawnError> {
        let program = self.command.get_program().display().to_string();
        let no_room = |source| SpawnError::Resources { program: program.clone(), source };
        let (mut ours, guards) = UnixStream::pair().map_err(no_room)?;
        let socket = guards.as_raw_fd();
        let arguments = argument_memory();
        // SAFETY: the closure runs between `fork` and `exec`, in the one thread there is then, and
        // the socket is open until after that. Only the guard, which has no use for it, overwrites
        // its copy of the argument vector.
        unsafe { self.command.pre_exec(move || guard::split(socket, arguments.clone())) };
        let limits = std::mem::take(&mut self.limits);
        // SAFETY: as above; only the main process returns from the split and comes here, and it makes
        // nothing but system calls.
        unsafe { self.command.pre_exec(move || set_limits(&limits)) };
        let mut guard = self.command.spawn().map_err(|source| self.why_not(&program, source))?;
        drop(guards);
        let mut pid = [0; 4];
        let told = ours.read_exact(&mut pid).and_then(|()| ours.set_nonblocking(true));
        if let Err(source) = told {
            // It was killed: it hangs up in no other way before it told the pid.
            drop(ours);
            let _ = guard.wait();
            return Err(no_room(source));
        }
        Ok(Child::new(i32::from_ne_bytes(pid), guard, ours))
    }

    fn why_not(&self, program: &str, source: io::Error) -> SpawnError {
        let program = program.to_owned();
        if let Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) =
            source.raw_os_error()
        {
            return SpawnError::Resources { program, source };
        }
        match self.command.get_current_dir() {
            // The system gives the same reason for a missing program and a missing directory.
            Some(dir) if !dir.is_dir() => {
                SpawnError::Directory { program, dir: dir.to_owned(), source }
            }
            _ => SpawnError::Program { program, source },
        }
    }

    /// Runs the child to its end and keeps all it writes to standard output, and to standard error
    /// if that is a pipe; for programs known to write little. After the deadline the tree is
    /// killed, and the output says so.
    ///
    /// # Errors
    /// [`SpawnError`], if it cannot be started.
    pub fn output(self, deadline: Option<Duration>) -> Result<Output, SpawnError> {
        let deadline = deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        let mut child = self.stdout(Io::Pipe).spawn()?;
        let mut outputs = Outputs::of(&mut child);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut keep = |stream, bytes: &[u8]| match stream {
            Stream::Stdout => stdout.extend_from_slice(bytes),
            Stream::Stderr => stderr.extend_from_slice(bytes),
        };
        let in_time = outputs.read(child.tree(), deadline, &mut keep);
        let exit = in_time.or_else(|| {
            child.tree().kill();
            outputs.read(child.tree(), None, &mut keep)
        });
        let timed_out = in_time.is_none();
        Ok(Output { exit: exit.unwrap_or(Exit::LOST), stdout, stderr, timed_out })
    }
}

/// Limits the calling process for good.
fn set_limits(limits: &[(Resource, u64)]) -> io::Result<()> {
    for (resource, most) in limits {
        let (_, hard) = getrlimit(*resource)?;
        let most = hard.min(*most);
        setrlimit(*resource, most, most)?;
    }
    Ok(())
}

/// Where this process's argument vector lies in its memory; empty where the system does not tell.
fn argument_memory() -> Range<usize> {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name, in parentheses, and may hold anything; the vector's two ends
    // are fields 48 and 49.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut ends = fields.split_whitespace().skip(45).map_while(|end| end.parse().ok());
    match (ends.next(), ends.next()) {
        (Some(start), Some(end)) if 0 < start && start < end => start..end,
        _ => 0..0,
    }
}
