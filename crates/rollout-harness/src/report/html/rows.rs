//! How a lane is divided into rows, and how high it becomes.

use super::flags::{self, Place, Wish};
use super::scale::Scale;
use super::story::{Lane, Mark, Row, Span};

/// The height of a row of labels.
const LABEL: f64 = 15.0;
/// The height of a bar for something that was done to the process.
pub(super) const FAULT: f64 = 7.0;
/// The height of the bar for the process.
pub(super) const PROCESS: f64 = 10.0;
/// The height of the bar for what it said of itself.
pub(super) const OWN: f64 = 6.0;
/// The height of the strip for what the coordinator took it for.
pub(super) const SEEN: f64 = 14.0;
/// The height of the row for the deadline.
pub(super) const DEADLINE: f64 = 14.0;
/// The room between two rows.
const GAP: f64 = 4.0;
/// The room above and below what is in a lane.
const PAD: f64 = 9.0;
/// The least height of a lane: that of its name and its id.
const LEAST: f64 = 48.0;

/// The rows of a lane, by the distance of their upper edge from the top of the chart.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    /// The lane's upper edge.
    pub(super) top: f64,
    /// The lowest row of labels.
    pub(super) labels: f64,
    /// The first row of faults, and how many there are.
    pub(super) faults: (f64, usize),
    /// The process.
    pub(super) process: f64,
    /// What it says of itself, if it says anything.
    pub(super) own: Option<f64>,
    /// What the coordinator takes it for, if it is a worker.
    pub(super) seen: Option<f64>,
    /// The deadline, if it came near.
    pub(super) deadline: Option<f64>,
    /// The lane's lower edge.
    pub(super) bottom: f64,
    /// Where each mark's label stands.
    pub(super) places: Vec<Option<Place>>,
    /// In which row of faults each span stands; 0 for what is no fault.
    pub(super) levels: Vec<usize>,
}

impl Rows {
    /// The rows of `lane`, whose upper edge is at `top`.
    pub(super) fn of(lane: &Lane, top: f64, scale: Scale) -> Self {
        let wishes: Vec<_> = lane.marks.iter().map(|mark| wish(mark, scale)).collect();
        let places = flags::place(&wishes);
        let labels = places.iter().flatten().map(|place| place.row + 1).max().unwrap_or(0);
        let levels = levels(&lane.spans);
        let has = |row| lane.spans.iter().any(|span| span.row == row);
        let faults = levels.iter().max().filter(|_| has(Row::Fault)).map_or(0, |level| level + 1);

        let mut y = top + PAD + labels as f64 * LABEL;
        let lowest = y - LABEL;
        let mut row = |there: bool, height: f64| {
            let at = y;
            y += if there { height + GAP } else { 0.0 };
            there.then_some(at)
        };
        let first = row(faults > 0, faults as f64 * (FAULT + 2.0) - 2.0).unwrap_or_default();
        let process = row(true, PROCESS).unwrap_or_default();
        let own = row(has(Row::Own), OWN);
        let seen = row(lane.worker.is_some(), SEEN);
        let deadline = row(!lane.countdowns.is_empty(), DEADLINE);
        let bottom = (y - GAP + PAD).max(top + LEAST);
        let faults = (first, faults);
        Self { top, labels: lowest, faults, process, own, seen, deadline, bottom, places, levels }
    }

    /// The upper edge and the height of a span.
    pub(super) fn span(&self, row: Row, level: usize) -> (f64, f64) {
        match row {
            Row::Fault => (self.faults.0 + level as f64 * (FAULT + 2.0), FAULT),
            Row::Process => (self.process, PROCESS),
            Row::Own => (self.own.unwrap_or(self.process), OWN),
            Row::Seen => (self.seen.unwrap_or(self.process), SEEN),
        }
    }

    /// Where the lane's mark of this number stands.
    pub(super) fn spot(&self, lane: &Lane, n: usize) -> Spot {
        let sign = lane.marks.get(n).map_or(self.process, |mark| self.sign(mark.kind.row()));
        let place = self.places.get(n).copied().flatten();
        let label = place.map(|place| (self.labels - place.row as f64 * LABEL, place.left));
        Spot { sign, label }
    }

    /// The middle of the row on which a mark's sign stands.
    pub(super) fn sign(&self, row: Row) -> f64 {
        let (y, height) = self.span(row, 0);
        y + height / 2.0
    }
}

/// Where a mark stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    /// The middle of its sign.
    pub(super) sign: f64,
    /// The upper edge of its label, if it has one, and whether that stands left of its pole.
    pub(super) label: Option<(f64, bool)>,
}

/// A mark's label, with the number of marks it stands for.
pub(super) fn label(mark: &Mark) -> String {
    match (mark.label.is_empty(), mark.times) {
        (true, _) | (_, 1) => mark.label.clone(),
        (false, times) => format!("{} ×{times}", mark.label),
    }
}

fn wish(mark: &Mark, scale: Scale) -> Wish {
    let characters = label(mark).chars().count();
    Wish { at: scale.pixels(mark.at), characters, rank: mark.kind.rank() }
}

/// For each fault the first row in which no other is in its way.
fn levels(spans: &[Span]) -> Vec<usize> {
    let mut taken: Vec<Vec<&Span>> = Vec::new();
    let mut level = |span| {
        let &Span { from, to, .. } = span;
        let free = taken.iter().position(|row| row.iter().all(|o| o.to <= from || to <= o.from));
        let level = free.unwrap_or(taken.len());
        match taken.get_mut(level) {
            Some(row) => row.push(span),
            None => taken.push(vec![span]),
        }
        level
    };
    spans.iter().map(|span| if span.row == Row::Fault { level(span) } else { 0 }).collect()
}
