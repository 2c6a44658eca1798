//! The page of a run in a real browser, if there is one here: a made-up run with everything in it,
//! and a real one.
#![cfg(test)]

#[path = "../../../crates/rollout-harness/tests/page/scene.rs"]
mod scene;

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use rollout_acceptance::{Stage, story};
use rollout_harness::record::What;
use rollout_harness::report::html;
use rollout_harness::{Check, Outcome};
use rollout_process::{Io, Spawn};
use serde_json::Value;

/// How long the browser may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks at the page in a frame as wide as a small screen, and writes down what it sees.
const PROBE: &str = r#"<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" width="1280" height="2000" style="border:0" srcdoc="{page}"></iframe>
<pre id="seen"></pre>
<script>
window.onload = () => {
  const page = document.getElementById('page').contentDocument;
  const all = (from, what) => [...from.querySelectorAll(what)];
  const box = (it) => it.getBoundingClientRect();
  const empty = (it) => box(it).width === 0 || box(it).height === 0;
  const covers = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.5
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1.5;
  const labels = all(page, '.chart .label');
  const width = () => box(page.querySelector('.plot')).width;
  const scroll = page.querySelector('.scroll');
  const seen = {
    lanes: all(page, '.lane').map((lane) => ({
      name: lane.dataset.lane,
      marks: all(lane, '.mark').length,
      lives: all(lane, '.life').length,
      beats: all(lane, '.beats path').map((it) => box(it).width),
    })),
    emptyMarks: all(page, '.mark use').filter(empty).length,
    emptySpans: all(page, '.lane .span').filter(empty).length,
    labels: labels.length,
    covered: labels.flatMap((a, n) => labels.slice(n + 1).filter((b) => covers(box(a), box(b)))
      .map((b) => a.textContent + ' | ' + b.textContent)),
    cutOff: labels.filter((it) => box(it).right > box(scroll).right).map((it) => it.textContent),
    rows: all(page, '.events tbody tr').length,
    wide: page.documentElement.scrollWidth,
    scrolls: scroll.scrollWidth > scroll.clientWidth,
    heights: [box(page.querySelector('.names')).height, box(page.querySelector('.plot')).height],
    foreign: all(page, 'script, img, link, iframe').length,
    verdict: page.querySelector('.verdict').textContent.trim(),
    width: width(),
  };
  page.querySelector('[name=zoom][value="8"]').click();
  seen.stretched = width();
  document.getElementById('seen').textContent = JSON.stringify(seen);
};
</script>
"#;

/// The browser that is there, if one is.
fn browser() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).find_map(|dir| {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        names.into_iter().map(|name| dir.join(name)).find(|path| path.is_file())
    });
    if found.is_none() {
        // Past the test harness, which would keep it to itself.
        let _ = writeln!(
            io::stderr(),
            "skipped: no chromium, chromium-browser or google-chrome on PATH; the page was not \
             looked at in a browser"
        );
    }
    found
}

/// What a browser sees of `page`; none where there is no browser.
fn seen(page: &str) -> Option<Value> {
    let browser = browser()?;
    let dir = tempfile::tempdir().unwrap();
    let quoted = page.replace('&', "&amp;").replace('"', "&quot;");
    let probe = dir.path().join("probe.html");
    fs::write(&probe, PROBE.replace("{page}", &quoted)).unwrap();
    let spawn = Spawn::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--enable-logging=stderr", "--window-size=1280,2000"])
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .args(["--virtual-time-budget=20000", "--dump-dom"])
        .arg(format!("file://{}", probe.display()));
    let output = spawn.stderr(Io::Pipe).output(Some(PATIENCE)).unwrap();
    let [dom, said] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    assert!(!output.timed_out && output.exit.success(), "{}: {said}", output.exit);
    let console: Vec<_> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert_eq!(console, [""; 0], "the browser has something to complain of");
    let seen = dom.split_once("<pre id=\"seen\">").and_then(|it| it.1.split_once("</pre>"));
    let text = seen.map(|it| it.0.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"));
    Some(
        serde_json::from_str(&text.unwrap_or_default())
            .unwrap_or_else(|why| panic!("{why}: {said}")),
    )
}

/// What every page has to look like.
fn assert_sound(seen: &Value) {
    for none in ["emptyMarks", "emptySpans", "foreign"] {
        assert_eq!(seen[none], 0, "{none}: {seen:#}");
    }
    for none in ["covered", "cutOff"] {
        assert_eq!(seen[none], serde_json::json!([]), "{none}: {seen:#}");
    }
    assert_eq!(seen["scrolls"], false, "it fits on a small screen: {seen:#}");
    assert!(seen["wide"].as_u64().unwrap() <= 1280, "{seen:#}");
    assert_eq!(seen["heights"][0], seen["heights"][1], "names stand beside their lanes");
    let [width, stretched] = ["width", "stretched"].map(|it| seen[it].as_f64().unwrap());
    assert!(stretched > 7.5 * width, "{width} became {stretched}");
}

#[test]
fn a_page_with_everything_in_it_is_whole_in_a_browser_and_no_label_covers_another() {
    let _busy = rollout_acceptance::busy();
    let record = scene::everything();
    let detail = "<script>document.title = 'hacked'</script><img src=x>".to_owned();
    let checks = [Check { name: "a-check".into(), outcome: Outcome::Fail, detail }];
    let Some(seen) = seen(&html(&record, &checks)) else { return };
    assert_sound(&seen);
    assert_eq!(seen["verdict"].as_str().unwrap().split_whitespace().last(), Some("fail"));
    let lanes = seen["lanes"].as_array().unwrap();
    let marks: u64 = lanes.iter().map(|lane| lane["marks"].as_u64().unwrap()).sum();
    assert_eq!(seen["rows"], marks, "{seen:#}");
    assert!(seen["labels"].as_u64().unwrap() > 25, "{seen:#}");
    for (lane, process) in lanes.iter().zip(&record.processes) {
        assert_eq!(lane["name"], process.name.as_str());
        assert_eq!(lane["lives"], process.lives.len());
        let beats = lane["beats"].as_array().unwrap();
        assert_eq!(beats.len(), usize::from(process.worker().is_some()), "{lane}");
        assert!(beats.iter().all(|width| width.as_f64().unwrap() > 100.0), "{lane}");
    }
}

#[test]
fn a_long_run_of_many_workers_is_whole_in_a_browser() {
    let _busy = rollout_acceptance::busy();
    let Some(seen) = seen(&html(&scene::chaos(120, 8, 100), &[])) else { return };
    assert_sound(&seen);
    assert_eq!(seen["lanes"].as_array().unwrap().len(), 9);
}

#[test]
fn a_real_run_has_its_lives_its_faults_and_its_verdict_on_its_page() {
    let _busy = rollout_acceptance::busy();
    let stage = Stage::new().with_timing(100, 400, 800, 100);
    let run = stage.smoke(&stage.options());
    let record = run.record();
    let ends: Vec<_> = record.processes.iter().map(|process| process.lives.len()).collect();
    assert_eq!(ends, [1, 1, 1], "{}", story(&run));
    let life = |name: &str| record.process(name).unwrap().lives[0].clone();
    let kill = record.faults.iter().find(|fault| fault.what == What::Kill).unwrap();
    let died = life("w1").ended.unwrap();
    assert!(life("w1").began < kill.began && kill.began <= died.at, "{}", story(&run));
    assert_eq!((kill.target.as_str(), died.signal), ("w1", Some(9)));
    assert_eq!(life("coord").began, record.began);
    assert_eq!(life("coord").ended.unwrap().at, record.ended);
    let page = html(&record, &run.verdict.checks);
    assert_eq!(page.matches("class=\"mark failed\"").count(), 1);
    assert_eq!(page.matches("class=\"mark kill\"").count(), 1);
    let Some(seen) = seen(&page) else { return };
    assert_sound(&seen);
}
