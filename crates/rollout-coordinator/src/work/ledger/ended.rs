//! Which items have come to their end: one bit each, and none for the prefix that is complete.

use std::collections::VecDeque;

const BITS: u64 = u64::BITS as u64;

/// A set of item numbers that fills up from below.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Words before the first one kept: all their items have ended.
    base: u64,
    words: VecDeque<u64>,
}

impl Ended {
    pub(super) fn contains(&self, item: u64) -> bool {
        let Some(at) = (item / BITS).checked_sub(self.base) else { return true };
        let word = usize::try_from(at).ok().and_then(|at| self.words.get(at));
        word.is_some_and(|word| word >> (item % BITS) & 1 == 1)
    }

    /// Adds the item; whether it was new.
    pub(super) fn insert(&mut self, item: u64) -> bool {
        if self.contains(item) {
            return false;
        }
        // `contains` is true for everything below the base, and jobs are limited to 2^32 items.
        let Ok(at) = usize::try_from(item / BITS - self.base) else { return false };
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        self.words[at] |= 1 << (item % BITS);
        while self.words.front() == Some(&u64::MAX) {
            self.words.pop_front();
            self.base += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_set_holds(items in prop::collection::vec(0..700_u64, 0..900)) {
            let (mut ended, mut model) = (Ended::default(), HashSet::new());
            for item in items {
                prop_assert_eq!(ended.insert(item), model.insert(item));
            }
            for item in 0..800 {
                prop_assert_eq!(ended.contains(item), model.contains(&item));
            }
        }
    }

    #[test]
    fn a_complete_prefix_costs_nothing() {
        let mut ended = Ended::default();
        for item in 0..1_000_000 {
            ended.insert(item);
        }
        assert!(ended.words.len() <= 1);
        assert!(ended.contains(999_999) && !ended.contains(1_000_000));
    }
}
