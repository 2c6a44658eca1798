//! A real coordinator, a real worker, and peers that mean no good: each abuse is named in an event,
//! the events are few, the coordinator's memory stays within a bound, and the worker beside them
//! beats on and is not even suspected.
//!
//! `ROLLOUT_IDLE_CONNECTIONS=10000 cargo test --release -p rollout-acceptance --test acceptance idle --
//! --nocapture` measures what idle connections cost.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod peer;

use std::env;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rollout_acceptance::{Actor, Stage, built, edit_toml, set, text};
use rollout_core::WorkerId;
use rollout_core::event::{Body, WorkerRejected};
use rollout_process::{Resource, Spawn};
use toml::{Table, Value};

use peer::{END_HEADERS, HEADERS, POST, PREFACE, Peer, RST_STREAM, Tls, frame, hear, until_closed};

const PATIENCE: Duration = Duration::from_secs(30);

struct Scene {
    stage: Stage,
    coordinator: Actor,
    honest: Actor,
    honest_id: WorkerId,
    address: String,
}

impl Scene {
    /// A coordinator with these limits, and a worker that beats.
    fn new(limits: &[(&str, Value)], how: impl FnOnce(Spawn) -> Spawn) -> Self {
        let stage = Stage::new().with("coordinator", |table| {
            let limits = limits.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
            table.insert("limits".to_owned(), Table::from_iter(limits).into());
        });
        let start =
            |args: &[&str]| stage.run("coord", how(Spawn::new(&built().rollout).args(args)));
        let (coordinator, address) = stage.coordinator_on("127.0.0.1:0", start);
        let config = stage.fixtures().join("worker.toml");
        edit_toml(&config, |table| set(table, &["coordinator"], &address));
        let mut honest = stage.start("honest", &["worker", "run", "--config", &text(&config)]);
        let honest_id = honest.event("worker_registered").worker_id.unwrap();
        let mut scene = Self { stage, coordinator, honest, honest_id, address };
        scene.beats_on();
        scene
    }

    /// Waits until the honest worker has beaten twice more.
    fn beats_on(&mut self) {
        let id = Some(self.honest_id);
        let mine = |event: &rollout_core::Event| match &event.body {
            Body::WorkerHeartbeat(body) if event.worker_id == id => body.beat,
            _ => 0,
        };
        let so_far = self.coordinator.events("worker_heartbeat").iter().map(mine).max();
        let wanted = so_far.unwrap_or_default() + 2;
        let _ = self.coordinator.event_where("worker_heartbeat", |event| mine(event) >= wanted);
    }

    fn refusals(&mut self, reason: &str) -> Vec<WorkerRejected> {
        let events = self.coordinator.events("worker_rejected").into_iter();
        let bodies = events.filter_map(|event| match event.body {
            Body::WorkerRejected(body) => Some(body),
            _ => None,
        });
        bodies.filter(|body| body.reason == reason).collect()
    }

    /// Refusals for `reason` that events have told of, suppressed ones included.
    fn told(&mut self, reason: &str) -> u64 {
        self.refusals(reason).iter().map(|body| 1 + body.suppressed).sum()
    }

    fn wait<T: std::fmt::Debug + PartialOrd>(
        &mut self,
        what: &str,
        least: &T,
        mut now: impl FnMut(&mut Self) -> T,
    ) {
        let begun = Instant::now();
        loop {
            let seen = now(self);
            if seen >= *least {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {seen:?}, not {least:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The coordinator's resident memory in KiB: now, and its peak since the last look.
    fn memory(&self) -> Memory {
        let pid = self.coordinator.child.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let memory = Memory { now: kib("VmRSS:"), peak: kib("VmHWM:") };
        fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        memory
    }

    fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.coordinator.child.pid())).unwrap().count()
    }

    /// Nothing has happened to the honest worker; everything ends in good order.
    fn end(mut self) {
        self.beats_on();
        for topic in ["worker_suspected", "worker_failed"] {
            let about = self.coordinator.events(topic);
            let about = about.iter().filter(|event| event.worker_id == Some(self.honest_id));
            assert_eq!(about.count(), 0, "{topic} of the honest worker");
        }
        assert_eq!(self.honest.events("worker_fenced"), []);
        // One of the start, and not one for each time that a library minds.
        assert!(self.coordinator.events("log").len() <= 3, "{:?}", self.coordinator.events("log"));
        self.honest.stop();
        self.coordinator.stop();
    }
}

struct Memory {
    now: u64,
    peak: u64,
}

/// An abuse: the reason of its event, what the coordinator's memory may grow by in KiB, and the deed.
type Abuse = (&'static str, &'static str, u64, fn(&Scene));

const ABUSES: [Abuse; 8] = [
    ("no certificates", "certificate", 8 * 1024, no_certificates),
    ("slow handshakes", "timeout", 16 * 1024, slow_handshakes),
    ("rapid resets", "flood", 32 * 1024, rapid_resets),
    ("header floods", "flood", 32 * 1024, header_floods),
    ("bad lines", "protocol", 32 * 1024, bad_lines),
    ("registrations in a loop", "rate", 16 * 1024, registers_in_a_loop),
    ("more connections than may be", "capacity", 16 * 1024, too_many_connections),
    ("sessions that say nothing", "timeout", 32 * 1024, silent_sessions),
];

fn no_certificates(scene: &Scene) {
    let nobody = Peer::nobody(&scene.stage, &scene.address);
    let knock = || {
        for _ in 0..100 {
            // With TLS 1.3 the client is done before the server has said no.
            if let Ok(mut tls) = nobody.tls() {
                until_closed(&mut tls);
            }
        }
    };
    thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(knock))));
}

fn slow_handshakes(scene: &Scene) {
    let nobody = Peer::nobody(&scene.stage, &scene.address);
    let mut slow: Vec<TcpStream> = (0..200).map(|_| nobody.tcp().unwrap()).collect();
    for byte in b"\x16\x03\x01\x02" {
        for tcp in &mut slow {
            // One that has been cut already fails.
            let _ = tcp.write_all(&[*byte]);
        }
        thread::sleep(Duration::from_millis(50));
    }
    slow.iter_mut().for_each(until_closed);
}

/// Each connection writes `frames` until it is cut.
fn flood(peer: &Peer, frames: impl Iterator<Item = Vec<u8>>) {
    let mut tls = peer.tls().unwrap();
    let mut sent = tls.write_all(PREFACE);
    for frame in frames {
        if sent.is_err() {
            return;
        }
        sent = tls.write_all(&frame);
    }
    until_closed(&mut tls);
}

fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

fn rapid_resets(scene: &Scene) {
    let peer = Peer::worker(&scene.stage, &scene.address);
    for _ in 0..20 {
        flood(
            &peer,
            streams(20_000).map(|stream| {
                let reset = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
                [frame(HEADERS, END_HEADERS, stream, POST), reset].concat()
            }),
        );
    }
}

fn header_floods(scene: &Scene) {
    let peer = Peer::worker(&scene.stage, &scene.address);
    // A literal header of 9,000 bytes, which is over the limit by itself.
    let header = [POST, b"\x00\x01a\x7f\xa9\x45", &[b'v'; 9_000]].concat();
    let begin = frame(HEADERS, 0, 1, POST);
    let more = frame(9, 0, 1, b"\x00\x01a\x01v");
    for _ in 0..10 {
        flood(&peer, streams(200).map(|stream| frame(HEADERS, END_HEADERS, stream, &header)));
        let endless =
            std::iter::once(begin.clone()).chain(std::iter::repeat_n(more.clone(), 5_000));
        flood(&peer, endless);
    }
}

fn bad_lines(scene: &Scene) {
    let peer = Peer::worker(&scene.stage, &scene.address);
    let long = "x".repeat(100_000);
    let unknown = format!("{{\"type\":\"{}\"}}\n", "y".repeat(10_000));
    let deep = format!("{}\n", "[".repeat(16_000));
    let lines = ["\n", "{\n", "\u{0}\n", "{\"type\":\"fly\"}\n", &long, &unknown, &deep];
    for _ in 0..20 {
        for line in lines {
            // One that sends more than is read may be cut before it hears why.
            if let Ok(mut tls) = peer.say(line.as_bytes()) {
                let _ = hear(&mut tls, &["\"rejected\""]);
            }
        }
    }
}

fn registers_in_a_loop(scene: &Scene) {
    let peer = Peer::worker(&scene.stage, &scene.address);
    let mut answers = [0, 0];
    for _ in 0..200 {
        let mut tls = peer.say(peer.registration().as_bytes()).unwrap();
        answers[hear(&mut tls, &["\"registered\"", "\"rate\""]).unwrap()] += 1;
    }
    assert!(answers[0] >= 20 && answers[1] > 100, "{answers:?}");
}

fn too_many_connections(scene: &Scene) {
    let nobody = Peer::nobody(&scene.stage, &scene.address);
    let mut many: Vec<TcpStream> = (0..600).map(|_| nobody.tcp().unwrap()).collect();
    many.iter_mut().for_each(until_closed);
}

/// Eight sessions on each of as many connections as one may have, and not a word.
fn silent_sessions(scene: &Scene) {
    let peer = Peer::worker(&scene.stage, &scene.address);
    let mut silent = Vec::new();
    for _ in 0..16 {
        let mut tls = peer.tls().unwrap();
        tls.write_all(PREFACE).unwrap();
        for stream in streams(8) {
            tls.write_all(&frame(HEADERS, END_HEADERS, stream, POST)).unwrap();
        }
        silent.push(tls);
    }
    silent.iter_mut().for_each(until_closed);
}

fn short_limits() -> Vec<(&'static str, Value)> {
    vec![
        ("max_connections", 400.into()),
        ("max_handshakes", 1_000.into()),
        ("handshake_timeout", "500ms".into()),
        ("header_timeout", "500ms".into()),
    ]
}

#[test]
fn every_abuse_has_its_event_the_events_are_few_memory_is_bounded_and_the_worker_beats_on() {
    let _busy = rollout_acceptance::busy();
    let mut scene = Scene::new(&short_limits(), |spawn| spawn);
    for (name, reason, most, deed) in ABUSES {
        let (before, memory) = (scene.refusals(reason).len(), scene.memory());
        let begun = Instant::now();
        deed(&scene);
        scene.wait(name, &(before + 1), |scene| scene.refusals(reason).len());
        scene.beats_on();
        let events = scene.refusals(reason).len() - before;
        let seconds = begun.elapsed().as_secs_f64();
        let grown = scene.memory().peak.saturating_sub(memory.now);
        println!("{name}: {events} events in {seconds:.1} s, memory grew by {grown} KiB");
        // One at once, one for each second begun.
        assert!(events as f64 <= seconds + 2.0, "{name}: {events} events in {seconds:.1} s");
        assert!(grown <= most, "{name}: grew by {grown} KiB, not at most {most}");
    }
    scene.end();
}

/// How many connections to hold idle.
fn idle_connections() -> usize {
    env::var("ROLLOUT_IDLE_CONNECTIONS").map_or(200, |count| count.parse().unwrap())
}

/// A coordinator that takes so many connections from anybody and leaves them a while.
fn patient(count: usize) -> Scene {
    let needed = u64::try_from(count).unwrap() + 200;
    let most = rollout_process::raise_open_files().unwrap();
    assert!(most >= needed, "{needed} open files are needed, {most} are allowed: ulimit -n");
    let time = Duration::from_secs(4) + Duration::from_millis(4) * u32::try_from(count).unwrap();
    let timeout = format!("{}ms", time.as_millis().min(60_000));
    let all = i64::try_from(count + 100).unwrap();
    Scene::new(
        &[
            ("max_connections", all.into()),
            ("max_connections_per_peer", all.into()),
            ("max_handshakes", all.into()),
            ("handshake_timeout", timeout.clone().into()),
            ("header_timeout", timeout.into()),
        ],
        |spawn| spawn,
    )
}

#[test]
fn idle_sockets_cost_little_keep_nobody_out_and_are_closed_each() {
    let _busy = rollout_acceptance::busy();
    let count = idle_connections();
    let mut scene = patient(count);
    let nobody = Peer::nobody(&scene.stage, &scene.address);
    idle(&mut scene, "TCP", count, 32, || nobody.tcp().unwrap());
    scene.end();
}

#[test]
fn idle_peers_cost_little_keep_nobody_out_and_are_closed_each() {
    let _busy = rollout_acceptance::busy();
    let count = idle_connections();
    let mut scene = patient(count);
    let peer = Peer::worker(&scene.stage, &scene.address);
    idle(&mut scene, "TLS", count, 64, || peer.tls().unwrap());
    scene.end();
}

/// Holds `count` connections until the coordinator has closed them all.
fn idle<C: Idle>(scene: &mut Scene, kind: &str, count: usize, most: u64, open: impl Fn() -> C) {
    let (told, before) = (scene.told("timeout"), scene.memory());
    let files = scene.open_files();
    let begun = Instant::now();
    let mut idle: Vec<C> = (0..count).map(|_| open()).collect();
    scene.wait("accepted", &(files + count), |scene| scene.open_files());
    let opened = begun.elapsed().as_secs_f64();
    let grown = scene.memory().now.saturating_sub(before.now);
    let each = grown as f64 / count as f64;
    println!("{count} idle {kind} connections: open after {opened:.1} s, {each:.1} KiB each");
    assert!(grown <= most * count as u64 + 1024, "{grown} KiB, not {most} each");
    // One more worker finds a place and an answer beside them.
    let newcomer = Peer::worker(&scene.stage, &scene.address);
    let asked = Instant::now();
    let mut tls = newcomer.say(newcomer.registration().as_bytes()).unwrap();
    assert_eq!(hear(&mut tls, &["\"registered\""]).unwrap(), 0);
    println!("a newcomer was registered after {:.0} ms", asked.elapsed().as_secs_f64() * 1e3);
    drop(tls);
    scene.beats_on();
    idle.iter_mut().for_each(Idle::until_closed);
    let closed = begun.elapsed().as_secs_f64();
    let all = told + u64::try_from(count).unwrap();
    scene.wait("told", &all, |scene| scene.told("timeout"));
    assert_eq!(scene.told("timeout"), all, "each is told of once, suppressed or not");
    let events = scene.refusals("timeout").len();
    println!("closed after {closed:.1} s; {events} events of this kind so far");
}

trait Idle {
    fn until_closed(&mut self);
}

impl Idle for TcpStream {
    fn until_closed(&mut self) {
        self.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
        until_closed(self);
    }
}

impl Idle for Tls {
    fn until_closed(&mut self) {
        self.sock.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
        until_closed(self);
    }
}

#[test]
fn with_few_descriptors_the_coordinator_says_so_and_refuses_instead_of_running_out() {
    let limits = [("handshake_timeout", "1s".into())];
    let mut scene = Scene::new(&limits, |spawn| spawn.limit(Resource::RLIMIT_NOFILE, 128));
    let said = scene.coordinator.event("log").message.unwrap_or_default();
    assert!(said.contains("only 64 connections fit") && said.contains("ulimit -n"), "{said}");
    let nobody = Peer::nobody(&scene.stage, &scene.address);
    let mut many: Vec<TcpStream> = (0..200).map(|_| nobody.tcp().unwrap()).collect();
    scene.wait("told", &1, |scene| scene.told("capacity"));
    assert!(scene.open_files() < 128, "{} open files", scene.open_files());
    many.iter_mut().for_each(until_closed);
    scene.end();
}
