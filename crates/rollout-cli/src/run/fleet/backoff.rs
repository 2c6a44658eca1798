//! How long to wait before a process that has ended is started again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(5);
/// Whoever has worked so long begins anew.
const ENOUGH: Duration = Duration::from_secs(1);

/// A back-off that doubles, with jitter, from 100 ms to 5 s.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    ends: u32,
}

impl Backoff {
    /// The wait after a process ended that had worked for so long; nothing if it never did.
    pub(super) fn next(&mut self, worked: Option<Duration>) -> Duration {
        self.with(worked, RandomState::new().hash_one(0))
    }

    fn with(&mut self, worked: Option<Duration>, random: u64) -> Duration {
        if worked.is_some_and(|worked| worked >= ENOUGH) {
            self.ends = 0;
        }
        let base = LEAST.saturating_mul(1 << self.ends.min(10)).min(MOST / 2);
        self.ends += 1;
        base + base.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_100_ms_to_5_s_and_begin_anew_after_some_work() {
        let mut backoff = Backoff::default();
        let least: Vec<u128> = (0..7).map(|_| backoff.with(None, 0).as_millis()).collect();
        assert_eq!(least, [100, 200, 400, 800, 1600, 2500, 2500]);
        assert!(backoff.with(None, u64::MAX) <= MOST);
        assert_eq!(backoff.with(Some(ENOUGH / 2), 0).as_millis(), 2500);
        assert_eq!(backoff.with(Some(ENOUGH), 0), LEAST);
        assert!(backoff.with(Some(ENOUGH), u64::MAX) <= 2 * LEAST);
    }
}
