//! Which crate may use which. [`ALLOWED`] is a list of everything that may be, so a crate or an
//! edge that is not in it fails; [`NEVER`] and the checks beside it say what must not come about by
//! any way round, whatever the list says. Each is tried on a copy of this workspace's manifests in
//! which it is broken.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests: a panic fails the test")]

#[path = "dependency_direction/copy.rs"]
mod copy;
#[path = "dependency_direction/graph.rs"]
mod graph;

use rollout_harness::binaries::workspace_root;

use copy::Copy;
use graph::{Graph, Kind};

/// A crate, what it uses, and what its tests, examples and benches use beside.
struct Row(&'static str, &'static str, &'static str);

/// Everything that may be used, by whom. A new crate and a new edge are entered here, once
/// it is clear that they are worth it and that the architecture allows them.
const ALLOWED: &[Row] = &[
    Row("rollout-core", "humantime nix schemars serde serde_json thiserror toml ulid", "proptest"),
    Row("rollout-process", "nix thiserror", "tempfile"),
    Row(
        "rollout-storage",
        "nix redb rollout-core serde serde_json tempfile thiserror",
        "nix proptest rollout-process",
    ),
    Row(
        "rollout-transport",
        "bytes h2 hyper hyper-util rcgen ring rollout-core rustls serde serde_json socket2 \
         thiserror tokio tokio-rustls tokio-util tracing yasna",
        "http-body-util proptest tempfile",
    ),
    Row("rollout-plugin-abi", "", "rollout-process tempfile"),
    Row("rollout-plugin-sdk", "rollout-plugin-abi serde serde_json", ""),
    Row(
        "rollout-plugin-host",
        "bytes libloading nix rand rollout-core rollout-plugin-abi rollout-process schemars serde \
         serde_json sha2 thiserror tokio toml",
        "proptest rollout-plugin-sdk tempfile",
    ),
    Row(
        "rollout-coordinator",
        "rollout-core rollout-storage rollout-transport serde serde_json sha2 thiserror tokio \
         tokio-util tracing",
        "bytes proptest tempfile",
    ),
    Row(
        "rollout-worker",
        "bytes humantime rand rollout-core rollout-plugin-host rollout-storage rollout-transport \
         serde serde_json sha2 thiserror tokio tracing",
        "proptest tempfile",
    ),
    Row(
        "rollout-cli",
        "bytes clap clap_complete humantime rollout-coordinator rollout-core rollout-plugin-host \
         rollout-process rollout-storage rollout-transport rollout-worker serde serde_json sha2 \
         tempfile terminal_size thiserror tokio toml tracing tracing-subscriber",
        "assert_cmd predicates proptest regex-lite",
    ),
    Row(
        "rollout-harness",
        "nix rand rollout-core rollout-process serde serde_json thiserror toml",
        "proptest tempfile",
    ),
    Row(
        "rollout-bench",
        "bytes clap humantime hyper hyper-util nix rand rcgen redb rollout-core \
         rollout-plugin-host rollout-process rollout-storage rollout-transport rustls serde serde_json tempfile \
         thiserror tokio tokio-rustls",
        "",
    ),
    Row(
        "xtask",
        "clap rollout-core rollout-harness rollout-process tempfile toml",
        "assert_cmd nix predicates rand",
    ),
    Row(
        "rollout-acceptance",
        "rollout-core rollout-harness rollout-process tempfile toml",
        "rollout-transport rustls serde_json tokio",
    ),
    Row("rust_cdylib_sample", "rollout-plugin-sdk serde_json", ""),
    Row("rollout-fuzz", "libfuzzer-sys rollout-plugin-host rollout-transport", ""),
];

/// A crate, what it must never reach, and why. A name that ends with `*` is the start of names.
struct Absence(&'static str, &'static str, &'static str);

const NEVER: &[Absence] = &[
    Absence(
        "rollout-core",
        "tokio* hyper* h2 mio socket2 rustls* redb libloading",
        "the words and rules of rollout do no I/O",
    ),
    Absence(
        "rollout-transport",
        "rollout-plugin* libloading rollout-storage redb",
        "the wire knows nothing of plugins or storage",
    ),
    Absence(
        "rollout-plugin-host",
        "rollout-transport hyper* h2 rustls*",
        "plugins know nothing of the wire",
    ),
    Absence(
        "rollout-coordinator",
        "rollout-plugin* libloading aws-sdk* aws-config aws-smithy* aws-runtime rusoto* azure* \
         google-cloud* gcloud* gcp* cloud-storage object_store opendal kube rust-s3 s3",
        "user code and clouds cannot run in the process that decides",
    ),
    Absence(
        "rollout-coordinator",
        "rollout-worker",
        "coordinator and worker share messages and words, no code that decides",
    ),
    Absence(
        "rollout-worker",
        "rollout-coordinator",
        "coordinator and worker share messages and words, no code that decides",
    ),
];

/// A crate, and all of this project's crates that it may reach: it is shipped to others, or judges.
struct Confined(&'static str, &'static str, &'static str);

const CONFINED: &[Confined] = &[
    Confined(
        "plugins/",
        "rollout-plugin-sdk rollout-plugin-abi",
        "a plugin sees the SDK or the ABI",
    ),
    Confined(
        "crates/rollout-harness/",
        "rollout-core rollout-process",
        "the harness judges from outside",
    ),
];

/// The crates in which the compiler lets `unsafe` code be; in all others it refuses.
const UNSAFE: &[&str] =
    &["rollout-plugin-abi", "rollout-plugin-sdk", "rollout-plugin-host", "rollout-process"];

/// All that is wrong, one sentence each.
fn complaints(graph: &Graph) -> Vec<String> {
    let mut found = unlisted(graph);
    found.extend(reached(graph));
    found.extend(confined(graph));
    found.extend(unsafe_rooms(graph));
    found
}

/// Crates and edges that are not in [`ALLOWED`], and what is in it and not there.
fn unlisted(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for package in &graph.packages {
        let Some(Row(name, uses, tests)) = ALLOWED.iter().find(|row| row.0 == package.name) else {
            found.push(format!("the crate {} is not in the list", package.name));
            continue;
        };
        for (kind, allowed, what) in [(Kind::Use, uses, "uses"), (Kind::Test, tests, "tests with")]
        {
            let allowed: Vec<_> = allowed.split_whitespace().collect();
            let there = package.edges(kind);
            let more = there.iter().filter(|edge| !allowed.contains(edge));
            found
                .extend(more.map(|edge| format!("{name} {what} {edge}, which is not in the list")));
            let less = allowed.iter().filter(|edge| !there.contains(edge));
            found.extend(less.map(|edge| format!("{name} no longer {what} {edge}: strike it out")));
        }
    }
    let gone = ALLOWED.iter().filter(|row| graph.packages.iter().all(|p| p.name != row.0));
    found.extend(gone.map(|row| format!("there is no crate {}: strike it out", row.0)));
    found
}

/// What [`NEVER`] forbids and is there, with the way by which it came.
fn reached(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for Absence(name, never, why) in NEVER {
        for way in graph.ways_from(name) {
            let end = way.last().map_or("", String::as_str);
            if never.split_whitespace().any(|pattern| matches(pattern, end)) {
                found.push(format!("{}: {why}", way.join(" -> ")));
            }
        }
    }
    found
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(name == pattern, |start| name.starts_with(start))
}

/// What the crates of [`CONFINED`] reach of ours beyond what they may.
fn confined(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for Confined(place, may, why) in CONFINED {
        for package in graph.packages.iter().filter(|p| p.place.starts_with(place)) {
            for way in graph.ways_from(&package.name) {
                let end = way.last().map_or("", String::as_str);
                let ours = graph.packages.iter().any(|p| p.name == end);
                if ours && end != package.name && may.split_whitespace().all(|m| m != end) {
                    found.push(format!("{}: {why}", way.join(" -> ")));
                }
            }
        }
    }
    found
}

/// Crates outside [`UNSAFE`] whose lints do not forbid `unsafe` code.
fn unsafe_rooms(graph: &Graph) -> Vec<String> {
    let lax = graph.packages.iter().filter(|p| p.unsafe_code != "forbid");
    lax.filter(|package| !UNSAFE.contains(&&*package.name))
        .map(|p| format!("{} sets unsafe_code to \"{}\", not to \"forbid\"", p.name, p.unsafe_code))
        .collect()
}

#[test]
fn every_crate_and_every_edge_is_one_that_the_architecture_allows() {
    let found = complaints(&Graph::read(&workspace_root()));
    assert!(found.is_empty(), "tests/tests/dependency_direction.rs says:\n{}", found.join("\n"));
}

/// Breaks a copy of the workspace by adding `edges`, each `crate [dev-]dependencies other`, and
/// expects to be told `what`.
fn refuses(edges: &[&str], what: &str) {
    let copy = Copy::new();
    for edge in edges {
        copy.depend(edge);
    }
    told(&copy, what);
}

fn told(copy: &Copy, what: &str) {
    let found = complaints(&Graph::read(copy.root()));
    assert!(found.iter().any(|it| it.contains(what)), "not told `{what}`:\n{}", found.join("\n"));
}

#[test]
fn a_copy_in_which_nothing_is_broken_is_not_complained_of() {
    let found = complaints(&Graph::read(Copy::new().root()));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn an_edge_that_is_not_listed_fails_in_the_product_and_in_tests() {
    let worker = "rollout-worker uses left-pad, which is not in the list";
    refuses(&["rollout-worker dependencies left-pad"], worker);
    let storage = "rollout-storage tests with rollout-transport, which is not in the list";
    refuses(&["rollout-storage dev-dependencies rollout-transport"], storage);
    let build = "rollout-storage uses cc, which is not in the list";
    refuses(&["rollout-storage build-dependencies cc"], build);
}

#[test]
fn a_crate_that_is_not_listed_fails_and_so_does_a_line_of_the_list_that_no_longer_holds() {
    let copy = Copy::new();
    copy.add("crates/rollout-novelty");
    told(&copy, "the crate rollout-novelty is not in the list");
    let copy = Copy::new();
    copy.edit("crates/rollout-process/Cargo.toml", |table| {
        table.remove("dev-dependencies");
    });
    told(&copy, "rollout-process no longer tests with tempfile: strike it out");
}

#[test]
fn the_core_reaches_no_io_not_even_by_way_of_another_crate() {
    refuses(&["rollout-core dependencies tokio"], "rollout-core -> tokio: ");
    let copy = Copy::new();
    copy.drag("ulid", "tokio");
    told(&copy, "rollout-core -> ulid -> tokio: the words and rules of rollout do no I/O");
}

#[test]
fn the_wire_reaches_neither_plugins_nor_storage_and_plugins_do_not_reach_the_wire() {
    let storage = "rollout-transport -> rollout-storage: ";
    refuses(&["rollout-transport dependencies rollout-storage"], storage);
    let sdk = "rollout-transport -> rollout-plugin-sdk: ";
    refuses(&["rollout-transport dev-dependencies rollout-plugin-sdk"], sdk);
    let transport = "rollout-plugin-host -> rollout-transport: ";
    refuses(&["rollout-plugin-host dependencies rollout-transport"], transport);
}

#[test]
fn the_coordinator_reaches_neither_the_plugin_host_nor_a_cloud_sdk() {
    let host = "rollout-coordinator -> rollout-plugin-host: user code";
    refuses(&["rollout-coordinator dependencies rollout-plugin-host"], host);
    refuses(&["rollout-coordinator dev-dependencies rollout-plugin-host"], host);
    let round = "rollout-coordinator -> rollout-storage -> rollout-plugin-host: user code";
    refuses(&["rollout-storage dependencies rollout-plugin-host"], round);
    let s3 = "rollout-coordinator -> aws-sdk-s3: user code";
    refuses(&["rollout-coordinator dependencies aws-sdk-s3"], s3);
    let copy = Copy::new();
    copy.drag("redb", "google-cloud-storage");
    told(&copy, "rollout-storage -> redb -> google-cloud-storage: user code and clouds");
}

#[test]
fn coordinator_and_worker_never_see_each_other() {
    let worker = "rollout-coordinator -> rollout-worker: ";
    refuses(&["rollout-coordinator dev-dependencies rollout-worker"], worker);
    let coordinator = "rollout-worker -> rollout-coordinator: ";
    refuses(&["rollout-worker dependencies rollout-coordinator"], coordinator);
}

#[test]
fn a_plugin_sees_the_sdk_or_the_abi_and_the_harness_judges_from_outside() {
    let core = "rust_cdylib_sample -> rollout-core: a plugin";
    refuses(&["rust_cdylib_sample dependencies rollout-core"], core);
    let sdk = "rust_cdylib_sample -> rollout-plugin-sdk -> rollout-core: a plugin";
    refuses(&["rollout-plugin-sdk dependencies rollout-core"], sdk);
    let transport = "rollout-harness -> rollout-transport: the harness judges";
    refuses(&["rollout-harness dev-dependencies rollout-transport"], transport);
}

#[test]
fn unsafe_code_is_forbidden_outside_its_four_crates() {
    let copy = Copy::new();
    copy.edit("crates/rollout-worker/Cargo.toml", |table| {
        table.insert("lints".into(), toml::toml! { rust.unsafe_code = "deny" }.into());
    });
    told(&copy, "rollout-worker sets unsafe_code to \"deny\"");
    let copy = Copy::new();
    copy.edit("crates/rollout-worker/Cargo.toml", |table| {
        table.remove("lints");
    });
    told(&copy, "rollout-worker sets unsafe_code to \"allow\"");
    let copy = Copy::new();
    copy.edit("Cargo.toml", |table| {
        table["workspace"]["lints"]["rust"]["unsafe_code"] = "warn".into();
    });
    told(&copy, "rollout-core sets unsafe_code to \"warn\"");
}
