//! Says how runs went: to a person at 80 columns, to a program as JSON or JUnit, to GitHub.
//!
//! Everything here turns values into text; only [`Table`], [`Rows`], [`Steps`] and [`Pulse`], which
//! show a run while it goes on, write it themselves.

mod chaos;
mod files;
mod github;
mod html;
mod live;
mod pulse;
mod repeat;
mod scenario;
mod summary;
mod work;

use std::io::{self, IsTerminal};

use crate::judge::{Check, Outcome};

pub use chaos::{chaos, chaos_json};
pub use files::{json, junit};
pub use github::{annotations, step_summary};
pub use html::html;
pub use live::Table;
pub use pulse::Pulse;
pub use repeat::{Rows, Spread, distribution};
pub use scenario::{Steps, scenario, scenario_distribution, scenario_json, scenario_row};
pub use summary::summary;
pub use work::{work, work_json};

/// The width of everything shown to a person.
const WIDTH: usize = 80;

/// How the report may look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Whether lines may be painted over.
    pub live: bool,
    /// Whether there may be colour.
    pub color: bool,
}

impl Look {
    /// What standard output allows: a terminal is painted on, in colour unless `NO_COLOR` is set.
    #[must_use]
    pub fn of_stdout() -> Self {
        let live = io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { live, color: live && !plain }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// `text` in the colour of an outcome.
    fn outcome(self, outcome: Outcome, text: &str) -> String {
        let code = match outcome {
            Outcome::Pass => "32",
            Outcome::Inconclusive => "33",
            Outcome::Fail => "1;31",
        };
        self.paint(code, text)
    }
}

const fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "✓",
        Outcome::Inconclusive => "?",
        Outcome::Fail => "✗",
    }
}

/// A line for each check, their names `width` characters wide; all that is said of one that did not
/// pass below it.
fn checks(checks: &[Check], width: usize, look: Look) -> String {
    let line = |check: &Check| {
        let sign = look.outcome(check.outcome, mark(check.outcome));
        if check.outcome == Outcome::Pass {
            let name = cut(&check.name, width);
            let said = look.dim(&cut(&check.detail, WIDTH - width - 5));
            return format!("{}\n", format!("  {sign} {name:<width$} {said}").trim_end());
        }
        let name = look.outcome(check.outcome, &check.name);
        format!("  {sign} {name}\n{}\n", wrap(&check.detail, 6))
    };
    checks.iter().map(line).collect()
}

/// How it came out, in one word.
fn conclusion(outcome: Outcome, look: Look) -> String {
    format!("\n  {}\n", look.outcome(outcome, &outcome.word().to_uppercase()))
}

/// The first line of `text`, cut to `width` characters.
fn cut(text: &str, width: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let head: String = line.chars().take(width.saturating_sub(1)).collect();
    head + "…"
}

/// `text` in lines of at most `WIDTH` characters, each indented by `indent` and by what it was
/// itself; only a single word may be longer.
fn wrap(text: &str, indent: usize) -> String {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let wrapped = lines.map(|line| {
        let own = line.chars().take_while(|c| c.is_whitespace()).count();
        wrap_line(line, indent + own)
    });
    wrapped.collect::<Vec<_>>().join("\n")
}

fn wrap_line(line: &str, indent: usize) -> String {
    let start = " ".repeat(indent);
    let mut rows = vec![start.clone()];
    for (n, word) in line.split_whitespace().enumerate() {
        let used = rows.last().map_or(0, |row| row.chars().count());
        if n > 0 && used + 1 + word.chars().count() > WIDTH {
            rows.push(start.clone());
        } else if let Some(row) = rows.last_mut().filter(|_| n > 0) {
            row.push(' ');
        }
        if let Some(row) = rows.last_mut() {
            row.push_str(word);
        }
    }
    rows.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_text_keeps_its_words_and_fits() {
        let text = "word ".repeat(60) + "\n\n  second line";
        let wrapped = wrap(&text, 6);
        assert!(wrapped.lines().all(|line| line.starts_with("      ") && line.len() <= WIDTH));
        assert_eq!(
            wrapped.split_whitespace().collect::<Vec<_>>(),
            text.split_whitespace().collect::<Vec<_>>()
        );
        assert_eq!(wrapped.lines().last(), Some("        second line"));
    }

    #[test]
    fn a_cut_line_says_so() {
        assert_eq!(cut("übergroß", 8), "übergroß");
        assert_eq!(cut("übergroß!", 8), "übergro…");
        assert_eq!(cut("one\ntwo", 8), "one");
    }
}
