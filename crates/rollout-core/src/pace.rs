//! How often something may happen: so many times at once, then once an interval.
//!
//! The leaky bucket in its virtual-scheduling form (GCRA, ITU-T I.371, annex A): one instant is all
//! that is remembered of whoever keeps the pace. What is refused does not count.

use std::time::Duration;

use crate::Mono;

/// A pace that somebody has to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    interval: Duration,
    /// What may be ahead of `interval`.
    ahead: Duration,
}

/// What one who keeps a pace has used of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// From then on nothing is.
    until: Mono,
}

impl Pace {
    /// At most `burst` (at least one) at once, then one an `interval`.
    #[must_use]
    pub const fn new(burst: u32, interval: Duration) -> Self {
        Self { interval, ahead: interval.saturating_mul(burst.saturating_sub(1)) }
    }

    /// Whether it may happen at `now`; then it counts.
    ///
    /// # Errors
    /// When it may not yet: how long it has to wait.
    pub fn take(&self, used: &mut Used, now: Mono) -> Result<(), Duration> {
        let until = used.until.max(now);
        let ahead = until.since(now);
        if ahead > self.ahead {
            return Err(ahead.saturating_sub(self.ahead));
        }
        used.until = until + self.interval;
        Ok(())
    }
}

impl Used {
    /// Whether all of it is given back by `now`, so that nothing need be remembered.
    #[must_use]
    pub fn is_nothing(&self, now: Mono) -> bool {
        self.until <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A bucket of tokens, counted in nanoseconds so that nothing is rounded.
    struct Bucket {
        tokens: u128,
        at: u64,
    }

    proptest! {
        #[test]
        fn it_admits_exactly_what_a_bucket_of_tokens_admits(
            burst in 1u32..6,
            interval in 1u64..20,
            pauses in prop::collection::vec(0u64..30, 1..200),
        ) {
            let pace = Pace::new(burst, Duration::from_nanos(interval));
            let full = u128::from(burst) * u128::from(interval);
            let (mut used, mut now) = (Used::default(), 1_000);
            let mut bucket = Bucket { tokens: full, at: now };
            for pause in pauses {
                now += pause;
                bucket.tokens = full.min(bucket.tokens + u128::from(now - bucket.at));
                bucket.at = now;
                let enough = bucket.tokens >= u128::from(interval);
                let taken = pace.take(&mut used, Mono(now));
                prop_assert_eq!(taken.is_ok(), enough);
                match taken {
                    Ok(()) => bucket.tokens -= u128::from(interval),
                    Err(wait) => {
                        let missing = u128::from(interval) - bucket.tokens;
                        prop_assert_eq!(wait.as_nanos(), missing);
                    }
                }
                prop_assert_eq!(used.is_nothing(Mono(now)), bucket.tokens == full);
            }
        }
    }
}
