//! Draws the lanes: the names on the left, and the chart, which can be stretched.

use std::cmp::Reverse;
use std::fmt::Write;

use rollout_core::Mono;

use super::countdown::Countdown;
use super::rows::{DEADLINE, Rows, SEEN, Spot, label};
use super::scale::{Scale, percent};
use super::story::{Lane, Mark, Row, Span};
use super::text::{DETAIL, cut, escape, time};

/// The height of the axis above the lanes, and below them.
const AXIS: f64 = 28.0;
/// The width of the column of names.
const NAMES: f64 = 150.0;
/// The most characters of a name.
const NAME: usize = 14;
/// The most ticks for beats on a page: of more, some are left out.
const BEATS: usize = 40_000;
/// The most columns in which beats are told apart.
const COLUMNS: usize = 20_000;

/// The drawing, in two parts of the same height.
pub(super) struct Chart {
    /// The names of the lanes and of their rows.
    pub(super) names: String,
    /// The lanes.
    pub(super) plot: String,
}

/// Draws the lanes. `numbers` gives each mark of each lane its number on the page.
pub(super) fn chart(lanes: &[Lane], numbers: &[Vec<usize>], scale: Scale) -> Chart {
    let (mut names, mut plot) = (String::new(), String::new());
    let columns = (BEATS / lanes.len().max(1)).clamp(100, COLUMNS);
    let mut y = AXIS;
    for (lane, numbers) in lanes.iter().zip(numbers) {
        let rows = Rows::of(lane, y, scale);
        name(&mut names, lane, &rows);
        let _ = write!(plot, "<g class=\"lane\" data-lane=\"{}\">", escape(&lane.name));
        let _ = write!(plot, "{}", rule(rows.top));
        lane.spans.iter().zip(&rows.levels).for_each(|(it, level)| {
            span(&mut plot, it, rows.span(it.row, *level), scale);
        });
        if let Some(seen) = rows.seen {
            plot += &beats(&lane.beats, seen, columns, scale);
        }
        countdowns(&mut plot, &lane.countdowns, &rows, scale);
        // The weightier lies above the lighter.
        let mut order: Vec<_> = (0..lane.marks.len()).collect();
        order.sort_by_key(|n| Reverse(lane.marks[*n].kind.rank()));
        for n in order {
            mark(&mut plot, &lane.name, &lane.marks[n], numbers[n], rows.spot(lane, n), scale);
        }
        plot += "</g>\n";
        y = rows.bottom;
    }
    let height = y + AXIS;
    plot = axis(scale, y) + &plot + &rule(y);
    names +=
        &format!("{}<text class=\"unit\" x=\"{}\" y=\"17\">seconds</text>", rule(y), NAMES - 8.0);
    let svg = |class: &str, width: &str, label: &str, inner: &str| {
        format!(
            "<svg class=\"{class}\" width=\"{width}\" height=\"{height:.0}\" role=\"img\" \
             aria-label=\"{label}\">\n{inner}</svg>"
        )
    };
    Chart {
        names: svg("names", &format!("{NAMES}"), "the names of the lanes", &names),
        plot: svg("plot", "100%", "what happened to each process, in time", &plot),
    }
}

/// The edge between two lanes.
fn rule(y: f64) -> String {
    format!("<line class=\"rule\" x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\n")
}

/// The axis: lines behind the lanes, numbers above and below them.
fn axis(scale: Scale, bottom: f64) -> String {
    let mut svg = String::from("<g class=\"axis\">");
    for tick in scale.ticks() {
        let x = percent(tick.at);
        let class = if tick.label.is_some() { "major" } else { "minor" };
        let _ = write!(
            svg,
            "<line class=\"{class}\" x1=\"{x}\" x2=\"{x}\" y1=\"{AXIS}\" y2=\"{bottom:.1}\"/>"
        );
        if let Some(text) = tick.label {
            for y in [AXIS - 11.0, bottom + 18.0] {
                let _ = write!(svg, "<text x=\"{x}\" y=\"{y:.1}\">{text}</text>");
            }
        }
    }
    svg + "</g>\n"
}

/// The name of a lane, and of each of its rows.
fn name(svg: &mut String, lane: &Lane, rows: &Rows) {
    let top = rows.top;
    let (name, id) = (escape(&cut(&lane.name, NAME)), lane.worker.map(|id| id.to_string()));
    *svg += &rule(top);
    let _ = write!(svg, "<text class=\"name\" x=\"0\" y=\"{:.1}\">{name}</text>", top + 21.0);
    let (class, what) = match &id {
        Some(id) => ("id", format!("…{}", &id[id.len().saturating_sub(8)..])),
        None => ("what", "coordinator".to_owned()),
    };
    let title = id.unwrap_or_default();
    let y = top + 36.0;
    let _ = write!(svg, "<text class=\"{class}\" x=\"0\" y=\"{y:.1}\"><title>{title}</title>");
    let _ = write!(svg, "{what}</text>");
    let faults = (rows.faults.1 > 0).then(|| rows.span(Row::Fault, rows.faults.1 - 1));
    let own = if lane.worker.is_some() { "fence" } else { "stall" };
    let middle = |row| rows.sign(row) + 3.0;
    let faults = faults.map(|(y, height)| (rows.faults.0 + y + height) / 2.0 + 3.0);
    for (what, y) in [
        ("faults", faults),
        ("process", Some(middle(Row::Process))),
        (own, rows.own.map(|_| middle(Row::Own))),
        ("seen as", rows.seen.map(|_| middle(Row::Seen))),
        ("deadline", rows.deadline.map(|y| y + DEADLINE / 2.0 + 3.0)),
    ] {
        let x = NAMES - 8.0;
        let _ = y.map(|y| write!(svg, "<text class=\"row\" x=\"{x}\" y=\"{y:.1}\">{what}</text>"));
    }
    svg.push('\n');
}

fn span(svg: &mut String, span: &Span, (y, height): (f64, f64), scale: Scale) {
    let (from, to) = (scale.at(span.from), scale.at(span.to));
    let (x, width) = (percent(from), percent((to - from).max(0.05)));
    let _ = write!(
        svg,
        "<rect class=\"span {}\" x=\"{x}\" width=\"{width}\" y=\"{y:.1}\" height=\"{height}\">\
         <title>{}</title></rect>",
        span.class,
        escape(&span.title)
    );
}

/// The beats as one path, in a drawing of its own that stretches along. Beats that cannot be told
/// apart are one tick.
fn beats(beats: &[Mono], y: f64, columns: usize, scale: Scale) -> String {
    let mut columns_taken: Vec<_> =
        beats.iter().map(|at| (scale.at(*at) / 100.0 * columns as f64).round() as usize).collect();
    columns_taken.sort_unstable();
    columns_taken.dedup();
    let mut path = String::new();
    let mut last = 0;
    for column in &columns_taken {
        let _ = match path.is_empty() {
            true => write!(path, "M{column} 0v10"),
            false => write!(path, "m{} -10v10", column - last),
        };
        last = *column;
    }
    format!(
        "<svg class=\"beats\" x=\"0\" y=\"{:.1}\" width=\"100%\" height=\"{}\" \
         viewBox=\"0 0 {columns} 10\" preserveAspectRatio=\"none\" data-beats=\"{}\" \
         data-ticks=\"{}\"><path d=\"{path}\"/></svg>",
        y + 3.0,
        SEEN - 6.0,
        beats.len(),
        columns_taken.len(),
    )
}

/// The way to each deadline: solid as far as it was gone, dotted where a beat came after all.
fn countdowns(svg: &mut String, all: &[Countdown], rows: &Rows, scale: Scale) {
    let Some(top) = rows.deadline else { return };
    let y = top + DEADLINE / 2.0;
    let line = |class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)| {
        let (x1, x2) = (percent(x1), percent(x2));
        format!("<line class=\"{class}\" x1=\"{x1}\" x2=\"{x2}\" y1=\"{y1:.1}\" y2=\"{y2:.1}\"/>")
    };
    for it in all {
        let [from, due, ended] = [it.from, it.deadline, it.ended].map(|at| scale.at(at));
        let class = if it.verdict { "countdown met" } else { "countdown" };
        let _ = write!(svg, "<g class=\"{class}\"><title>{}</title>", escape(&title(it, scale)));
        *svg += &line("gone", (from, top + 2.0), (from, top + DEADLINE - 2.0));
        *svg += &line("gone", (from, y), (ended.min(due), y));
        if ended < due {
            *svg += &line("spared", (ended, y), (due, y));
        }
        // One that lies beyond the record is not on the page.
        if due < scale.at(Mono(u64::MAX)) {
            let seen = rows.seen.unwrap_or(top);
            *svg += &line("deadline", (due, seen - 2.0), (due, top + DEADLINE));
        }
        *svg += "</g>";
    }
    for it in all {
        let room = scale.pixels(it.deadline.min(it.ended)) - scale.pixels(it.from);
        let length = it.deadline.since(it.from).saturating_sub(it.credited);
        let short = time(length);
        let (long, credit) = (format!("{short} from the last beat"), time(it.credited));
        let credited = format!("{short} + {credit} credited");
        let said = if it.credited.is_zero() { [long, short] } else { [credited, short] };
        let fits = |text: &&String| text.chars().count() as f64 * 6.0 + 16.0 < room;
        if let Some(text) = said.iter().find(fits) {
            let x = percent((scale.at(it.from) + scale.at(it.deadline.min(it.ended))) / 2.0);
            let _ =
                write!(svg, "<text class=\"length\" x=\"{x}\" y=\"{:.1}\">{text}</text>", y + 3.5);
        }
    }
}

fn title(it: &Countdown, scale: Scale) -> String {
    let [from, due, ended] = [it.from, it.deadline, it.ended].map(|at| scale.seconds(at));
    let credited = match it.credited.is_zero() {
        true => String::new(),
        false => format!(", {} of it credited for stalls", time(it.credited)),
    };
    let end = if it.verdict { "the verdict came" } else { "set anew or ended" };
    format!("from {from:.3} s, deadline {due:.3} s{credited}; {end} at {ended:.3} s")
}

/// A mark: its sign on its row, and if there is room its label on a pole above it.
fn mark(svg: &mut String, lane: &str, mark: &Mark, number: usize, spot: Spot, scale: Scale) {
    let (x, class, y) = (percent(scale.at(mark.at)), mark.kind.class(), spot.sign);
    let seconds = scale.seconds(mark.at);
    let title = format!("{seconds:.3} s  {lane}  {}  {}", mark.word, cut(&mark.detail, DETAIL));
    let _ = write!(
        svg,
        "<a class=\"mark {class}\" id=\"m{number}\" href=\"#e{number}\"><title>{}</title>",
        escape(&title)
    );
    if let Some((top, _)) = spot.label {
        let (y1, y2) = (top, y);
        let _ = write!(
            svg,
            "<line class=\"pole\" x1=\"{x}\" x2=\"{x}\" y1=\"{y1:.1}\" y2=\"{y2:.1}\"/>"
        );
    }
    let _ = write!(svg, "<circle class=\"halo\" cx=\"{x}\" cy=\"{y:.1}\" r=\"9\"/>");
    let _ = write!(svg, "<use href=\"#s-{class}\" x=\"{x}\" y=\"{y:.1}\"/>");
    if let Some((top, left)) = spot.label {
        let (dx, class) = if left { ("-4", "label left") } else { ("4", "label") };
        let (y, text) = (top + 11.0, escape(&label(mark)));
        let _ =
            write!(svg, "<text class=\"{class}\" x=\"{x}\" y=\"{y:.1}\" dx=\"{dx}\">{text}</text>");
    }
    *svg += "</a>\n";
}
