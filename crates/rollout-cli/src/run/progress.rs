//! What people see while a run goes on: a bar on a terminal, plain lines elsewhere, JSON for programs.

mod view;

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

pub(crate) use view::{View, count, span};

/// How often there is something new to see.
const BAR: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(5);
const JSON: Duration = Duration::from_secs(1);
/// The rate is that of the last so many seconds.
const WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Bar,
    Lines,
    Json,
}

/// What is shown, and where.
pub(crate) struct Progress {
    form: Form,
    /// Something is on the terminal's last line.
    drawn: bool,
    next: Instant,
    samples: VecDeque<(Instant, u64)>,
}

impl Progress {
    pub(crate) fn new(json: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let form = match (json, io::stderr().is_terminal() && !dumb) {
            (true, _) => Form::Json,
            (false, true) => Form::Bar,
            (false, false) => Form::Lines,
        };
        Self { form, drawn: false, next: Instant::now(), samples: VecDeque::new() }
    }

    /// When there is something new to show.
    pub(crate) const fn next(&self) -> Instant {
        self.next
    }

    /// How many items came to their end in a second, lately; nothing before that is known.
    pub(crate) fn rate(&mut self, ended: u64) -> Option<f64> {
        let now = Instant::now();
        self.samples.push_back((now, ended));
        while self.samples.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            self.samples.pop_front();
        }
        let (since, before) = *self.samples.front()?;
        let seconds = (now - since).as_secs_f64();
        (seconds >= 0.5).then(|| ended.saturating_sub(before) as f64 / seconds)
    }

    /// Shows how it stands.
    pub(crate) fn show(&mut self, view: &View) {
        let period = match self.form {
            Form::Bar => BAR,
            Form::Lines => LINE,
            Form::Json => JSON,
        };
        self.next = Instant::now() + period;
        match self.form {
            Form::Bar => {
                let width = terminal_size::terminal_size_of(io::stderr())
                    .map_or(80, |(terminal_size::Width(width), _)| usize::from(width));
                // The last column stays free: some terminals wrap there.
                to_stderr(&format!("\r{}\x1b[K", view.bar(width.saturating_sub(1))));
                self.drawn = true;
            }
            Form::Lines => to_stderr(&format!("{}\n", view.line())),
            Form::Json => to_stdout(&view.json()),
        }
    }

    /// Says something beside it.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        to_stderr(&format!("rollout: {}\n", crate::error::plain(text)));
        if self.form == Form::Bar {
            self.next = Instant::now();
        }
    }

    /// Says how it ended.
    pub(crate) fn end(&mut self, text: &str, report: &serde_json::Value) {
        self.clear();
        match self.form {
            Form::Json => to_stdout(&json!({ "type": "ended", "report": report })),
            Form::Bar | Form::Lines => to_stderr(&crate::error::plain(text)),
        }
    }

    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            to_stderr("\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A terminal that is gone is no reason to stop working.
fn to_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn to_stdout(value: &serde_json::Value) {
    let _ = io::stdout().write_all(format!("{value}\n").as_bytes());
}
