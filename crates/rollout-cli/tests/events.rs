//! A real coordinator's event stream, read over the wire beside its standard output, by the library
//! and by `rollout events`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rollout_core::{Incarnation, TimeBudget, WorkerId};
use rollout_process::{Child, Io, Signal, Spawn};
use rollout_transport::wire::Timing;
use rollout_transport::{Identity, LineStream, Link, Remote, Tls, Up, certs, connect};
use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::{TempDir, tempdir};
use tokio::time::timeout;

/// Longer than anything takes here that takes place at all.
const LONG: Duration = Duration::from_secs(20);

struct Coordinator {
    dir: TempDir,
    child: Child,
    /// What it writes on standard output.
    stdout: BufReader<File>,
    addr: String,
}

impl Coordinator {
    fn start() -> Self {
        Self::start_in(tempdir().unwrap())
    }

    fn start_in(dir: TempDir) -> Self {
        let config = "listen = \"127.0.0.1:0\"\nstorage = \"c.db\"\ntls_dir = \"tls\"\n";
        fs::write(dir.path().join("c.toml"), config).unwrap();
        let mut child = Spawn::new(assert_cmd::cargo::cargo_bin!("rollout"))
            .args(["coordinator", "run", "--config", "c.toml"])
            .current_dir(dir.path())
            .stdout(Io::Pipe)
            .stderr(Io::Null)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(File::from(child.take_stdout().unwrap()));
        loop {
            let line: Value = serde_json::from_str(&written(&mut stdout).unwrap()).unwrap();
            if line["topic"] == "coordinator_started" {
                let addr = line["attrs"]["listen_addr"].as_str().unwrap().to_owned();
                return Self { dir, child, stdout, addr };
            }
        }
    }

    /// Kills it, and starts another one on its files.
    fn again(self) -> Self {
        self.child.handle().signal_main(Signal::SIGKILL);
        self.child.wait_timeout(LONG).unwrap();
        Self::start_in(self.dir)
    }

    async fn client(&self) -> Remote {
        let tls = tls(self.dir.path(), &Identity::Client("ann".into()));
        Remote::open(&self.addr, &tls, LONG).await.unwrap()
    }

    /// A worker that has registered and beaten once.
    async fn worker(&self, worker_id: WorkerId) -> Link {
        let tls = tls(self.dir.path(), &Identity::Worker(worker_id));
        let mut link = connect(&self.addr, &tls, LONG).await.unwrap();
        let registration = Up::Register {
            worker_id,
            incarnation: Incarnation::generate(),
            epoch: None,
            run_id: None,
            version: "0".into(),
            plugins: Vec::new(),
            timing: Timing::from(&TimeBudget::default()),
            unix_ms: None,
        };
        for up in [registration, Up::beat(1)] {
            link.up.send(up).await.unwrap();
            timeout(LONG, link.down.next()).await.unwrap().unwrap().unwrap();
        }
        link
    }
}

fn tls(dir: &Path, identity: &Identity) -> Tls {
    let files = certs::dev_identity(&dir.join("tls"), identity, &[], &mut |_| ()).unwrap();
    Tls::load(&files).unwrap()
}

/// The next line on standard output; none at its end.
fn written(stdout: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let read = stdout.read_line(&mut line).unwrap();
    (read > 0).then(|| line.trim_end_matches('\n').to_owned())
}

async fn read(lines: &mut LineStream<Box<RawValue>>) -> Option<String> {
    let line = timeout(LONG, lines.next()).await.unwrap().unwrap();
    line.map(|line| line.get().to_owned())
}

#[tokio::test]
async fn a_client_reads_what_the_coordinator_writes_byte_for_byte_to_its_last_line() {
    let mut coordinator = Coordinator::start();
    let client = coordinator.client().await;
    let (mut all, worker) = (client.events(&[], true).await.unwrap(), WorkerId::generate());
    let _link = coordinator.worker(worker).await;
    let wanted = ["worker_registered".to_owned(), "worker_heartbeat".to_owned()];
    let mut some = client.events(&wanted, true).await.unwrap();
    for topic in &wanted {
        let line: Value = serde_json::from_str(&read(&mut some).await.unwrap()).unwrap();
        assert_eq!(
            (&line["topic"], &line["worker_id"]),
            (&topic[..].into(), &worker.to_string().into())
        );
    }
    coordinator.child.handle().signal_main(Signal::SIGTERM);
    // From the first line there is, which is before the coordinator listens.
    let mut seen = Vec::new();
    while let Some(line) = read(&mut all).await {
        seen.push(line);
    }
    let first: Value = serde_json::from_str(&seen[0]).unwrap();
    assert_eq!(first["seq"], 1);
    let last: Value = serde_json::from_str(seen.last().unwrap()).unwrap();
    assert_eq!(last["topic"], "coordinator_stopping", "{last}");
    assert!(coordinator.child.wait_timeout(LONG).unwrap().success());
    // What came before the coordinator was found to listen has been read from its output already.
    let mut rest = Vec::new();
    while let Some(line) = written(&mut coordinator.stdout) {
        rest.push(line);
    }
    let from = seen.iter().position(|line| *line == rest[0]);
    let from = from.unwrap_or_else(|| panic!("{} is not in {seen:?}", rest[0]));
    assert_eq!(seen[from..], rest[..seen.len() - from], "the same lines");
}

#[tokio::test]
async fn readers_from_afar_need_nobody_who_reads_standard_output() {
    let mut coordinator = Coordinator::start();
    coordinator.stdout = BufReader::new(File::open("/dev/null").unwrap());
    let (client, worker) = (coordinator.client().await, WorkerId::generate());
    let mut lines = client.events(&["worker_ready".to_owned()], true).await.unwrap();
    let _link = coordinator.worker(worker).await;
    let line: Value = serde_json::from_str(&read(&mut lines).await.unwrap()).unwrap();
    assert_eq!(line["worker_id"], worker.to_string());
    coordinator.child.handle().signal_main(Signal::SIGTERM);
    assert_eq!(read(&mut lines).await, None);
    assert!(coordinator.child.wait_timeout(LONG).unwrap().success());
}

/// What a coordinator is reached through, so that connections can be cut and led elsewhere.
struct Way {
    addr: String,
    to: Arc<Mutex<String>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn new(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let to = Arc::new(Mutex::new(to.to_owned()));
        let way = Self { addr, to, open: Arc::default() };
        let (to, open) = (Arc::clone(&way.to), Arc::clone(&way.open));
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let to = to.lock().unwrap().clone();
                if to.is_empty() {
                    return;
                }
                let Ok(far) = TcpStream::connect(to) else { continue };
                let pairs = [(&near, &far), (&far, &near)];
                for (from, to) in pairs.map(|(a, b)| (a.try_clone(), b.try_clone())) {
                    let (mut from, mut to) = (from.unwrap(), to.unwrap());
                    thread::spawn(move || {
                        // However it ends, both sides end.
                        let _ = io::copy(&mut from, &mut to);
                        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                    });
                }
                open.lock().unwrap().extend([near, far]);
            }
        });
        way
    }

    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.to.lock().unwrap().clear();
        let _ = TcpStream::connect(&self.addr);
        self.cut();
    }
}

/// `rollout events` of the coordinator there, whose certificates are in `dir`.
fn events(dir: &Path, addr: &str, more: &[&str]) -> (Child, BufReader<File>) {
    let url = format!("https://{addr}");
    let mut child = Spawn::new(assert_cmd::cargo::cargo_bin!("rollout"))
        .args(["events", "--coordinator", &url, "--tls-dir", "tls"])
        .args(more)
        .current_dir(dir)
        .stdout(Io::Pipe)
        .stderr(Io::Null)
        .spawn()
        .unwrap();
    let stdout = BufReader::new(File::from(child.take_stdout().unwrap()));
    (child, stdout)
}

#[tokio::test]
async fn the_command_follows_over_a_cut_and_a_new_coordinator_and_says_no_line_twice() {
    let coordinator = Coordinator::start();
    let way = Way::new(&coordinator.addr);
    let (child, mut said) = events(coordinator.dir.path(), &way.addr, &["--follow"]);
    let (mut lines, workers) = (Vec::new(), [(); 3].map(|()| WorkerId::generate()));
    let mut until_beat = |worker: WorkerId| loop {
        let line: Value = serde_json::from_str(&written(&mut said).unwrap()).unwrap();
        let beat = line["topic"] == "worker_heartbeat" && line["worker_id"] == worker.to_string();
        lines.push(line);
        if beat {
            return;
        }
    };
    let _first = coordinator.worker(workers[0]).await;
    until_beat(workers[0]);
    way.cut();
    let _second = coordinator.worker(workers[1]).await;
    until_beat(workers[1]);
    let coordinator = coordinator.again();
    coordinator.addr.clone_into(&mut way.to.lock().unwrap());
    let _third = coordinator.worker(workers[2]).await;
    until_beat(workers[2]);
    child.handle().signal_main(Signal::SIGINT);
    assert!(child.wait_timeout(LONG).unwrap().success());
    let seqs: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    let newer = seqs.iter().rposition(|seq| *seq == 1).unwrap();
    let [of_old, of_new] = [newer, seqs.len() - newer].map(|count| 1..=count as u64);
    assert_eq!(seqs, of_old.chain(of_new).collect::<Vec<_>>(), "each line once");
    let started = |line: &&Value| line["topic"] == "coordinator_started";
    let terms: Vec<_> =
        lines.iter().filter(started).map(|line| line["attrs"]["term"].as_u64()).collect();
    assert_eq!(terms, [Some(1), Some(2)]);
}

#[tokio::test]
async fn the_command_writes_the_coordinators_own_lines_of_a_topic_and_ends() {
    let coordinator = Coordinator::start();
    let worker = WorkerId::generate();
    let _link = coordinator.worker(worker).await;
    let dir = coordinator.dir.path();
    let topics = ["--topic", "worker_registered", "--topic", "worker_ready"];
    let (child, mut said) = events(dir, &coordinator.addr, &topics);
    let mut stdout = coordinator.stdout;
    for topic in ["worker_registered", "worker_ready"] {
        let line = written(&mut said).unwrap();
        assert!(line.contains(&format!("\"topic\":\"{topic}\"")), "{line}");
        let own = std::iter::from_fn(|| written(&mut stdout)).find(|own| own.contains(topic));
        assert_eq!(own, Some(line));
    }
    assert_eq!(written(&mut said), None);
    assert!(child.wait_timeout(LONG).unwrap().success());
    // Nobody at that address, the first time: no trying again.
    let (child, mut said) = events(dir, "127.0.0.1:1", &["--follow"]);
    assert_eq!(written(&mut said), None);
    assert_eq!(child.wait_timeout(LONG).unwrap().code, Some(69));
}
