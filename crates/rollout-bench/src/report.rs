//! Figures, as a table and as JSON; [`crate::plot`] draws them.

use std::fmt::Write as _;

use rollout_core::percentile;
use serde_json::{Value, json};

use crate::machine::Machine;

/// The figures of a suite.
pub(crate) struct Report {
    pub(crate) suite: &'static str,
    pub(crate) rounds: usize,
    pub(crate) groups: Vec<Group>,
    /// What is to be said of them.
    pub(crate) notes: Vec<String>,
    /// How costs grow with size, for the plot.
    pub(crate) curves: Vec<Curve>,
}

/// The same figure at several sizes.
pub(crate) struct Curve {
    pub(crate) title: &'static str,
    /// What is on the axis of sizes.
    pub(crate) sizes: &'static str,
    pub(crate) unit: Unit,
    /// Each with its name.
    pub(crate) series: Vec<(&'static str, Points)>,
}

/// The rounds' values at each size.
pub(crate) type Points = Vec<(f64, Vec<f64>)>;

/// Figures that have the same baseline.
pub(crate) struct Group {
    /// What is measured.
    pub(crate) title: String,
    /// What it is measured beside.
    pub(crate) beside: &'static str,
    pub(crate) figures: Vec<Figure>,
}

/// What was measured, once for each round.
#[derive(Clone)]
pub(crate) struct Figure {
    /// At most 24 characters.
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) values: Vec<f64>,
    /// The baseline, once for each round.
    pub(crate) beside: Vec<f64>,
    pub(crate) asked: Asked,
}

/// What a value counts.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// Seconds.
    Time,
    /// Times a second.
    Rate,
    /// Bytes.
    Size,
    /// Processor cores.
    Cores,
    /// Things.
    Count,
}

/// What is asked of a figure.
#[derive(Clone, Copy)]
pub(crate) enum Asked {
    AtMost(f64),
    AtLeast(f64),
    /// At most so many times the baseline.
    Times(f64),
    /// At least so many times the baseline.
    TimesAtLeast(f64),
    /// As good as zero.
    None,
    /// It is there to be known.
    Nothing,
}

impl Asked {
    /// For people.
    pub(crate) fn show(self, unit: Unit) -> String {
        match self {
            Self::AtMost(most) => format!("<= {}", unit.show_round(most)),
            Self::AtLeast(least) => format!(">= {}", unit.show_round(least)),
            Self::Times(most) => format!("<= {most}x"),
            Self::TimesAtLeast(least) => format!(">= {least}x"),
            Self::None => "none".into(),
            Self::Nothing => String::new(),
        }
    }

    /// As it is in JSON.
    pub(crate) fn of(key: &str, value: f64) -> Self {
        match key {
            "at_most" if value == 0.0 => Self::None,
            "at_most" => Self::AtMost(value),
            "at_least" => Self::AtLeast(value),
            "times_baseline_at_most" => Self::Times(value),
            "times_baseline_at_least" => Self::TimesAtLeast(value),
            _ => Self::Nothing,
        }
    }
}

impl Unit {
    /// A round number and its unit.
    fn show_round(self, value: f64) -> String {
        let shown = self.show(value);
        let (number, unit) = split(&shown);
        match number.split_once('.') {
            Some((whole, rest)) if rest.bytes().all(|digit| digit == b'0') => {
                format!("{whole}{unit}")
            }
            _ => shown,
        }
    }

    /// From one value to another, the unit once if they share it.
    pub(crate) fn range(self, least: f64, greatest: f64) -> String {
        let (least, greatest) = (self.show(least), self.show(greatest));
        let ((number, unit), (_, other)) = (split(&least), split(&greatest));
        let least = if unit == other { number } else { &least };
        format!("{least} to {greatest}")
    }

    /// Three digits that count, and the unit.
    pub(crate) fn show(self, value: f64) -> String {
        let scales: &[(f64, &str)] = match self {
            Self::Time => &[(1e-9, " ns"), (1e-6, " us"), (1e-3, " ms")],
            Self::Rate => &[(1.0, "/s"), (1e3, "k/s"), (1e6, "M/s")],
            Self::Size => &[(1024.0, " KiB"), (1024.0 * 1024.0, " MiB")],
            Self::Cores => &[(1.0, " core")],
            Self::Count => return format!("{value:.0}"),
        };
        let fits = |(scale, _): &&(f64, &str)| value >= *scale;
        let found = scales.iter().rev().find(fits).or(scales.first());
        let (scale, unit) = found.copied().unwrap_or((1.0, ""));
        format!("{}{unit}", digits(value / scale))
    }

    /// The unit that is called so in JSON.
    pub(crate) fn of(word: &str) -> Self {
        let all = [Self::Time, Self::Rate, Self::Size, Self::Cores];
        all.into_iter().find(|unit| unit.word() == word).unwrap_or(Self::Count)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Time => "seconds",
            Self::Rate => "per second",
            Self::Size => "bytes",
            Self::Cores => "cores",
            Self::Count => "count",
        }
    }
}

/// A value as it is shown: the number, and its unit.
fn split(shown: &str) -> (&str, &str) {
    let digit = |c: char| c.is_ascii_digit() || c == '.';
    shown.split_at(shown.find(|c| !digit(c)).unwrap_or(shown.len()))
}

/// Three digits that count.
pub(crate) fn digits(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// The least, the middle and the greatest.
pub(crate) fn spread(values: &[f64]) -> Option<[f64; 3]> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let [least, middle, greatest] = [0, 50, 100].map(|percent| percentile(&values, percent));
    Some([least?, middle?, greatest?])
}

impl Figure {
    /// How many times the baseline it is: the middle of the rounds'.
    fn ratio(&self) -> Option<f64> {
        let pairs = self.values.iter().zip(&self.beside);
        let ratios: Vec<_> = pairs
            .filter(|(_, beside)| **beside > 0.0)
            .map(|(value, beside)| value / beside)
            .collect();
        spread(&ratios).map(|[_, middle, _]| middle)
    }

    fn line(&self) -> String {
        let show = |value| self.unit.show(value);
        let (middle, range) = match spread(&self.values) {
            Some([least, middle, greatest]) if least < greatest => {
                (show(middle), self.unit.range(least, greatest))
            }
            Some([_, middle, _]) => (show(middle), String::new()),
            None => ("not here".into(), String::new()),
        };
        let beside = spread(&self.beside).map(|[_, middle, _]| show(middle)).unwrap_or_default();
        let ratio = self.ratio().map(|ratio| format!("{}x", digits(ratio))).unwrap_or_default();
        let line = format!(
            "  {:<24}{middle:>9}{range:>20}{beside:>9}{ratio:>6}{:>10}",
            self.name,
            self.asked.show(self.unit)
        );
        format!("{}\n", line.trim_end())
    }

    fn json(&self) -> Value {
        let (key, asked) = match self.asked {
            Asked::AtMost(most) => ("at_most", json!(most)),
            Asked::AtLeast(least) => ("at_least", json!(least)),
            Asked::Times(most) => ("times_baseline_at_most", json!(most)),
            Asked::TimesAtLeast(least) => ("times_baseline_at_least", json!(least)),
            Asked::None => ("at_most", json!(0)),
            Asked::Nothing => ("nothing", Value::Null),
        };
        json!({
            "name": self.name,
            "unit": self.unit.word(),
            "median": spread(&self.values).map(|[_, middle, _]| middle),
            "rounds": self.values,
            "baseline": spread(&self.beside).map(|[_, middle, _]| middle),
            "baseline_rounds": self.beside,
            "ratio": self.ratio(),
            "asked": { key: asked },
        })
    }
}

impl Report {
    /// For people, 80 columns wide but for the machine.
    pub(crate) fn table(&self, machine: &Machine) -> String {
        let (suite, rounds, machine) = (self.suite, self.rounds, machine.line());
        let mut table = format!("{suite}: medians of {rounds} rounds\non {machine}\n");
        for Group { title, beside, figures } in &self.groups {
            let heading = ["median", "least to greatest", "beside", "ratio", "asked"];
            let [median, range, column, ratio, asked] = heading;
            let _ = write!(
                table,
                "\n{title},\nbeside {beside}\n{:26}{median:>9}{range:>20}{column:>9}{ratio:>6}{asked:>10}\n",
                ""
            );
            table.extend(figures.iter().map(Figure::line));
        }
        table.extend(self.notes.iter().map(|note| format!("\n{note}\n")));
        table
    }

    /// For programs.
    pub(crate) fn json(&self, machine: &Machine) -> Value {
        let group = |Group { title, beside, figures }: &Group| {
            let figures: Vec<_> = figures.iter().map(Figure::json).collect();
            json!({ "title": title, "beside": beside, "figures": figures })
        };
        json!({
            "suite": self.suite,
            "machine": machine.json(),
            "rounds": self.rounds,
            "notes": self.notes,
            "groups": self.groups.iter().map(group).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(values: &[f64], beside: &[f64]) -> Figure {
        Figure {
            name: "sixty-four at once, 99th",
            unit: Unit::Time,
            values: values.to_vec(),
            beside: beside.to_vec(),
            asked: Asked::Times(1.2),
        }
    }

    #[test]
    fn the_ratio_is_the_middle_of_the_rounds_ratios_and_not_of_the_medians() {
        let figure = figure(&[1.0, 10.0, 100.0], &[1.0, 1.0, 50.0]);
        assert_eq!(figure.ratio(), Some(2.0));
        assert_eq!(figure.json()["median"], 10.0);
        assert_eq!(figure.json()["baseline"], 1.0);
    }

    #[test]
    fn a_value_is_shown_in_the_unit_that_fits() {
        let time = [2.156e-10, 2.156e-7, 4.3e-5, 0.1514, 12.0].map(|value| Unit::Time.show(value));
        assert_eq!(time, ["0.22 ns", "216 ns", "43.0 us", "151 ms", "12000 ms"]);
        let rate = [12.0, 40_000.0, 2_100_000.0].map(|value| Unit::Rate.show(value));
        assert_eq!(rate, ["12.0/s", "40.0k/s", "2.10M/s"]);
        assert_eq!(Unit::Size.show(0.0), "0.00 KiB");
        assert_eq!(Unit::Size.range(1e5, 1e8), "97.7 KiB to 95.4 MiB");
        assert_eq!(Unit::Size.range(1e7, 1e8), "9.54 to 95.4 MiB");
        let round = [1e-6, 1.5e-6, 0.2].map(|value| Unit::Time.show_round(value));
        assert_eq!(round, ["1 us", "1.50 us", "200 ms"]);
    }

    #[test]
    fn a_line_is_at_most_80_columns_and_says_when_nothing_was_measured() {
        let line = figure(&[1.111e-4, 9.999e-4], &[1.111e-4; 2]).line();
        assert!(line.trim_end().chars().count() <= 80, "{line}");
        assert!(line.contains(" 111 to 1000 us"), "{line}");
        assert!(figure(&[], &[]).line().contains("not here"));
    }
}
