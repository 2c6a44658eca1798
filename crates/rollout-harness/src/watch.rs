//! Who hears how a run goes, while it goes on.

use std::time::Duration;

/// How often is told where a run is.
pub(crate) const TOLD_EVERY: Duration = Duration::from_millis(100);

/// Hears how a run goes, whose progress is a `P`.
pub trait Watch<P> {
    /// What begins.
    fn says(&mut self, what: &str);
    /// Where it is.
    fn goes(&mut self, progress: &P);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl<P> Watch<P> for Unwatched {
    fn says(&mut self, _: &str) {}
    fn goes(&mut self, _: &P) {}
}
