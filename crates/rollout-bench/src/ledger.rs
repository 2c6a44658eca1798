//! The suite `ledger`: beats and commits through the store's writer, as the coordinator's ledger
//! submits them, beside bare redb with rows of the same bytes, and what the disk itself can sync.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use redb::{Database, Durability, TableDefinition};
use rollout_core::{Clock, SystemClock, WorkerId};
use rollout_storage::{Priority, Store, Table};
use serde::{Deserialize, Serialize};

use crate::args::LedgerArgs;
use crate::error::BenchError;
use crate::report::{Asked, Curve, Figure, Group, Report, Unit};
use crate::say;

/// How long each is measured in a round.
const WINDOW: Duration = Duration::from_millis(1500);
/// The fleet whose beats are written, in turn.
const FLEET: usize = 10_000;
/// Beats in a commit.
const SIZES: [usize; 4] = [1, 100, 1_000, 10_000];
/// The size that something is asked of.
const ASKED: usize = 1_000;

/// The table and the row of the coordinator's heartbeat ledger.
const BEATS: Table<WorkerId, Beat> = Table::new("heartbeats");
const BARE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("heartbeats");

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Beat {
    epoch: u64,
    beat: u64,
    unix_ms: u64,
}

/// Commits a second of each size, and syncs a second.
struct Round {
    ours: Vec<f64>,
    bare: Vec<f64>,
    grouped: f64,
    syncs: f64,
}

/// Measures in turn, on fresh files of the same directory.
pub(crate) fn measure(args: &LedgerArgs) -> Result<Report, BenchError> {
    let dir = tempfile::Builder::new().prefix("rollout-").tempdir_in(&args.dir);
    let dir = dir.map_err(BenchError::io("no temporary directory"))?;
    let ids: Vec<_> = (0..FLEET).map(|_| WorkerId::generate()).collect();
    let mut rounds = Vec::new();
    for n in 0..args.output.rounds.get() {
        say(&format!("round {}", n + 1));
        let stage = dir.path().join(n.to_string());
        std::fs::create_dir(&stage).map_err(BenchError::io("no temporary directory"))?;
        rounds.push(one(&stage, &ids)?);
    }
    let curve = |pick: fn(&Round) -> &Vec<f64>| {
        let point = |(n, size): (usize, &usize)| {
            let beats = rounds.iter().filter_map(|r| pick(r).get(n));
            (*size as f64, beats.map(|commits| commits * *size as f64).collect())
        };
        SIZES.iter().enumerate().map(point).collect()
    };
    let series =
        vec![("the store's writer", curve(|r| &r.ours)), ("bare redb", curve(|r| &r.bare))];
    let curves = vec![Curve {
        title: "Durable beats",
        sizes: "beats in a commit",
        unit: Unit::Rate,
        series,
    }];
    let rounds_measured = args.output.rounds.get();
    Ok(Report {
        suite: "ledger",
        rounds: rounds_measured,
        groups: groups(&rounds),
        notes: Vec::new(),
        curves,
    })
}

fn groups(rounds: &[Round]) -> Vec<Group> {
    let names = [
        "commits of 1",
        "beats, commits of 100",
        "beats, commits of 1,000",
        "beats, commits of 10,000",
    ];
    let sizes = SIZES.iter().zip(names).enumerate();
    let figures = sizes.map(|(n, (size, name))| {
        let beats = |of: &Vec<f64>| of.get(n).map(|commits| commits * *size as f64);
        let values = rounds.iter().filter_map(|r| beats(&r.ours)).collect();
        let beside = rounds.iter().filter_map(|r| beats(&r.bare)).collect();
        let asked = if *size == ASKED { Asked::AtLeast(100e3) } else { Asked::Nothing };
        Figure { name, unit: Unit::Rate, values, beside, asked }
    });
    let single = |name, pick: fn(&Round) -> f64| {
        let values = rounds.iter().map(pick).collect();
        let beside = rounds.iter().map(|r| r.syncs).collect();
        Figure { name, unit: Unit::Rate, values, beside, asked: Asked::Nothing }
    };
    vec![
        Group {
            title: "Durable beats a second, one commit after the other".into(),
            beside: "bare redb, rows of the same bytes",
            figures: figures.collect(),
        },
        Group {
            title: "Commits a second".into(),
            beside: "4 KiB written and synced (fdatasync) again and again",
            figures: vec![
                single("commits of 1", |r| r.ours.first().copied().unwrap_or_default()),
                single("bare redb, commits of 1", |r| r.bare.first().copied().unwrap_or_default()),
                single("writes, 1,000 at a time", |r| r.grouped),
            ],
        },
    ]
}

fn one(dir: &Path, ids: &[WorkerId]) -> Result<Round, BenchError> {
    let syncs = disk(&dir.join("sync"))?;
    let store = Store::open(&dir.join("store.db"))?;
    let bare = Database::create(dir.join("bare.db")).map_err(redb::Error::from)?;
    let mut round = Round { ours: Vec::new(), bare: Vec::new(), grouped: 0.0, syncs };
    let fill: Vec<_> = ids.iter().map(|id| (*id, beat(0))).collect();
    beats(&store, fill.clone())?;
    bare_beats(&bare, &fill)?;
    for size in SIZES {
        round.ours.push(rate(ids, size, |rows| beats(&store, rows))?);
        round.bare.push(rate(ids, size, |rows| bare_beats(&bare, &rows))?);
    }
    round.grouped = 1_000.0 * rate(ids, 1_000, |rows| singles(&store, rows))?;
    Ok(round)
}

fn beat(n: u64) -> Beat {
    Beat { epoch: 1, beat: n, unix_ms: SystemClock.unix_ms() }
}

/// How often a second `commit` takes the next `size` beats of the fleet.
fn rate(
    ids: &[WorkerId],
    size: usize,
    mut commit: impl FnMut(Vec<(WorkerId, Beat)>) -> Result<(), BenchError>,
) -> Result<f64, BenchError> {
    let mut fleet = ids.iter().cycle();
    let (since, mut commits) = (SystemClock.now(), 0u32);
    loop {
        let rows = fleet.by_ref().take(size).map(|id| (*id, beat(commits.into()))).collect();
        commit(rows)?;
        commits += 1;
        let took = SystemClock.now().since(since);
        if took >= WINDOW {
            return Ok(f64::from(commits) / took.as_secs_f64());
        }
    }
}

/// One commit, submitted as the ledger submits what has come since the last.
fn beats(store: &Store, rows: Vec<(WorkerId, Beat)>) -> Result<(), BenchError> {
    let (done, outcome) = sync_channel(1);
    store.submit(
        Priority::Background,
        move |batch| batch.put_all(BEATS, rows.iter().map(|(id, beat)| (id, beat))),
        move |result| drop(done.send(result)),
    );
    outcome.recv().map_err(|_| BenchError::ServerEnded)?.map_err(BenchError::Store)
}

/// A write for each row, as registrations come, and the wait for the last.
fn singles(store: &Store, rows: Vec<(WorkerId, Beat)>) -> Result<(), BenchError> {
    let (done, outcome) = sync_channel(rows.len());
    for (id, beat) in rows {
        let done = done.clone();
        store.submit(
            Priority::Control,
            move |batch| batch.put(BEATS, &id, &beat),
            move |result| drop(done.send(result)),
        );
    }
    drop(done);
    while let Ok(result) = outcome.recv() {
        result.map_err(BenchError::Store)?;
    }
    Ok(())
}

fn bare_beats(bare: &Database, rows: &[(WorkerId, Beat)]) -> Result<(), BenchError> {
    let mut transaction = bare.begin_write().map_err(redb::Error::from)?;
    transaction.set_durability(Durability::Immediate).map_err(redb::Error::from)?;
    {
        let mut table = transaction.open_table(BARE).map_err(redb::Error::from)?;
        let mut bytes = Vec::new();
        for (id, beat) in rows {
            bytes.clear();
            let Beat { epoch, beat, unix_ms } = beat;
            // The same bytes, without a serializer.
            let written =
                write!(bytes, "{{\"epoch\":{epoch},\"beat\":{beat},\"unix_ms\":{unix_ms}}}");
            written.map_err(BenchError::io("no memory"))?;
            table.insert(&id.to_bytes()[..], &bytes[..]).map_err(redb::Error::from)?;
        }
    }
    transaction.commit().map_err(redb::Error::from)?;
    Ok(())
}

/// Syncs a second of a file that does not grow.
fn disk(path: &Path) -> Result<f64, BenchError> {
    let measured = (|| {
        let mut file = File::create(path)?;
        file.write_all(&[0; 64 * 1024])?;
        file.sync_all()?;
        let (since, mut syncs) = (SystemClock.now(), 0u32);
        loop {
            file.seek(SeekFrom::Start(u64::from(syncs % 16) * 4096))?;
            file.write_all(&[1; 4096])?;
            file.sync_data()?;
            syncs += 1;
            let took = SystemClock.now().since(since);
            if took >= WINDOW {
                return Ok(f64::from(syncs) / took.as_secs_f64());
            }
        }
    })();
    measured.map_err(BenchError::io("cannot write and sync a file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_row_has_the_bytes_of_the_ledgers() {
        let dir = tempfile::tempdir().unwrap();
        let (id, row) = (WorkerId::generate(), beat(7));
        bare_beats(&Database::create(dir.path().join("b")).unwrap(), &[(id, row)]).unwrap();
        let store = Store::open(&dir.path().join("b2")).unwrap();
        beats(&store, vec![(id, row)]).unwrap();
        drop(store);
        let read = |name| {
            use redb::ReadableDatabase;
            let db = Database::open(dir.path().join(name)).unwrap();
            let table = db.begin_read().unwrap().open_table(BARE).unwrap();
            table.get(&id.to_bytes()[..]).unwrap().unwrap().value().to_vec()
        };
        assert_eq!(read("b"), read("b2"));
    }
}
