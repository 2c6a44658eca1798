//! `cargo xtask preflight`.

use rollout_harness::preflight::{EXIT_CODE, Finding, Machine, check};

use crate::{complain, say};

/// Says what was found of each tool, and the exit code.
pub(crate) fn run() -> u8 {
    let findings = check(&Machine::this());
    for Finding { tool, found } in &findings {
        match found {
            Ok(version) => say(&format!("  ✓ {tool:<11} {version}\n")),
            Err(problem) => say(&format!("  ✗ {tool:<11} {problem}\n")),
        }
    }
    if findings.iter().all(|finding| finding.found.is_ok()) { 0 } else { EXIT_CODE }
}

/// Says what is missing, if anything is; whether nothing is.
pub(crate) fn passes() -> bool {
    let problems: Vec<_> =
        check(&Machine::this()).into_iter().filter_map(|finding| finding.found.err()).collect();
    for problem in &problems {
        complain(problem);
    }
    problems.is_empty()
}
