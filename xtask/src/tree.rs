//! The project's files as texts: what tidy and the jobs of ci that are checks of our own look at.

mod rust;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

pub(crate) use rust::functions;

/// Something wrong with a file, or with a line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// The file, from the root; or what else there is to name.
    pub(crate) place: String,
    /// The line, if it is about one.
    pub(crate) line: Option<usize>,
    /// What is wrong, and what to do.
    pub(crate) what: String,
}

impl Complaint {
    /// About a whole file.
    pub(crate) fn of(place: &str, what: impl Into<String>) -> Self {
        Self { place: place.to_owned(), line: None, what: what.into() }
    }

    /// About the line at a position of a file's text.
    pub(crate) fn at(file: &File, position: usize, what: impl Into<String>) -> Self {
        let line = 1 + file.text[..position].matches('\n').count();
        Self { place: file.path.clone(), line: Some(line), what: what.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.place, self.what),
            None => write!(f, "{}: {}", self.place, self.what),
        }
    }
}

/// A text file.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Where it is, from the root, with slashes.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
    /// Of Rust the same with comments and literals blanked, so that positions hold in both; else
    /// empty.
    pub(crate) code: String,
    /// `code` without what only tests are made of.
    pub(crate) product: String,
    /// The parts of the text that only tests are made of.
    pub(crate) tests: String,
}

impl File {
    /// The file with this text, which is taken to pieces.
    fn new(path: String, text: String) -> (Self, Vec<String>) {
        let mut file =
            Self { path, text, code: String::new(), product: String::new(), tests: String::new() };
        let mut modules = Vec::new();
        if file.is_rust() {
            file.code = rust::code(&file.text);
            file.product = file.code.clone();
            for test in rust::test_items(&file.code) {
                modules.extend(rust::module(&file.text[test.clone()]));
                file.tests.push_str(&file.text[test.clone()]);
                rust::blank(&mut file.product, test);
            }
        }
        (file, modules)
    }

    /// Whether it is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Its name without the directories.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// All files that a check may want to see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, File>,
}

/// Directories that are not ours, or are made.
const PASSED_OVER: [&str; 5] = ["target", "data", "__pycache__", "corpus", "artifacts"];
/// Hidden directories that are looked into all the same.
const SEEN: [&str; 3] = [".github", ".ci", ".cargo"];

impl Tree {
    /// Reads everything below `root` that is text.
    ///
    /// # Errors
    /// When a directory or a file cannot be read.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut texts = Vec::new();
        walk(root, "", &mut texts)?;
        Ok(Self::of(texts))
    }

    /// The tree of these paths and texts.
    pub(crate) fn of(texts: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut tree = Self::default();
        let mut tests = BTreeSet::new();
        for (path, text) in texts {
            let (file, modules) = File::new(path, text);
            tests.extend(modules.iter().map(|module| beside(&file.path, module)));
            tree.files.insert(file.path.clone(), file);
        }
        for file in tree.files.values_mut() {
            let stem = file.path.strip_suffix(".rs").unwrap_or(&file.path);
            let below = |module: &String| {
                let rest = stem.strip_prefix(&**module);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            if is_test_path(&file.path) || tests.iter().any(below) {
                file.product = String::new();
                file.tests = file.text.clone();
            }
        }
        tree
    }

    /// All files, by path.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.files.values()
    }

    /// Those of Rust.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files().filter(|file| file.is_rust())
    }

    /// One file.
    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }

    /// Whether there is a file or a directory at this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        let below = format!("{}/", path.trim_end_matches('/'));
        path.is_empty()
            || self.files.contains_key(path)
            || self.files.range(below.clone()..).next().is_some_and(|(p, _)| p.starts_with(&below))
    }
}

/// Where a module named in a file is, without its `.rs`: by its name, or by its `#[path]`.
fn beside(file: &str, module: &str) -> String {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let dir = stem.rsplit_once('/').map_or("", |(dir, _)| dir);
    match module.strip_suffix(".rs") {
        Some(path) => format!("{dir}/{path}"),
        None if ["lib", "main", "mod"].iter().any(|root| stem == format!("{dir}/{root}")) => {
            format!("{dir}/{module}")
        }
        None => format!("{stem}/{module}"),
    }
}

/// Whether a file is for tests alone by its place. What the acceptance tests share is a crate.
fn is_test_path(path: &str) -> bool {
    if path.starts_with("tests/src/") {
        return false;
    }
    let dirs = ["tests/", "examples/", "benches/"];
    dirs.iter().any(|dir| path.starts_with(dir) || path.contains(&format!("/{dir}")))
        || path.ends_with("/tests.rs")
}

fn walk(root: &Path, below: &str, texts: &mut Vec<(String, String)>) -> io::Result<()> {
    let about = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let dir = root.join(below);
    for entry in fs::read_dir(&dir).map_err(|error| about(&dir, error))? {
        let entry = entry.map_err(|error| about(&dir, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        let kind = entry.file_type().map_err(|error| about(&entry.path(), error))?;
        if kind.is_dir() {
            let hidden = name.starts_with('.') && !SEEN.contains(&&*name);
            if !hidden && !PASSED_OVER.contains(&&*name) {
                walk(root, &path, texts)?;
            }
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).map_err(|error| about(&entry.path(), error))?;
            if let Ok(text) = String::from_utf8(bytes) {
                texts.push((path, text));
            }
        }
    }
    Ok(())
}

/// Where `word` stands in `text` by itself, not as a part of a longer name.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).map(|before| text.as_bytes()[before]);
        !part(before) && !part(text.as_bytes().get(at + word.len()).copied())
    })
}

#[cfg(test)]
mod tests;
