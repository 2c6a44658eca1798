//! What the reports say, and that it fits.

use std::path::Path;
use std::time::Duration;

use rollout_harness::fixtures::Layout;
use rollout_harness::report::{
    Look, Rows, annotations, distribution, json, junit, step_summary, summary,
};
use rollout_harness::smoke::{Run, judge};
use serde_json::Value;

use crate::evidence::{good, ms};

/// A good run, or one whose verdict never came.
fn run(passes: bool) -> Run {
    let (mut evidence, mut stream) = good();
    if !passes {
        stream.remove("worker_failed");
        evidence.coordinator.stderr += &"a long complaint about 50% of <everything> ".repeat(9);
    }
    evidence.coordinator.log = stream.log();
    let verdict = judge(&evidence);
    let layout = Layout::smoke(Path::new("/run"));
    Run { evidence, verdict, layout, wall: Duration::from_millis(6100) }
}

#[test]
fn a_summary_fits_80_columns_and_ends_with_the_verdict() {
    for (passes, word) in [(true, "PASS"), (false, "FAIL")] {
        let text = summary(&run(passes), Look::default());
        let longest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
        assert!(longest.chars().count() <= 80, "{longest}");
        assert!(text.trim_end().lines().last().unwrap().contains(word), "{text}");
        assert!(!text.contains('\x1b'));
    }
}

#[test]
fn a_failure_shows_every_complaint_the_end_of_each_log_and_where_more_is() {
    let failed = run(false);
    let text = summary(&failed, Look::default());
    for check in failed.verdict.complaints() {
        assert!(text.contains(&*check.name), "{} in {text}", check.name);
    }
    for part in ["coord.log, ", "w1.log, ", "w2.log, ", "coord.stderr", "worker_deregistered  w2"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(text.contains("cd /run && tail -n 100 data/smoke/logs/*"), "{text}");
    assert!(!summary(&run(true), Look::default()).contains("coord.log, "));
}

#[test]
fn json_holds_each_run_its_checks_and_the_distribution() {
    let report: Value = serde_json::from_str(&json(&[run(true), run(false)])).unwrap();
    assert_eq!(report["outcome"], "fail");
    assert_eq!(report["runs"][0]["outcome"], "pass");
    assert_eq!(report["runs"][0]["measured"]["overshoot_ms"], 1.0);
    assert_eq!(report["runs"][0]["checks"].as_array().unwrap().len(), 16);
    assert_eq!(report["runs"][1]["measured"], Value::Null);
    assert_eq!(report["distribution"]["latency_ms"]["max"], 5741.0);
    let nothing: Value = serde_json::from_str(&json(&[])).unwrap();
    assert_eq!(nothing["outcome"], "inconclusive");
}

#[test]
fn junit_has_a_case_for_every_check_and_a_failure_for_every_complaint() {
    let failed = run(false);
    let xml = junit(std::slice::from_ref(&failed));
    assert_eq!(xml.matches("<testcase ").count(), failed.verdict.checks.len());
    assert_eq!(xml.matches("<failure ").count(), failed.verdict.complaints().count());
    assert_eq!(xml.matches("</testcase>").count(), failed.verdict.checks.len());
    assert!(xml.contains("failures=\"4\"") && xml.ends_with("</testsuites>\n"), "{xml}");
}

#[test]
fn github_gets_an_annotation_for_each_complaint_and_a_page() {
    let failed = run(false);
    let lines = annotations(&failed);
    assert_eq!(lines.lines().count(), failed.verdict.complaints().count());
    assert!(lines.lines().all(|line| line.starts_with("::error title=smoke: ")), "{lines}");
    assert_eq!(annotations(&run(true)), "");
    assert!(step_summary(&failed).starts_with("## smoke: fail\n"));
    assert!(step_summary(&run(true)).contains("1.000 ms past its deadline"));
}

#[test]
fn a_row_for_each_run_and_their_distribution_fit_80_columns() {
    let mut out = Vec::new();
    let mut rows = Rows::new(&mut out, Look::default());
    let runs = [run(true), run(false), run(true)];
    for (number, run) in (1..).zip(&runs) {
        rows.finished(number, run);
    }
    let text = String::from_utf8(out).unwrap() + &distribution(&runs, Look::default());
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("3 runs: 2 pass, 1 fail"), "{text}");
    assert!(ms(6100) == runs[0].wall && text.matches("6.100 s").count() >= 3, "{text}");
}
