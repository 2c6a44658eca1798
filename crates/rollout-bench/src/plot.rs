//! A report as a picture: a line for each figure that says how far it is from what is asked, and a
//! graph for each cost that grows with size. SVG, written by hand: two kinds of picture are no
//! reason for a library.

use std::fmt::Write as _;

use crate::machine::Machine;
use crate::report::{Asked, Curve, Figure, Group, Report, Unit, spread};

const WIDTH: f64 = 860.0;
/// Where pictures begin and end, between the names and the values.
const LEFT: f64 = 230.0;
const RIGHT: f64 = 690.0;
const ROW: f64 = 20.0;
/// The height of a graph.
const GRAPH: f64 = 200.0;
/// Of the measured, and of what it stands beside.
const COLORS: [&str; 3] = ["#0b62a4", "#b0602a", "#4a7d4a"];
/// Costs that differ by more than this are drawn on a logarithmic scale.
const WIDE: f64 = 20.0;

/// The whole picture.
pub(crate) fn svg(report: &Report, machine: &Machine) -> String {
    let mut page = Page { body: String::new(), y: 24.0 };
    page.text(
        16.0,
        15.0,
        "start",
        &format!("{}, medians of {} rounds", report.suite, report.rounds),
    );
    page.y += 18.0;
    page.text(16.0, 11.0, "start", &machine.line());
    page.y += 24.0;
    report.groups.iter().for_each(|group| page.bars(group));
    report.curves.iter().for_each(|curve| page.graph(curve));
    let (height, body) = (page.y, page.body);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

struct Page {
    body: String,
    y: f64,
}

/// From values to places, linear or by powers of ten.
struct Scale {
    from: f64,
    to: f64,
    log: bool,
    start: f64,
    end: f64,
}

impl Scale {
    fn place(&self, value: f64) -> f64 {
        let fit = |value: f64| if self.log { value.log10() } else { value };
        let part = (fit(value) - fit(self.from)) / (fit(self.to) - fit(self.from));
        self.start + part.clamp(0.0, 1.0) * (self.end - self.start)
    }

    /// Where lines are drawn.
    fn ticks(&self) -> Vec<f64> {
        if !self.log {
            return (0..=4)
                .map(|n| self.from + (self.to - self.from) * f64::from(n) / 4.0)
                .collect();
        }
        let (first, last) = (self.from.log10().ceil() as i32, self.to.log10().floor() as i32);
        (first..=last).map(|power| 10f64.powi(power)).collect()
    }
}

/// What a figure's values are compared with.
fn reference(figure: &Figure) -> Option<f64> {
    let beside = || spread(&figure.beside).map(|[_, middle, _]| middle);
    let found = match figure.asked {
        Asked::AtMost(asked) | Asked::AtLeast(asked) => Some(asked),
        Asked::Times(times) | Asked::TimesAtLeast(times) => beside().map(|middle| middle * times),
        Asked::None | Asked::Nothing => beside(),
    };
    found.filter(|found| *found > 0.0)
}

impl Page {
    fn bars(&mut self, group: &Group) {
        self.text(16.0, 13.0, "start", &group.title);
        self.y += 16.0;
        let beside = format!("as a share of what is asked, or of {}", group.beside);
        self.text(16.0, 11.0, "start", &beside);
        self.y += 8.0;
        let shown: Vec<_> = group
            .figures
            .iter()
            .filter_map(|figure| Some((figure, reference(figure)?, spread(&figure.values)?)))
            .collect();
        let ratios = shown.iter().flat_map(|(figure, one, values)| {
            let beside = spread(&figure.beside).into_iter().map(|[_, middle, _]| middle);
            values.iter().copied().chain(beside).map(|value| value / one).collect::<Vec<_>>()
        });
        let (least, most) = ratios
            .filter(|ratio| *ratio > 0.0)
            .fold((0.5f64, 2.0f64), |(least, most), ratio| (least.min(ratio), most.max(ratio)));
        let power = |value: f64| 10f64.powf(value);
        let (from, to) = (power(least.log10().floor()), power(most.log10().ceil()));
        let scale =
            Scale { from: from.max(1e-4), to: to.min(1e4), log: true, start: LEFT, end: RIGHT };
        let bottom = self.y + ROW * shown.len() as f64;
        for tick in scale.ticks() {
            let x = scale.place(tick);
            let color = if tick == 1.0 { "#888" } else { "#ddd" };
            self.line((x, self.y), (x, bottom), color, 1.0);
            self.put(x, bottom + 13.0, 10.0, "middle", &format!("{tick}"));
        }
        for (figure, one, values) in shown {
            self.y += ROW;
            self.bar(figure, one, values, &scale);
        }
        self.y += 46.0;
    }

    fn bar(
        &mut self,
        figure: &Figure,
        one: f64,
        [least, middle, greatest]: [f64; 3],
        scale: &Scale,
    ) {
        let y = self.y - ROW / 2.0;
        let at = |value: f64| scale.place((value / one).max(scale.from));
        let value = figure.unit.show(middle);
        self.put(LEFT - 10.0, y + 4.0, 12.0, "end", figure.name);
        self.put(RIGHT + 10.0, y + 4.0, 12.0, "start", &value);
        self.line((at(least), y), (at(greatest), y), COLORS[0], 3.0);
        self.dot(at(middle), y, 4.5, COLORS[0]);
        if let Some([_, beside, _]) = spread(&figure.beside) {
            self.dot(at(beside), y, 3.5, COLORS[1]);
            self.put(RIGHT + 90.0, y + 4.0, 10.0, "start", &figure.unit.show(beside));
        }
    }

    fn graph(&mut self, curve: &Curve) {
        let points = || curve.series.iter().flat_map(|(_, points)| points);
        let values = || points().flat_map(|(_, values)| values).copied().filter(|v| *v > 0.0);
        let most = values().fold(0.0, f64::max);
        let least = values().fold(most, f64::min);
        let sizes = || points().map(|(size, _)| *size);
        let (small, large) = (sizes().fold(f64::MAX, f64::min), sizes().fold(0.0, f64::max));
        if most <= 0.0 || small >= large {
            return;
        }
        self.text(16.0, 13.0, "start", &format!("{}, by {}", curve.title, curve.sizes));
        self.y += 18.0;
        let (top, bottom) = (self.y, self.y + GRAPH);
        let x = Scale { from: small, to: large, log: true, start: LEFT - 110.0, end: RIGHT };
        let log = most / least > WIDE;
        let (from, to) = if log {
            (10f64.powf(least.log10().floor()), 10f64.powf(most.log10().ceil()))
        } else {
            (0.0, most * 1.15)
        };
        let y = Scale { from, to, log, start: bottom, end: top };
        self.axes(curve.unit, &x, &y);
        for (n, (name, points)) in curve.series.iter().enumerate() {
            let color = COLORS.get(n).copied().unwrap_or("black");
            self.series(points, &x, &y, color);
            let top = top + 16.0 * n as f64 + 12.0;
            self.dot(RIGHT + 16.0, top - 4.0, 4.0, color);
            self.put(RIGHT + 26.0, top, 12.0, "start", name);
        }
        self.y = bottom + 50.0;
    }

    fn axes(&mut self, unit: Unit, x: &Scale, y: &Scale) {
        for tick in y.ticks() {
            let place = y.place(tick);
            self.line((x.start, place), (x.end, place), "#ddd", 1.0);
            self.put(x.start - 8.0, place + 4.0, 11.0, "end", &unit.show(tick));
        }
        for tick in x.ticks() {
            let place = x.place(tick);
            self.line((place, y.start), (place, y.end), "#ddd", 1.0);
            self.put(place, y.start + 16.0, 11.0, "middle", &format!("{tick}"));
        }
    }

    fn series(&mut self, points: &[(f64, Vec<f64>)], x: &Scale, y: &Scale, color: &str) {
        let mut before = None;
        for (size, values) in points {
            let Some([least, middle, greatest]) = spread(values) else { continue };
            let (at, height) = (x.place(*size), y.place(middle));
            self.line((at, y.place(least)), (at, y.place(greatest)), color, 1.5);
            if let Some(before) = before.replace((at, height)) {
                self.line(before, (at, height), color, 1.5);
            }
            self.dot(at, height, 3.5, color);
        }
    }

    fn text(&mut self, x: f64, size: f64, anchor: &str, text: &str) {
        self.put(x, self.y, size, anchor, text);
    }

    fn put(&mut self, x: f64, y: f64, size: f64, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\">{text}</text>"
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, width: f64) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.body,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" \
             stroke-width=\"{width}\" stroke-linecap=\"round\"/>"
        );
    }

    fn dot(&mut self, x: f64, y: f64, radius: f64, color: &str) {
        let _ = writeln!(
            self.body,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{color}\"/>"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let figure = |name, asked, beside: &[f64]| Figure {
            name,
            unit: Unit::Time,
            values: vec![1e-5, 2e-5, 4e-5],
            beside: beside.to_vec(),
            asked,
        };
        let group = Group {
            title: "A & B".into(),
            beside: "nothing <at all>",
            figures: vec![
                figure("asked", Asked::AtMost(1e-3), &[1e-6]),
                figure("beside", Asked::Nothing, &[1e-5]),
                figure("alone", Asked::Nothing, &[]),
            ],
        };
        let points = vec![(10.0, vec![1.0]), (1000.0, vec![1.5, 2.0])];
        let curve = Curve {
            title: "grows",
            sizes: "items",
            unit: Unit::Rate,
            series: vec![("one", points.clone()), ("other", points)],
        };
        Report {
            suite: "s",
            rounds: 3,
            groups: vec![group],
            notes: Vec::new(),
            curves: vec![curve],
        }
    }

    #[test]
    fn every_figure_with_something_to_compare_it_with_is_drawn_and_every_series() {
        let svg = svg(&report(), &Machine::here());
        for text in ["A &amp; B", "&lt;at all", ">asked<", ">beside<", ">one<", ">other<", ">1000<"]
        {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        assert!(!svg.contains(">alone<") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2 + 2 + 2 * (2 + 1));
    }

    #[test]
    fn a_scale_keeps_values_in_their_place_and_within_the_picture() {
        let scale = Scale { from: 0.1, to: 1000.0, log: true, start: 0.0, end: 40.0 };
        assert_eq!([1.0, 10.0, 1e6, 1e-6].map(|value| scale.place(value)), [10.0, 20.0, 40.0, 0.0]);
        assert_eq!(scale.ticks(), [0.1, 1.0, 10.0, 100.0, 1000.0]);
        let flat = Scale { from: 0.0, to: 4.0, log: false, start: 100.0, end: 0.0 };
        assert_eq!(flat.place(1.0), 75.0);
        assert_eq!(flat.ticks(), [0.0, 1.0, 2.0, 3.0, 4.0]);
    }
}
