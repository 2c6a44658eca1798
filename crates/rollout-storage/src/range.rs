//! Reading a part of a table, in key order.

use std::ops::ControlFlow;

use crate::{Key, StorageError, Store, Table};

impl Store {
    /// Hands the rows from `from` on to `row`, in key order, until it breaks; as of the newest commit.
    ///
    /// # Errors
    /// When the file cannot be read, or a row is not of the table's type.
    pub fn range<K: Key, V: serde::de::DeserializeOwned>(
        &self,
        table: Table<K, V>,
        from: &K,
        mut row: impl FnMut(K, V) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.read(table, |rows| {
            let from = from.encode();
            let found = rows.range(from.as_ref()..).map_err(|e| self.failed(e.into()))?;
            for entry in found {
                let (key, value) = entry.map_err(|e| self.failed(e.into()))?;
                let key = K::decode(key.value()).ok_or_else(|| StorageError::Row {
                    path: self.path.clone(),
                    table: table.name(),
                    source: None,
                })?;
                if row(key, self.decode(table.name(), value.value())?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }
}
