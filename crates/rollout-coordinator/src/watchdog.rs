//! The coordinator's watch over itself: when it was stopped or starved, that is nobody's fault.

use std::time::Duration;

use rollout_core::Mono;

/// The longest the engine sleeps: how often it proves that it runs.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// Lateness above which the time is credited.
pub(crate) const TOLERATED: Duration = Duration::from_millis(250);

/// Measures how late the engine wakes.
#[derive(Debug)]
pub(crate) struct Watchdog {
    seen: Mono,
}

impl Watchdog {
    pub(crate) const fn new(now: Mono) -> Self {
        Self { seen: now }
    }

    /// The engine runs at `now`; how long it was stalled, if it was. A stall is the whole lateness,
    /// not only what exceeds the tolerance.
    pub(crate) fn observe(&mut self, now: Mono) -> Option<Duration> {
        let late = now.since(self.seen).saturating_sub(TICK);
        self.seen = now;
        (late > TOLERATED).then_some(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lateness_over_the_tolerance_is_a_stall_and_all_of_it_counts() {
        let mut watchdog = Watchdog::new(Mono(0));
        let mut now = Mono(0);
        for (pause_ms, stall_ms) in [(0, None), (50, None), (300, None), (301, Some(251))] {
            now += Duration::from_millis(pause_ms);
            assert_eq!(watchdog.observe(now), stall_ms.map(Duration::from_millis), "{pause_ms}");
        }
        assert_eq!(watchdog.observe(now), None, "a stall is reported once");
    }
}
