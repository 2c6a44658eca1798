//! A real coordinator's event stream, read over the wire beside its standard output.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
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
        let dir = tempdir().unwrap();
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
