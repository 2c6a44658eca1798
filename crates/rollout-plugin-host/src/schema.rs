//! What the schema of a manifest says beside what is derived from its types.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::Manifest;
use crate::manifest::{File, SIDECAR_KEYS};

/// A plugin's name or version.
pub(crate) const NAME: &str = "^[A-Za-z0-9_.+-]{1,64}$";
/// SHA-256 in hex.
pub(crate) const SHA256: &str = "^[0-9A-Fa-f]{64}$";

impl JsonSchema for Manifest {
    fn schema_name() -> Cow<'static, str> {
        "Manifest".into()
    }

    fn json_schema(made: &mut SchemaGenerator) -> Schema {
        File::json_schema(made)
    }
}

/// A path without the suffix of a library.
pub(crate) fn stem(schema: &mut Schema) {
    schema.insert("minLength".into(), 1.into());
    schema.insert("not".into(), json!({ "pattern": r"\.(so|dylib)$" }));
}

/// Either a library or a process.
pub(crate) fn one_entry(schema: &mut Schema) {
    let either = ["cdylib", "sidecar"].map(|key| json!({ "required": [key] }));
    schema.insert("oneOf".into(), either.to_vec().into());
}

/// For a library, no key that is for sidecars.
pub(crate) fn no_sidecar_keys(schema: &mut Schema) {
    let mut tables = Map::new();
    for (table, key) in SIDECAR_KEYS {
        let properties = tables.entry(*table).or_insert_with(|| json!({ "properties": {} }));
        properties["properties"][*key] = Value::Bool(false);
    }
    let library = json!({ "properties": { "entry": { "required": ["cdylib"] } } });
    schema.insert("if".into(), library);
    schema.insert("then".into(), json!({ "properties": tables }));
}
