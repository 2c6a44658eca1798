//! What each kind of harm does to connections through a link, and what healing brings back.

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A server that answers every byte with the next one, on its own threads, and ends with them.
struct Echo {
    address: SocketAddr,
    listener: TcpListener,
}

impl Echo {
    fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    fn take(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

fn client(link: &Link) -> TcpStream {
    let stream = TcpStream::connect(link.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn sent(from: &mut TcpStream, to: &mut TcpStream, text: &[u8]) {
    from.write_all(text).unwrap();
    arrives(to, text);
}

fn arrives(to: &mut TcpStream, text: &[u8]) {
    let mut bytes = vec![0; text.len()];
    to.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, text);
}

fn nothing_arrives(to: &mut TcpStream) {
    to.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    let error = to.read(&mut [0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    to.set_read_timeout(Some(PATIENCE)).unwrap();
}

#[test]
fn what_is_sent_passes_in_both_directions_and_so_does_the_end() {
    let echo = Echo::at("127.0.0.1:0");
    let link = Link::to(echo.address).unwrap();
    let (mut near, mut far) = (client(&link), echo.take());
    sent(&mut near, &mut far, b"up");
    sent(&mut far, &mut near, b"down");
    near.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "the end of one direction");
    sent(&mut far, &mut near, b"and still the other");
    drop(far);
    assert_eq!(near.read(&mut [0]).unwrap(), 0);
}

#[test]
fn more_than_a_link_holds_passes_whole_and_in_order() {
    let echo = Echo::at("127.0.0.1:0");
    let link = Link::to(echo.address).unwrap();
    let (mut near, mut far) = (client(&link), echo.take());
    let bytes: Vec<u8> = (0..8 * flow::HELD).map(|n| (n / 7) as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| near.write_all(&bytes).unwrap());
        // The receiver is slow: the sender has to wait, and nothing is lost.
        thread::sleep(Duration::from_millis(50));
        arrives(&mut far, &bytes);
    });
}

#[test]
fn a_cut_resets_both_sides_and_every_new_connection_until_it_heals() {
    let echo = Echo::at("127.0.0.1:0");
    let link = Link::to(echo.address).unwrap();
    let (mut near, mut far) = (client(&link), echo.take());
    sent(&mut near, &mut far, b"x");
    link.set(Condition::Cut);
    for side in [&mut near, &mut far] {
        assert_eq!(side.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let mut refused = client(&link);
    assert_eq!(refused.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    link.set(Condition::Pass);
    let (mut near, mut far) = (client(&link), echo.take());
    sent(&mut near, &mut far, b"y");
}

#[test]
fn a_black_hole_takes_everything_and_passes_it_when_it_heals() {
    let echo = Echo::at("127.0.0.1:0");
    let link = Link::to(echo.address).unwrap();
    let (mut near, mut far) = (client(&link), echo.take());
    sent(&mut near, &mut far, b"x");
    link.set(Condition::BlackHole);
    near.write_all(b"late").unwrap();
    let mut new = client(&link);
    new.write_all(b"new").unwrap();
    let mut given_up = client(&link);
    given_up.write_all(b"never").unwrap();
    drop(given_up);
    nothing_arrives(&mut far);
    far.write_all(b"back").unwrap();
    nothing_arrives(&mut near);
    link.set(Condition::Pass);
    arrives(&mut far, b"late");
    arrives(&mut near, b"back");
    arrives(&mut echo.take(), b"new");
    echo.listener.set_nonblocking(true).unwrap();
    assert_eq!(echo.listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn an_end_inside_a_black_hole_is_not_seen_before_it_heals() {
    let echo = Echo::at("127.0.0.1:0");
    let link = Link::to(echo.address).unwrap();
    let (mut near, mut far) = (client(&link), echo.take());
    sent(&mut near, &mut far, b"x");
    link.set(Condition::BlackHole);
    drop(near);
    nothing_arrives(&mut far);
    link.set(Condition::Pass);
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
}

#[test]
fn what_is_delayed_arrives_late_in_each_direction_and_in_order() {
    let echo = Echo::at("127.0.0.1:0");
    let link = Link::to(echo.address).unwrap();
    let (mut near, mut far) = (client(&link), echo.take());
    sent(&mut near, &mut far, b"x");
    let by = Duration::from_millis(80);
    link.set(Condition::Delay(by));
    let start = Instant::now();
    near.write_all(b"1").unwrap();
    link.set(Condition::Pass);
    near.write_all(b"2").unwrap();
    // Healing takes nothing back that is under way, and what comes after does not overtake it.
    arrives(&mut far, b"12");
    assert!(start.elapsed() < PATIENCE);
    link.set(Condition::Delay(by));
    let start = Instant::now();
    sent(&mut near, &mut far, b"up");
    assert!(start.elapsed() >= by, "{:?}", start.elapsed());
    sent(&mut far, &mut near, b"down");
    assert!(start.elapsed() >= 2 * by, "{:?}", start.elapsed());
}

#[test]
fn a_target_that_is_not_there_resets_and_one_that_comes_back_is_reached_again() {
    let echo = Echo::at("127.0.0.1:0");
    let address = echo.address.to_string();
    let link = Link::to(echo.address).unwrap();
    drop(echo);
    let mut near = client(&link);
    assert_eq!(near.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let echo = Echo::at(&address);
    let (mut near, mut far) = (client(&link), echo.take());
    sent(&mut near, &mut far, b"x");
}

#[test]
fn a_dropped_link_takes_its_connections_and_its_port_along() {
    let echo = Echo::at("127.0.0.1:0");
    let link = Link::to(echo.address).unwrap();
    let (mut near, mut far) = (client(&link), echo.take());
    sent(&mut near, &mut far, b"x");
    let address = link.address();
    drop(link);
    assert!(TcpStream::connect(address).is_err());
    assert!(!matches!(near.read(&mut [0]), Ok(n) if n > 0));
}

#[test]
fn a_black_hole_takes_only_so_much_and_then_the_sender_waits() {
    let echo = Echo::at("127.0.0.1:0");
    let link = Link::to(echo.address).unwrap();
    let (mut near, _far) = (client(&link), echo.take());
    link.set(Condition::BlackHole);
    near.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    // What the system holds is a few megabytes; the rest would be the link's.
    let (chunk, mut taken) = (vec![0; 64 * 1024], 0);
    while let Ok(n) = near.write(&chunk) {
        taken += n;
        assert!(taken < 64 << 20, "it takes everything");
    }
    assert!(taken > 0);
}
