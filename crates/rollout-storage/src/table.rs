//! Typed tables: keys whose bytes sort as the values do, and values as JSON.

use std::marker::PhantomData;
use std::path::Path;

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use rollout_core::WorkerId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StorageError;

/// A table's name with the types of its keys and values.
pub struct Table<K, V> {
    name: &'static str,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Table<K, V> {}

impl<K, V> Table<K, V> {
    /// The table of this name; it comes into being with the first write.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, types: PhantomData }
    }

    /// The table's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) const fn definition(
        &self,
    ) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.name)
    }
}

/// A key: its bytes sort as it does.
pub trait Key: Sized {
    /// The key's bytes.
    fn encode(&self) -> impl AsRef<[u8]>;
    /// The key of these bytes, if they are one's.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

impl Key for WorkerId {
    fn encode(&self) -> impl AsRef<[u8]> {
        self.to_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_bytes)
    }
}

impl Key for u64 {
    fn encode(&self) -> impl AsRef<[u8]> {
        self.to_be_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

impl Key for String {
    fn encode(&self) -> impl AsRef<[u8]> {
        self.as_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

/// The single row of a table that has but one.
impl Key for () {
    fn encode(&self) -> impl AsRef<[u8]> {
        []
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

/// The transaction a write takes part in.
pub struct Batch<'t> {
    pub(crate) transaction: &'t WriteTransaction,
    pub(crate) path: &'t Path,
}

impl Batch<'_> {
    /// Puts one row.
    ///
    /// # Errors
    /// When the value has no JSON form or redb fails; the whole group then fails.
    pub fn put<K: Key, V: Serialize>(
        &mut self,
        table: Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), StorageError> {
        self.put_all(table, std::iter::once((key, value)))
    }

    /// Puts many rows of one table.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn put_all<'r, K: Key + 'r, V: Serialize + 'r>(
        &mut self,
        table: Table<K, V>,
        rows: impl IntoIterator<Item = (&'r K, &'r V)>,
    ) -> Result<(), StorageError> {
        let mut opened = self
            .transaction
            .open_table(table.definition())
            .map_err(|e| StorageError::redb(self.path, e.into()))?;
        let mut bytes = Vec::new();
        for (key, value) in rows {
            bytes.clear();
            serde_json::to_writer(&mut bytes, value)
                .map_err(|source| StorageError::Encode { table: table.name(), source })?;
            opened
                .insert(key.encode().as_ref(), bytes.as_slice())
                .map_err(|e| StorageError::redb(self.path, e.into()))?;
        }
        Ok(())
    }

    /// Removes one row, if it is there.
    ///
    /// # Errors
    /// When redb fails; the whole group then fails.
    pub fn remove<K: Key, V>(&mut self, table: Table<K, V>, key: &K) -> Result<(), StorageError> {
        let mut opened = self
            .transaction
            .open_table(table.definition())
            .map_err(|e| StorageError::redb(self.path, e.into()))?;
        opened
            .remove(key.encode().as_ref())
            .map(drop)
            .map_err(|e| StorageError::redb(self.path, e.into()))
    }

    /// The value at `key`, as the writes before this one in the same group have left it.
    ///
    /// # Errors
    /// When redb fails, or the value is not of the table's type; the whole group then fails.
    pub fn get<K: Key, V: DeserializeOwned>(
        &self,
        table: Table<K, V>,
        key: &K,
    ) -> Result<Option<V>, StorageError> {
        let opened = self
            .transaction
            .open_table(table.definition())
            .map_err(|e| StorageError::redb(self.path, e.into()))?;
        let bytes = opened
            .get(key.encode().as_ref())
            .map_err(|e| StorageError::redb(self.path, e.into()))?;
        let decode = |bytes: &[u8]| {
            serde_json::from_slice(bytes).map_err(|e| StorageError::Row {
                path: self.path.to_owned(),
                table: table.name(),
                source: Some(e),
            })
        };
        bytes.map(|bytes| decode(bytes.value())).transpose()
    }

    /// Removes the rows from `first` to `last`, both included.
    ///
    /// # Errors
    /// When redb fails; the whole group then fails.
    pub fn remove_range<K: Key, V>(
        &mut self,
        table: Table<K, V>,
        first: &K,
        last: &K,
    ) -> Result<(), StorageError> {
        let mut opened = self
            .transaction
            .open_table(table.definition())
            .map_err(|e| StorageError::redb(self.path, e.into()))?;
        let (first, last) = (first.encode(), last.encode());
        opened
            .retain_in(first.as_ref()..=last.as_ref(), |_, _| false)
            .map_err(|e| StorageError::redb(self.path, e.into()))
    }

    /// Refuses the whole group: what it was based on does not hold any more.
    #[must_use]
    pub fn fenced(&self, detail: String) -> StorageError {
        StorageError::Fenced { path: self.path.to_owned(), detail }
    }
}
