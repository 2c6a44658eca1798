//! What a JSON Schema has to say of types whose own reading says more than serde's derive shows: texts
//! with a form, and rules between keys. The rest is derived.
//!
//! Draft 7 of the language, which editors know for TOML.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::Event;
use crate::duration::AsText;
use crate::event::{Body, Kind, Level, Line};

/// A ULID.
pub(crate) const ULID: &str = "^[0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{26}$";
/// `host:port`; that the port is below 65536 is for the program to say.
pub(crate) const HOST_PORT: &str = "^[^/]+:[0-9]{1,5}$";
/// An address of either family and a port; the rest is likewise for the program to say.
pub(crate) const ADDRESS_PORT: &str = r"^([0-9.]+|\[[0-9A-Fa-f:.%]+\]):[0-9]{1,5}$";
/// RFC 3339 in UTC.
pub(crate) const INSTANT: &str =
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z$";
/// Numbers with their units, as the crate `humantime` reads them.
const DURATION: &str = concat!(
    r"^0$|^(\s*[0-9]+(\.[0-9]+)?\s*(ns|nsec|nanos|us|µs|usec|ms|msec|millis|s|sec|secs|second",
    r"|seconds|m|min|mins|minute|minutes|h|hr|hrs|hour|hours|d|day|days|w|wk|wks|week|weeks|M|month",
    r"|months|y|yr|yrs|year|years))+\s*$"
);

/// Any table, for a field whose own type has no schema.
pub type Table = Map<String, Value>;

/// A text of a form.
pub(crate) fn text(what: &str, pattern: &str) -> Schema {
    json_schema!({ "type": "string", "description": what, "pattern": pattern })
}

impl JsonSchema for AsText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = text("A number with its unit, or several.", DURATION);
        schema.insert("examples".into(), json!(["500ms", "5s", "1m 30s"]));
        schema
    }
}

/// Either `tls_dir`, or all of `ca`, `cert` and `key`.
pub(crate) fn one_certificate(schema: &mut Schema) {
    let any = ["ca", "cert", "key"].map(|key| json!({ "required": [key] }));
    schema.insert(
        "oneOf".into(),
        json!([
            { "required": ["tls_dir"], "not": { "anyOf": any } },
            { "required": ["ca", "cert", "key"], "not": { "required": ["tls_dir"] } },
        ]),
    );
}

impl JsonSchema for Event {
    fn schema_name() -> Cow<'static, str> {
        "Event".into()
    }

    /// The envelope, and for each topic what else holds.
    fn json_schema(made: &mut SchemaGenerator) -> Schema {
        let mut schema = Line::json_schema(made);
        let mut topics: Vec<_> = Body::schemas(made)
            .into_iter()
            .map(|(topic, level, attrs)| of_topic(topic, Some(level), Kind::Event, attrs))
            .collect();
        let fields = json_schema!({ "type": "object", "description": "A tracing record." });
        topics.push(of_topic("log", None, Kind::Log, fields));
        schema.insert("description".into(), "One line of a process's standard output.".into());
        schema.insert("oneOf".into(), topics.into());
        // What may be left out, and what is then null, is the writer's to say.
        let always =
            ["seq", "ts", "mono_ns", "level", "kind", "topic", "run_id", "attrs"].map(Value::from);
        schema.insert("required".into(), always.to_vec().into());
        for key in ["worker_id", "message"] {
            if let Some(Value::Object(property)) = schema.pointer_mut(&format!("/properties/{key}"))
            {
                property.insert("type".into(), "string".into());
            }
        }
        schema
    }
}

/// What holds of the lines of a topic.
fn of_topic(topic: &str, level: Option<Level>, kind: Kind, mut attrs: Schema) -> Value {
    let description = attrs.remove("description");
    let mut properties = json!({ "topic": { "const": topic }, "kind": { "const": kind } });
    if let Some(level) = level {
        properties["level"] = json!({ "const": level });
    }
    properties["attrs"] = attrs.to_value();
    json!({ "title": topic, "description": description, "properties": properties })
}

/// The schema of what people write as `T`, in TOML.
#[must_use]
pub fn of_file<T: JsonSchema>() -> Schema {
    let settings = settings().with_transform(RecursiveTransform(without_null));
    settings.for_deserialize().into_generator().into_root_schema_for::<T>()
}

/// The schema of what is written as `T`, in JSON.
#[must_use]
pub fn of_line<T: JsonSchema>() -> Schema {
    settings().for_serialize().into_generator().into_root_schema_for::<T>()
}

/// Everything in its place: nothing is referred to, so that an editor need not follow.
fn settings() -> SchemaSettings {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    settings.with_transform(RecursiveTransform(in_one_line))
}

/// A doc comment's line breaks mean nothing.
fn in_one_line(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
    }
}

/// TOML has no null: what is optional is left out.
fn without_null(schema: &mut Schema) {
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|it| it != "null");
        if let [only] = &**types {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
}
