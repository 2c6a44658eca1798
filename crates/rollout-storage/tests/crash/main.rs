//! A real process under a write load, SIGKILLed at random moments: every acknowledged write is there
//! after reopening, whole and in order, and nothing that was not submitted.
//!
//! `ROLLOUT_CRASHES=500 cargo test -p rollout-storage --test crash` kills so many. The process is this
//! very program, so that it is never an older one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod load;

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use load::{State, mix};
use rollout_process::{Io, Signal, Spawn};
use rollout_storage::{Batch, Priority, StorageError, Store, Table};
use tempfile::tempdir;

/// How many processes `cargo test` kills.
const CRASHES: u64 = 40;
/// Crashes of one file, until a new one is begun: some come while it is being made.
const CRASHES_PER_FILE: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// Names the database of the process that writes.
const DATABASE: &str = "ROLLOUT_CRASH_DATABASE";
/// Writes that it has submitted and not yet seen acknowledged, at most.
const IN_FLIGHT: usize = 16;

#[test]
#[ignore = "it is the process that is killed"]
fn write_without_end() {
    if let Some(path) = env::var_os(DATABASE) {
        load(&PathBuf::from(path)).unwrap();
    }
}

/// Writes, saying `s N` before it submits write N and `a N` once that is acknowledged.
fn load(path: &Path) -> Result<(), Box<dyn Error>> {
    let store = Store::open(path)?;
    let (give_back, places) = mpsc::channel::<Result<(), Arc<StorageError>>>();
    for _ in 0..IN_FLIGHT {
        give_back.send(Ok(()))?;
    }
    for n in State::of(&store)?.newest + 1.. {
        places.recv()??;
        say('s', n)?;
        let give_back = give_back.clone();
        store.submit(
            Priority::Control,
            move |batch| load::write(n, batch),
            move |outcome| {
                if outcome.is_ok() {
                    // Who can't hear it will find nothing missing.
                    let _ = say('a', n);
                }
                let _ = give_back.send(outcome);
            },
        );
    }
    Ok(())
}

/// One system call a line, so that a line is there whole or not at all.
fn say(what: char, n: u64) -> io::Result<()> {
    io::stdout().lock().write_all(format!("{what} {n}\n").as_bytes())
}

/// What a killed process had said.
#[derive(Debug, Default)]
struct Said {
    submitted: u64,
    acknowledged: u64,
}

impl Said {
    /// Acknowledgements come in the order of submission: the last one is of all before.
    fn read(log: &Path) -> Self {
        let mut said = Self::default();
        for line in fs::read_to_string(log).unwrap().lines() {
            let (newest, n) = match line.split_once(' ') {
                Some(("s", n)) => (&mut said.submitted, n),
                Some(("a", n)) => (&mut said.acknowledged, n),
                // What the test harness says of itself.
                _ => continue,
            };
            let n = n.parse().unwrap();
            assert!(*newest == 0 || n == *newest + 1, "{line} after {newest}");
            *newest = n;
        }
        said
    }
}

/// Starts the load and kills it: now and then at once, mostly amid its writes.
fn crash(path: &Path, log: &Path, n: u64) -> Said {
    let load = Spawn::new(env::current_exe().unwrap())
        .args(["write_without_end", "--exact", "--ignored", "--nocapture"])
        .env(DATABASE, path)
        .stdout(Io::File(File::create(log).unwrap()));
    let child = load.spawn().unwrap();
    let random = mix(n ^ u64::from(std::process::id()) << 32);
    if !random.is_multiple_of(4) {
        let bytes = random >> 8 & 0x7ff;
        let start = Instant::now();
        while fs::metadata(log).unwrap().len() <= bytes {
            assert!(start.elapsed() < PATIENCE, "the load writes nothing: {:?}", child.try_wait());
            thread::yield_now();
        }
    }
    thread::sleep(Duration::from_micros(random >> 24 & 0xfff));
    child.handle().signal_main(Signal::SIGKILL);
    let exit = child.wait();
    assert_eq!(exit.signal, Some(9), "it ended by itself: {exit}");
    Said::read(log)
}

#[test]
fn a_killed_process_has_kept_every_acknowledged_write_and_invented_none() {
    let crashes = env::var("ROLLOUT_CRASHES").map_or(CRASHES, |n| n.parse().unwrap());
    let (mut acknowledged, mut in_flight) = (0, 0);
    for file in 0..crashes.div_ceil(CRASHES_PER_FILE) {
        let dir = tempdir().unwrap();
        let (path, log) = (dir.path().join("deep/s.db"), dir.path().join("log"));
        let mut expected = State::default();
        for n in 0..CRASHES_PER_FILE.min(crashes - file * CRASHES_PER_FILE) {
            let before = expected.newest;
            let said = crash(&path, &log, file * CRASHES_PER_FILE + n);
            let found = State::of(&Store::open(&path).unwrap()).unwrap();
            let (least, most) = (said.acknowledged.max(before), said.submitted.max(before));
            assert!(
                (least..=most).contains(&found.newest),
                "acknowledged {least}, submitted {most}, found {}",
                found.newest
            );
            expected.advance(found.newest);
            assert_eq!(found, expected, "not what write {} leaves", found.newest);
            acknowledged += least - before;
            in_flight += u64::from(most > least);
        }
    }
    println!("{crashes} crashes, {in_flight} of them amid writes, {acknowledged} acknowledged");
    assert!(in_flight * 2 > crashes && acknowledged > crashes, "the kills come at no good moment");
}

#[test]
fn the_model_of_the_load_is_what_the_store_holds() {
    let dir = tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db")).unwrap();
    let mut expected = State::default();
    for n in 1..=300 {
        store.write(move |batch| load::write(n, batch)).unwrap();
    }
    expected.advance(300);
    assert_eq!(State::of(&store).unwrap(), expected);
    expected.advance(301);
    assert_ne!(State::of(&store).unwrap(), expected);
}
