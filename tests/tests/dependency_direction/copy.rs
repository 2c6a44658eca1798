//! A copy of this workspace to break: its manifests as files of their own, all else as links.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rollout_harness::binaries::workspace_root;
use tempfile::TempDir;
use toml::{Table, Value};

/// The copy, removed with this value.
pub(crate) struct Copy {
    dir: TempDir,
}

impl Copy {
    /// A copy in which nothing is broken.
    pub(crate) fn new() -> Self {
        let copy = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        for manifests in ["Cargo.toml", "Cargo.lock"] {
            fs::copy(workspace_root().join(manifests), copy.root().join(manifests))
                .expect("the workspace has one");
        }
        for place in places() {
            copy.mirror(&place);
        }
        copy
    }

    /// Where it is.
    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// A package of the copy: files are copied, directories linked.
    fn mirror(&self, place: &Path) {
        let to = self.root().join(place);
        fs::create_dir_all(&to).expect("a new directory");
        for entry in fs::read_dir(workspace_root().join(place)).expect("a package's directory") {
            let from = entry.expect("a directory that can be read").path();
            let to = to.join(from.file_name().expect("an entry has a name"));
            if from.is_dir() {
                symlink(&from, &to).expect("a new link");
            } else {
                fs::copy(&from, &to).expect("a file that can be read");
            }
        }
    }

    /// Changes a TOML file.
    pub(crate) fn edit(&self, file: &str, edit: impl FnOnce(&mut Table)) {
        let path = self.root().join(file);
        let mut table: Table =
            fs::read_to_string(&path).expect("it was copied").parse().expect("it is TOML");
        edit(&mut table);
        fs::write(&path, table.to_string()).expect("it can be written");
    }

    /// Adds an edge: `crate [dev-|build-]dependencies other`.
    pub(crate) fn depend(&self, edge: &str) {
        let words: Vec<_> = edge.split(' ').collect();
        let [name, section, other] = words[..] else { panic!("three words: {edge}") };
        let place = |name: &str| {
            let ends = |place: &PathBuf| place.file_name().is_some_and(|last| last == name);
            places().into_iter().find(ends)
        };
        let file = place(name).expect("a crate of this workspace").join("Cargo.toml");
        let mut entry = Table::new();
        match place(other) {
            Some(other) => entry.insert("path".into(), text(&self.root().join(other))),
            None => entry.insert("version".into(), "1".into()),
        };
        self.edit(&file.to_string_lossy(), |manifest| {
            let section = manifest.entry(section).or_insert(Value::Table(Table::new()));
            section.as_table_mut().expect("a table").insert(other.into(), entry.into());
        });
    }

    /// Lets a crate that is not ours drag in another, in the lock file.
    pub(crate) fn drag(&self, name: &str, other: &str) {
        self.edit("Cargo.lock", |lock| {
            let packages = lock["package"].as_array_mut().expect("a lock file lists packages");
            let package =
                packages.iter_mut().find(|package| package["name"].as_str() == Some(name));
            let package = package.expect("it is locked").as_table_mut().expect("a table");
            let edges = package.entry("dependencies").or_insert(Value::Array(Vec::new()));
            edges.as_array_mut().expect("a list").push(other.into());
        });
    }

    /// Adds an empty crate.
    pub(crate) fn add(&self, place: &str) {
        let dir = self.root().join(place);
        fs::create_dir_all(dir.join("src")).expect("a new directory");
        fs::write(dir.join("src/lib.rs"), "").expect("a new file");
        let name = dir.file_name().expect("a place has a name").to_string_lossy().into_owned();
        let manifest = format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\n");
        fs::write(dir.join("Cargo.toml"), manifest).expect("a new file");
    }
}

/// The packages of this workspace and those that stand alone in it.
fn places() -> Vec<PathBuf> {
    let below = |dir: &str| {
        let entries = fs::read_dir(workspace_root().join(dir)).expect("a directory of packages");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("readable").file_name();
        entries.map(|entry| Path::new(dir).join(name(entry))).collect::<Vec<_>>()
    };
    let mut places = below("crates");
    places.extend(below("plugins"));
    places.extend(["xtask", "tests", "fuzz"].map(PathBuf::from));
    places.retain(|place| workspace_root().join(place).join("Cargo.toml").is_file());
    places
}

fn text(path: &Path) -> Value {
    path.to_string_lossy().into_owned().into()
}
