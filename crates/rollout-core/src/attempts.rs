//! One attempt to connect after the other: how long each may take, and the pauses between them.
//!
//! Pure. A fleet whose coordinator was restarted comes back all at once, and the coordinator takes
//! one after the other. If everybody gave up after the same short time and began anew, those before
//! them in the queue would be dead by the time they are served, and so would they: nobody gets in.
//! Whoever reaches the coordinator and is not answered therefore waits twice as long the next time.

use std::time::Duration;

use crate::budget::Reconnect;

/// Where a worker stands among its attempts.
#[derive(Debug, Clone, Copy)]
pub struct Attempts {
    link: Reconnect,
    pause: Duration,
    patience: Duration,
}

impl Attempts {
    /// Before the first.
    #[must_use]
    pub const fn new(link: Reconnect) -> Self {
        Self { link, pause: link.backoff_initial, patience: link.connect_timeout }
    }

    /// How long the next attempt may take as a whole.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        self.patience
    }

    /// The pause until the next, before jitter: each is twice the one before, up to the longest.
    pub fn pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(self.link.backoff_max);
        pause
    }

    /// The coordinator was reached and did not answer in time: it has its hands full.
    pub fn unanswered(&mut self) {
        self.patience = (self.patience * 2).min(self.link.patience_max);
    }

    /// It has answered: what comes next begins anew.
    pub const fn answered(&mut self) {
        *self = Self::new(self.link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TimeBudget;

    #[test]
    fn pauses_and_patience_double_up_to_their_limits_and_an_answer_resets_them() {
        let ms = Duration::from_millis;
        let mut attempts = Attempts::new(TimeBudget::default().reconnect());
        let pauses: Vec<_> = (0..6).map(|_| attempts.pause()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 500, 500].map(ms));
        assert_eq!(attempts.patience(), ms(1_000), "a pause alone makes nobody patient");
        let patience = [(); 4].map(|()| {
            attempts.unanswered();
            attempts.patience()
        });
        assert_eq!(patience, [2_000, 4_000, 4_000, 4_000].map(ms));
        attempts.answered();
        assert_eq!((attempts.pause(), attempts.patience()), (ms(50), ms(1_000)));
    }
}
