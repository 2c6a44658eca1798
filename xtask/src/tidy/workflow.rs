//! The workflow runs what `cargo xtask ci` runs: each job by its name, none of them excused.

use std::collections::BTreeMap;

use crate::args::Job;
use crate::tree::{Complaint, Tree};

const WORKFLOW: &str = ".github/workflows/ci.yml";
/// The job that branch protection names.
const CONCLUSION: &str = "conclusion";
/// What the workflow has beside: it publishes what has passed.
const AFTER: &str = "docs-deploy";

/// What the workflow lacks, or excuses.
pub(crate) fn complete(tree: &Tree) -> Vec<Complaint> {
    let Some(file) = tree.get(WORKFLOW) else {
        return vec![Complaint::of(WORKFLOW, "is not there")];
    };
    let mut found = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let mut complain = |what: &str| {
            let (place, line) = (WORKFLOW.to_owned(), Some(number + 1));
            found.push(Complaint { place, line, what: what.to_owned() });
        };
        if line.contains("continue-on-error") {
            complain("`continue-on-error`: a job that may fail shows nothing");
        }
        let action = line.trim_start().trim_start_matches("- ").strip_prefix("uses: ");
        if action.is_some_and(|action| !is_pinned(action)) {
            complain("an action is pinned by its commit, its version in a comment behind");
        }
    }
    let jobs = jobs(&file.text);
    let mut of_file = |what: String| found.push(Complaint::of(WORKFLOW, what));
    for name in Job::names() {
        let command = format!("cargo xtask ci {name}");
        if !jobs.get(&*name).is_some_and(|body| body.contains(&command)) {
            of_file(format!("no job {name} that runs `{command}`"));
        }
    }
    let conclusion = jobs.get(CONCLUSION).copied().unwrap_or_default();
    for name in jobs.keys().filter(|name| ![CONCLUSION, AFTER].contains(*name)) {
        if !Job::names().iter().any(|known| known == name) {
            of_file(format!("the job {name} is none of `cargo xtask ci`"));
        }
        let needed = conclusion.lines().any(|line| line.trim() == format!("- {name}"));
        if !needed {
            of_file(format!("the job {CONCLUSION} does not need {name}"));
        }
    }
    found
}

/// `owner/name@<40 hex digits> # v1.2.3`
fn is_pinned(action: &str) -> bool {
    let Some((commit, version)) = action.split_once('@').and_then(|(_, at)| at.split_once(" # v"))
    else {
        return false;
    };
    commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()) && !version.is_empty()
}

/// The jobs of a workflow as texts; in this project's files their names are indented by two blanks.
fn jobs(text: &str) -> BTreeMap<&str, &str> {
    let Some((_, jobs)) = text.split_once("\njobs:\n") else { return BTreeMap::new() };
    let mut starts = Vec::new();
    let mut at = 0;
    for line in jobs.split_inclusive('\n') {
        let name = line.strip_prefix("  ").filter(|rest| !rest.starts_with([' ', '#']));
        if let Some(name) = name.and_then(|name| name.trim_end().strip_suffix(':')) {
            starts.push((name, at));
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).map(|start| start.1).chain([jobs.len()]);
    starts.iter().zip(ends).map(|(&(name, start), end)| (name, &jobs[start..end])).collect()
}
