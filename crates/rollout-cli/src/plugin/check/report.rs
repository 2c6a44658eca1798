//! What a check found: a table for people, an object for machines.

use std::fmt::Write;
use std::time::Duration;

use rollout_core::duration::as_ms;
use serde_json::{Value, json};

use crate::error::plain;

/// How wide the table is.
const WIDTH: usize = 80;
const CHECK: usize = 14;
const VERDICT: usize = 6;

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// It holds, but a caller would have little joy of it.
    Warn,
    Fail,
    /// It could not be tried.
    Skip,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
        }
    }
}

/// A verdict and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    pub(super) detail: String,
}

impl Finding {
    pub(super) fn pass(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Pass, detail: detail.into() }
    }

    pub(super) fn warn(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, detail: detail.into() }
    }

    pub(super) fn fail(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, detail: detail.into() }
    }

    pub(super) fn skip(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skip, detail: detail.into() }
    }
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) check: &'static str,
    pub(super) finding: Finding,
    pub(super) took: Duration,
}

/// All that was found.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) plugin: String,
    pub(super) version: String,
    pub(super) boundary: &'static str,
    pub(super) rows: Vec<Row>,
}

impl Report {
    pub(super) fn failed(&self) -> usize {
        self.rows.iter().filter(|row| row.finding.verdict == Verdict::Fail).count()
    }

    pub(super) fn table(&self) -> String {
        let mut table = format!("{} {} ({})\n\n", self.plugin, self.version, self.boundary);
        for Row { check, finding, .. } in &self.rows {
            let head = format!("{check:<CHECK$} {:<VERDICT$} ", finding.verdict.as_str());
            let indent = " ".repeat(head.len());
            for (n, line) in wrap(&finding.detail, WIDTH - head.len()).iter().enumerate() {
                let before = if n == 0 { &head } else { &indent };
                // Writing to a string cannot fail.
                let _ = writeln!(table, "{}", format!("{before}{line}").trim_end());
            }
        }
        table
    }

    pub(super) fn json(&self) -> Value {
        let check = |row: &Row| {
            json!({
                "check": row.check,
                "verdict": row.finding.verdict.as_str().to_ascii_lowercase(),
                "detail": row.finding.detail,
                "took_ms": as_ms(row.took),
            })
        };
        json!({
            "plugin": self.plugin,
            "version": self.version,
            "boundary": self.boundary,
            "failed": self.failed(),
            "checks": self.rows.iter().map(check).collect::<Vec<_>>(),
        })
    }
}

/// The text in lines of at most `width` characters, broken between words where there are any; at
/// least one line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in plain(text).replace('\t', "    ").lines() {
        let mut line = String::new();
        let mut used = 0;
        for word in paragraph.split(' ') {
            let mut word: Vec<char> = word.chars().collect();
            if used > 0 && used + 1 + word.len() > width {
                lines.push(std::mem::take(&mut line));
                used = 0;
            } else if used > 0 {
                line.push(' ');
                used += 1;
            }
            while word.len() > width {
                let rest = word.split_off(width);
                lines.push(word.iter().collect());
                word = rest;
            }
            used += word.len();
            line.extend(word);
        }
        lines.push(line);
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(details: &[(Verdict, &str)]) -> Report {
        let row = |(verdict, detail): &(Verdict, &str)| Row {
            check: "bad params",
            finding: Finding { verdict: *verdict, detail: (*detail).to_owned() },
            took: Duration::from_millis(2),
        };
        Report {
            plugin: "p".into(),
            version: "1".into(),
            boundary: "sidecar",
            rows: details.iter().map(row).collect(),
        }
    }

    #[test]
    fn no_line_of_the_table_is_wider_than_80_columns_and_no_word_is_lost() {
        let words = "lorem ipsum ".repeat(40);
        let long = "x".repeat(300);
        let table = report(&[(Verdict::Pass, &words), (Verdict::Fail, &long)]).table();
        assert!(table.lines().all(|line| line.len() <= WIDTH), "{table}");
        assert_eq!(table.matches("ipsum").count(), 40);
        assert_eq!(table.matches('x').count(), 300);
    }

    #[test]
    fn a_plugin_s_text_cannot_steer_the_terminal() {
        let table = report(&[(Verdict::Fail, "\u{1b}[2J\u{9b}1m\r")]).table();
        assert!(!table.chars().any(|c| c.is_control() && c != '\n'), "{table:?}");
        assert!(table.contains("\\u{1b}[2J"));
    }

    #[test]
    fn only_failures_count_as_failed() {
        use Verdict::{Fail, Pass, Skip, Warn};
        let report = report(&[(Pass, ""), (Warn, ""), (Skip, ""), (Fail, "")]);
        assert_eq!(report.failed(), 1);
        assert_eq!(report.json()["failed"], 1);
        assert_eq!(report.json()["checks"][3]["verdict"], "fail");
    }
}
