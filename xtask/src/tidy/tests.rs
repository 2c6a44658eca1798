//! Each check complains of what it is there for, and not of what is well.

use super::*;

fn tree(files: &[(&str, &str)]) -> Tree {
    Tree::of(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())))
}

fn told(check: fn(&Tree) -> Vec<Complaint>, files: &[(&str, &str)]) -> Vec<String> {
    check(&tree(files)).iter().map(Complaint::to_string).collect()
}

#[test]
fn a_function_and_a_file_that_are_too_long_are_named_and_so_is_an_exception_that_is_none() {
    let long = |lines: usize| "    x();\n".repeat(lines);
    let function = |lines| format!("//! A.\n\nfn f() {{\n{}}}\n", long(lines));
    let found = told(shape::sizes, &[("x/a.rs", &function(69))]);
    assert_eq!(found, ["x/a.rs:3: fn f takes 71 lines, more than 70"]);
    assert_eq!(told(shape::sizes, &[("x/a.rs", &function(68))]), <[&str; 0]>::default());
    let python = format!("def f(\n    a,\n):\n{}\n\ndef g():\n    pass\n", long(68));
    let found = told(shape::sizes, &[("x/a.py", &python)]);
    assert_eq!(found, ["x/a.py:1: def f( takes 71 lines, more than 70"]);
    let file = "// x\n".repeat(501);
    let found =
        told(shape::sizes, &[("x/a.rs", &file), ("crates/rollout-core/src/event.rs", &file)]);
    assert_eq!(found, ["x/a.rs: 501 lines, more than 500: split what does two jobs"]);
    let found = told(shape::sizes, &[("crates/rollout-core/src/event.rs", "//! Short.\n")]);
    assert!(found[0].ends_with("strike it from LONG"), "{found:?}");
}

#[test]
fn a_file_that_does_not_say_what_it_is_is_named() {
    let found = told(
        shape::documented,
        &[
            ("a.rs", "//! Good.\n"),
            ("b.rs", "use a;\n"),
            ("c.py", "#!/usr/bin/env python3\n\"\"\"Good.\"\"\"\n"),
            ("d.py", "# no\nimport os\n"),
            ("e/__init__.py", ""),
            ("f.toml", ""),
        ],
    );
    assert!(found.len() == 2 && found[0].starts_with("b.rs") && found[1].starts_with("d.py"));
}

#[test]
fn forbidden_calls_are_found_outside_their_rooms_and_not_in_comments_or_strings() {
    for (word, line) in [
        ("println!", "println!(\"x\");"),
        ("print!", "print!(\"x\");"),
        ("process::exit", "std::process::exit(1);"),
        ("unbounded_channel", "mpsc::unbounded_channel();"),
        ("mpsc::channel()", "std::sync::mpsc::channel();"),
        ("#[allow(", "#[allow(dead_code)]"),
        ("#![allow(", "#![allow(dead_code)]"),
        ("#[ignore]", "#[ignore]"),
        ("unimplemented!", "unimplemented!()"),
        ("static mut", "static mut X: u8 = 0;"),
        ("catch_unwind", "catch_unwind(f)"),
    ] {
        let found = told(bans::calls, &[("crates/x/src/a.rs", &format!("//! A.\n{line}\n"))]);
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("crates/x/src/a.rs:2: `{word}`"))
        );
        let mentioned = format!("// {line}\nlet x = r#\"{line}\"#;\n");
        assert_eq!(told(bans::calls, &[("crates/x/src/a.rs", &mentioned)]), <[&str; 0]>::default());
    }
    let well = [
        ("crates/x/src/a.rs", "eprintln!(\"x\"); f.sprint!();"),
        ("crates/x/tests/a.rs", "#[ignore = \"slow\"] println!(\"x\") mpsc::channel()"),
        ("crates/rollout-cli/build.rs", "println!(\"x\")"),
        ("crates/rollout-plugin-sdk/src/a.rs", "catch_unwind(f)"),
    ];
    assert_eq!(told(bans::calls, &well), <[&str; 0]>::default());
}

#[test]
fn unsafe_is_found_outside_its_four_crates_in_tests_too() {
    let code = "//! unsafe\nfn f() { unsafe { g() } }";
    for path in ["crates/rollout-core/src/a.rs", "tests/tests/a.rs", "plugins/p/src/lib.rs"] {
        assert!(told(bans::unsafe_code, &[(path, code)])[0].starts_with(&format!("{path}:2: ")));
    }
    for room in ["plugin-abi", "plugin-sdk", "plugin-host", "process"] {
        let path = format!("crates/rollout-{room}/src/a.rs");
        assert_eq!(told(bans::unsafe_code, &[(&path, code)]), <[&str; 0]>::default());
    }
}

#[test]
fn a_key_that_nothing_reads_is_named() {
    let types = "#[derive(Deserialize)]\npub struct A {\n    /// B.\n    pub b: u8,\n    c: u8,\n}\n\
                 pub struct D {\n    pub e: u8,\n}\n";
    let files = |reader| {
        let path = "crates/rollout-core/src/config.rs";
        let found = told(keys::read, &[(path, types), ("crates/x/src/a.rs", reader)]);
        found.into_iter().filter(|it| it.starts_with(path)).collect::<Vec<_>>()
    };
    let unread = ["crates/rollout-core/src/config.rs:4: the key `b` is read nowhere"];
    for reader in
        ["", "// a.b", "a.b()", "a.b = 1", "let b = 1;", "#[cfg(test)]\nmod t { fn f() { a.b; } }"]
    {
        assert_eq!(files(reader), unread, "{reader}");
    }
    for reader in ["f(a.b)", "a.b == 1", "let A { b, .. } = a;"] {
        assert_eq!(files(reader), <[&str; 0]>::default(), "{reader}");
    }
}

#[test]
fn a_topic_without_a_word_in_the_book_or_without_a_test_of_who_emits_it_is_named() {
    let table = "topics! {\n    Up = \"up\", Info {\n    }\n}\n";
    let told = |chapter, test, text| {
        let files = [
            ("crates/rollout-core/src/event.rs", table),
            ("docs/src/events.md", chapter),
            (test, text),
        ];
        told(topics::told_and_tried, &files)
    };
    let scenario = "tests/scenarios/a.toml";
    assert_eq!(told("| `up` |", scenario, "event = \"up\""), <[&str; 0]>::default());
    assert_eq!(told("| `up` |", "crates/x/tests/a.rs", "Body::Up"), <[&str; 0]>::default());
    assert!(told("up", scenario, "event = \"up\"")[0].contains("not in docs/src/events.md"));
    for (test, text) in [
        (scenario, "event = \"upper\""),
        ("crates/x/src/a.rs", "Body::Up"),
        ("crates/rollout-harness/tests/a.rs", "Body::Up"),
    ] {
        assert!(told("`up`", test, text)[0].contains("no test looks for the topic up"), "{test}");
    }
}

#[test]
fn a_fixture_that_nothing_names_is_dead() {
    let files = [
        ("python/zoo/sleeps.toml", ""),
        ("python/zoo/dreams.toml", ""),
        ("python/examples/cart/plugin.toml", ""),
        ("python/examples/horse/plugin.toml", ""),
        ("tests/scenarios/any.toml", ""),
        ("tests/tests/a.rs", "sleeps cart"),
        ("docs/src/a.md", "dreams horse"),
    ];
    let found = told(fixtures::used, &files);
    let dead = ["python/examples/horse/plugin.toml", "python/zoo/dreams.toml"];
    assert!(found.len() == 2 && found.iter().zip(dead).all(|(it, path)| it.starts_with(path)));
}

#[test]
fn the_workflow_lacks_no_job_excuses_none_and_pins_every_action() {
    let path = ".github/workflows/ci.yml";
    let root = tree_of_this_project();
    let text = root.get(path).expect("the workflow").text.clone();
    let told = |from: &str, to: &str| {
        assert!(text.contains(from), "the workflow has no `{from}`");
        told(workflow::complete, &[(path, &text.replace(from, to))]).join("\n")
    };
    assert_eq!(told("name: ci", "name: ci"), "");
    let loose = told(
        "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2",
        "actions/checkout@v4",
    );
    assert!(loose.contains("pinned by its commit"), "{loose}");
    assert!(
        told("    steps:", "    continue-on-error: true\n    steps:").contains("shows nothing")
    );
    assert!(told("\n  deny:", "\n  denied:").contains("no job deny"));
    assert!(told("\n  deny:", "\n  denied:").contains("the job denied is none of"));
    assert!(told("cargo xtask ci smoke", "cargo xtask smoke").contains("no job smoke that runs"));
    assert!(told("      - unused-deps\n", "").contains("does not need unused-deps"));
}

fn tree_of_this_project() -> Tree {
    Tree::read(&workspace_root()).expect("the workspace can be read")
}
