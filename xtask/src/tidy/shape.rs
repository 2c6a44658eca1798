//! How long functions and files are, and that each file says what it is.

use crate::tree::{Complaint, File, Tree, functions};

/// The most lines of a function, its signature included.
const FUNCTION: usize = 70;
/// The most lines of a file.
const FILE: usize = 500;

/// Files that may be longer, and why: tables, which nobody reads from end to end.
const LONG: &[(&str, &str)] =
    &[("crates/rollout-core/src/event.rs", "a table: every topic and its attributes")];

/// Functions and files that are too long, and exceptions that are none.
pub(crate) fn sizes(tree: &Tree) -> Vec<Complaint> {
    let mut found = Vec::new();
    for file in tree.files().filter(|file| is_source(file)) {
        let lines = file.text.lines().count();
        let excused = LONG.iter().any(|(path, _)| *path == file.path);
        if lines > FILE && !excused {
            let what = format!("{lines} lines, more than {FILE}: split what does two jobs");
            found.push(Complaint::of(&file.path, what));
        }
        if lines <= FILE && excused {
            found.push(Complaint::of(&file.path, "no longer too long: strike it from LONG"));
        }
        for function in functions(&file.code).filter(|function| function.lines > FUNCTION) {
            let (name, lines) = (function.name, function.lines);
            let what = format!("fn {name} takes {lines} lines, more than {FUNCTION}");
            found.push(Complaint::at(file, function.at, what));
        }
        found.extend(long_definitions(file));
    }
    found
}

/// The functions of a Python file that are too long.
fn long_definitions(file: &File) -> Vec<Complaint> {
    if !file.path.ends_with(".py") {
        return Vec::new();
    }
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<_> = file.text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let start = line.trim_start();
        if !start.starts_with("def ") && !start.starts_with("async def ") {
            continue;
        }
        // What is indented less is the next thing, but for the end of a signature of several lines.
        let ends = |next: &str| {
            !next.trim().is_empty() && indent(next) <= indent(line) && !next.trim().starts_with(')')
        };
        let body = lines[at + 1..].iter().take_while(|next| !ends(next));
        let taken = 1 + body.copied().collect::<Vec<_>>().join("\n").trim_end().lines().count();
        if taken > FUNCTION {
            let what = format!("{} takes {taken} lines, more than {FUNCTION}", start.trim_end());
            found.push(Complaint { place: file.path.clone(), line: Some(at + 1), what });
        }
    }
    found
}

/// Source files that do not begin by saying what they are.
pub(crate) fn documented(tree: &Tree) -> Vec<Complaint> {
    let sources = tree.files().filter(|file| is_source(file) && !file.text.trim().is_empty());
    let silent = sources.filter(|file| {
        let text = file.text.trim_start();
        if file.is_rust() { !text.starts_with("//! ") } else { !is_docstring(text) }
    });
    let what = "does not begin by saying what it is: `//!` in Rust, a docstring in Python";
    silent.map(|file| Complaint::of(&file.path, what)).collect()
}

/// Whether a text begins with a docstring, after a line for the system and comments, if any.
fn is_docstring(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.next().is_some_and(|line| line.starts_with("\"\"\"") || line.starts_with("r\"\"\""))
}

fn is_source(file: &File) -> bool {
    file.is_rust() || file.path.ends_with(".py")
}
