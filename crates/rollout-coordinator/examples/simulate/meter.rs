//! What calls cost: processor time, which a busy machine changes less than the time that passes.

use std::time::Duration;

use rollout_core::clock::processor_time;

/// Readings from which the cost of reading is worked out.
const READINGS: u32 = 10_000;

/// Adds up what the calls take that it is given.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Meter {
    total: Duration,
    times: u32,
    longest: Duration,
}

impl Meter {
    pub(crate) fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let before = processor_time();
        let outcome = call();
        let took = processor_time().saturating_sub(before);
        self.total += took;
        self.times += 1;
        self.longest = self.longest.max(took);
        outcome
    }

    /// What they took together, without what reading the clock costs.
    pub(crate) fn total(&self, reading: Duration) -> Duration {
        self.total.saturating_sub(reading * self.times)
    }

    pub(crate) const fn longest(&self) -> Duration {
        self.longest
    }
}

/// What a call that does nothing takes.
pub(crate) fn reading() -> Duration {
    let mut nothing = Meter::default();
    for _ in 0..READINGS {
        nothing.time(|| ());
    }
    nothing.total / READINGS
}
