//! How a run goes, in one line.

use std::io::Write;

use super::{Look, WIDTH, cut};
use crate::watch::Watch;
use crate::{chaos, work};

/// Shows how a run goes, in one line that is painted over; without a terminal, what begins.
#[derive(Debug)]
pub struct Pulse<W: Write> {
    out: W,
    look: Look,
}

impl<W: Write> Pulse<W> {
    /// A line on `out`.
    pub fn new(out: W, look: Look) -> Self {
        Self { out, look }
    }

    fn paint(&mut self, text: &str) {
        let line = self.look.dim(&cut(text, WIDTH));
        // What cannot be shown is not shown; the run goes on.
        let _ = write!(self.out, "\r\x1b[K{line}").and_then(|()| self.out.flush());
    }
}

impl<W: Write, P: Shown> Watch<P> for Pulse<W> {
    fn says(&mut self, what: &str) {
        if self.look.live {
            return self.paint(&format!("  {what}"));
        }
        let _ = writeln!(self.out, "  {what}").and_then(|()| self.out.flush());
    }

    fn goes(&mut self, progress: &P) {
        if self.look.live {
            self.paint(&progress.line());
        }
    }
}

/// The progress of a run as a line.
trait Shown {
    fn line(&self) -> String;
}

impl Shown for chaos::Progress {
    fn line(&self) -> String {
        let Self { elapsed, length, faults, of, verdicts, terms } = self;
        let (elapsed, length) = (elapsed.as_secs_f64(), length.as_secs());
        format!(
            "  {elapsed:>6.1} of {length} s   {faults:>3} of {of} faults   {verdicts:>3} \
             verdicts   {terms} terms"
        )
    }
}

impl Shown for work::Progress {
    fn line(&self) -> String {
        let Self { elapsed, done, items, faults, of } = self;
        let elapsed = elapsed.as_secs_f64();
        format!("  {elapsed:>6.1} s   {done:>6} of {items} items   {faults:>3} of {of} faults")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(progress: &impl Shown, live: bool) -> String {
        let mut out = Vec::new();
        Pulse::new(&mut out, Look { live, color: false }).goes(progress);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn progress_is_one_line_within_the_width_and_without_a_terminal_none() {
        let chaos = chaos::Progress { faults: 123, of: 456, verdicts: 789, ..Default::default() };
        let work =
            work::Progress { done: 123_456, items: 234_567, faults: 99, ..Default::default() };
        for text in [shown(&chaos, true), shown(&work, true)] {
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.trim_start_matches("\r\x1b[K").chars().count() <= WIDTH, "{text}");
        }
        assert!(shown(&chaos, true).contains("123 of 456 faults"));
        assert!(shown(&work, true).contains("123456 of 234567 items"));
        assert_eq!(shown(&chaos, false) + &shown(&work, false), "");
    }
}
