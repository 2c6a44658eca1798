//! How soon the callers of a sidecar that is killed know it, and how soon it is back.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rollout_core::{Clock, SystemClock, percentile};
use rollout_plugin_host::Plugin;
use rollout_process::{Io, Spawn};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::held::{Ended, Held, hold};
use crate::error::BenchError;
use crate::report::{Asked, Figure, Group, Unit};
use crate::stage::{Stage, sidecar};

/// How many callers wait when it is killed.
const CALLERS: usize = 16;
/// Kills a round.
const KILLS: usize = 5;
/// Longer than any of this takes.
const LONG: Duration = Duration::from_secs(20);

/// The times that deaths took.
#[derive(Default)]
struct Taken {
    /// From the kill to the last caller's error, or to the end of the socket.
    known: Vec<f64>,
    /// From the kill to the next process's readiness, or from the start to the first byte.
    ready: Vec<f64>,
}

/// Kills a sidecar with calls in flight, and a bare Python process, in turn.
pub(super) async fn measure(stage: &Stage, rounds: usize) -> Result<Group, BenchError> {
    let plugin = stage.start(&sidecar()).await?;
    let (mut ours, mut bare) = (Taken::default(), Taken::default());
    for _ in 0..rounds * KILLS {
        let (known, ready) = kill_plugin(stage, &plugin).await?;
        ours.known.push(known.as_secs_f64());
        ours.ready.push(ready.as_secs_f64());
        let killed = spawn_blocking(kill_bare).await;
        let killed = killed.map_err(|lost| BenchError::io("a thread was lost")(lost.into()))?;
        let (known, ready) = killed.map_err(BenchError::io("a bare Python process"))?;
        bare.known.push(known.as_secs_f64());
        bare.ready.push(ready.as_secs_f64());
    }
    plugin.shutdown().await?;
    let names = [
        ("last error, p50", "ready again, p50", 50),
        ("last error, p99", "ready again, p99", 99),
        ("last error, greatest", "ready again, greatest", 100),
    ];
    let at = |times: &mut Vec<f64>, percent| {
        times.sort_by(f64::total_cmp);
        percentile(times, percent).into_iter().collect()
    };
    let mut figure = |name, known: bool, percent| {
        let (values, beside, most) = if known {
            (&mut ours.known, &mut bare.known, 10e-3)
        } else {
            (&mut ours.ready, &mut bare.ready, 200e-3)
        };
        let (values, beside) = (at(values, percent), at(beside, percent));
        Figure { name, unit: Unit::Time, values, beside, asked: Asked::AtMost(most) }
    };
    let known: Vec<_> = names.iter().map(|(name, _, at)| figure(name, true, *at)).collect();
    let ready = names.iter().map(|(_, name, at)| figure(name, false, *at));
    Ok(Group {
        title: format!(
            "SIGKILL of a sidecar with {CALLERS} calls in flight, {} times",
            rounds * KILLS
        ),
        beside: "a Python process: the end of its socket, its start to its first byte",
        figures: known.into_iter().chain(ready).collect(),
    })
}

async fn kill_plugin(
    stage: &Stage,
    plugin: &Arc<Plugin>,
) -> Result<(Duration, Duration), BenchError> {
    let Held { mut calls, pid } = hold(plugin, CALLERS).await?;
    let mut restarted = stage.restarted.clone();
    restarted.mark_unchanged();
    let since = SystemClock.now();
    sigkill(pid).map_err(BenchError::io("cannot kill the sidecar"))?;
    let mut last = since;
    while let Some(ended) = calls.join_next().await {
        let Ended { error, at } =
            ended.map_err(|lost| BenchError::io("a task was lost")(lost.into()))?;
        let got = error.map_or_else(|| "an answer".into(), |error| error.code().to_owned());
        if got != "crashed" {
            return Err(BenchError::Ending { want: "crashed", got });
        }
        last = last.max(at);
    }
    let ready = timeout(LONG, restarted.changed()).await;
    ready.map_err(|_| BenchError::Late(LONG, "a sidecar that was killed"))?.map_err(|_| {
        BenchError::Late(Duration::ZERO, "a sidecar that nobody keeps going any more")
    })?;
    let ready = *restarted.borrow();
    Ok((last.since(since), ready.since(since)))
}

fn sigkill(pid: i32) -> io::Result<()> {
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

/// A Python process that says that it is there and waits.
const BARE: &str = "
import socket
far = socket.socket(fileno=0)
far.sendall(b'r')
far.recv(1)
";

/// How long a Python process's end, and its start, take without a host.
fn kill_bare() -> io::Result<(Duration, Duration)> {
    let (mut near, far) = UnixStream::pair()?;
    near.set_read_timeout(Some(LONG))?;
    let since = SystemClock.now();
    let far = Io::File(OwnedFd::from(far).into());
    let child = Spawn::new("python3").args(["-c", BARE]).stdin(far).spawn();
    let child = child.map_err(io::Error::other)?;
    near.read_exact(&mut [0])?;
    let ready = SystemClock.now().since(since);
    let since = SystemClock.now();
    sigkill(child.handle().pid())?;
    let ended = near.read(&mut [0])?;
    let known = SystemClock.now().since(since);
    child.wait();
    if ended > 0 { Err(io::ErrorKind::InvalidData.into()) } else { Ok((known, ready)) }
}
