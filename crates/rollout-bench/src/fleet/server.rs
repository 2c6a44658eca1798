//! What a fleet connects to, as a process: a coordinator, or the bare server beside it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rollout_core::event::Body;
use rollout_core::{Clock, Event, Mono, SystemClock, WorkerId};
use rollout_process::{Child, Io, Spawn};
use rollout_transport::TlsFiles;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::cost::Cost;
use crate::error::BenchError;

/// Longer than a start takes, the largest fleet's registry included.
const START: Duration = Duration::from_secs(30);
/// What was said and not yet looked at: more than both verdicts on every worker of the largest fleet.
const SAID: usize = 1 << 16;
/// The events that are looked at; what is not, is not parsed.
const TOPICS: [&str; 4] =
    ["coordinator_started", "coordinator_stalled", "worker_failed", "worker_suspected"];

/// What a server said, and when it was read here.
#[derive(Debug)]
pub(crate) enum Said {
    /// It serves there.
    Listening(SocketAddr),
    /// A verdict, so many seconds late.
    Failed {
        worker: WorkerId,
        overshoot: f64,
    },
    Suspected,
    /// It stood still for so many seconds.
    Stalled(f64),
}

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
    /// When it said that it serves.
    pub(crate) since: Mono,
    pub(crate) said: mpsc::Receiver<Said>,
}

impl Server {
    /// A coordinator with its database and configuration in `dir`.
    pub(crate) async fn coordinator(
        rollout: &Path,
        tls: &TlsFiles,
        dir: &Path,
        listen: SocketAddr,
    ) -> Result<Self, BenchError> {
        let config = dir.join("coordinator.toml");
        let text = format!(
            "listen = \"{listen}\"\nstorage = {:?}\nca = {:?}\ncert = {:?}\nkey = {:?}\n\n\
             [events]\nworker_heartbeat = \"first\"\n\n\
             [limits]\nmax_workers = 20000\nmax_connections = 19000\n",
            dir.join("coordinator.db"),
            tls.ca,
            tls.cert,
            tls.key
        );
        fs::write(&config, text).map_err(BenchError::io("cannot write a configuration"))?;
        let spawn = Spawn::new(rollout).args(["coordinator", "run", "--config"]).arg(config);
        Self::start(spawn).await
    }

    /// This program's own bare server.
    pub(crate) async fn bare(tls: &TlsFiles, listen: SocketAddr) -> Result<Self, BenchError> {
        let program: PathBuf =
            std::env::current_exe().map_err(BenchError::io("this program is gone"))?;
        let files = [("--ca", &tls.ca), ("--cert", &tls.cert), ("--key", &tls.key)];
        let mut spawn = Spawn::new(program).args(["bare", "--listen", &listen.to_string()]);
        for (option, file) in files {
            spawn = spawn.arg(option).arg(file);
        }
        Self::start(spawn).await
    }

    async fn start(spawn: Spawn) -> Result<Self, BenchError> {
        let mut child = spawn.stdout(Io::Pipe).spawn()?;
        let (tell, mut said) = mpsc::channel(SAID);
        if let Some(out) = child.take_stdout() {
            let reader = std::thread::Builder::new().name("events".into());
            let reading = reader.spawn(move || read(out, &tell));
            reading.map_err(BenchError::io("no thread"))?;
        }
        let first = timeout(START, async {
            loop {
                match said.recv().await {
                    Some(Said::Listening(addr)) => return Some(addr),
                    Some(_) => {}
                    None => return None,
                }
            }
        });
        let late = |_| BenchError::Late(START, "a server to say that it serves");
        let addr = first.await.map_err(late)?.ok_or(BenchError::ServerEnded)?;
        Ok(Self { child, addr, since: SystemClock.now(), said })
    }

    /// What it has taken so far.
    pub(crate) fn cost(&self) -> Result<Cost, BenchError> {
        Cost::of(self.child.pid()).ok_or(BenchError::NoCost)
    }

    /// Kills it; returns once it is gone.
    pub(crate) fn kill(self) {
        drop(self.child);
    }
}

/// Reads to the end, so that the server waits for its reader only if [`SAID`] does not suffice.
fn read(out: OwnedFd, tell: &mpsc::Sender<Said>) {
    let mut lines = BufReader::new(File::from(out));
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
        if let Some(said) = parse(line.trim()) {
            // Whoever does not listen any more has seen enough.
            let _ = tell.blocking_send(said);
        }
        line.clear();
    }
}

fn parse(line: &str) -> Option<Said> {
    if let Ok(addr) = line.parse() {
        return Some(Said::Listening(addr));
    }
    if !TOPICS.iter().any(|topic| line.contains(topic)) {
        return None;
    }
    let event: Event = serde_json::from_str(line).ok()?;
    Some(match event.body {
        Body::CoordinatorStarted(started) => Said::Listening(started.listen_addr.parse().ok()?),
        Body::CoordinatorStalled(stalled) => Said::Stalled(stalled.ms / 1e3),
        Body::WorkerSuspected(_) => Said::Suspected,
        Body::WorkerFailed(failed) => {
            Said::Failed { worker: event.worker_id?, overshoot: failed.overshoot_ms / 1e3 }
        }
        _ => return None,
    })
}
