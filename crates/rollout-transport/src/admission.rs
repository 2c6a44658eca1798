//! From an accepted socket to a proven peer.
//!
//! Who has not proven an identity can hold a place among the handshakes only, and that briefly when
//! others wait; who has can hold a few connections. Neither can keep the rest of a fleet out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::server::TlsStream;

use crate::connection::Connection;
use crate::crowd::{Crowd, Entry, Seat, Seats};
use crate::doormen::{Door, Queue};
use crate::identity::Identity;
use crate::server::{Handler, RefusalKind, Shared};
use crate::verify::{Unproven, explain, identity_of, is_about_certificate};

/// How long accepting pauses when the system has no descriptor or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// While others wait for a place, a handshake may take this part of its time-out.
const CROWDED: u32 = 5;
/// A handshake counts among those that have begun for this part of its time-out: long enough for
/// two messages from far away, and so short that peers who stop half way fill all the places before
/// they hold up those who are to begin.
const BEGUN: u32 = 20;
/// When the system asks a silent peer whether it is there, how often, and how many times until it is
/// given up: half a minute altogether.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(10))
    .with_interval(Duration::from_secs(5))
    .with_retries(4);
/// So long what was sent to a peer may be on its way. Nobody is asked whether they are there while
/// something is, and the system alone would send that again for a quarter of an hour. What the peer
/// has begun, a submission for instance, keeps others from it until it is given up.
#[cfg(any(target_os = "linux", target_os = "android"))]
const GIVEN_UP: Duration = Duration::from_secs(30);

/// What a connection holds for as long as it lasts: its place among all, and among its peer's.
pub(crate) struct Place {
    _slot: OwnedSemaphorePermit,
    _seat: Seat,
}

/// A socket that shakes hands.
struct Newcomer {
    tcp: TcpStream,
    peer: SocketAddr,
    slot: OwnedSemaphorePermit,
    entry: Entry,
    door: Door,
}

/// Accepts until the server stops, and sends newcomers to the doors in turn.
pub(crate) async fn accept<H: Handler>(
    listener: TcpListener,
    shared: Arc<Shared<H>>,
    doors: Vec<Door>,
    queue: Queue,
) {
    let limits = &shared.limits;
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let seats = Seats::new(limits.max_connections_per_peer);
    let mut crowd = Crowd::new(limits.max_handshakes, limits.handshake_timeout / CROWDED);
    let (mut accepting, mut doors) = (true, doors.iter().cycle());
    while let Some(accepted) = shared.stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((tcp, peer)) => {
                accepting = true;
                let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                    drop(tcp);
                    let detail = format!("{} connections are open", limits.max_connections);
                    shared.refuse(peer, None, RefusalKind::Capacity, detail);
                    continue;
                };
                let entering = queue.count(crowd.enter());
                let Some(entry) = shared.stop.run_until_cancelled(entering).await else { return };
                let Some(door) = doors.next() else { return };
                let newcomer = Newcomer { tcp, peer, slot, entry, door: door.clone() };
                let admitted = admit(Arc::clone(&shared), seats.clone(), newcomer);
                shared.tasks.spawn_on(&door.handle, admitted);
            }
            Err(error) => {
                if std::mem::replace(&mut accepting, false) {
                    tracing::warn!(%error, "no connection can be accepted; trying again");
                }
                shared.stop.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
}

async fn admit<H: Handler>(shared: Arc<Shared<H>>, seats: Seats, newcomer: Newcomer) {
    let Newcomer { tcp, peer, slot, mut entry, door } = newcomer;
    let hands = shake_hands(&shared, tcp, peer, &mut entry, &door);
    let Some(Some((tls, identity))) = shared.stop.run_until_cancelled(hands).await else { return };
    drop(entry);
    let Some(seat) = seats.take(&identity) else {
        let most = shared.limits.max_connections_per_peer;
        let detail = format!("{most} connections with this certificate are open");
        return shared.refuse(peer, Some(&identity), RefusalKind::Capacity, detail);
    };
    let place = Place { _slot: slot, _seat: seat };
    Connection::new(Arc::clone(&shared), identity, peer).start(tls, place);
}

/// A peer that goes away in the middle is no refusal: port scanners and health checks do that.
async fn shake_hands<H: Handler>(
    shared: &Shared<H>,
    tcp: TcpStream,
    peer: SocketAddr,
    entry: &mut Entry,
    door: &Door,
) -> Option<(TlsStream<TcpStream>, Identity)> {
    // Without it a beat's acknowledgement could wait for the peer's delayed ACK; on a socket that
    // is already dead the next read says so.
    let _ = tcp.set_nodelay(true);
    give_up_when_cut_off(&tcp);
    let mut left = shared.limits.handshake_timeout;
    let since = Instant::now();
    let cut = entry.cut().clone();
    let spoken = in_time(shared, peer, left, cut.cancelled(), has_given_up(&tcp)).await?;
    left = left.saturating_sub(since.elapsed());
    // What follows costs the processor something. While others are before it, that is not the
    // peer's doing, and it may lose its patience: a fleet that comes back all at once waits here.
    let begun = entry.wait_turn(door.turn()).await;
    if spoken.ok()? || has_given_up(&tcp).await.ok()? {
        return None;
    }
    let others_begin = begun.yield_after(shared.limits.handshake_timeout / BEGUN);
    let room = async {
        tokio::select! {
            () = cut.cancelled() => {}
            () = others_begin => {}
        }
    };
    match in_time(shared, peer, left, room, shared.tls.accept(tcp)).await? {
        Ok(tls) => {
            let identity = tls.get_ref().1.peer_certificates()?.first().and_then(identity_of)?;
            Some((tls, identity))
        }
        Err(error) => {
            let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
            let (identity, kind, detail) = judge(error);
            shared.refuse(peer, identity, kind, detail);
            None
        }
    }
}

/// A peer whose machine or network is gone says nothing, and might hold its place for ever.
fn give_up_when_cut_off(tcp: &TcpStream) {
    let socket = SockRef::from(tcp);
    let _ = socket.set_tcp_keepalive(&KEEPALIVE);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket.set_tcp_user_timeout(Some(GIVEN_UP));
}

/// Whether the peer has closed its side, once it has done anything.
async fn has_given_up(tcp: &TcpStream) -> io::Result<bool> {
    Ok(tcp.ready(Interest::READABLE).await?.is_read_closed())
}

/// What comes of a part of a handshake that is the peer's, unless it takes `left`, or has to make
/// `room`.
async fn in_time<H: Handler, T>(
    shared: &Shared<H>,
    peer: SocketAddr,
    left: Duration,
    room: impl Future<Output = ()>,
    part: impl Future<Output = T>,
) -> Option<T> {
    let limit = shared.limits.handshake_timeout;
    let part = async {
        tokio::select! {
            biased;
            done = part => Some(done),
            () = room => None,
        }
    };
    let detail = match timeout(left, part).await {
        Ok(Some(done)) => return Some(done),
        Ok(None) => {
            let limit = limit / CROWDED;
            format!("no TLS handshake within {limit:?}, and others wait")
        }
        Err(_) => format!("no TLS handshake within {limit:?}"),
    };
    shared.refuse(peer, None, RefusalKind::Timeout, detail);
    None
}

fn judge(error: &rustls::Error) -> (Option<&Identity>, RefusalKind, String) {
    use rustls::Error::{AlertReceived, InvalidCertificate, NoCertificatesPresented};
    if let Some(unproven) = Unproven::of(error) {
        let kind = if unproven.is_role { RefusalKind::Identity } else { RefusalKind::Certificate };
        return (unproven.identity.as_ref(), kind, unproven.why.clone());
    }
    match error {
        InvalidCertificate(_) | NoCertificatesPresented => {
            (None, RefusalKind::Certificate, explain(error))
        }
        AlertReceived(alert) if is_about_certificate(*alert) => {
            let detail = format!("it does not accept this coordinator's certificate ({alert:?})");
            (None, RefusalKind::Certificate, detail)
        }
        _ => (None, RefusalKind::Protocol, error.to_string()),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_is_cut_off_is_given_up_in_time_whether_or_not_something_is_on_its_way() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        give_up_when_cut_off(&tcp);
        let socket = SockRef::from(&tcp);
        let silent = socket.tcp_keepalive_time().unwrap()
            + socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        assert!(socket.keepalive().unwrap());
        assert_eq!((silent, socket.tcp_user_timeout().unwrap()), (GIVEN_UP, Some(GIVEN_UP)));
    }
}
