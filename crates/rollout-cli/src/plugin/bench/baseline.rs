//! What the boundary costs without a plugin: bytes through a socket and back, a call through a
//! pointer.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use rollout_core::{Clock, SystemClock};
use rollout_process::{Io, Spawn};

use super::measured::Taken;

/// Calls through a pointer are timed in batches.
const BATCH: u32 = 1_000;

/// Messages of so many bytes to a thread that sends them back, with so many on their way. Blocking reads
/// and writes, one each a message.
pub(super) fn socket(message: usize, in_flight: usize, time: Duration) -> io::Result<Taken> {
    let (near, far) = UnixStream::pair()?;
    thread::scope(|scope| {
        scope.spawn(|| send_back(&far, message));
        let taken = ping(&near, message, in_flight, time);
        // Whatever has happened, the other side's read ends now.
        let closed = near.shutdown(Shutdown::Both);
        taken.and_then(|taken| closed.map(|()| taken))
    })
}

/// What a Python process is given to do with the socket that is its standard input.
const SEND_BACK: &str = "
import socket, sys
far, size = socket.socket(fileno=0), int(sys.argv[1])
while message := far.recv(size, socket.MSG_WAITALL):
    far.sendall(message)
";

/// As `socket`, with a process of this interpreter that sends back: what a sidecar in Python would take
/// without frames, JSON and an SDK.
pub(super) fn python(
    program: &str,
    message: usize,
    in_flight: usize,
    time: Duration,
) -> io::Result<Taken> {
    let (near, far) = UnixStream::pair()?;
    let far = Io::File(OwnedFd::from(far).into());
    let size = message.to_string();
    let spawn = Spawn::new(program).args(["-S", "-c", SEND_BACK, &size]).stdin(far);
    let child = spawn.spawn().map_err(io::Error::other)?;
    // Its start is not counted.
    ping(&near, message, 1, Duration::ZERO)?;
    let taken = ping(&near, message, in_flight, time);
    drop(near);
    child.wait();
    taken
}

fn send_back(mut far: &UnixStream, message: usize) {
    let mut message = vec![0; message];
    while far.read_exact(&mut message).is_ok() {
        if far.write_all(&message).is_err() {
            return;
        }
    }
}

fn ping(
    mut near: &UnixStream,
    message: usize,
    in_flight: usize,
    time: Duration,
) -> io::Result<Taken> {
    let mut message = vec![7; message];
    let start = SystemClock.now();
    let end = start + time;
    let mut sent = VecDeque::with_capacity(in_flight);
    let mut each = Vec::new();
    loop {
        let now = SystemClock.now();
        while now <= end && sent.len() < in_flight {
            sent.push_back(SystemClock.now());
            near.write_all(&message)?;
        }
        let Some(since) = sent.pop_front() else { break };
        near.read_exact(&mut message)?;
        each.push(SystemClock.now().since(since));
    }
    Ok(Taken { calls: each.len(), each, time: SystemClock.now().since(start) })
}

/// Calls of a function that the compiler cannot see through.
pub(super) fn function(time: Duration) -> Taken {
    let call: fn(&[u8]) -> usize = black_box(<[u8]>::len);
    let start = SystemClock.now();
    let end = start + time;
    let mut taken = Taken::default();
    loop {
        let since = SystemClock.now();
        if since > end {
            break;
        }
        for _ in 0..BATCH {
            black_box(call(black_box(&[7; 64])));
        }
        taken.each.push(SystemClock.now().since(since) / BATCH);
        taken.calls += BATCH as usize;
    }
    taken.time = SystemClock.now().since(start);
    taken
}
