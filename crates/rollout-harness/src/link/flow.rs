//! One direction of a connection: what was read, when it may be passed on, and its end.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

/// How many bytes a direction holds before its sender has to wait.
pub(super) const HELD: usize = 256 * 1024;

/// Bytes on their way.
#[derive(Debug, Default)]
pub(super) struct Flow {
    queue: VecDeque<(Instant, Vec<u8>)>,
    held: usize,
    end: End,
    /// The receiver takes no more for now.
    blocked: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum End {
    /// More may come.
    #[default]
    Ahead,
    /// The sender has sent its last, to be passed on at this instant.
    Seen(Instant),
    /// The receiver knows.
    Passed,
    /// A side has reset its connection.
    Broken,
}

impl Flow {
    /// Reads what there is, as far as there is room, to be passed on at `due`.
    pub(super) fn read(&mut self, mut from: &TcpStream, due: Instant) {
        while self.can_read() {
            let mut bytes = vec![0; 16 * 1024];
            match from.read(&mut bytes) {
                Ok(0) => self.end = End::Seen(due),
                Ok(n) => {
                    bytes.truncate(n);
                    self.held += n;
                    self.queue.push_back((due, bytes));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.end = End::Broken,
            }
        }
    }

    /// Writes what is due, as far as the receiver takes it.
    pub(super) fn write(&mut self, mut to: &TcpStream, now: Instant) {
        self.blocked = false;
        while let Some((_, bytes)) = self.queue.front_mut().filter(|(due, _)| *due <= now) {
            match to.write(bytes) {
                Ok(n) => {
                    self.held -= n;
                    bytes.drain(..n);
                    if bytes.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return;
                }
                Err(_) => {
                    self.end = End::Broken;
                    return;
                }
            }
        }
        if let End::Seen(due) = self.end
            && self.queue.is_empty()
            && due <= now
        {
            // A receiver that has reset meanwhile is noticed when it is next written to or read.
            let _ = to.shutdown(Shutdown::Write);
            self.end = End::Passed;
        }
    }

    pub(super) fn can_read(&self) -> bool {
        self.end == End::Ahead && self.held < HELD
    }

    pub(super) const fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(super) fn is_open(&self) -> bool {
        self.end == End::Ahead
    }

    pub(super) fn is_over(&self) -> bool {
        self.end == End::Passed
    }

    pub(super) fn is_broken(&self) -> bool {
        self.end == End::Broken
    }

    /// The instant at which there is something to pass on.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.blocked {
            return None;
        }
        match (self.queue.front(), self.end) {
            (Some((due, _)), _) => Some(*due),
            (None, End::Seen(due)) => Some(due),
            _ => None,
        }
    }
}
