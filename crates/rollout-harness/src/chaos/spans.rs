//! Stretches of time.

use std::time::Duration;

use rollout_core::Mono;

/// Stretches of time, in order, none touching another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<(Mono, Mono)>);

impl FromIterator<(Mono, Mono)> for Spans {
    fn from_iter<I: IntoIterator<Item = (Mono, Mono)>>(spans: I) -> Self {
        let mut spans: Vec<_> = spans.into_iter().filter(|(from, to)| from < to).collect();
        spans.sort_unstable();
        let mut merged: Vec<(Mono, Mono)> = Vec::with_capacity(spans.len());
        for (from, to) in spans {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Self(merged)
    }
}

impl Spans {
    /// How much of the time from `from` to `to` is in them.
    pub(super) fn within(&self, from: Mono, to: Mono) -> Duration {
        self.0.iter().map(|span| span.1.min(to).since(span.0.max(from))).sum()
    }

    /// Whether all of the time from `from` to `to` is in them.
    pub(super) fn cover(&self, from: Mono, to: Mono) -> bool {
        self.0.iter().any(|span| span.0 <= from && to <= span.1)
    }

    /// Whether any instant from `from` to `to`, both included, is in them.
    pub(super) fn touch(&self, from: Mono, to: Mono) -> bool {
        self.0.iter().any(|span| span.0 <= to && from <= span.1)
    }

    /// The end of the stretch that `at` is in; `at` itself if it is in none.
    pub(super) fn past(&self, at: Mono) -> Mono {
        self.0.iter().find(|span| span.0 <= at && at <= span.1).map_or(at, |span| span.1)
    }

    /// The stretches.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Mono, Mono)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the definition, on a clock of small numbers.
        #[test]
        fn they_are_the_set_of_their_instants(
            spans in prop::collection::vec((0u64..40, 0u64..40), 0..6), from in 0u64..40, to in 0u64..40,
        ) {
            let made: Spans = spans.iter().map(|(a, b)| (Mono(*a), Mono(*b))).collect();
            let holds = |at: u64| spans.iter().any(|(a, b)| *a <= at && at < *b);
            let (from, to) = (from.min(to), from.max(to));
            let within = (from..to).filter(|at| holds(*at)).count() as u64;
            prop_assert_eq!(made.within(Mono(from), Mono(to)), Duration::from_nanos(within));
            if from < to {
                prop_assert_eq!(made.cover(Mono(from), Mono(to)), within == to - from);
                prop_assert!(within == 0 || made.touch(Mono(from), Mono(to)));
            }
            prop_assert!(!holds(made.past(Mono(from)).0) || made.past(Mono(from)) == Mono(from));
        }
    }
}
