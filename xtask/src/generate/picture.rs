//! The picture of the time budget, drawn from the defaults.

use std::time::Duration;

use rollout_core::TimeBudget;
use rollout_core::budget::MISSED_BEATS_TO_SUSPECT;
use rollout_harness::Interrupt;

use super::Made;

/// Where the axis begins, and how long it is.
const LEFT: f64 = 30.0;
const LENGTH: f64 = 690.0;
/// How high each row stands: the labels of instants, the two bars, the axis.
const LABELS: f64 = 26.0;
const BUDGET: f64 = 96.0;
const FENCE: f64 = 146.0;
const AXIS: f64 = 206.0;
const BAR: f64 = 22.0;

/// The picture.
pub(super) fn time_budget(_: &Interrupt) -> Result<Vec<Made>, u8> {
    let text = draw(&TimeBudget::default());
    Ok(vec![Made::File { path: "docs/src/time-budget.svg", text }])
}

/// A picture under way.
struct Picture {
    /// Pixels a second.
    scale: f64,
    svg: String,
}

fn draw(budget: &TimeBudget) -> String {
    let due = budget.heartbeat_interval;
    let failed = due + budget.tolerance();
    let mut it = Picture { scale: LENGTH / (failed.as_secs_f64() * 1.04), svg: String::new() };
    it.axis(failed);
    let timeout = due + budget.coordinator_failure_timeout;
    let zero = Duration::ZERO;
    it.bar(BUDGET, [zero, due], "#a9c9ea", "");
    it.bar(BUDGET, [due, timeout], "#dbe8f5", "coordinator_failure_timeout");
    it.bar(BUDGET, [timeout, failed], "#f2c078", "");
    let fence = budget.worker_self_fence_timeout;
    it.bar(FENCE, [zero, fence], "#cfe8d0", "worker_self_fence_timeout");
    it.bar(FENCE, [fence, failed], "#f4f5f7", "fenced: it commits nothing");
    it.label(due / 2, BUDGET + BAR + 15.0, "heartbeat_interval", "start");
    it.label(failed, BUDGET + BAR + 15.0, "clock_skew_budget", "end");
    let suspected = budget.heartbeat_interval * MISSED_BEATS_TO_SUSPECT;
    it.instant(zero, 0.0, AXIS, "the last accepted beat", "start");
    it.instant(due, 18.0, BUDGET + BAR, "the next is due", "start");
    it.instant(suspected, 36.0, BUDGET + BAR, "suspected: three are missing", "start");
    it.instant(fence, 18.0, FENCE + BAR, "the worker fences itself", "middle");
    it.instant(failed, 0.0, AXIS, "worker_failed", "end");
    let soonest = budget.tolerance();
    let kill = format!(
        "A kill falls between two beats: the verdict comes {} to {} s after it.",
        soonest.as_secs_f64(),
        failed.as_secs_f64()
    );
    it.label(zero, AXIS + 44.0, &kill, "start");
    it.finish()
}

impl Picture {
    fn x(&self, at: Duration) -> f64 {
        LEFT + at.as_secs_f64() * self.scale
    }

    fn add(&mut self, element: &str) {
        self.svg.push_str(element);
        self.svg.push('\n');
    }

    fn label(&mut self, at: Duration, y: f64, text: &str, anchor: &str) {
        let x = self.x(at);
        self.add(&format!(r#"<text x="{x:.1}" y="{y}" text-anchor="{anchor}">{text}</text>"#));
    }

    /// A duration, with its name in it.
    fn bar(&mut self, y: f64, [from, to]: [Duration; 2], fill: &str, name: &str) {
        let (x, end) = (self.x(from), self.x(to));
        let width = end - x;
        self.add(&format!(
            r#"<rect x="{x:.1}" y="{y}" width="{width:.1}" height="{BAR}" fill="{fill}"/>"#
        ));
        if !name.is_empty() {
            self.label((from + to) / 2, y + 15.0, name, "middle");
        }
    }

    /// What happens at an instant, on a pole that stands on `foot`.
    fn instant(&mut self, at: Duration, down: f64, foot: f64, text: &str, anchor: &str) {
        let (x, y) = (self.x(at), LABELS + down);
        let top = y + 5.0;
        self.add(&format!(r##"<path d="M{x:.1} {top}V{foot}" stroke="#7b8794"/>"##));
        self.label(at, y, &format!("{text}, {} s", at.as_secs_f64()), anchor);
    }

    fn axis(&mut self, failed: Duration) {
        let end = LEFT + LENGTH;
        self.add(&format!(r##"<path d="M{LEFT} {AXIS}H{end}" stroke="#1f2933"/>"##));
        for second in 0..=failed.as_secs() {
            let at = Duration::from_secs(second);
            let (x, foot) = (self.x(at), AXIS + 5.0);
            self.add(&format!(r##"<path d="M{x:.1} {AXIS}V{foot}" stroke="#1f2933"/>"##));
            self.label(at, AXIS + 19.0, &format!("{second} s"), "middle");
        }
    }

    fn finish(self) -> String {
        let title = "The time budget with its defaults: from the last accepted beat to the next, to \
                     suspicion, to the worker's fence and to the verdict";
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="760" height="264" viewBox="0 0 760 264" role="img" aria-label="{title}">
<title>{title}</title>
<rect width="760" height="264" rx="8" fill="#ffffff"/>
<g font-family="system-ui,Segoe UI,Helvetica,Arial,DejaVu Sans,sans-serif" font-size="12" fill="#1f2933">
{}</g>
</svg>
"##,
            self.svg
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instants_are_those_of_the_formula() {
        let svg = draw(&TimeBudget::default());
        for said in ["next is due, 0.5 s", "missing, 1.5 s", "itself, 4 s", "worker_failed, 5.75 s"]
        {
            assert!(svg.contains(said), "{said}: {svg}");
        }
        assert!(svg.contains("comes 5.25 to 5.75 s after"), "{svg}");
        let slow =
            TimeBudget { heartbeat_interval: Duration::from_secs(1), ..TimeBudget::default() };
        assert!(draw(&slow).contains("worker_failed, 6.25 s"));
    }
}
