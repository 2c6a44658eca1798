//! No dead fixtures: each file that only tests need is named by something that needs it.

use crate::tree::{Complaint, File, Tree};

/// Where fixtures are.
const PLACES: [&str; 4] = ["tests/", "python/examples/", "python/zoo/", "plugins/"];

/// Directories of which all files are taken as they are, and by whom.
const WHOLE: &[(&str, &str)] = &[
    ("tests/scenarios/", "tests/tests/acceptance/scenarios.rs plays every one"),
    ("tests/smoke/plugins/", "the smoke run loads every manifest"),
];

/// Names that say nothing; then it is the directory's name that counts.
const COMMON: [&str; 6] = ["Cargo", "__init__", "__main__", "job", "lib", "plugin"];

/// Fixtures that nothing names.
pub(crate) fn used(tree: &Tree) -> Vec<Complaint> {
    let dead = tree.files().filter(|file| is_fixture(file)).filter(|file| {
        let name = telling_name(file);
        let mut others = tree.files().filter(|other| {
            let code = [".rs", ".py", ".toml"].iter().any(|end| other.path.ends_with(end));
            code && other.path != file.path
        });
        !others.any(|other| other.text.contains(name))
    });
    let what = "nothing names it: remove it, or the test that should have used it is missing";
    dead.map(|file| Complaint::of(&file.path, what)).collect()
}

fn is_fixture(file: &File) -> bool {
    let whole = WHOLE.iter().any(|(dir, _)| file.path.starts_with(dir));
    let test = file.is_rust() && file.path.starts_with("tests/");
    let lock = file.name() == "Cargo.lock";
    PLACES.iter().any(|place| file.path.starts_with(place)) && !whole && !test && !lock
}

/// The file's name without its ending, or its directory's where that says more.
fn telling_name(file: &File) -> &str {
    let stem = file.name().split('.').next().unwrap_or_default();
    let dirs = file.path.rsplit('/').skip(1).filter(|dir| *dir != "src");
    if COMMON.contains(&stem) { dirs.into_iter().next().unwrap_or(stem) } else { stem }
}
