//! Times, and what they come to.

use std::time::Duration;

use rollout_core::percentile;
use serde_json::{Value, json};

/// What was timed.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// How long each call took; for calls too short to be timed, each batch's mean.
    pub(super) each: Vec<Duration>,
    pub(super) calls: usize,
    pub(super) time: Duration,
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Measured {
    what: &'static str,
    in_flight: usize,
    calls_per_s: f64,
    p50: Duration,
    p99: Duration,
}

impl Taken {
    pub(super) fn measured(mut self, what: &'static str, in_flight: usize) -> Measured {
        self.each.sort_unstable();
        let seconds = self.time.as_secs_f64();
        let calls_per_s = if seconds > 0.0 { self.calls as f64 / seconds } else { 0.0 };
        let [p50, p99] = [50, 99].map(|it| percentile(&self.each, it).unwrap_or_default());
        Measured { what, in_flight, calls_per_s, p50, p99 }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

impl Measured {
    pub(super) fn line(&self) -> String {
        format!(
            "{:<14}{:>10}{:>14.0}{:>13.3}{:>13.3}\n",
            self.what,
            self.in_flight,
            self.calls_per_s,
            micros(self.p50),
            micros(self.p99)
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "what": self.what,
            "in_flight": self.in_flight,
            "calls_per_s": self.calls_per_s.round(),
            "p50_us": micros(self.p50),
            "p99_us": micros(self.p99),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_rate_and_the_sorted_times() {
        let each = [9, 1, 5].map(Duration::from_micros).to_vec();
        let taken = Taken { each, calls: 3, time: Duration::from_millis(1) };
        let line = taken.measured("plugin", 64).line();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["plugin", "64", "3000", "5.000", "9.000"]);
    }
}
