//! The way between a worker and the coordinator as something that breaks: a TCP proxy on a free
//! local port that passes everything on, until it is told to cut, to swallow or to delay.
//!
//! One thread serves all connections of a link and is joined when the link is dropped. Memory is
//! bounded: a direction holds at most 256 KiB, then its sender has to wait.

mod flow;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use flow::Flow;

/// Open connections at once; the system's queue holds further ones.
const PAIRS: usize = 256;
/// How long the coordinator's side may take to take a connection.
const CONNECT: Duration = Duration::from_millis(500);
/// How long to wait when the system has no room for another connection.
const NO_ROOM: Duration = Duration::from_millis(10);

/// What a link does with what is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Condition {
    /// It passes everything on.
    #[default]
    Pass,
    /// Open connections are reset, and each new one as soon as it is there: the port stays the
    /// link's own, so it cannot be refused by having no listener.
    Cut,
    /// Connections stay and are taken, and nothing passes, not even their end. What was sent
    /// meanwhile arrives after all when the link heals, as TCP would have it; a connection that was
    /// made and given up inside the hole leaves no trace.
    BlackHole,
    /// Everything passes late by this much, in each direction.
    Delay(Duration),
}

/// An order to the link's thread, and whom to tell that it is carried out.
type Order = (Condition, SyncSender<()>);

/// A proxy in front of the coordinator.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    orders: Option<Sender<Order>>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// A link that passes to `target`, whoever listens there at the time.
    ///
    /// # Errors
    /// When the system gives no port or no thread.
    pub fn to(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let (orders, queue) = channel();
        let condition = Condition::Pass;
        let proxy = Proxy { listener, target, condition, pairs: Vec::new(), orders: queue, woken };
        let thread = thread::Builder::new().name("link".into()).spawn(move || proxy.serve())?;
        Ok(Self { address, orders: Some(orders), wake, thread: Some(thread) })
    }

    /// Where the worker is to connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Brings the link into `condition`; when this returns, it is.
    pub fn set(&self, condition: Condition) {
        let (done, carried_out) = sync_channel(1);
        if let Some(orders) = &self.orders
            && orders.send((condition, done)).is_ok()
            && (&self.wake).write_all(&[0]).is_ok()
        {
            // Without an answer the thread is gone, and its connections with it.
            let _ = carried_out.recv();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.orders = None;
        // The thread is not there to be woken if this fails.
        let _ = (&self.wake).write_all(&[0]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the link's thread owns.
struct Proxy {
    listener: TcpListener,
    target: SocketAddr,
    condition: Condition,
    pairs: Vec<Pair>,
    orders: Receiver<Order>,
    woken: UnixStream,
}

impl Proxy {
    fn serve(mut self) {
        while self.obey() {
            self.accept();
            let (condition, now) = (self.condition, Instant::now());
            self.pairs.retain_mut(|pair| pair.advance(condition, now));
            self.sleep();
        }
    }

    /// Carries the waiting orders out; whether there can be any more.
    fn obey(&mut self) -> bool {
        let mut bytes = [0; 64];
        while matches!((&self.woken).read(&mut bytes), Ok(n) if n > 0) {}
        loop {
            let (condition, done) = match self.orders.try_recv() {
                Ok(order) => order,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            };
            self.condition = condition;
            match condition {
                Condition::Cut => self.pairs.drain(..).for_each(Pair::reset),
                Condition::BlackHole => {}
                Condition::Pass | Condition::Delay(_) => self.connect_waiting(),
            }
            // Whoever ordered it may have gone.
            let _ = done.send(());
        }
    }

    /// Gives those that came while nothing passed their other end, unless they have left again.
    fn connect_waiting(&mut self) {
        let target = self.target;
        for pair in std::mem::take(&mut self.pairs) {
            if pair.server.is_some() {
                self.pairs.push(pair);
            } else if pair.up.is_open() {
                self.pairs.extend(pair.connect(target));
            } else {
                pair.reset();
            }
        }
    }

    fn accept(&mut self) {
        while self.pairs.len() < PAIRS {
            let client = match self.listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                // Descriptors or memory: there is nothing to wait for that would tell.
                Err(_) => return thread::sleep(NO_ROOM),
            };
            let pair = Pair { client, server: None, up: Flow::default(), down: Flow::default() };
            match self.condition {
                Condition::Cut => pair.reset(),
                Condition::BlackHole => self.pairs.extend(pair.ready()),
                Condition::Pass | Condition::Delay(_) => {
                    self.pairs.extend(pair.ready().and_then(|pair| pair.connect(self.target)));
                }
            }
        }
    }

    /// Sleeps until there is something to do: an order, a connection, bytes, or a time.
    fn sleep(&self) {
        let mut fds = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        if self.pairs.len() < PAIRS {
            fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        }
        let wanted = self.pairs.iter().flat_map(|pair| pair.wanted(self.condition));
        fds.extend(wanted.map(|(fd, flags)| PollFd::new(fd, flags)));
        let next = match self.condition {
            Condition::BlackHole => None,
            _ => self.pairs.iter().filter_map(Pair::next).min(),
        };
        let timeout = next.map_or(PollTimeout::NONE, |at| {
            let ms = at.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
            PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
        });
        // A failure is a signal's; the loop looks at everything again.
        let _ = poll(&mut fds, timeout);
    }
}

/// A worker's connection and the one to the coordinator that belongs to it.
struct Pair {
    client: TcpStream,
    /// None while nothing passes that could have made it.
    server: Option<TcpStream>,
    up: Flow,
    down: Flow,
}

impl Pair {
    /// Ready to be served, unless it has gone already.
    fn ready(self) -> Option<Self> {
        (self.client.set_nonblocking(true)).and_then(|()| self.client.set_nodelay(true)).ok()?;
        Some(self)
    }

    /// With its other end; a coordinator that does not listen refuses it.
    fn connect(mut self, target: SocketAddr) -> Option<Self> {
        let server = TcpStream::connect_timeout(&target, CONNECT).and_then(|server| {
            server.set_nonblocking(true)?;
            server.set_nodelay(true)?;
            Ok(server)
        });
        if let Ok(server) = server {
            self.server = Some(server);
            return Some(self);
        }
        self.reset();
        None
    }

    /// Ends both connections so that the other sides see a reset, not an end.
    fn reset(self) {
        self.to_be_reset();
    }

    /// Makes both connections end with a reset when they are dropped.
    fn to_be_reset(&self) {
        for stream in [Some(&self.client), self.server.as_ref()].into_iter().flatten() {
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            // Of a connection that is gone there is nothing to reset.
            let _ = setsockopt(stream, sockopt::Linger, &at_once);
        }
    }

    /// Reads what there is and writes what is due; whether the pair lives on.
    fn advance(&mut self, condition: Condition, now: Instant) -> bool {
        let delay = if let Condition::Delay(by) = condition { by } else { Duration::ZERO };
        self.up.read(&self.client, now + delay);
        if let Some(server) = &self.server {
            self.down.read(server, now + delay);
        }
        let Some(server) = self.server.as_ref().filter(|_| condition != Condition::BlackHole)
        else {
            return true;
        };
        self.up.write(server, now);
        self.down.write(&self.client, now);
        if self.up.is_broken() || self.down.is_broken() {
            self.to_be_reset();
            return false;
        }
        !(self.up.is_over() && self.down.is_over())
    }

    /// What the pair waits for.
    fn wanted(&self, condition: Condition) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let passes = condition != Condition::BlackHole;
        let flags = |reads: &Flow, writes: &Flow| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, reads.can_read());
            flags.set(PollFlags::POLLOUT, passes && writes.is_blocked());
            flags
        };
        let client = (self.client.as_fd(), flags(&self.up, &self.down));
        let server = self.server.as_ref().map(|s| (s.as_fd(), flags(&self.down, &self.up)));
        // Asked for nothing, the system would still tell of an end that was seen long ago.
        [Some(client), server].into_iter().flatten().filter(|(_, flags)| !flags.is_empty())
    }

    fn next(&self) -> Option<Instant> {
        [self.up.next(), self.down.next()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
