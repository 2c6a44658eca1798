//! A property test: the power fails at any moment. What was written and not synced may be there,
//! may be there in part, and may be lost, in any combination; what was acknowledged is there.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use redb::StorageBackend;

#[path = "../tests/crash/load.rs"]
mod load;

use crate::{Batch, Priority, StorageError, Store, Table};
use load::{State, mix};

/// A disk tears a write between two sectors.
const SECTOR: usize = 512;

/// A disk in memory, with a cache that is lost with the power.
#[derive(Default)]
struct Disk {
    /// What is read.
    seen: Vec<u8>,
    /// What has been synced.
    platter: Vec<u8>,
    /// What has happened since.
    cached: Vec<Change>,
    /// Writes and syncs until the power fails.
    left: u64,
}

#[derive(Clone)]
enum Change {
    Length(usize),
    Sector(usize, Vec<u8>),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Sector(at, data) => {
                // The file's new length may have been lost.
                let end = at + data.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at..end].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    /// Takes one operation, if there is power.
    fn spend(&mut self) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| io::Error::other("no power"))?;
        Ok(())
    }

    /// What is found when the power is back: of the cache, whatever `seed` says.
    fn survives(&self, seed: u64) -> Vec<u8> {
        let mut bytes = self.platter.clone();
        let kept = |n: usize| mix(seed ^ n as u64) & 1 == 0;
        let cached = self.cached.iter().enumerate().filter(|(n, _)| kept(*n));
        cached.for_each(|(_, change)| change.apply(&mut bytes));
        bytes
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Disk>>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a disk in memory")
    }
}

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let disk = self.0.lock().unwrap();
        let found = disk.seen.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.spend()?;
        let change = Change::Length(usize::try_from(len).unwrap());
        change.apply(&mut disk.seen);
        disk.cached.push(change);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.spend()?;
        let Disk { platter, cached, .. } = &mut *disk;
        cached.drain(..).for_each(|change| change.apply(platter));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.spend()?;
        let mut at = usize::try_from(offset).unwrap();
        let mut rest = data;
        while !rest.is_empty() {
            let (sector, after) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
            let change = Change::Sector(at, sector.to_vec());
            change.apply(&mut disk.seen);
            disk.cached.push(change);
            (at, rest) = (at + sector.len(), after);
        }
        Ok(())
    }
}

fn open(disk: &Shared) -> Result<Store, StorageError> {
    let db = crate::builder().create_with_backend(disk.clone());
    Store::start(db, Path::new("a disk in memory"))
}

/// Writes until the power fails; the newest write that was acknowledged, if the file was opened.
fn write_until_it_fails(disk: &Shared, most: u64) -> Option<u64> {
    let store = open(disk).ok()?;
    let before = State::of(&store).ok()?.newest;
    let acknowledged = Arc::new(Mutex::new(before));
    for n in before + 1..=most {
        let acknowledged = Arc::clone(&acknowledged);
        store.submit(
            Priority::Control,
            move |batch| load::write(n, batch),
            move |outcome| {
                if outcome.is_ok() {
                    *acknowledged.lock().unwrap() = n;
                }
            },
        );
        if n.is_multiple_of(3) && store.write(|_| Ok(())).is_err() {
            break;
        }
    }
    drop(store);
    let newest = *acknowledged.lock().unwrap();
    Some(newest)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn what_was_acknowledged_survives_a_power_cut_whatever_the_disk_had_not_synced(
        cuts in prop::collection::vec((1u64..600, any::<u64>()), 1..4)
    ) {
        let disk = Shared::default();
        // A file has no name before it is a whole database.
        disk.0.lock().unwrap().left = u64::MAX;
        drop(open(&disk).unwrap());
        let mut acknowledged = 0;
        for (operations, seed) in cuts {
            disk.0.lock().unwrap().left = operations;
            let most = acknowledged + 200;
            acknowledged = write_until_it_fails(&disk, most).unwrap_or(acknowledged);
            let bytes = disk.0.lock().unwrap().survives(seed);
            let left = u64::MAX;
            let found = Disk { seen: bytes.clone(), platter: bytes, cached: Vec::new(), left };
            *disk.0.lock().unwrap() = found;
            let store = open(&disk).map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
            let found = State::of(&store).unwrap();
            let range = acknowledged..=most;
            prop_assert!(range.contains(&found.newest), "{range:?}, found {}", found.newest);
            let mut expected = State::default();
            expected.advance(found.newest);
            prop_assert_eq!(&found, &expected);
            acknowledged = found.newest;
        }
    }
}
