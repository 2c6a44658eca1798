//! Messages and changes that are refused, and those that are not.

use super::*;

#[test]
fn a_message_is_a_conventional_commit() {
    for good in [
        "feat: x",
        "fix(plugin-host): a sidecar's socket wakes its reader",
        "feat(core)!: keys are renamed\n\nBREAKING CHANGE: they were called otherwise.",
        "docs: what `a: b` means",
    ] {
        assert_eq!(wrong_message(good), None, "{good}");
    }
    for (bad, why) in [
        ("", "not `type(scope)"),
        ("wip", "not `type(scope)"),
        ("feat(core: x", "not `type(scope)"),
        ("feat:x", "not `type(scope)"),
        ("fixup! feat: x", "none of the types"),
        ("Feat: x", "none of the types"),
        ("feature: x", "none of the types"),
        ("feat(Core): x", "lower case"),
        ("feat(): x", "lower case"),
        ("feat:  ", "empty"),
        ("feat: x.", "full stop"),
        ("feat: x\nmore", "second line"),
    ] {
        let told = wrong_message(bad).unwrap_or_default();
        assert!(told.contains(why), "{bad}: {told}");
    }
}

fn commit(message: &str, diff: &str) -> Commit {
    Commit { hash: "0".to_owned(), message: message.to_owned(), diff: diff.to_owned() }
}

fn change(path: &str, line: &str) -> String {
    format!("diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n+{line}\n")
}

#[test]
fn a_change_of_behaviour_alone_is_refused() {
    let code = change("crates/rollout-core/src/budget.rs", "let x = 1;");
    let alone = |message: &str, more: &str| bare(&commit(message, &format!("{code}{more}")));
    for message in ["feat: x", "fix(core): x", "perf: x", "feat: x\n\nNo-Test: "] {
        assert!(alone(message, "").is_some(), "{message}");
    }
    assert!(alone("fix: x", &change("crates/rollout-core/Cargo.toml", "x")).is_some());
    assert_eq!(alone("refactor: x", ""), None);
    assert_eq!(alone("fix: x\n\nNo-Test: needs a second machine", ""), None);
    for path in ["docs/src/chaos.md", "crates/rollout-core/tests/budget.rs", "tests/tests/gate.rs"]
    {
        assert_eq!(alone("fix: x", &change(path, "x")), None, "{path}");
    }
    for line in ["    /// It waits no longer.", "#[test]", "//! What it is."] {
        assert_eq!(
            alone("fix: x", &change("crates/rollout-cli/src/cert.rs", line)),
            None,
            "{line}"
        );
    }
}

#[test]
fn the_log_of_git_is_taken_to_pieces() {
    let log =
        "\u{1}ab12\u{2}feat: x\n\nbody\n\u{3}\n\ndiff --git a/x b/x\n\u{1}cd34\u{2}fix: y\n\u{3}";
    let diff = "\n\ndiff --git a/x b/x\n".to_owned();
    let first = Commit { hash: "ab12".to_owned(), message: "feat: x\n\nbody".to_owned(), diff };
    let second = Commit { hash: "cd34".to_owned(), ..commit("fix: y", "") };
    assert_eq!(parse(log), [first, second]);
}

#[test]
fn a_range_that_is_not_there_is_said() {
    let told = conventional(Some("no-such-commit..HEAD"));
    assert!(told.len() == 1 && told[0].place == "no-such-commit..HEAD", "{told:?}");
}
