//! A run as a page to look at: one file that needs no network, no script and no other file.
//!
//! Each process has a lane on one time axis. What is true, what a worker thinks of itself and what
//! the coordinator thinks of it stand in rows of their own, one above the other, so that a
//! difference between them is to be seen. Places are percentages of the chart's width, so a style
//! sheet alone can stretch it.

mod budget;
mod countdown;
mod draw;
mod flags;
mod marks;
mod rows;
mod scale;
mod spans;
mod story;
mod tables;
mod text;

use crate::judge::Check;
use crate::record::Record;
use scale::Scale;
use text::{escape, fill, time};

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/page.css");
const SIGNS: &str = include_str!("html/signs.svg");
const LEGEND: &str = include_str!("html/legend.html");

/// The page of a run and its judgement.
#[must_use]
pub fn html(record: &Record, checks: &[Check]) -> String {
    let scale = Scale::new(record.began, record.ended);
    let lanes = story::lanes(record, scale);
    let chart = draw::chart(&lanes, &tables::numbers(&lanes), scale);
    let outcome = tables::worst(checks);
    let overshoot = tables::worst_overshoot(&lanes);
    let overshoot = overshoot.map(|late| format!("; the latest verdict {} over", time(late)));
    let values = [
        ("title", escape(&record.title)),
        ("style", STYLE.to_owned()),
        ("signs", SIGNS.to_owned()),
        ("run", record.run.to_string()),
        ("outcome", outcome.word().to_owned()),
        ("sign", super::mark(outcome).to_owned()),
        ("tally", tables::tally(checks) + &overshoot.unwrap_or_default()),
        ("facts", tables::facts(record, &lanes)),
        ("budget", budget::picture(&record.timing)),
        ("checks", tables::checks(checks)),
        ("names", chart.names),
        ("plot", chart.plot),
        ("legend", LEGEND.to_owned()),
        ("events", tables::events(&lanes, scale)),
        ("said", tables::said(record)),
    ];
    let values: Vec<_> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    fill(PAGE, &values)
}
