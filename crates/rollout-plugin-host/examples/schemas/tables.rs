//! Tables of the book, out of schemas.

use schemars::Schema;
use serde_json::{Map, Value};

/// A key of a file, as the book's table has it.
#[derive(PartialEq)]
struct Key {
    name: String,
    default: String,
    meaning: String,
}

/// The keys that both files have with the same meaning, and those of one.
pub(crate) fn keys(coordinator: &Schema, worker: &Schema) -> [(&'static str, String); 3] {
    let [coordinator, worker] = [coordinator, worker].map(|schema| {
        let mut keys = Vec::new();
        collect("", schema.as_value(), &mut keys);
        keys
    });
    let (both, of_coordinator): (Vec<_>, Vec<_>) =
        coordinator.into_iter().partition(|key| worker.contains(key));
    let of_worker: Vec<_> = worker.into_iter().filter(|key| !both.contains(key)).collect();
    [
        ("keys-of-both.md", table(&both)),
        ("keys-of-coordinator.md", table(&of_coordinator)),
        ("keys-of-worker.md", table(&of_worker)),
    ]
}

fn table(keys: &[Key]) -> String {
    let mut text = "| key | default | meaning |\n| --- | --- | --- |\n".to_owned();
    for Key { name, default, meaning } in keys {
        text.push_str(&format!("| `{name}` | {default} | {meaning} |\n"));
    }
    text
}

/// The keys of a table and of the tables in it.
fn collect(prefix: &str, schema: &Value, keys: &mut Vec<Key>) {
    let required = schema["required"].as_array();
    for (key, of_key) in schema["properties"].as_object().into_iter().flatten() {
        let name = format!("{prefix}{key}");
        if of_key["properties"].is_object() {
            collect(&format!("{name}."), of_key, keys);
            continue;
        }
        let must = required.is_some_and(|keys| keys.iter().any(|it| it == key));
        let default = match of_key.get("default") {
            Some(Value::String(text)) => format!("`{text}`"),
            Some(value) => value.to_string(),
            None => if must { "required" } else { "" }.to_owned(),
        };
        keys.push(Key { name, default, meaning: meaning(of_key) });
    }
}

/// What a key says, with the values that it may have.
fn meaning(schema: &Value) -> String {
    let said = sentence(schema).trim_end_matches('.').to_owned();
    let choices = schema["oneOf"].as_array().into_iter().flatten();
    let choices: Vec<_> = choices
        .filter_map(|choice| {
            let means = sentence(choice).trim_end_matches('.').to_lowercase();
            Some(format!("`{}` ({means})", choice["const"].as_str()?))
        })
        .collect();
    match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        _ if !choices.is_empty() => format!("{said}: {}.", choices.join(", ")),
        (Some(least), Some(most)) => format!("{said}; {least} to {most}."),
        _ => format!("{said}."),
    }
}

/// Every topic with its level, what it says, and its attributes.
pub(crate) fn topics(event: &Schema) -> String {
    let mut text =
        "| topic | level | it says | attributes |\n| --- | --- | --- | --- |\n".to_owned();
    for topic in event.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        let properties = &topic["properties"];
        let level = properties["level"]["const"].as_str().unwrap_or("its own");
        let name = properties["topic"]["const"].as_str().unwrap_or_default();
        let said = sentence(topic);
        let attributes = attributes(properties["attrs"]["properties"].as_object());
        text.push_str(&format!("| `{name}` | {level} | {said} | {attributes} |\n"));
    }
    text
}

fn attributes(properties: Option<&Map<String, Value>>) -> String {
    let each = properties.into_iter().flatten();
    each.map(|(name, schema)| format!("`{name}`: {}", sentence(schema)))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The description, fit for a cell.
fn sentence(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace('|', "\\|")
}
