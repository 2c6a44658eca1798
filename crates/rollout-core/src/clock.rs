//! Time comes in through here, so that it can be replaced in a test.

use std::ops::{Add, AddAssign};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// An instant on this host's monotonic clock, in nanoseconds since an arbitrary start.
///
/// Comparable between processes of one host (unlike `std::time::Instant`, it can be written down),
/// never between hosts.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Mono(pub u64);

impl Mono {
    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This instant, `back` earlier; the start of the clock when that would be before it.
    #[must_use]
    pub fn before(self, back: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(back)))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(nanos(wait)))
    }
}

impl AddAssign<Duration> for Mono {
    fn add_assign(&mut self, wait: Duration) {
        *self = *self + wait;
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Where instants come from.
pub trait Clock: Send + Sync {
    /// Now, on the monotonic clock.
    fn now(&self) -> Mono;
    /// Now, on the clock that also counts while the machine is suspended: the fence's clock.
    fn boot(&self) -> Mono;
    /// Now, for people; nothing is decided on it.
    fn wall(&self) -> SystemTime;
    /// [`wall`](Self::wall) in whole milliseconds since 1970; 0 before.
    fn unix_ms(&self) -> u64 {
        let since = self.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[cfg(any(target_os = "linux", target_os = "android"))]
const BOOT: ClockId = ClockId::CLOCK_BOOTTIME;
/// Elsewhere the monotonic clock itself counts suspend.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const BOOT: ClockId = ClockId::CLOCK_MONOTONIC;

impl Clock for SystemClock {
    fn now(&self) -> Mono {
        read(ClockId::CLOCK_MONOTONIC)
    }

    fn boot(&self) -> Mono {
        read(BOOT)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn wall(&self) -> SystemTime {
        let now = SystemTime::now();
        #[cfg(any(test, feature = "faults"))]
        let now = crate::faults::wall(now);
        now
    }
}

/// The processor time that this thread has had, for measurements.
#[must_use]
pub fn processor_time() -> Duration {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID).since(Mono::default())
}

/// Reading these clocks fails only for an id the kernel does not know, which POSIX rules out.
fn read(id: ClockId) -> Mono {
    clock_gettime(id).map_or(Mono::default(), |at| Mono::default() + Duration::from(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_moves_forward_and_since_never_underflows() {
        let (a, b) = (SystemClock.now(), SystemClock.now());
        assert!(Mono(0) < a && a <= b);
        assert_eq!(Mono(3).since(Mono(5)), Duration::ZERO);
        assert_eq!(Mono(3).before(Duration::from_nanos(5)), Mono(0));
        assert_eq!(Mono(u64::MAX) + Duration::MAX, Mono(u64::MAX));
    }

    #[test]
    fn a_thread_has_processor_time_while_it_works() {
        let before = processor_time();
        while processor_time() == before {}
    }

    #[test]
    fn the_boot_clock_is_not_behind_the_monotonic_one() {
        let now = SystemClock.now();
        assert!(SystemClock.boot() >= now);
    }
}
