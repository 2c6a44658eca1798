//! What a set of measurements comes to.

/// The smallest value that `percent` of the sorted values do not exceed: always one of them (the
/// nearest rank). `0` gives the first, `100` the last; nothing if there are no values.
#[must_use]
pub fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_is_there() {
        let values: Vec<_> = (1..=100).collect();
        let found = [0, 50, 99, 100].map(|percent| percentile(&values, percent));
        assert_eq!(found, [Some(1), Some(50), Some(99), Some(100)]);
        assert_eq!(percentile(&[3], 99), Some(3));
        assert_eq!(percentile::<u8>(&[], 50), None);
    }

    proptest! {
        #[test]
        fn it_is_the_smallest_that_enough_values_do_not_exceed(
            mut values in prop::collection::vec(0u16..50, 1..60),
            percent in 1usize..=100,
        ) {
            values.sort_unstable();
            let enough = |value: &u16| {
                let below = values.iter().filter(|other| *other <= value).count();
                below * 100 >= percent * values.len()
            };
            prop_assert_eq!(percentile(&values, percent), values.iter().copied().find(enough));
        }
    }
}
