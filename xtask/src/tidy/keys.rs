//! Every key of a file that people write is read somewhere: one that does nothing misleads.

use crate::tree::{Complaint, File, Tree, words};

/// Where the types of such files are.
const TYPES: [&str; 4] = [
    "crates/rollout-core/src/budget.rs",
    "crates/rollout-core/src/config.rs",
    "crates/rollout-core/src/job.rs",
    "crates/rollout-plugin-host/src/manifest.rs",
];

/// Keys that are known to do nothing, and why.
const UNREAD: &[(&str, &str)] =
    &[("plugin_digest", "a debt: workers do not compare it with the plugin that they have")];

/// Keys that nothing but the file of their type reads. (A key that is not public and that nothing
/// reads at all is found by the compiler.)
pub(crate) fn read(tree: &Tree) -> Vec<Complaint> {
    let mut found = Vec::new();
    for path in TYPES {
        let Some(file) = tree.get(path) else {
            found.push(Complaint::of(path, "is gone: name in tidy where its types are now"));
            continue;
        };
        for (key, at) in keys(file) {
            let others = tree.rust().filter(|other| other.path != file.path);
            let is_read = others.map(|other| &*other.product).any(|code| reads(code, &key));
            let known = UNREAD.iter().any(|(unread, _)| *unread == key);
            let what = match (is_read, known) {
                (false, false) => format!("the key `{key}` is read nowhere"),
                (true, true) => format!("the key `{key}` is read now: strike it from UNREAD"),
                _ => continue,
            };
            found.push(Complaint::at(file, at, what));
        }
    }
    found
}

/// The public fields of a file's types that can be read from a text.
fn keys(file: &File) -> Vec<(String, usize)> {
    let code = &*file.product;
    let mut found = Vec::new();
    for (at, _) in code.match_indices("pub struct ") {
        let attributes = code[..at].rfind(['}', ';']).map_or(0, |end| end + 1);
        let Some(end) = code[at..].find('}').map(|end| at + end) else { continue };
        if !code[attributes..at].contains("Deserialize") {
            continue;
        }
        for (field, _) in code[at..end].match_indices("    pub ") {
            let start = at + field + "    pub ".len();
            let name = code[start..].split(':').next().unwrap_or_default();
            found.push((name.to_owned(), start));
        }
    }
    found
}

/// Whether code takes the field from something, by `.key` or in a pattern.
fn reads(code: &str, key: &str) -> bool {
    words(code, key).any(|at| {
        let after = code[at + key.len()..].trim_start();
        let set = after.starts_with('=') && !after.starts_with("==");
        let field = code[..at].trim_end().ends_with('.') && !after.starts_with('(') && !set;
        let pattern = code[..at].trim_end().ends_with(['{', ',']) && after.starts_with([',', '}']);
        field || pattern
    })
}
