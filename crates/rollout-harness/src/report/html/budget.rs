//! The time budget as a small picture: what happens after a worker's last beat, and when.

use std::fmt::Write;
use std::time::Duration;

use rollout_core::{Mono, TimeBudget};

use super::text::time;

/// The width and height of the picture.
const SIZE: (f64, f64) = (600.0, 96.0);
/// From the edge to the first and the last point.
const EDGE: f64 = 52.0;

/// The points of the budget in their order, with the style of each.
fn points(budget: &TimeBudget) -> Vec<(Duration, &'static str, &'static str)> {
    let zero = Mono(0);
    let mut points = vec![
        (Duration::ZERO, "beat", "last beat"),
        (budget.due(zero).since(zero), "due", "next is due"),
        (budget.suspicion(zero).since(zero), "suspected", "suspected"),
        (budget.worker_self_fence_timeout, "fenced", "fences itself"),
        (budget.deadline(zero).since(zero), "failed", "deadline"),
    ];
    points.sort_by_key(|point| point.0);
    points
}

/// The picture.
pub(super) fn picture(budget: &TimeBudget) -> String {
    let (width, height) = SIZE;
    let points = points(budget);
    let step = (width - 2.0 * EDGE) / (points.len() - 1).max(1) as f64;
    let x = |n: usize| EDGE + n as f64 * step;
    let y = 50.0;
    let mut svg = format!(
        "<svg class=\"budget\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"the time budget\">"
    );
    let place = |wanted| points.iter().position(|point| point.1 == wanted).unwrap_or_default();
    let (due, deadline) = (x(place("due")), x(place("failed")));
    let _ =
        write!(svg, "<line class=\"way\" x1=\"{EDGE}\" x2=\"{deadline}\" y1=\"{y}\" y2=\"{y}\"/>");
    let _ = write!(
        svg,
        "<path class=\"brace\" d=\"M{due} {b}v-7H{deadline}v7\"/><text x=\"{}\" y=\"{}\">may be \
         overdue {} + {} of skew</text>",
        (due + deadline) / 2.0,
        y - 30.0,
        time(budget.coordinator_failure_timeout),
        time(budget.clock_skew_budget),
        b = y - 14.0,
    );
    for (n, (at, class, name)) in points.iter().enumerate() {
        let x = x(n);
        let _ = write!(svg, "<g class=\"{class}\"><use href=\"#s-{class}\" x=\"{x}\" y=\"{y}\"/>");
        let _ = write!(svg, "<text x=\"{x}\" y=\"{}\">{name}</text>", y + 23.0);
        let _ = write!(
            svg,
            "<text class=\"when\" x=\"{x}\" y=\"{}\">{}</text></g>",
            y + 38.0,
            when(*at)
        );
    }
    svg + "</svg>"
}

fn when(at: Duration) -> String {
    if at.is_zero() { "0".to_owned() } else { time(at) }
}
