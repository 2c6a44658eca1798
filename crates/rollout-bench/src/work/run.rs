//! A whole process from its start to its end, and how its results came meanwhile.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use rollout_core::{Clock, SystemClock};
use rollout_process::{Io, Spawn};
use tokio::task::spawn_blocking;

use super::memory::Peaks;
use super::rate::{Counter, Growth};
use crate::error::BenchError;

/// How often the results are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// The processes are looked at once in so many looks at the results.
const LOOKS: u32 = 4;
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(600);

/// What was seen.
pub(super) struct Run {
    /// From the start to the end of the process and of all that it had started.
    pub(super) took: Duration,
    pub(super) growth: Growth,
    pub(super) peaks: Peaks,
}

/// Runs it to its end; `lines` is the file to which its results go.
pub(super) async fn run(
    spawn: Spawn,
    command: &'static str,
    lines: &Path,
) -> Result<Run, BenchError> {
    let lines = lines.to_owned();
    let run = spawn_blocking(move || watch(spawn, command, &lines)).await;
    run.map_err(|lost| BenchError::io("a thread was lost")(lost.into()))?
}

fn watch(spawn: Spawn, command: &'static str, lines: &Path) -> Result<Run, BenchError> {
    let said = tempfile::NamedTempFile::new().map_err(BenchError::io("no temporary file"))?;
    let stream = || said.reopen().map(Io::File).map_err(BenchError::io("a temporary file"));
    let (mut counter, mut peaks) = (Counter::of(lines), Peaks::default());
    let since = SystemClock.now();
    let child = spawn.stderr(stream()?).spawn()?;
    let mut looks = 0;
    let exit = loop {
        if let Some(exit) = child.wait_timeout(LOOK) {
            break exit;
        }
        let took = SystemClock.now().since(since);
        if took > LONG {
            return Err(BenchError::Late(LONG, "a run that is measured"));
        }
        counter.look(took).map_err(BenchError::io("the results cannot be read"))?;
        if looks % LOOKS == 0 {
            peaks.look(child.pid());
        }
        looks += 1;
    };
    let took = SystemClock.now().since(since);
    counter.look(took).map_err(BenchError::io("the results cannot be read"))?;
    if !exit.success() {
        let said = fs::read_to_string(said.path()).unwrap_or_default();
        return Err(BenchError::Failed { command, exit, said: last_lines(&said) });
    }
    Ok(Run { took, growth: counter.growth(), peaks })
}

/// The last that a process has said.
fn last_lines(said: &str) -> String {
    let lines: Vec<_> = said.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}

/// The lines of a file of results, each as JSON, by item.
pub(super) fn results(path: &Path) -> Result<Vec<serde_json::Value>, BenchError> {
    let odd = BenchError::io("the results cannot be read");
    let text = fs::read_to_string(path).map_err(&odd)?;
    let read = |line| serde_json::from_str(line).map_err(io::Error::from);
    let mut all: Vec<serde_json::Value> =
        text.lines().map(read).collect::<Result<_, _>>().map_err(odd)?;
    all.sort_by_key(|line| line["item"].as_u64());
    Ok(all)
}

/// How many lines a file has.
pub(super) fn count(path: &Path) -> Result<u64, BenchError> {
    let odd = BenchError::io("the results cannot be read");
    File::open(path).map_err(&odd)?;
    let mut counter = Counter::of(path);
    counter.look(Duration::ZERO).map_err(odd)?;
    Ok(counter.growth().lines())
}
