//! Reports in the forms that GitHub's runners read.

use std::fmt::Write;

use crate::judge::Outcome;
use crate::smoke::Run;

/// A workflow command for each check that did not pass.
#[must_use]
pub fn annotations(run: &Run) -> String {
    let mut text = String::new();
    for check in run.verdict.complaints() {
        let level = if check.outcome == Outcome::Fail { "error" } else { "warning" };
        let message = escape(&check.detail);
        let _ = writeln!(text, "::{level} title=smoke: {}::{message}", check.name);
    }
    text
}

/// The data of a workflow command: what would end it is escaped.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A run as a page in Markdown.
#[must_use]
pub fn step_summary(run: &Run) -> String {
    let mut text = format!("## smoke: {}\n\n", run.verdict.outcome.word());
    if let Some(measured) = &run.verdict.measured {
        let _ = writeln!(
            text,
            "`worker_failed(w1)` came {:.3} s after the kill: {:.3} ms past its deadline, {:.3} s \
             before the bound of 8 s.\n",
            measured.latency_ms / 1e3,
            measured.overshoot_ms,
            measured.spare_ms / 1e3
        );
    }
    text += "| step | took | budget | |\n| --- | ---: | ---: | --- |\n";
    for report in &run.evidence.steps {
        let verdict =
            report.complaint().map_or("ok".to_owned(), |why| format!("**{}**", cell(&why)));
        let (title, budget) = (report.step.title(), report.step.budget());
        let took = report.took.as_secs_f64();
        let _ =
            writeln!(text, "| {title} | {took:.3} s | {} | {verdict} |", cell(&budget.to_string()));
    }
    text += "\n| check | outcome | seen |\n| --- | --- | --- |\n";
    for check in &run.verdict.checks {
        let detail = cell(&check.detail);
        let _ = writeln!(text, "| {} | {} | {detail} |", check.name, check.outcome.word());
    }
    text + "\n"
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace('\n', "<br>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_can_end_neither_a_command_nor_a_cell() {
        assert_eq!(escape("50%\nnext"), "50%25%0Anext");
        assert_eq!(cell("a|b\n<c>"), "a\\|b<br>&lt;c>");
    }
}
