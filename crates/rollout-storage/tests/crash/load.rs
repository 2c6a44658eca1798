//! A write load whose every state is known: write `n` is a function of `n`, and so is what the store
//! holds after it. Shared by whoever crashes it; `super` has the store's names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Batch, StorageError, Store, Table};

/// The number of the newest write; in one transaction with what it writes.
const NEWEST: Table<(), u64> = Table::new("newest");
const ROWS: Table<u64, Row> = Table::new("rows");
/// Few, so that rows are replaced and removed, not only added.
const KEYS: u64 = 64;

/// What a write leaves at its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    written_by: u64,
    fill: String,
}

/// What the store holds after some write.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The write's number.
    pub(crate) newest: u64,
    rows: BTreeMap<u64, Row>,
}

/// The key of write `n`, and what it puts there; nothing is put by one in four, which removes.
fn effect(n: u64) -> (u64, Option<Row>) {
    let random = mix(n);
    let length = usize::try_from(random >> 32).unwrap_or(0) % 700;
    let row = Row { written_by: n, fill: "x".repeat(length) };
    (random % KEYS, (random >> 16 & 3 != 0).then_some(row))
}

/// SplitMix64: numbers that look random, the same for the same `n`.
pub(crate) fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Does write `n`.
pub(crate) fn write(n: u64, batch: &mut Batch<'_>) -> Result<(), StorageError> {
    batch.put(NEWEST, &(), &n)?;
    match effect(n) {
        (key, Some(row)) => batch.put(ROWS, &key, &row),
        (key, None) => batch.remove(ROWS, &key),
    }
}

impl State {
    /// What the store holds.
    pub(crate) fn of(store: &Store) -> Result<Self, StorageError> {
        let newest = store.get(NEWEST, &())?.unwrap_or(0);
        Ok(Self { newest, rows: store.scan(ROWS)?.into_iter().collect() })
    }

    /// What it has to hold after write `n`, given that this is what it held before.
    pub(crate) fn advance(&mut self, n: u64) {
        for n in self.newest + 1..=n {
            match effect(n) {
                (key, Some(row)) => drop(self.rows.insert(key, row)),
                (key, None) => drop(self.rows.remove(&key)),
            }
            self.newest = n;
        }
    }
}
