//! Waiting for descriptors, with a deadline.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::libc;

/// Sleeps until at least one of `fds` can be read without blocking, be it its end, or until the
/// deadline. Tells which can; an absent one never can.
pub(crate) fn readable<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    deadline: Option<Instant>,
) -> [bool; N] {
    // `poll` skips a negative descriptor.
    let mut polled = fds.map(|fd| libc::pollfd {
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    });
    let timeout = deadline.map_or(-1, |deadline| whole_ms(deadline - Instant::now()));
    // SAFETY: the array is a local of exactly that length, and the descriptors are borrowed.
    // A failure, such as a signal's, leaves `revents` at 0: nothing is ready, and the caller looks
    // at its deadline again.
    unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, timeout) };
    polled.map(|fd| fd.revents != 0)
}

/// Rounded up: rounded down, the last millisecond would be waited for in a busy loop.
fn whole_ms(time: Duration) -> i32 {
    time.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(i32::MAX)
}
