//! How often each worker may register: a registration costs an fsync and two events, and a worker
//! that registers in a loop must not make the fleet pay for it.

use std::collections::HashMap;
use std::time::Duration;

use rollout_core::pace::Used;
use rollout_core::{Mono, Pace, WorkerId};

/// Registrations at once: more than any honest worker needs that loses its connection again and
/// again, or is restarted by a supervisor.
pub(crate) const BURST: u32 = 20;

/// Who has registered of late.
#[derive(Debug)]
pub(crate) struct Registrar {
    pace: Pace,
    used: HashMap<WorkerId, Used>,
    /// How many may be remembered until those with nothing left to remember are looked for.
    room: usize,
}

const ROOM: usize = 64;

impl Registrar {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { pace: Pace::new(BURST, interval), used: HashMap::new(), room: ROOM }
    }

    /// Whether `worker` may register at `now`; then it counts.
    ///
    /// # Errors
    /// When it has done so too often: how long it has to wait.
    pub(crate) fn admit(&mut self, now: Mono, worker: WorkerId) -> Result<(), Duration> {
        if self.used.len() >= self.room {
            self.used.retain(|_, used| !used.is_nothing(now));
            self.room = self.used.len().saturating_mul(2).max(ROOM);
        }
        self.pace.take(self.used.entry(worker).or_default(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_registers_in_a_loop_has_to_wait_and_another_has_not() {
        let mut registrar = Registrar::new(Duration::from_millis(500));
        let (greedy, other) = (WorkerId::generate(), WorkerId::generate());
        for _ in 0..BURST {
            assert_eq!(registrar.admit(Mono(0), greedy), Ok(()));
        }
        let wait = registrar.admit(Mono(0), greedy).unwrap_err();
        assert_eq!(registrar.admit(Mono(0), other), Ok(()));
        assert_eq!(registrar.admit(Mono(0) + wait, greedy), Ok(()));
        assert!(registrar.admit(Mono(0) + wait, greedy).is_err());
    }

    #[test]
    fn who_has_not_registered_of_late_is_forgotten() {
        let mut registrar = Registrar::new(Duration::from_millis(500));
        let mut now = Mono(0);
        for _ in 0..10_000 {
            now += Duration::from_millis(50);
            assert_eq!(registrar.admit(now, WorkerId::generate()), Ok(()));
            assert!(registrar.used.len() <= ROOM);
        }
    }
}
