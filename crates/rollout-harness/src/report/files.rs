//! Reports for programs: JSON, and JUnit's XML.

use std::fmt::Write;

use rollout_core::duration::as_ms;
use serde_json::{Value, json};

use super::repeat::{Spread, figures};
use crate::judge::Outcome;
use crate::smoke::Run;
use crate::timeline::StepReport;

/// The worst outcome of `runs`; of no run at all, that nothing was shown.
fn worst(runs: &[Run]) -> Outcome {
    runs.iter().map(|run| run.verdict.outcome).max().unwrap_or(Outcome::Inconclusive)
}

/// Everything about the runs as JSON.
#[must_use]
pub fn json(runs: &[Run]) -> String {
    let report = json!({
        "outcome": worst(runs),
        "runs": runs.iter().map(run).collect::<Vec<_>>(),
        "distribution": {
            "latency_ms": Spread::of(figures(runs, |m| m.latency_ms)),
            "overshoot_ms": Spread::of(figures(runs, |m| m.overshoot_ms)),
            "spare_ms": Spread::of(figures(runs, |m| m.spare_ms)),
        },
    });
    format!("{report:#}\n")
}

fn run(run: &Run) -> Value {
    let evidence = &run.evidence;
    json!({
        "outcome": run.verdict.outcome,
        "run_id": evidence.run,
        "w1": evidence.w1.id,
        "w2": evidence.w2.id,
        "wall_ms": as_ms(run.wall),
        "harness_late_ms": as_ms(evidence.harness_late),
        "measured": run.verdict.measured,
        "steps": evidence.steps.iter().map(step).collect::<Vec<_>>(),
        "checks": run.verdict.checks,
    })
}

fn step(report: &StepReport) -> Value {
    let (Ok(detail) | Err(detail)) = &report.result;
    json!({
        "title": report.step.title(),
        "took_ms": as_ms(report.took),
        "budget_ms": report.step.budget().limit().map(as_ms),
        "ok": report.complaint().is_none(),
        "detail": detail,
    })
}

/// The runs as JUnit's XML: a suite each, with a case for every check.
#[must_use]
pub fn junit(runs: &[Run]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for run in runs {
        let checks = &run.verdict.checks;
        let _ = writeln!(
            xml,
            "  <testsuite name=\"smoke\" id=\"{}\" tests=\"{}\" failures=\"{}\" time=\"{:.3}\">",
            run.evidence.run,
            checks.len(),
            run.verdict.complaints().count(),
            run.wall.as_secs_f64()
        );
        for check in checks {
            let detail = escape(&check.detail);
            let _ = write!(xml, "    <testcase classname=\"smoke\" name=\"{}\">", check.name);
            let _ = match check.outcome {
                Outcome::Pass => write!(xml, "<system-out>{detail}</system-out>"),
                outcome => {
                    write!(xml, "<failure type=\"{}\" message=\"{detail}\"/>", outcome.word())
                }
            };
            xml += "</testcase>\n";
        }
        xml += "  </testsuite>\n";
    }
    xml + "</testsuites>\n"
}

/// Text for XML: markup escaped, characters that XML 1.0 cannot hold replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\n' => escaped += "&#10;",
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_cannot_break_out_of_the_xml() {
        assert_eq!(escape("a<b>&\"c\"\n\u{1b}[0m"), "a&lt;b&gt;&amp;&quot;c&quot;&#10;\u{fffd}[0m");
    }
}
