//! `rollout events`: what the processes of a run wrote, as one stream in the order of time, or what
//! a coordinator says.

mod afar;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::CliError;
use crate::fleet_at::FleetAt;
use crate::run::args::EventsArgs;
use crate::run::dir::RunDir;
use crate::run::error::RunError;
use crate::signals::Signals;

/// How often files are looked at for more.
const LOOK: Duration = Duration::from_millis(100);

/// As much of an event as its place in the stream needs.
#[derive(Deserialize)]
struct Head<'a> {
    ts: &'a str,
    topic: &'a str,
    #[serde(borrow, rename = "attrs")]
    _attrs: Option<&'a RawValue>,
}

pub(crate) fn run(args: &EventsArgs) -> Result<(), CliError> {
    let outcome = match FleetAt::from_args(&args.fleet)? {
        Some(fleet) => afar::run(args, &fleet),
        None => of_dir(args),
    };
    match outcome {
        // Whoever reads has read enough.
        Err(Trouble::Out(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Trouble::Out(error)) => Err(CliError::Output(error)),
        Err(Trouble::Other(error)) => Err(*error),
        Ok(()) => Ok(()),
    }
}

fn of_dir(args: &EventsArgs) -> Result<(), Trouble> {
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let events = RunDir::new(&dir).events();
    if !events.is_dir() {
        return Err(RunError::NoRun(dir).into());
    }
    let mut merge = Merge { dir: events, tails: BTreeMap::new(), topics: args.topics.clone() };
    let mut out = BufWriter::new(io::stdout());
    match args.follow {
        false => merge.drain(&mut out),
        true => follow(&mut merge, &mut out),
    }
}

enum Trouble {
    Out(io::Error),
    Other(Box<CliError>),
}

impl From<RunError> for Trouble {
    fn from(error: RunError) -> Self {
        Self::Other(Box::new(error.into()))
    }
}

fn follow(merge: &mut Merge, out: &mut impl Write) -> Result<(), Trouble> {
    let failed = |error| Trouble::Other(Box::new(CliError::Runtime(error)));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let mut signals = Signals::listen().map_err(failed)?;
        loop {
            merge.drain(out)?;
            tokio::select! {
                _ = signals.next() => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    })
}

/// The files of a run, by the process that writes them.
struct Merge {
    dir: PathBuf,
    tails: BTreeMap<PathBuf, Tail>,
    topics: Vec<String>,
}

impl Merge {
    /// Writes every whole line there is, the earliest first.
    fn drain(&mut self, out: &mut impl Write) -> Result<(), Trouble> {
        self.find()?;
        for tail in self.tails.values_mut() {
            tail.advance(&self.topics)?;
        }
        loop {
            let heads = self.tails.iter().filter(|(_, tail)| tail.line.is_some());
            let Some((path, _)) = heads.min_by(|a, b| a.1.ts.cmp(&b.1.ts)) else { break };
            let path = path.clone();
            let Some(tail) = self.tails.get_mut(&path) else { break };
            if let Some(line) = tail.line.take() {
                out.write_all(&line).map_err(Trouble::Out)?;
            }
            tail.advance(&self.topics)?;
        }
        out.flush().map_err(Trouble::Out)
    }

    fn find(&mut self) -> Result<(), RunError> {
        let entries = fs::read_dir(&self.dir).map_err(RunError::file("read", &self.dir))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == "ndjson")
                && !self.tails.contains_key(&path)
            {
                self.tails.insert(path.clone(), Tail::new(path)?);
            }
        }
        Ok(())
    }
}

/// One process's events, read from the older file of two, if there is one, to the end of the newer.
struct Tail {
    path: PathBuf,
    reader: Option<BufReader<File>>,
    /// Which file is read.
    file: u64,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
    /// The next line to be written, with its newline, and its time.
    line: Option<Vec<u8>>,
    ts: String,
}

impl Tail {
    fn new(path: PathBuf) -> Result<Self, RunError> {
        let mut tail = Self {
            path,
            reader: None,
            file: 0,
            partial: Vec::new(),
            line: None,
            ts: String::new(),
        };
        let older = tail.older();
        let first = if older.exists() { older } else { tail.path.clone() };
        tail.open(&first)?;
        Ok(tail)
    }

    fn older(&self) -> PathBuf {
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        older.into()
    }

    fn open(&mut self, path: &Path) -> Result<(), RunError> {
        let failed = |error| RunError::file("read", path)(error);
        let file = File::open(path).map_err(failed)?;
        self.file = file.metadata().map_err(failed)?.ino();
        self.reader = Some(BufReader::with_capacity(64 * 1024, file));
        self.partial.clear();
        Ok(())
    }

    /// Reads to the next line that is wanted, if it has none at hand.
    fn advance(&mut self, topics: &[String]) -> Result<(), RunError> {
        while self.line.is_none() {
            let Some(line) = self.read()? else { return Ok(()) };
            let Ok(head) = serde_json::from_slice::<Head<'_>>(&line) else { continue };
            if topics.is_empty() || topics.iter().any(|topic| topic == head.topic) {
                head.ts.clone_into(&mut self.ts);
                self.line = Some(line);
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Vec<u8>>, RunError> {
        let mut followed = false;
        loop {
            let Some(reader) = &mut self.reader else { return Ok(None) };
            let read = reader.read_until(b'\n', &mut self.partial);
            read.map_err(RunError::file("read", &self.path))?;
            if self.partial.ends_with(b"\n") {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
            // At the end: of the file that is written to, or of one that another has followed.
            let newest = fs::metadata(&self.path).map(|meta| meta.ino());
            if newest.is_err() || newest.is_ok_and(|newest| newest == self.file) {
                return Ok(None);
            }
            // It may have grown between its end and the look at the newest: once more to its end.
            if !std::mem::replace(&mut followed, true) {
                continue;
            }
            let path = self.path.clone();
            self.open(&path)?;
            followed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: u32, topic: &str) -> String {
        format!(
            "{{\"seq\":1,\"ts\":\"2026-01-01T00:00:{second:02}Z\",\"topic\":\"{topic}\",\"attrs\":{{}}}}\n"
        )
    }

    fn drained(merge: &mut Merge) -> String {
        let mut out = Vec::new();
        assert!(merge.drain(&mut out).is_ok());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn files_are_merged_by_time_and_followed_over_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a.ndjson.1"), line(1, "log")).unwrap();
        fs::write(at("a.ndjson"), line(3, "worker_ready") + &line(5, "log")).unwrap();
        fs::write(at("b.ndjson"), line(2, "log") + &line(4, "log")[..20]).unwrap();
        fs::write(at("b.stderr"), "not this\n").unwrap();
        let all = |topics: &[&str]| Merge {
            dir: dir.path().to_owned(),
            tails: BTreeMap::new(),
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
        };
        let mut merge = all(&[]);
        let expected = [line(1, "log"), line(2, "log"), line(3, "worker_ready"), line(5, "log")];
        assert_eq!(drained(&mut merge), expected.concat());
        assert_eq!(drained(&mut all(&["worker_ready"])), line(3, "worker_ready"));
        // The rest of a line, and a file that takes the place of another.
        fs::write(at("b.ndjson"), line(2, "log") + &line(4, "log")).unwrap();
        fs::rename(at("a.ndjson"), at("a.ndjson.1")).unwrap();
        fs::write(at("a.ndjson"), line(6, "log")).unwrap();
        assert_eq!(drained(&mut merge), line(4, "log") + &line(6, "log"));
        assert_eq!(drained(&mut merge), "");
    }
}
