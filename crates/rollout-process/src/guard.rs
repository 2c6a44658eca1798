//! The guard: a small process between a parent and the main process of a tree.
//!
//! It is forked, never executed, so everything here runs in a process that has one thread and must
//! not take a lock or allocate: plain system calls on values of its own stack.
//!
//! Its line to the parent is a stream socket. Upwards go four bytes of the main process's pid and,
//! once that ended, four bytes of its raw wait status. Downwards go signals, one byte each. The
//! end of that stream, however it comes about, means: kill the tree.

use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::RawFd;
use std::ptr;

use nix::libc::{self, c_int, c_long, pid_t};

/// Set in a command for a signal to the main process's whole group; clear for that process alone.
pub(crate) const WHOLE_GROUP: u8 = 0x80;

/// The guard moves its end of the socket here, where any `fd_set` has room for it.
const SOCKET: RawFd = 0;

/// One above the highest signal number of any system; those a system lacks are refused by it.
const SIGNALS: c_int = 65;

/// How often a tree being killed is looked at again if no child's end wakes the guard: a process
/// may be adopted just after the children were listed. In nanoseconds.
const RELIST: c_long = 10_000_000;

/// Splits the calling process into the guard, which never returns, and the main process, which
/// returns to be executed. `arguments` is where the calling process's argument vector lies in
/// memory, as the kernel tells it; empty where unknown.
///
/// # Errors
/// The system's, if it cannot fork.
///
/// # Safety
/// Call it only between `fork` and `exec`, in a process of one thread.
pub(crate) unsafe fn split(socket: RawFd, arguments: Range<usize>) -> io::Result<()> {
    // SAFETY: plain system calls. A fork is sound here because the process has one thread, and
    // both sides of it go on to make nothing but system calls.
    unsafe {
        let guard = libc::getpid();
        libc::sigprocmask(libc::SIG_SETMASK, &every_signal(), ptr::null_mut());
        libc::setpgid(0, 0);
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                become_main(guard);
                Ok(())
            }
            main => {
                settle(socket, arguments);
                serve(main)
            }
        }
    }
}

/// Turns the inner process into what a program expects to start as: a group of its own, default
/// signals, nothing open beyond 0, 1 and 2 after `exec`, and an end that follows the guard's.
///
/// # Safety
/// As for [`split`].
unsafe fn become_main(guard: pid_t) {
    // SAFETY: plain system calls with pointers to locals.
    unsafe {
        libc::setpgid(0, 0);
        // The guard has one thread, so its death and that thread's are the same. If it died before
        // the request was in place, nobody will deliver it.
        #[cfg(target_os = "linux")]
        {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != guard {
                libc::_exit(1);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = guard;
        close_at_exec_from(3);
        for signal in 1..SIGNALS {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none = mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
    }
}

/// Gives up all that the guard inherited and does not need: descriptors, among them the pipes
/// whose end others wait for, the working directory, the name.
///
/// # Safety
/// As for [`split`]; `arguments` must be writable memory that nothing refers to any more.
unsafe fn settle(socket: RawFd, arguments: Range<usize>) {
    // SAFETY: plain system calls; the caller vouches for `arguments`.
    unsafe {
        libc::dup2(socket, SOCKET);
        close_from(SOCKET + 1);
        libc::chdir(c"/".as_ptr());
        // Listed under the parent's command line, the guard would be mistaken for the parent, and
        // killed with it by whoever kills processes by that.
        let name = c"rollout-guard";
        if !arguments.is_empty() {
            let start = arguments.start as *mut u8;
            ptr::write_bytes(start, 0, arguments.len());
            let length = name.count_bytes().min(arguments.len() - 1);
            ptr::copy_nonoverlapping(name.as_ptr().cast(), start, length);
        }
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        // Only a signal with a handler interrupts `pselect`.
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = on_child as extern "C" fn(c_int) as usize;
        action.sa_flags = libc::SA_NOCLDSTOP;
        libc::sigaction(libc::SIGCHLD, &action, ptr::null_mut());
    }
}

extern "C" fn on_child(_: c_int) {}

/// Passes signals down until the main process ends or the parent hangs up.
fn serve(main: pid_t) -> ! {
    tell(main);
    while !has_ended(main) {
        if !wait(true) {
            continue;
        }
        let mut command = 0u8;
        // SAFETY: reads one byte into a local.
        let count = unsafe { libc::read(SOCKET, ptr::from_mut(&mut command).cast(), 1) };
        if count != 1 {
            break;
        }
        let signal = c_int::from(command & !WHOLE_GROUP);
        let target = if command & WHOLE_GROUP == 0 { main } else { -main };
        kill(target, signal);
    }
    finish(main)
}

/// Whether the main process ended. It is left unreaped, so that its pid and its group's stay its
/// own; any adopted process that ended is reaped.
fn has_ended(main: pid_t) -> bool {
    loop {
        // SAFETY: `siginfo_t` may be all zeros, which is also what says that no child has ended;
        // the kernel fills in the pid otherwise.
        let (failed, pid) = unsafe {
            let mut info: libc::siginfo_t = mem::zeroed();
            let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            (libc::waitid(libc::P_ALL, 0, &mut info, options) != 0, info.si_pid())
        };
        if failed || pid == main {
            return true;
        }
        if pid == 0 {
            return false;
        }
        // SAFETY: reaps a child that has ended; a null status is allowed.
        unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    }
}

/// Kills and reaps the whole tree, reports how the main process ended, and exits with 0 to say
/// that nothing is left.
fn finish(main: pid_t) -> ! {
    // Before the main process is reaped: until then the group's number cannot be another's.
    kill(-main, libc::SIGKILL);
    kill(main, libc::SIGKILL);
    loop {
        let mut status = 0;
        // SAFETY: writes the status into a local.
        match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
            // SAFETY: ends the process without running anything of it.
            -1 => unsafe { libc::_exit(0) },
            0 => {
                kill_children();
                wait(false);
            }
            pid if pid == main => tell(status),
            _ => {}
        }
    }
}

/// Sends SIGKILL to every child: those that the group's signal did not reach because they left the
/// group, and were adopted when their parent died.
#[cfg(target_os = "linux")]
fn kill_children() {
    // SAFETY: opens, reads into a local buffer and closes; the path is a C string.
    unsafe {
        let list = libc::open(c"/proc/thread-self/children".as_ptr(), libc::O_RDONLY);
        if list < 0 {
            return kill_children_unlisted();
        }
        let mut pid: pid_t = 0;
        let mut text = [0u8; 512];
        loop {
            let count = libc::read(list, text.as_mut_ptr().cast(), text.len());
            let Ok(count @ 1..) = usize::try_from(count) else { break };
            for byte in text.iter().take(count) {
                // Each pid is followed by a space.
                if byte.is_ascii_digit() {
                    pid = pid.wrapping_mul(10).wrapping_add(pid_t::from(byte - b'0'));
                } else {
                    kill(mem::take(&mut pid), libc::SIGKILL);
                }
            }
        }
        libc::close(list);
    }
}

/// Only Linux lets a process adopt its descendants: elsewhere the one child is the main process.
#[cfg(not(target_os = "linux"))]
fn kill_children() {}

/// [`kill_children`] without the kernel's list, which needs `/proc` and a build option: tries every
/// pid there can be, in about a second.
#[cfg(target_os = "linux")]
fn kill_children_unlisted() {
    const PID_LIMIT: pid_t = 1 << 22;
    for pid in 2..PID_LIMIT {
        // SAFETY: `siginfo_t` may be all zeros; the call succeeds for children alone and, with
        // these options, changes nothing.
        let is_child = unsafe {
            let mut info: libc::siginfo_t = mem::zeroed();
            let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            libc::waitid(libc::P_PID, pid.cast_unsigned(), &mut info, options) == 0
        };
        if is_child {
            kill(pid, libc::SIGKILL);
        }
    }
}

/// Sleeps until a child ends or, if `listening`, the parent said something, and tells whether it
/// did. When not listening it also wakes in time to list the children again.
fn wait(listening: bool) -> bool {
    let relist = libc::timespec { tv_sec: 0, tv_nsec: RELIST };
    let timeout = if listening { ptr::null() } else { &raw const relist };
    // SAFETY: the sets are locals, and SOCKET is below FD_SETSIZE. SIGCHLD is blocked at all other
    // times, so that a child's end between the last look and this sleep is not missed.
    unsafe {
        let mut mask = every_signal();
        libc::sigdelset(&mut mask, libc::SIGCHLD);
        let mut readable: libc::fd_set = mem::zeroed();
        if listening {
            libc::FD_SET(SOCKET, &mut readable);
        }
        let none = ptr::null_mut();
        libc::pselect(SOCKET + 1, &mut readable, none, none, timeout, &mask) == 1
    }
}

/// Sends four bytes to the parent. If it is gone nobody wants them.
fn tell(number: c_int) {
    let bytes = number.to_ne_bytes();
    // SAFETY: writes from a local; SIGPIPE is blocked.
    unsafe { libc::write(SOCKET, bytes.as_ptr().cast(), bytes.len()) };
}

/// Signals a process or, if negative, a group. That it is gone already is no failure here.
fn kill(target: pid_t, signal: c_int) {
    // Zero would be the guard's own group, and -1 every process there is.
    if !(-1..=1).contains(&target) {
        // SAFETY: a plain system call.
        unsafe { libc::kill(target, signal) };
    }
}

fn every_signal() -> libc::sigset_t {
    // SAFETY: the call initialises the set.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigfillset(&mut set);
        set
    }
}

/// Closes every descriptor from `first` on.
///
/// # Safety
/// Nothing may use them any more.
unsafe fn close_from(first: RawFd) {
    // SAFETY: plain system calls; the caller vouches for the descriptors.
    unsafe {
        #[cfg(target_os = "linux")]
        if libc::syscall(libc::SYS_close_range, first, c_int::MAX, 0) == 0 {
            return;
        }
        for fd in first..descriptor_limit() {
            libc::close(fd);
        }
    }
}

/// Makes `exec` close every descriptor from `first` on.
fn close_at_exec_from(first: RawFd) {
    // SAFETY: plain system calls that close nothing.
    unsafe {
        #[cfg(target_os = "linux")]
        if libc::syscall(libc::SYS_close_range, first, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC) == 0 {
            return;
        }
        for fd in first..descriptor_limit() {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

/// The number below which descriptors are looked for one by one, on systems that cannot close a
/// range. An unlimited process would be at it for minutes, so there is a limit to the limit.
fn descriptor_limit() -> RawFd {
    const MOST: RawFd = 1 << 16;
    // SAFETY: writes the limit into a local.
    let limit = unsafe {
        let mut limit: libc::rlimit = mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur
    };
    RawFd::try_from(limit).map_or(MOST, |limit| limit.min(MOST))
}
