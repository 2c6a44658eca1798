//! The C header says what the Rust types say: a C compiler is asked, with what Rust knows.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ctype;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ctype::{field, type_name};
use rollout_plugin_abi::{self as abi, level};
use rollout_process::{Io, Spawn};

/// Asserts in C for the size, and for offset, size and type of each field. The pattern without `..`
/// makes a field that is left out here an error.
macro_rules! layout {
    ($($name:ident { $($field:ident),+ })+) => {
        [$({
            let _ = |all: abi::$name| { let abi::$name { $($field: _),+ } = all; };
            let name = type_name::<abi::$name>();
            let mut lines = vec![format!("sizeof({name}) == {}", size_of::<abi::$name>())];
            $(lines.extend(field(
                &name,
                stringify!($field),
                std::mem::offset_of!(abi::$name, $field),
                |all: &abi::$name| &raw const all.$field,
            ));)+
            lines
        }),+].concat()
    };
}

fn layouts() -> Vec<String> {
    layout! {
        Slice { ptr, len }
        Buf { ptr, len, owner, release }
        Reply { struct_size, result, payload }
        Call { struct_size, call_id, method, params, payload, deadline_mono_ns, cancelled }
        Host { struct_size, ctx, log, progress, part }
        Sink { struct_size, ctx, item }
        RolloutPlugin {
            magic, abi_major, abi_minor, struct_size, flags, name, version, methods_json, create,
            call, shutdown, destroy, call_batch
        }
    }
}

/// The constants by their names in Rust, with their value and their name in C.
fn constants() -> Vec<(&'static str, u64, String)> {
    macro_rules! table {
        ($prefix:literal: $module:ident { $($name:ident),+ }) => {
            [$((stringify!($name), u64::try_from($module::$name).unwrap(),
                format!(concat!($prefix, "{}"), stringify!($name)))),+]
        };
    }
    let numbers = table!("ROLLOUT_": abi {
        MAGIC, ABI_MAJOR, ABI_MINOR, THREAD_SAFE, OK, USER_ERROR, BAD_PARAMS, UNKNOWN_METHOD, CANCELLED, DEADLINE,
        BUSY, PANIC
    });
    let levels = table!("ROLLOUT_LEVEL_": level { TRACE, DEBUG, INFO, WARN, ERROR });
    numbers.into_iter().chain(levels).collect()
}

/// What a C compiler says about a file that includes the header and then has these lines.
fn compile(lines: &[String]) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("check.c");
    let text = format!("#include <rollout/abi.h>\n#include <stddef.h>\n{}\n", lines.join("\n"));
    fs::write(&source, text).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let output = Spawn::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I"])
        .args([&include, &source])
        .stderr(Io::Pipe)
        .output(Some(Duration::from_secs(60)))
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.exit.success() { Ok(()) } else { Err(said) }
}

fn asserting(conditions: &[String]) -> Result<(), String> {
    let assert = |condition: &String| format!("_Static_assert({condition}, \"{condition}\");");
    compile(&conditions.iter().map(assert).collect::<Vec<_>>())
}

#[test]
fn every_struct_has_the_same_fields_of_the_same_types_at_the_same_places_in_c() {
    assert_eq!(asserting(&layouts()), Ok(()));
}

#[test]
fn a_difference_of_a_size_a_place_or_a_type_is_seen() {
    for (from, to) in [
        ("sizeof(RolloutCall) == 80", "sizeof(RolloutCall) == 88"),
        ("offsetof(RolloutCall, params) == 32", "offsetof(RolloutCall, params) == 40"),
        ("const uint32_t *: 1", "const uint64_t *: 1"),
        ("int32_t (*)(void *, uint64_t, RolloutBuf *): 1", "int32_t (*)(void *, uint64_t): 1"),
    ] {
        let wrong: Vec<_> = layouts().iter().map(|line| line.replace(from, to)).collect();
        let said = asserting(&wrong).unwrap_err();
        assert!(said.contains("assert"), "{from}: {said}");
    }
}

#[test]
fn every_constant_has_the_same_value_in_c() {
    let equal = |(_, value, name): &(_, u64, String)| format!("{name} == UINT64_C({value})");
    assert_eq!(asserting(&constants().iter().map(equal).collect::<Vec<_>>()), Ok(()));
}

#[test]
fn no_constant_is_missing_in_c_or_known_there_alone() {
    let listed: BTreeSet<_> = constants().into_iter().map(|(rust, _, c)| (rust, c)).collect();
    let in_rust = include_str!("../src/lib.rs").lines().filter_map(|line| {
        let (name, value) = line.trim_start().strip_prefix("pub const ")?.split_once(": ")?;
        ["u64", "u32", "u16", "i32"].iter().any(|kind| value.starts_with(kind)).then_some(name)
    });
    let names: BTreeSet<_> = listed.iter().map(|(rust, _)| *rust).collect();
    assert_eq!(in_rust.collect::<BTreeSet<_>>(), names);
    let header = include_str!("../include/rollout/abi.h");
    let in_c = header.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("#define ")?.split_once(' ')?;
        name.starts_with("ROLLOUT_").then_some(name).filter(|name| !name.contains('('))
    });
    let names: BTreeSet<_> = listed.iter().map(|(_, c)| c.as_str()).collect();
    assert_eq!(in_c.collect::<BTreeSet<_>>(), names);
}

#[test]
fn the_entry_has_the_name_and_the_type_that_the_host_looks_for() {
    let name = abi::SYMBOL.to_str().unwrap();
    let entry = type_name::<abi::Entry>();
    assert_eq!(asserting(&[format!("_Generic(&{name}, {entry}: 1, default: 0)")]), Ok(()));
}
