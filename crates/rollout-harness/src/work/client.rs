//! `rollout run` against the fleet, with a certificate of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rollout_core::{Clock, Mono, SystemClock};
use rollout_process::{Child, Io, Ladder, Spawn, SpawnError};

use super::WorkError;
use crate::fixtures::{Layout, on};
use crate::record::Ended;

/// The client's name in its certificate.
const IDENTITY: &str = "/client/harness";
/// How long it may take to make a certificate.
const ISSUED_WITHIN: Duration = Duration::from_secs(20);
/// How long a client that is asked to end may take.
const GRACE: Duration = Duration::from_secs(5);

/// The client, running.
#[derive(Debug)]
pub(super) struct Client {
    child: Child,
    stderr: PathBuf,
    pub(super) began: Mono,
    ended: Option<Ended>,
}

/// What a client is started with.
pub(super) struct Call<'a> {
    pub(super) program: &'a Path,
    pub(super) layout: &'a Layout,
    pub(super) coordinator: SocketAddr,
    pub(super) job: &'a Path,
    pub(super) out: &'a Path,
}

impl Client {
    /// Makes its certificate and starts it.
    pub(super) fn start(call: &Call<'_>) -> Result<Self, WorkError> {
        let tls = issue(call)?;
        let layout = call.layout;
        let file = |name: &str| -> Result<(Io, PathBuf), WorkError> {
            let path = layout.root.join(layout.relative(name));
            let file = File::create(&path).map_err(on("create", &path))?;
            Ok((Io::File(file), path))
        };
        let (stdout, _) = file("logs/client.stdout")?;
        let (stderr, path) = file("logs/client.stderr")?;
        let spawn = Spawn::new(call.program).current_dir(&layout.root).arg("run").arg(call.job);
        let spawn = spawn.args(["--coordinator", &call.coordinator.to_string()]);
        let spawn = spawn.arg("--out").arg(call.out).arg("--ca").arg(tls.join("ca.pem"));
        let spawn = spawn.arg("--cert").arg(tls.join("client-harness.pem"));
        let spawn = spawn.arg("--key").arg(tls.join("client-harness.key"));
        let began = SystemClock.now();
        let child = spawn.stdout(stdout).stderr(stderr).spawn().map_err(failed)?;
        Ok(Self { child, stderr: path, began, ended: None })
    }

    /// How it has ended, if it has.
    pub(super) fn look(&mut self) -> Option<&Ended> {
        if self.ended.is_none() {
            let exit = self.child.try_wait();
            self.ended = exit.map(|exit| Ended::new(SystemClock.now(), exit));
        }
        self.ended.as_ref()
    }

    /// Ends it if it runs, and gives how it ended by itself, if it did, and what it complained of.
    pub(super) fn finish(mut self) -> (Option<Ended>, String) {
        let ended = self.look().cloned();
        if ended.is_none() {
            self.child.stop(Ladder { grace: GRACE });
        }
        // A file of our own making that cannot be read shows as one that says nothing.
        let said = fs::read(&self.stderr).unwrap_or_default();
        (ended, String::from_utf8_lossy(&said).into_owned())
    }
}

/// Has a certificate made by the CA of the fleet; where it is, relative to the root.
fn issue(call: &Call<'_>) -> Result<PathBuf, WorkError> {
    let (tls, out) = (call.layout.relative("tls"), call.layout.relative("tls/client"));
    let spawn = Spawn::new(call.program).current_dir(&call.layout.root);
    let spawn = spawn.args(["cert", "issue", "--dir"]).arg(tls).arg("--out").arg(&out);
    let spawn = spawn.args(["--identity", IDENTITY]).stdout(Io::Null).stderr(Io::Pipe);
    let output = spawn.output(Some(ISSUED_WITHIN)).map_err(failed)?;
    if output.exit.success() {
        return Ok(out);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(WorkError::Certificate { exit: output.exit, said })
}

fn failed(source: SpawnError) -> WorkError {
    WorkError::Client { source }
}
