//! `unused-deps`: every dependency that a manifest names is named by its code.
//!
//! What the linker would say is not asked: a name is looked for, as `name::` or after `use`. What
//! only tests use belongs under `dev-dependencies`.

use std::collections::BTreeSet;

use toml::Table;

use crate::tree::{Complaint, File, Tree, words};

/// Dependencies that no code names, and shared versions that no manifest takes.
pub(crate) fn dependencies(tree: &Tree) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut inherited = BTreeSet::new();
    for manifest in tree.files().filter(|file| file.name() == "Cargo.toml") {
        let table: Table = match manifest.text.parse() {
            Ok(table) => table,
            Err(error) => {
                found.push(Complaint::of(&manifest.path, error.to_string()));
                continue;
            }
        };
        let dir = manifest.path.strip_suffix("Cargo.toml").unwrap_or_default();
        for (section, name) in named(&table) {
            let code = tree.rust().filter(|file| file.path.starts_with(dir));
            if !code.into_iter().any(|file| uses(file, dir, section, &name)) {
                found.push(unused(manifest, section, &name));
            }
            inherited.insert(name);
        }
    }
    let root = tree.get("Cargo.toml");
    let table = root.and_then(|root| root.text.parse::<Table>().ok()).unwrap_or_default();
    let shared = table.get("workspace").and_then(|it| it.get("dependencies")?.as_table());
    for (name, value) in shared.into_iter().flatten() {
        // A crate of ours is listed so that whoever needs it next finds it.
        let ours = value.get("path").is_some();
        if !ours && !inherited.contains(name) {
            let what = format!("no manifest takes the shared version of {name}");
            found.push(Complaint::of("Cargo.toml", what));
        }
    }
    found
}

/// Each dependency with the section that names it.
fn named(manifest: &Table) -> Vec<(&'static str, String)> {
    let targets = manifest.get("target").and_then(|it| it.as_table()).into_iter().flatten();
    let tables = targets.filter_map(|(_, table)| table.as_table()).chain([manifest]);
    let mut found = Vec::new();
    for table in tables {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let names = table.get(section).and_then(|it| it.as_table()).into_iter().flatten();
            found.extend(names.map(|(name, _)| (section, name.clone())));
        }
    }
    found
}

/// Whether the code that a section is for names the dependency.
fn uses(file: &File, dir: &str, section: &str, name: &str) -> bool {
    let build = file.path == format!("{dir}build.rs");
    let code = match section {
        "dependencies" if !build => &file.product,
        "dev-dependencies" => &file.code,
        "build-dependencies" if build => &file.code,
        _ => return false,
    };
    let ident = name.replace('-', "_");
    words(code, &ident).any(|at| {
        let before = code[..at].trim_end();
        code[at + ident.len()..].starts_with("::")
            || words(before, "use").last() == before.len().checked_sub("use".len())
    })
}

fn unused(manifest: &File, section: &str, name: &str) -> Complaint {
    let line = manifest.text.match_indices(name).map(|(at, _)| at);
    let key = |at: &usize| manifest.text[..*at].ends_with('\n');
    let what = format!("{name} is under [{section}], and no code that is built with it names it");
    match line.into_iter().find(key) {
        Some(at) => Complaint::at(manifest, at, what),
        None => Complaint::of(&manifest.path, what),
    }
}

#[cfg(test)]
mod tests;
