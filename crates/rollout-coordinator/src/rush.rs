//! A fleet at the door: after a restart everybody comes back at once, and is taken in one after the
//! other. Who waits there cannot beat, and looks no different from the dead.
//!
//! Pure. While newcomers wait for the coordinator, the time does not count for workers that it knows
//! from before its start and has not heard of since. For all others it does: a crowd at the door
//! delays nobody's verdict who is in.

use std::time::Duration;

use rollout_core::Mono;

use crate::watchdog::TOLERATED;

/// So much is credited altogether: who keeps the door busy for longer than a fleet needs to come in
/// puts off no verdict any more.
const MOST: Duration = Duration::from_secs(60);
/// A rush that does not end is reported this often.
const UNSAID: Duration = Duration::from_secs(1);

/// Measures how long newcomers wait without a pause.
#[derive(Debug)]
pub(crate) struct Rush {
    looked: Mono,
    /// How long they have been waiting, and whether that counts already.
    lasted: Duration,
    counts: bool,
    /// What was credited and is to be reported.
    unsaid: Duration,
    left: Duration,
}

impl Rush {
    pub(crate) const fn new(now: Mono) -> Self {
        let zero = Duration::ZERO;
        Self { looked: now, lasted: zero, counts: false, unsaid: zero, left: MOST }
    }

    /// Whether anybody waits at `now`; how much time is to be credited. A rush that is tolerated
    /// is none, and one that lasts counts from its beginning.
    pub(crate) fn look(&mut self, now: Mono, waits: bool) -> Duration {
        let pause = now.since(self.looked);
        self.looked = now;
        if !waits {
            (self.lasted, self.counts) = (Duration::ZERO, false);
            return Duration::ZERO;
        }
        self.lasted += pause;
        let fresh = match (self.counts, self.lasted > TOLERATED) {
            (true, _) => pause,
            (false, true) => self.lasted,
            (false, false) => return Duration::ZERO,
        };
        self.counts = true;
        let credit = fresh.min(self.left);
        self.left -= credit;
        self.unsaid += credit;
        credit
    }

    /// What has been credited and not yet said, once it is over or has become much.
    pub(crate) fn report(&mut self) -> Option<Duration> {
        let due = self.unsaid >= UNSAID || !self.counts || self.left.is_zero();
        (due && !self.unsaid.is_zero()).then(|| std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_rush_counts_from_its_beginning_once_it_lasts_and_is_reported_when_it_is_over() {
        let mut rush = Rush::new(Mono(0));
        let mut at = Mono(0);
        let mut step = |waits| {
            at += ms(100);
            (rush.look(at, waits), rush.report())
        };
        assert_eq!(step(true), (ms(0), None));
        assert_eq!(step(true), (ms(0), None));
        assert_eq!(step(true), (ms(300), None));
        assert_eq!(step(true), (ms(100), None));
        assert_eq!(step(false), (ms(0), Some(ms(400))));
        assert_eq!(step(true), (ms(0), None));
        assert_eq!(step(false), (ms(0), None), "this one is tolerated");
    }

    proptest! {
        /// Nothing is credited that was no rush, at most a minute of it, and all of it is said.
        #[test]
        fn what_is_credited_was_a_rush_and_is_reported(
            steps in prop::collection::vec((1u64..2_000, any::<bool>()), 1..200)
        ) {
            let (mut rush, mut at) = (Rush::new(Mono(0)), Mono(0));
            let (mut waited, mut credited, mut said) = (ms(0), ms(0), ms(0));
            for (pause, waits) in steps {
                at += ms(pause);
                if waits {
                    waited += ms(pause);
                }
                credited += rush.look(at, waits);
                said += rush.report().unwrap_or_default();
                prop_assert!(said <= credited && credited - said < UNSAID);
                prop_assert!(credited <= waited.min(MOST));
            }
            at += ms(1);
            prop_assert_eq!(rush.look(at, false), ms(0));
            prop_assert_eq!(said + rush.report().unwrap_or_default(), credited);
        }
    }
}
