//! The schemas that are checked in are schemas, and say of a file what the program says of it.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic fails the test")]

#[path = "schema/files.rs"]
mod files;
#[path = "schema/validator.rs"]
mod validator;

use assert_cmd::Command;
use predicates::str::contains;
use serde_json::{Value, json};

use crate::files::{FILES, File, Kind, values};
use crate::validator::violations;

/// A schema, as the program prints it.
fn schema(kind: Kind) -> Value {
    let printed = rollout().args(["schema", kind.name()]).assert().success();
    serde_json::from_slice(&printed.get_output().stdout).unwrap()
}

fn rollout() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rollout"))
}

#[test]
fn the_validator_tells_right_from_wrong_and_knows_what_it_does_not_know() {
    let cases = [
        (json!({ "type": ["string", "null"] }), json!(null), json!(1)),
        (json!({ "type": "integer" }), json!(2), json!(2.5)),
        (json!({ "enum": [1, "a"] }), json!("a"), json!("b")),
        (json!({ "minimum": 2, "maximum": 4 }), json!(4), json!(5)),
        (json!({ "exclusiveMinimum": 0 }), json!(0.1), json!(0)),
        (json!({ "minLength": 2, "maxLength": 2 }), json!("üü"), json!("ü")),
        (json!({ "pattern": "b$" }), json!("ab"), json!("ba")),
        (json!({ "minItems": 1, "uniqueItems": true }), json!([1, 2]), json!([1, 1])),
        (json!({ "items": { "type": "string" } }), json!(["a"]), json!(["a", 1])),
        (json!({ "items": [{ "const": 1 }] }), json!([1, 2]), json!([2])),
        (json!({ "required": ["a"] }), json!({ "a": null }), json!({})),
        (json!({ "properties": { "a": false } }), json!({ "b": 1 }), json!({ "a": 1 })),
        (
            json!({ "properties": { "a": {} }, "additionalProperties": false }),
            json!({ "a": 1 }),
            json!({ "b": 1 }),
        ),
        (json!({ "propertyNames": { "maxLength": 1 } }), json!({ "a": 1 }), json!({ "ab": 1 })),
        (json!({ "allOf": [{ "minimum": 1 }, { "maximum": 2 }] }), json!(2), json!(3)),
        (json!({ "anyOf": [{ "const": 1 }, { "const": 2 }] }), json!(2), json!(3)),
        (json!({ "oneOf": [{ "minimum": 1 }, { "minimum": 2 }] }), json!(1), json!(2)),
        (json!({ "not": { "const": 1 } }), json!(2), json!(1)),
        (json!({ "if": { "const": 1 }, "then": false }), json!(2), json!(1)),
        (json!({ "if": { "const": 1 }, "else": false }), json!(1), json!(2)),
        (
            json!({ "definitions": { "a": { "const": 1 } }, "$ref": "#/definitions/a" }),
            json!(1),
            json!(2),
        ),
    ];
    for (schema, right, wrong) in cases {
        assert_eq!(violations(&schema, &right), [""; 0], "{schema}");
        assert_ne!(violations(&schema, &wrong), [""; 0], "{schema}");
    }
    for unknown in [json!({ "dependencies": {} }), json!({ "$ref": "#/definitions/a" }), json!(1)] {
        assert_ne!(violations(&unknown, &json!({})), [""; 0], "{unknown}");
    }
}

#[test]
fn every_schema_is_one_and_a_broken_one_is_none() {
    let meta: Value = serde_json::from_str(include_str!("schema/draft-07.json")).unwrap();
    assert_eq!(violations(&meta, &meta), [""; 0], "the schema of schemas itself");
    for kind in Kind::ALL {
        let schema = schema(kind);
        assert_eq!(schema["$schema"], meta["$id"], "{kind:?}");
        assert_eq!(violations(&meta, &schema), [""; 0], "{kind:?}");
        for (key, wrong) in
            [("type", json!("tabel")), ("required", json!("all")), ("properties", json!([]))]
        {
            let mut broken = schema.clone();
            broken[key] = wrong;
            assert_ne!(violations(&meta, &broken), [""; 0], "{kind:?}: {key}");
        }
    }
}

#[test]
fn a_kind_that_has_no_schema_is_a_usage_error_that_names_those_that_have() {
    let names = contains("config, job, manifest, event");
    rollout().args(["schema", "jobs"]).assert().code(64).stderr(names);
    rollout().arg("schema").assert().code(64);
    rollout().args(["schema", "--help"]).assert().success().stdout(contains("#:schema"));
}

#[test]
fn every_file_in_the_tree_names_its_schema_and_is_as_it_says() {
    let found = files::in_tree();
    let count = |kind| found.iter().filter(|file| file.1 == kind).count();
    let least = [(Kind::Config, 2), (Kind::Job, 3), (Kind::Manifest, 10)];
    assert!(least.into_iter().all(|(kind, least)| count(kind) >= least), "{found:?}");
    for (path, kind) in &found {
        let text = std::fs::read_to_string(path).unwrap();
        let named = text.lines().next().and_then(|line| line.strip_prefix("#:schema "));
        let named = named.unwrap_or_else(|| panic!("{path:?}: its first line names no schema"));
        assert!(files::leads_to(path, named, *kind), "{path:?}: {named} is not its kind's schema");
        assert_eq!(violations(&schema(*kind), &files::json(&text)), [""; 0], "{path:?}");
    }
}

#[test]
fn a_key_that_no_type_has_is_refused_in_each_table_or_taken_as_the_program_does() {
    for file in FILES {
        let schema = schema(file.kind);
        let value = file.value();
        assert!(file.is_read(&value), "{file:?}");
        assert_eq!(violations(&schema, &value), [""; 0], "{file:?}");
        let mut tried = 0;
        for table in values(&value).into_iter().filter(|(_, value)| value.is_object()) {
            let mut more = value.clone();
            more.pointer_mut(&table.0).unwrap()["no_such_key"] = json!("x");
            let valid = violations(&schema, &more).is_empty();
            assert_eq!(valid, file.is_read(&more), "{}: {more}", table.0);
            tried += 1;
        }
        assert!(tried > 1, "{file:?}");
    }
}

#[test]
fn a_value_at_the_edge_of_its_range_or_of_another_type_is_judged_as_the_program_judges_it() {
    for file in FILES {
        let schema = schema(file.kind);
        let value = file.value();
        for (place, there) in values(&value) {
            for other in others(&file, &place, &there) {
                let mut changed = value.clone();
                *changed.pointer_mut(&place).unwrap() = other.clone();
                let valid = violations(&schema, &changed);
                let read = file.is_read(&changed);
                assert_eq!(valid.is_empty(), read, "{file:?}: {place} = {other}: {valid:?}");
            }
        }
    }
}

/// What to put in place of a value: of another type, and at the edges that its schema names.
fn others(file: &File, place: &str, there: &Value) -> Vec<Value> {
    // What is handed to plugins may be anything, and what a probe or a command says, too.
    if ["/config/", "/probe/params/", "/entry/sidecar/env/"].iter().any(|it| place.starts_with(it))
    {
        return Vec::new();
    }
    let mut others = vec![json!(true), json!([[1]]), json!(1.5), json!(-1)];
    let of_place = files::of_place(&schema(file.kind), place);
    for bound in ["minimum", "maximum"].iter().filter_map(|bound| of_place[*bound].as_i64()) {
        others.extend([bound - 1, bound, bound + 1].map(Value::from));
    }
    if there.is_string() {
        others.extend(["no such word", ""].map(Value::from));
    }
    // That a program and a variable's name are not empty is for the program to say.
    let laxer = ["/command/", "/env_allow/"].iter().any(|part| place.contains(part));
    others.retain(|other| !(laxer && *other == ""));
    others
}

#[test]
fn a_text_is_a_duration_for_the_schema_exactly_if_it_is_one_for_the_program() {
    let schema = schema(Kind::Job);
    let duration = files::of_place(&schema, "/job/item_timeout");
    let units = "ns nsec nanos us µs usec ms msec millis s sec secs second seconds m min mins \
                 minute minutes h hr hrs hour hours d day days w wk wks week weeks M month months y \
                 yr yrs year years S Ms parsec sek h. ";
    let units = units.split(' ').flat_map(|unit| {
        [format!("5{unit}"), format!("1.5{unit}"), format!("1 {unit} 20 {unit}"), unit.to_owned()]
    });
    let odd = [
        "0", "00", " 0", "0s", "1", "", " ", "1m 30s", "1m30s", " 1s ", "-1s", "+1s", "1,5s",
        "1.s", ".5s", "1e3s", "s5", "5s.", "5s 1",
    ];
    for text in units.chain(odd.map(str::to_owned)) {
        let read = rollout_core::duration::deserialize(toml::Value::from(&*text));
        // Less than a nanosecond is no duration, which no pattern says.
        let is_one = read.is_ok() || read.is_err_and(|error| error.to_string().contains("1ns"));
        let violations = violations(&duration, &json!(text));
        assert_eq!(violations.is_empty(), is_one, "`{text}`: {violations:?}");
    }
}

#[test]
fn ids_addresses_names_and_digests_have_the_form_that_the_program_asks_for() {
    let ulid = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let hex = "0aF".repeat(21) + "9";
    let [coordinator, worker, cdylib, sidecar, _] = FILES;
    for (file, place, texts) in [
        (
            coordinator,
            "/run_id",
            vec![ulid.to_owned(), ulid.to_lowercase(), ulid.replace('A', "I")],
        ),
        (coordinator, "/run_id", vec![format!("{ulid}0"), ulid[1..].to_owned(), "Z".repeat(26)]),
        (
            worker,
            "/coordinator",
            ["h:1", "[::1]:1", "h", ":1", "h:", "h:a", "http://h:1"].map(String::from).to_vec(),
        ),
        (
            cdylib,
            "/plugin/name",
            ["a", "a-b_c.d+1", "a b", "ä", &"a".repeat(64), &"a".repeat(65)]
                .map(String::from)
                .to_vec(),
        ),
        (
            cdylib,
            "/entry/cdylib/sha256",
            vec![hex.clone(), hex.to_uppercase(), hex[1..].to_owned(), hex.replace('a', "g")],
        ),
        (
            cdylib,
            "/entry/cdylib/path",
            ["a", "x/a", "liba.so", "a.dylib", "a.so.1"].map(String::from).to_vec(),
        ),
        (sidecar, "/plugin/version", ["1", "1.0", "1/0"].map(String::from).to_vec()),
    ] {
        for text in texts {
            let mut changed = file.value();
            *changed.pointer_mut(place).unwrap() = json!(text);
            let valid = violations(&schema(file.kind), &changed);
            assert_eq!(valid.is_empty(), file.is_read(&changed), "{place} = {text}: {valid:?}");
        }
    }
}

#[test]
fn a_file_without_a_key_or_with_two_that_exclude_each_other_is_judged_as_the_program_judges_it() {
    let [coordinator, worker, cdylib, sidecar, _] = FILES;
    let mut tried = 0;
    for file in FILES {
        for (place, _) in values(&file.value()).into_iter().skip(1) {
            let mut less = file.value();
            let (table, key) = place.rsplit_once('/').unwrap();
            let Some(table) = less.pointer_mut(table).and_then(Value::as_object_mut) else {
                continue;
            };
            table.remove(key);
            let valid = violations(&schema(file.kind), &less);
            assert_eq!(
                valid.is_empty(),
                file.is_read(&less),
                "{file:?} without {place}: {valid:?}"
            );
            tried += 1;
        }
    }
    assert!(tried > 60);
    for (file, table, key, value) in [
        (coordinator, "", "ca", json!("ca.pem")),
        (worker, "", "tls_dir", json!("tls")),
        (cdylib, "/entry", "sidecar", json!({ "command": ["a"] })),
        (cdylib, "/limits", "memory", json!(1 << 30)),
        (cdylib, "/limits", "open_files", json!(100)),
        (cdylib, "/restart", "backoff_initial", json!("50ms")),
        (sidecar, "/entry", "cdylib", json!({ "path": "a" })),
    ] {
        let mut more = file.value();
        more.pointer_mut(table).unwrap()[key] = value;
        assert!(!file.is_read(&more), "{more}");
        assert_ne!(violations(&schema(file.kind), &more), [""; 0], "{more}");
    }
}
