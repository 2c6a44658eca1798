//! Figures that are kept: a line of JSON for every run of a suite, its last plot, and a chapter of the
//! book that shows the last run of each suite beside those before it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;

use crate::error::BenchError;
use crate::machine::Machine;
use crate::plot;
use crate::report::{Asked, Report, Unit, digits, spread};

/// In this order they are shown.
const SUITES: [&str; 7] = ["liveness", "ledger", "fleet", "restart", "plugin", "work", "build"];
/// So many runs before the last one are shown.
const BEFORE: usize = 4;
const INTRODUCTION: &str = "\
# Measured figures

Written by `cargo xtask bench SUITE --record`, which adds a line to `docs/bench/SUITE.jsonl` with the figures of
every round, the machine and the commit. A figure is the median of the rounds; \"beside\" is the baseline of the
same run, the ratio the median of the rounds' ratios. Runs on machines that differ are not to be compared, nor
are runs under load. Dots in the pictures are medians, lines reach from the least to the greatest round; blue is
rollout.
";

/// A run as its line has it.
#[derive(Deserialize)]
struct Run {
    machine: Taken,
    rounds: usize,
    notes: Vec<String>,
    groups: Vec<Kept>,
}

/// When and where it was taken.
#[derive(Deserialize)]
struct Taken {
    line: String,
    commit: Option<String>,
    load: Option<f64>,
    unix_ms: u64,
}

#[derive(Deserialize)]
struct Kept {
    title: String,
    beside: String,
    figures: Vec<Value>,
}

/// A figure as its line has it.
#[derive(Deserialize)]
struct Value {
    name: String,
    unit: String,
    median: Option<f64>,
    rounds: Vec<f64>,
    baseline: Option<f64>,
    ratio: Option<f64>,
    asked: BTreeMap<String, Option<f64>>,
}

/// Adds a run to those that are kept below `docs`, draws it, and writes the chapter anew.
pub(crate) fn record(docs: &Path, report: &Report, machine: &Machine) -> Result<(), BenchError> {
    let file = lines(docs, report.suite);
    let odd = |path: &Path| {
        let path = path.to_owned();
        move |source| BenchError::File { path, source }
    };
    append(&file, &report.json(machine).to_string()).map_err(odd(&file))?;
    let picture = docs.join(format!("src/bench/{}.svg", report.suite));
    write(&picture, &plot::svg(report, machine)).map_err(odd(&picture))?;
    let chapter = docs.join("src/figures.md");
    let text = self::chapter(docs)?;
    write(&chapter, &text).map_err(odd(&chapter))
}

fn lines(docs: &Path, suite: &str) -> PathBuf {
    docs.join(format!("bench/{suite}.jsonl"))
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    make_parent(path)?;
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    make_parent(path)?;
    fs::write(path, text)
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// The chapter, from all that is kept.
fn chapter(docs: &Path) -> Result<String, BenchError> {
    let mut text = INTRODUCTION.to_owned();
    for suite in SUITES {
        let path = lines(docs, suite);
        let kept = match fs::read_to_string(&path) {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(BenchError::File { path, source }),
        };
        let runs = kept.lines().map(serde_json::from_str);
        let runs = runs
            .collect::<Result<Vec<Run>, _>>()
            .map_err(|odd| BenchError::File { path, source: odd.into() })?;
        text.push_str(&section(suite, &runs));
    }
    Ok(text)
}

/// What is shown of a suite.
fn section(suite: &str, runs: &[Run]) -> String {
    let Some((last, earlier)) = runs.split_last() else { return String::new() };
    let before: Vec<_> = earlier.iter().rev().take(BEFORE).collect();
    let mut text = format!(
        "\n## {suite}\n\n![{suite}](bench/{suite}.svg)\n\n{} rounds at {}, on {}.\n",
        last.rounds,
        last.machine.stamp(),
        last.machine.line,
    );
    if !before.is_empty() {
        let stamps: Vec<_> = before.iter().map(|run| run.machine.stamp()).collect();
        let _ = writeln!(text, "Before, the newest first: {}.", stamps.join("; "));
    }
    for group in &last.groups {
        let _ = write!(
            text,
            "\n{}, beside {}:\n\n\
             | | median | least to greatest | beside | ratio | asked | before |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
            group.title, group.beside
        );
        for figure in &group.figures {
            text.push_str(&row(figure, &group.title, &before));
        }
    }
    text.extend(last.notes.iter().map(|note| format!("\n{note}\n")));
    text
}

fn row(figure: &Value, group: &str, before: &[&Run]) -> String {
    let unit = Unit::of(&figure.unit);
    let show = |value: Option<f64>| value.map(|value| unit.show(value)).unwrap_or_default();
    let range = match spread(&figure.rounds) {
        Some([least, _, greatest]) if least < greatest => unit.range(least, greatest),
        _ => String::new(),
    };
    let ratio = figure.ratio.map(|ratio| format!("{}x", digits(ratio))).unwrap_or_default();
    let earlier: Vec<_> = before
        .iter()
        .map(|run| match run.median(group, &figure.name) {
            Some(median) => unit.show(median),
            None => "–".to_owned(),
        })
        .collect();
    format!(
        "| {} | {} | {range} | {} | {ratio} | {} | {} |\n",
        figure.name,
        show(figure.median),
        show(figure.baseline),
        figure.asked().show(unit),
        earlier.join(", ")
    )
}

impl Run {
    fn median(&self, group: &str, name: &str) -> Option<f64> {
        let group = self.groups.iter().find(|it| it.title == group)?;
        group.figures.iter().find(|it| it.name == name)?.median
    }
}

impl Value {
    fn asked(&self) -> Asked {
        let asked = self.asked.iter().next();
        asked.map_or(Asked::Nothing, |(key, value)| Asked::of(key, value.unwrap_or_default()))
    }
}

impl Taken {
    /// The commit, the day, and how busy the machine was.
    fn stamp(&self) -> String {
        let at = UNIX_EPOCH + Duration::from_millis(self.unix_ms);
        let day: String =
            humantime::format_rfc3339_seconds(at).to_string().chars().take(10).collect();
        let commit = self.commit.as_deref().unwrap_or("an unknown commit");
        let load = self.load.map(|load| format!(", load {load}")).unwrap_or_default();
        format!("`{commit}` ({day}{load})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Figure, Group};

    fn report(median: f64) -> Report {
        let figure = |name, values: &[f64], beside: &[f64], asked| Figure {
            name,
            unit: Unit::Time,
            values: values.to_vec(),
            beside: beside.to_vec(),
            asked,
        };
        let figures = vec![
            figure(
                "a beat",
                &[median / 2.0, median, median * 2.0],
                &[1e-6; 3],
                Asked::AtMost(2e-5),
            ),
            figure("nothing", &[], &[], Asked::Nothing),
        ];
        let group = Group { title: "Beats".into(), beside: "none", figures };
        Report {
            suite: "fleet",
            rounds: 3,
            groups: vec![group],
            notes: vec!["A note.".into()],
            curves: Vec::new(),
        }
    }

    #[test]
    fn a_run_is_kept_with_its_rounds_and_shown_beside_the_ones_before_it() {
        let docs = tempfile::tempdir().unwrap();
        let machine = Machine::here();
        for median in [4e-5, 3e-5, 1e-5] {
            record(docs.path(), &report(median), &machine).unwrap();
        }
        let kept = fs::read_to_string(lines(docs.path(), "fleet")).unwrap();
        assert_eq!(kept.lines().count(), 3);
        assert!(kept.contains("\"rounds\":[0.00002,0.00004,0.00008]"), "{kept}");
        let chapter = fs::read_to_string(docs.path().join("src/figures.md")).unwrap();
        let row = "| a beat | 10.0 us | 5.00 to 20.0 us | 1.00 us | 10.0x | <= 20 us | 30.0 us, 40.0 us |";
        assert!(chapter.contains(row), "{chapter}");
        assert!(chapter.contains("| nothing |  |  |  |  |  | –, – |"), "{chapter}");
        assert!(chapter.contains("\nA note.\n") && !chapter.contains("## work"), "{chapter}");
        assert!(docs.path().join("src/bench/fleet.svg").exists());
    }

    #[test]
    fn a_line_that_is_damaged_is_said_with_its_file_and_the_run_is_kept() {
        let docs = tempfile::tempdir().unwrap();
        append(&lines(docs.path(), "fleet"), "{").unwrap();
        let error = record(docs.path(), &report(1e-5), &Machine::here()).unwrap_err();
        assert!(rollout_core::chain(&error).contains("fleet.jsonl"), "{error}");
        let kept = fs::read_to_string(lines(docs.path(), "fleet")).unwrap();
        assert_eq!(kept.lines().count(), 2);
    }
}
