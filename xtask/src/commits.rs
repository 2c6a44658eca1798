//! What a commit has to be like: its message, and what comes with a change of behaviour.

use std::time::Duration;

use rollout_harness::binaries::workspace_root;
use rollout_process::{Io, Spawn};

use crate::tree::Complaint;

/// How long git may take to write out the commits.
const PATIENCE: Duration = Duration::from_secs(120);
/// The commits since this one are looked at; those before it were made before these checks.
const SINCE: &str = "bf6f0dca10f1c309e7aa8517608074e6e656f850";
/// A commit's text: hash, message and files, each begun by a byte that is in none of them.
const FORMAT: &str = "--format=%x01%h%x02%B%x03";

/// The types of Conventional Commits, as this project uses them.
const TYPES: [&str; 11] =
    ["feat", "fix", "perf", "refactor", "docs", "test", "build", "ci", "style", "chore", "revert"];
/// Those by which rollout behaves differently.
const CHANGES: [&str; 3] = ["feat", "fix", "perf"];
/// The line by which a commit says why it has neither test nor documentation.
const EXCUSE: &str = "No-Test: ";

/// A commit that is no merge.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Commit {
    hash: String,
    message: String,
    diff: String,
}

/// The commits of a range of git's, by default those since these checks; the complaint if there
/// is no such range.
fn commits(range: Option<&str>, diffs: &[&str]) -> Result<Vec<Commit>, Complaint> {
    let default = format!("{SINCE}..HEAD");
    let range = range.unwrap_or(&default);
    let git = Spawn::new("git").current_dir(workspace_root()).args(["log", "--no-merges", FORMAT]);
    let git = git.args(diffs).args([range, "--"]).stderr(Io::Pipe);
    let complaint = |what: String| Complaint::of(range, what);
    let output = git.output(Some(PATIENCE)).map_err(|e| complaint(format!("git: {e}")))?;
    if output.timed_out || !output.exit.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let advice = "the checkout must have the history: git fetch --unshallow";
        return Err(complaint(format!("git log {}: {why}; {advice}", output.exit)));
    }
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(log: &str) -> Vec<Commit> {
    let commit = |text: &str| {
        let (hash, rest) = text.split_once('\u{2}')?;
        let (message, diff) = rest.split_once('\u{3}')?;
        let (message, diff) = (message.trim_end().to_owned(), diff.to_owned());
        Some(Commit { hash: hash.to_owned(), message, diff })
    };
    log.split('\u{1}').filter_map(commit).collect()
}

/// `commitlint`: messages are Conventional Commits 1.0.0.
pub(crate) fn conventional(range: Option<&str>) -> Vec<Complaint> {
    about(commits(range, &[]), |commit| wrong_message(&commit.message))
}

/// `docs-test-policy`: a change of behaviour comes with a test or with documentation.
pub(crate) fn documented_or_tested(range: Option<&str>) -> Vec<Complaint> {
    about(commits(range, &["--unified=0", "--patch", "--no-color", "--no-ext-diff"]), bare)
}

fn about(
    commits: Result<Vec<Commit>, Complaint>,
    wrong: impl Fn(&Commit) -> Option<String>,
) -> Vec<Complaint> {
    let one = |commit: &Commit| {
        let subject = commit.message.lines().next().unwrap_or_default();
        Some(Complaint::of(&format!("{} `{subject}`", commit.hash), wrong(commit)?))
    };
    match commits {
        Ok(commits) => commits.iter().filter_map(one).collect(),
        Err(complaint) => vec![complaint],
    }
}

/// `type(scope)!: description`, taken to pieces.
struct Subject<'a> {
    kind: &'a str,
    scope: Option<&'a str>,
    description: &'a str,
}

fn subject(message: &str) -> Option<Subject<'_>> {
    let (head, description) = message.lines().next()?.split_once(": ")?;
    let head = head.strip_suffix('!').unwrap_or(head);
    let (kind, scope) = match head.split_once('(') {
        Some((kind, scope)) => (kind, Some(scope.strip_suffix(')')?)),
        None => (head, None),
    };
    Some(Subject { kind, scope, description })
}

fn wrong_message(message: &str) -> Option<String> {
    let Some(Subject { kind, scope, description }) = subject(message) else {
        return Some("the subject is not `type(scope): description`".to_owned());
    };
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !TYPES.contains(&kind) {
        return Some(format!("`{kind}` is none of the types {}", TYPES.join(", ")));
    }
    if scope.is_some_and(|scope| scope.is_empty() || !scope.chars().all(lower)) {
        return Some("a scope is lower case, digits and hyphens".to_owned());
    }
    if description.trim().is_empty() || description != description.trim() {
        return Some("the description is empty, or has blanks around it".to_owned());
    }
    if description.ends_with('.') {
        return Some("the description is no sentence: no full stop".to_owned());
    }
    let second = message.lines().nth(1);
    second.is_some_and(|line| !line.is_empty()).then(|| "the second line is not empty".to_owned())
}

/// Why a commit that changes behaviour lacks its other half, if it does.
fn bare(commit: &Commit) -> Option<String> {
    let kind = subject(&commit.message).map(|subject| subject.kind)?;
    if !CHANGES.contains(&kind) {
        return None;
    }
    let files = || {
        let heads = commit.diff.lines().filter_map(|line| line.strip_prefix("diff --git a/"));
        heads.filter_map(|head| head.split_once(" b/")).map(|(_, path)| path)
    };
    let more = commit.diff.lines().filter_map(|line| line.strip_prefix('+')).any(|line| {
        let line = line.trim_start();
        ["///", "//!", "\"\"\"", "#[test]"].iter().any(|start| line.starts_with(start))
    });
    let excuse = commit.message.lines().filter_map(|line| line.strip_prefix(EXCUSE));
    let excused = excuse.into_iter().any(|reason| !reason.trim().is_empty());
    if !files().any(is_product) || files().any(is_other_half) || more || excused {
        return None;
    }
    Some(format!(
        "changes what rollout does, and no test, no chapter and no doc comment; if there is \
         nothing to test or to say, a line `{EXCUSE}<reason>`"
    ))
}

fn is_product(path: &str) -> bool {
    let inside = ["crates/", "plugins/", "python/rollout_plugin/", "xtask/src/"];
    let code = path.ends_with(".rs") || path.ends_with(".py") || path.ends_with(".c");
    code && inside.iter().any(|dir| path.starts_with(dir)) && !is_other_half(path)
}

fn is_other_half(path: &str) -> bool {
    let dirs = ["docs/", "tests/", "examples/", "python/zoo/"];
    let dir = |dir: &&str| path.starts_with(*dir) || path.contains(&format!("/{dir}"));
    dirs.iter().any(dir) || path.ends_with("tests.rs") || path.ends_with(".md")
}

#[cfg(test)]
mod tests;
