//! How many items go into one call, and how many the worker holds: by the speed that was measured.
//!
//! A call is at most about [`CALL`] of work, so that a slow item is alone in its call, runs beside
//! others, and keeps none waiting; fast ones share the cost of a call. The worker holds about
//! [`AHEAD`] of work: enough that the plugin never waits for a grant, little enough that not much is
//! late when the worker is killed.

use std::time::Duration;

use rollout_core::job::MAX_BATCH;

/// The work in one call.
const CALL: Duration = Duration::from_millis(50);
/// The work that is held.
const AHEAD: Duration = Duration::from_millis(200);
/// The most items that are held of one plugin, however fast they are.
pub(super) const MOST: usize = 8_192;
/// Items that take less are computed, not waited for: more calls at a time than there are cores
/// would only be in each other's way.
const QUICK: Duration = Duration::from_millis(1);
/// How much larger than the largest so far a call may be.
const GROWTH: usize = 4;

/// What is known of the speed of a job's items.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    /// The time of one item, as part of a call beside others: it rises at once and falls slowly, so
    /// that items of mixed cost go in small calls.
    cost: Option<Duration>,
    /// The items of the largest call that was answered.
    largest: usize,
}

impl Pace {
    /// A call of so many items was answered.
    pub(super) fn measure(&mut self, items: usize, took: Duration) {
        let Ok(count) = u32::try_from(items.max(1)) else { return };
        let new = (took / count).max(Duration::from_nanos(1));
        self.cost = Some(match self.cost {
            Some(old) if new < old => old - (old - new) / 4,
            _ => new,
        });
        self.largest = self.largest.max(items);
    }

    /// How many calls at a time, of a plugin with so many places.
    pub(super) fn calls(&self, places: usize, cores: usize) -> usize {
        match self.cost {
            Some(cost) if cost < QUICK => cores.max(2).min(places),
            _ => places,
        }
    }

    /// How many of the `queued` items go into the next call, when so many more calls may be begun.
    pub(super) fn size(&self, queued: usize, free: usize, batch: u32) -> usize {
        let Some(cost) = self.cost else { return 1 };
        let by_time = usize::try_from(CALL.as_nanos() / cost.as_nanos().max(1)).unwrap_or(MOST);
        let grown = self.largest.saturating_mul(GROWTH);
        let share = queued.div_ceil(free.max(1));
        let batch = batch.min(MAX_BATCH) as usize;
        by_time.min(grown).min(share).min(batch).max(1)
    }

    /// How many items the worker holds.
    pub(super) fn target(&self, places: usize, cores: usize) -> usize {
        let least = floor(places);
        let Some(cost) = self.cost else { return least };
        let together = self.calls(places, cores) as u128;
        let ahead = AHEAD.as_nanos() * together / cost.as_nanos().max(1);
        usize::try_from(ahead).unwrap_or(MOST).min(MOST).max(least)
    }
}

/// What is held of a plugin whose speed is not known.
pub(super) fn floor(places: usize) -> usize {
    places.saturating_mul(2).min(MOST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn the_first_calls_are_single_items_side_by_side_and_slow_items_stay_so() {
        let mut pace = Pace::default();
        assert_eq!((pace.calls(64, 2), pace.size(128, 64, 64)), (64, 1));
        assert_eq!(pace.target(64, 2), 128);
        pace.measure(1, Duration::from_secs(3));
        assert_eq!((pace.calls(64, 2), pace.size(128, 64, 64)), (64, 1));
        assert_eq!(pace.target(64, 2), 128);
    }

    #[test]
    fn fast_items_come_to_large_calls_step_by_step_and_a_slow_one_undoes_it_at_once() {
        let mut pace = Pace::default();
        let mut sizes = Vec::new();
        for _ in 0..40 {
            let size = pace.size(1 << 20, 1, 4_096);
            pace.measure(size, us(200) + us(2) * u32::try_from(size).unwrap());
            sizes.push(size);
        }
        assert!(sizes.windows(2).all(|two| two[1] <= two[0] * 4), "{sizes:?}");
        assert_eq!(sizes.last(), Some(&4_096));
        assert_eq!(pace.calls(64, 2), 2);
        assert_eq!(pace.target(64, 2), MOST);
        pace.measure(1, us(30_000));
        assert_eq!(pace.size(1 << 20, 1, 4_096), 1);
        assert_eq!(pace.calls(64, 2), 64);
    }

    #[test]
    fn the_rest_of_a_queue_is_shared_by_the_calls_that_may_be_begun() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.measure(1_000, us(1_000));
        }
        assert_eq!(pace.size(100, 2, 4_096), 50);
        assert_eq!(pace.size(1, 2, 4_096), 1);
        assert_eq!(pace.size(10_000, 1, 64), 64);
    }

    proptest! {
        #[test]
        fn a_call_has_an_item_no_more_than_the_batch_and_what_is_held_is_within_bounds(
            measured in prop::collection::vec((1usize..5_000, 0u64..10_000_000), 0..20),
            queued in 1usize..100_000, free in 0usize..100, batch in 1u32..5_000,
            places in 1usize..200, cores in 1usize..64,
        ) {
            let mut pace = Pace::default();
            for (items, took) in measured {
                pace.measure(items, us(took));
            }
            let size = pace.size(queued, free, batch);
            prop_assert!(1 <= size && size <= batch as usize && size <= MAX_BATCH as usize);
            let calls = pace.calls(places, cores);
            prop_assert!(1 <= calls && calls <= places);
            let target = pace.target(places, cores);
            prop_assert!(target >= floor(places) && target <= MOST);
        }
    }
}
