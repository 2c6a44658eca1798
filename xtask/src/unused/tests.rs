//! Dependencies that nothing names are found, and others are not.

use super::*;

fn told(manifest: &str, files: &[(&str, &str)]) -> Vec<String> {
    let root = "[workspace.dependencies]\na-b = \"1\"\nspare = \"1\"\nours = { path = \"x\" }\n";
    let fixed = [("Cargo.toml", root), ("crates/x/Cargo.toml", manifest)];
    let files = fixed.iter().chain(files).map(|(path, text)| ((*path).into(), (*text).into()));
    dependencies(&Tree::of(files)).iter().map(Complaint::to_string).collect()
}

#[test]
fn a_dependency_that_only_a_comment_a_string_or_a_test_names_is_unused() {
    let manifest = "[dependencies]\na-b.workspace = true\n[dev-dependencies]\nproptest = \"1\"\n";
    let test = ("crates/x/tests/t.rs", "use a_b::C;\nproptest::proptest! {}");
    for lib in ["", "// a_b::x", "fn f() { \"a_b::x\" }", "fn f(a_b: u8) {}", "x::a_b_c::d()"] {
        let told = told(manifest, &[("crates/x/src/lib.rs", lib), test]);
        let expected = "crates/x/Cargo.toml:2: a-b is under [dependencies]";
        assert!(told.iter().any(|it| it.starts_with(expected)), "{lib}: {told:?}");
    }
    for lib in ["use a_b::C;", "use a_b as c;", "fn f() { a_b::c() }"] {
        let told = told(manifest, &[("crates/x/src/lib.rs", lib), test]);
        assert_eq!(told, ["Cargo.toml: no manifest takes the shared version of spare"], "{lib}");
    }
}

#[test]
fn a_dependency_of_tests_or_of_the_build_script_is_looked_for_there() {
    let manifest = "[dev-dependencies]\ntempfile = \"1\"\n[build-dependencies]\ncc = \"1\"\n\
                    [target.'cfg(unix)'.dependencies]\na-b = \"1\"\n";
    let other = [("crates/y/src/lib.rs", "use tempfile::X; use cc::Y; use a_b::Z;")];
    assert_eq!(told(manifest, &other).len(), 4);
    let lib = ("crates/x/src/lib.rs", "use a_b::Z;\n#[cfg(test)]\nmod t { use tempfile::X; }");
    let told = told(manifest, &[lib, ("crates/x/build.rs", "fn main() { cc::build() }")]);
    assert_eq!(told, ["Cargo.toml: no manifest takes the shared version of spare"]);
}
