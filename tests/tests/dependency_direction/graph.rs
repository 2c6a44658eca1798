//! Who uses whom: what cargo says of our own manifests, and the lock file of everything else. Both
//! are there without a network.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rollout_harness::binaries::cargo_command;
use rollout_process::Io;
use serde_json::Value;
use toml::Table;

/// How long cargo may take to read a few manifests, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an edge is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The crate itself, and its build script.
    Use,
    /// Its tests, examples and benches.
    Test,
}

/// One of our crates.
#[derive(Debug)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its manifest, relative to the workspace.
    pub(crate) place: String,
    /// What its lints make of `unsafe` code.
    pub(crate) unsafe_code: String,
    edges: Vec<(Kind, String)>,
}

impl Package {
    /// What it names, each once, in alphabetical order.
    pub(crate) fn edges(&self, kind: Kind) -> Vec<&str> {
        let mut edges: Vec<_> =
            self.edges.iter().filter(|edge| edge.0 == kind).map(|edge| &*edge.1).collect();
        edges.sort_unstable();
        edges.dedup();
        edges
    }
}

/// Our crates, and what the others drag in.
#[derive(Debug)]
pub(crate) struct Graph {
    /// Those of the workspace, of the sample plugins, of the fuzz targets.
    pub(crate) packages: Vec<Package>,
    locked: BTreeMap<String, Vec<String>>,
}

impl Graph {
    /// Reads the workspace at `root` and the packages that stand alone in it.
    pub(crate) fn read(root: &Path) -> Self {
        let plugins = fs::read_dir(root.join("plugins")).expect("there are sample plugins");
        let plugins = plugins.map(|entry| entry.expect("a directory that can be read").path());
        let alone = plugins.chain([root.join("fuzz")]);
        let workspaces = [root.to_path_buf()].into_iter().chain(alone);
        let mut graph = Self { packages: Vec::new(), locked: BTreeMap::new() };
        for dir in workspaces.filter(|dir| dir.join("Cargo.toml").is_file()) {
            graph.packages.extend(packages(root, &dir));
            graph.lock(&dir.join("Cargo.lock"));
        }
        graph
    }

    fn lock(&mut self, path: &Path) {
        let lock = read_toml(path);
        for package in lock["package"].as_array().expect("a lock file lists packages") {
            let edges = package.get("dependencies").and_then(toml::Value::as_array);
            let edges = edges.into_iter().flatten().filter_map(toml::Value::as_str);
            // Two versions of a crate are one here: `name`, or `name version`.
            let names = edges.filter_map(|edge| edge.split(' ').next()).map(str::to_owned);
            let name = package["name"].as_str().expect("a package has a name").to_owned();
            self.locked.entry(name).or_default().extend(names);
        }
    }

    /// The shortest way from a crate of ours, its tests included, to each crate that it reaches.
    pub(crate) fn ways_from(&self, name: &str) -> Vec<Vec<String>> {
        let mut ways = BTreeMap::new();
        let mut next = VecDeque::from([vec![name.to_owned()]]);
        while let Some(way) = next.pop_front() {
            let end = way.last().expect("a way has an end").clone();
            if ways.contains_key(&end) {
                continue;
            }
            for edge in self.used_by(&end, way.len() == 1) {
                next.push_back(way.iter().cloned().chain([edge]).collect());
            }
            ways.insert(end, way);
        }
        ways.into_values().collect()
    }

    /// The lock file does not tell what a crate of ours uses itself from what its tests use.
    fn used_by(&self, name: &str, tests_too: bool) -> Vec<String> {
        match self.packages.iter().find(|package| package.name == name) {
            Some(package) => {
                let edges = package.edges.iter().filter(|edge| tests_too || edge.0 == Kind::Use);
                edges.map(|edge| edge.1.clone()).collect()
            }
            None => self.locked.get(name).cloned().unwrap_or_default(),
        }
    }
}

fn packages(root: &Path, dir: &Path) -> Vec<Package> {
    let metadata = metadata(dir);
    let workspace = read_toml(&dir.join("Cargo.toml"));
    let packages = metadata["packages"].as_array().expect("cargo lists packages");
    let package = |package: &Value| {
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let edges = package["dependencies"].as_array().expect("cargo lists dependencies").iter();
        let kind = |edge: &Value| if edge["kind"] == "dev" { Kind::Test } else { Kind::Use };
        Package {
            name: text(&package["name"]),
            place: manifest.strip_prefix(root).unwrap_or(&manifest).display().to_string(),
            unsafe_code: unsafe_code(&read_toml(&manifest), &workspace),
            edges: edges.map(|edge| (kind(edge), text(&edge["name"]))).collect(),
        }
    };
    packages.iter().map(package).collect()
}

fn metadata(dir: &Path) -> Value {
    let manifest = dir.join("Cargo.toml");
    let cargo = cargo_command().args(["metadata", "--no-deps", "--format-version", "1"]);
    let cargo = cargo.args(["--offline", "--locked", "--manifest-path"]).arg(&manifest);
    let output = cargo.stderr(Io::Inherit).output(Some(PATIENCE)).expect("cargo runs");
    assert!(output.exit.success(), "cargo metadata of {}: {}", manifest.display(), output.exit);
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

/// The level that a manifest gives the lint, its own or the workspace's.
fn unsafe_code(manifest: &Table, workspace: &Table) -> String {
    let lints = manifest.get("lints");
    let inherits = lints.and_then(|lints| lints.get("workspace")).is_some();
    let lints = if inherits { workspace["workspace"].get("lints") } else { lints };
    let level = lints.and_then(|lints| lints.get("rust")?.get("unsafe_code"));
    level.and_then(toml::Value::as_str).unwrap_or("allow").to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().expect("cargo writes a string here").to_owned()
}

fn read_toml(path: &Path) -> Table {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
