//! From instants to places: everything on the page stands at a percentage of the chart's width, so
//! that the chart can be stretched without being drawn anew.

use std::time::Duration;

use rollout_core::Mono;

use super::text::trim;

/// The least width of the chart in pixels. Labels that do not touch at this width do not touch at
/// any greater one.
pub(super) const LEAST_WIDTH: f64 = 980.0;
/// The most labelled ticks.
const TICKS: f64 = 14.0;

/// The time axis: from the run's beginning to a little past its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    began: Mono,
    ended: Mono,
    nanos: f64,
}

/// A tick of the axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    /// Where it stands, in per cent.
    pub(super) at: f64,
    /// Its seconds, for every fifth.
    pub(super) label: Option<String>,
}

impl Scale {
    /// An axis from `began` to `ended`.
    pub(super) fn new(began: Mono, ended: Mono) -> Self {
        let nanos = ended.since(began).as_nanos().max(1) as f64;
        Self { began, ended, nanos: nanos * 1.01 }
    }

    /// Where an instant stands, in per cent; one outside the run at its nearer end.
    pub(super) fn at(&self, instant: Mono) -> f64 {
        instant.min(self.ended).since(self.began).as_nanos() as f64 / self.nanos * 100.0
    }

    /// Where an instant stands at the least width, in pixels.
    pub(super) fn pixels(&self, instant: Mono) -> f64 {
        self.at(instant) / 100.0 * LEAST_WIDTH
    }

    /// How long a stretch of so many pixels lasts at the least width.
    pub(super) fn lasts(&self, pixels: f64) -> Duration {
        Duration::from_nanos((self.nanos / LEAST_WIDTH * pixels).ceil() as u64)
    }

    /// An instant in seconds since the run began, negative before it.
    pub(super) fn seconds(&self, instant: Mono) -> f64 {
        instant.since(self.began).as_secs_f64() - self.began.since(instant).as_secs_f64()
    }

    /// The ticks of the axis: at round numbers of seconds, not too many.
    pub(super) fn ticks(&self) -> Vec<Tick> {
        let seconds = self.nanos / 1e9;
        let power = 10f64.powf((seconds / TICKS).log10().floor());
        let round = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
        let step = round.into_iter().find(|step| seconds / step <= TICKS).unwrap_or(seconds);
        let places = (-step.log10().floor()).max(0.0) as usize;
        let count = (seconds / step * 5.0).floor() as usize;
        let tick = |n: usize| Tick {
            at: n as f64 * step / 5.0 / seconds * 100.0,
            label: n.is_multiple_of(5).then(|| format!("{:.places$}", n as f64 * step / 5.0)),
        };
        (0..=count).map(tick).collect()
    }
}

/// A number of per cent as an attribute's value.
pub(super) fn percent(value: f64) -> String {
    format!("{}%", trim(&format!("{value:.3}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn later_stands_further_right_and_nothing_stands_outside(
            began in 0u64..1 << 60, length in 0u64..1 << 42, a in any::<u64>(), b in any::<u64>(),
        ) {
            let scale = Scale::new(Mono(began), Mono(began + length));
            let (early, late) = (a.min(b), a.max(b));
            let (left, right) = (scale.at(Mono(early)), scale.at(Mono(late)));
            prop_assert!((0.0..=100.0).contains(&left) && left <= right && right <= 100.0);
        }

        #[test]
        fn ticks_are_few_evenly_spaced_and_labelled_with_the_time_where_they_stand(
            micros in 1u64..4_000_000_000,
        ) {
            let scale = Scale::new(Mono(7), Mono(7 + micros * 1000));
            let ticks = scale.ticks();
            let labelled: Vec<_> = ticks.iter().filter(|tick| tick.label.is_some()).collect();
            prop_assert!((2..=15).contains(&labelled.len()), "{labelled:?}");
            for pair in ticks.windows(2) {
                prop_assert!((pair[1].at - pair[0].at - ticks[1].at).abs() < 1e-6);
            }
            for tick in labelled {
                let said: f64 = tick.label.as_deref().unwrap_or_default().parse().unwrap();
                let at = scale.at(Mono(7) + Duration::from_secs_f64(said));
                let within = said * 1e6 <= micros as f64;
                prop_assert!(!within || (at - tick.at).abs() < 1e-3, "{tick:?} stands at {at}");
            }
        }
    }

    #[test]
    fn a_run_of_no_length_still_has_an_axis() {
        let scale = Scale::new(Mono(5), Mono(5));
        assert_eq!(scale.at(Mono(5)), 0.0);
        assert!(scale.ticks().len() < 100);
    }
}
