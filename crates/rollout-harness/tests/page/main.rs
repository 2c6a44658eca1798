//! The page of a run: what has to be on it, and what must not get onto it.
#![cfg(test)]

mod scene;

use rollout_core::Body;
use rollout_harness::record::{Record, What};
use rollout_harness::report::html;
use rollout_harness::{Check, Outcome};

use scene::{Scene, at, chaos, everything};

fn check(name: &'static str, outcome: Outcome, detail: &str) -> Check {
    Check { name: name.into(), outcome, detail: detail.to_owned() }
}

fn checks() -> Vec<Check> {
    vec![
        check("failed-once", Outcome::Pass, "worker_failed names each dead worker once"),
        check("no-false-failure", Outcome::Fail, "w3 failed while <b>reachable</b>"),
        check("conditions", Outcome::Inconclusive, "the coordinator stalled for 1988 ms"),
    ]
}

/// The values of an attribute in the order in which they stand.
fn values<'a>(page: &'a str, attribute: &str) -> Vec<&'a str> {
    let opening = format!(" {attribute}=\"");
    page.split(opening.as_str()).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0)).collect()
}

/// The part of the page that is the lane of a process.
fn lane<'a>(page: &'a str, name: &str) -> &'a str {
    let opening = format!("data-lane=\"{name}\">");
    page.split_once(opening.as_str()).unwrap().1.split_once("</g>\n").unwrap().0
}

/// How many marks, or spans, of a class the text has.
fn count(text: &str, what: &str, class: &str) -> usize {
    text.matches(&format!("class=\"{what} {class}\"")).count()
}

#[test]
fn each_fault_verdict_fence_suspicion_and_term_of_a_record_is_in_the_lane_of_its_process() {
    let record = everything();
    let page = html(&record, &checks());
    for process in &record.processes {
        let lane = lane(&page, &process.name);
        let name = process.name.as_str();
        let kills = record.faults_of(name).filter(|fault| fault.what == What::Kill).count();
        assert_eq!(count(lane, "mark", "kill"), kills, "{name}");
        assert_eq!(count(lane, "mark", "fault"), record.faults_of(name).count() - kills, "{name}");
        assert_eq!(count(lane, "span", "life"), process.lives.len(), "{name}");
        assert_eq!(count(lane, "mark", "began"), process.lives.len(), "{name}");
        let Some(id) = process.worker() else { continue };
        for (topic, class) in [
            ("worker_registered", "registered"),
            ("worker_resumed", "resumed"),
            ("worker_suspected", "suspected"),
            ("worker_recovered", "recovered"),
            ("worker_failed", "failed"),
        ] {
            let events = record.about(id).filter(|event| event.body.topic() == topic).count();
            assert_eq!(count(lane, "mark", class), events, "{topic} of {name}");
        }
        let fences =
            process.log.events().filter(|e| matches!(e.body, Body::WorkerFenced(_))).count();
        assert_eq!(count(lane, "mark", "fenced"), fences, "{name}");
        let beats = record.about(id).filter(|e| matches!(e.body, Body::WorkerHeartbeat(_))).count();
        assert_eq!(values(lane, "data-beats"), [beats.to_string()], "{name}");
        assert_eq!(
            values(lane, "data-ticks"),
            [beats.to_string()],
            "no beat is left out of {name}"
        );
    }
    let coordinator = lane(&page, "coord");
    assert_eq!(count(coordinator, "mark", "term"), 2);
    assert_eq!(count(coordinator, "span", "stalled"), 1);
}

#[test]
fn what_lasts_is_drawn_from_its_beginning_to_its_end() {
    let page = html(&everything(), &[]);
    let percent = |ms: f64| ms / 40_000.0 / 1.01 * 100.0;
    for (name, class, from, to) in [
        ("w3", "cut", 10_000.0, 13_000.0),
        ("w3", "cut", 24_000.0, 28_500.0),
        ("w3", "delay", 33_000.0, 36_500.0),
        ("w3", "disk", 34_000.0, 35_000.0),
        ("w3", "fenced", 27_530.0, 28_641.0),
        ("w3", "suspected", 25_021.0, 28_650.0),
        ("w2", "stop", 15_000.0, 26_000.0),
        ("w2", "fenced", 26_001.0, 26_091.0),
        ("w2", "failed", 22_620.0, 26_090.0),
        ("coord", "stalled", 21_004.0 - 1988.2, 21_004.0),
        // A dead coordinator sees nobody: what it took the worker for ends with it.
        ("w4", "suspected", 28_002.0, 31_000.0),
        ("w4", "suspected", 31_640.0, 37_391.4),
    ] {
        let lane = lane(&page, name);
        let opening = format!("<rect class=\"span {class}\" ");
        let drawn = lane.split(opening.as_str()).skip(1).any(|rest| {
            let rect = format!(" {rest}");
            let number = |attribute| -> f64 {
                values(&rect, attribute)[0].trim_end_matches('%').parse().unwrap()
            };
            let (x, width) = (number("x"), number("width"));
            (x - percent(from)).abs() < 0.01 && (x + width - percent(to)).abs() < 0.01
        });
        assert!(drawn, "{class} of {name} from {from} to {to}: {lane}");
    }
}

#[test]
fn a_deadline_is_the_last_beat_and_the_budget_and_what_was_credited() {
    let page = html(&everything(), &[]);
    let w1 = lane(&page, "w1");
    assert_eq!(w1.matches("class=\"countdown met\"").count(), 1);
    assert!(w1.contains("from 5.841 s, deadline 11.591 s; the verdict came at 11.592 s"), "{w1}");
    assert!(w1.contains("failed, 0.42 ms over"), "{w1}");
    let w2 = lane(&page, "w2");
    assert!(w2.contains("1.99 s of it credited for stalls"), "{w2}");
    // The term that began while w4 was silent gave it a full deadline.
    let w4 = lane(&page, "w4");
    assert!(w4.contains("from 31.640 s, deadline 37.390 s; the verdict came at 37.391 s"), "{w4}");
    let w5 = lane(&page, "w5");
    assert!(!w5.contains("class=\"countdown"), "it left in time: {w5}");
}

#[test]
fn every_mark_has_its_row_in_the_table_in_the_order_of_time_and_each_leads_to_the_other() {
    let page = html(&everything(), &checks());
    let events = page.split_once("class=\"events\"").unwrap().1;
    let links: Vec<_> =
        values(events, "href").into_iter().filter(|it| it.starts_with("#m")).collect();
    assert!(links.len() > 40, "{}", links.len());
    let ids = values(&page, "id");
    let there: std::collections::BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!(there.len(), ids.len(), "every id is there once");
    for href in values(&page, "href") {
        assert!(there.contains(&href[1..]), "{href} leads nowhere");
    }
    let marks = ids.iter().filter(|id| id.starts_with('m')).count();
    assert_eq!(marks, links.len());
    let times: Vec<f64> = events
        .split("\">\n")
        .flat_map(|part| part.split("<td class=\"time\">").skip(1))
        .filter_map(|cell| cell.split_once('>')?.1.split_once('<')?.0.trim().parse().ok())
        .collect();
    assert_eq!(times.len(), links.len());
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_verdict_and_the_checks_that_did_not_pass_stand_above_the_others() {
    let page = html(&everything(), &checks());
    assert!(page.contains("<title>fail: scenario: everything at once</title>"));
    assert!(page.contains("1 fail, 1 inconclusive, 1 pass; the latest verdict"), "{page}");
    let rows = ["no-false-failure", "conditions", "failed-once"]
        .map(|name| page.find(&format!("<th scope=\"row\">{name}</th>")).unwrap());
    assert!(rows.is_sorted(), "{rows:?}");
    assert!(html(&everything(), &[]).contains("<p class=\"verdict inconclusive\">"));
}

/// Puts `evil` into each text that a process, a plugin or a scenario may choose.
fn spoilt(evil: &str) -> (Record, Vec<Check>) {
    let mut scene = Scene::new(evil, 20_000, 1);
    scene.life("w1", 0, 9000, (Some(1), None));
    let failed = rollout_core::event::PluginExited {
        name: evil.into(),
        code: Some(1),
        signal: None,
        stderr_tail: evil.into(),
        expected: false,
    };
    scene.says("w1", 1.0, None, failed);
    let fenced = rollout_core::event::WorkerFenced {
        reason: evil.to_owned().into(),
        unacknowledged_ms: f64::MAX,
    };
    scene.says("w1", 2.0, Some("w1"), fenced);
    let log = Body::Log(
        rollout_core::Level::Error,
        serde_json::Map::from_iter([(evil.to_owned(), evil.into())]),
    );
    scene.says_of("coord", at(3), None, log, Some(evil));
    scene.record.leftovers.push(evil.into());
    scene.fault("w1", What::Stop, 4, None);
    let mut record = scene.finish();
    record.processes[0].stderr = evil.into();
    record.processes[0].log.feed(format!("{evil}\n").as_bytes());
    record.processes[1].name = evil.into();
    record.faults[0].target = evil.into();
    let details = vec![check("evil", Outcome::Fail, evil)];
    (record, details)
}

#[test]
fn no_text_of_a_run_becomes_markup() {
    let (plain, plain_checks) = spoilt("plain");
    let tags = |page: &str| page.matches('<').count();
    let quotes = |page: &str| page.matches('"').count();
    let expected = html(&plain, &plain_checks);
    for evil in [
        "<script>alert(1)</script>",
        "</title></style></svg></pre></table><img src=x onerror=alert(1)>",
        "\" onmouseover=\"alert(1)",
        "' onmouseover='alert(1)",
        "{{style}}{{events}}",
        "<!-- ]]> --> &lt; \u{202e}\0\u{1b}[31m",
    ] {
        let (record, checks) = spoilt(evil);
        let page = html(&record, &checks);
        assert_eq!(tags(&page), tags(&expected), "{evil}");
        assert_eq!(quotes(&page), quotes(&expected), "{evil}");
        assert!(!page.contains("<script") && !page.contains("<img"), "{evil}");
    }
}

#[test]
fn the_page_needs_nothing_but_itself_and_forbids_itself_everything_else() {
    let page = html(&everything(), &checks());
    assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'"));
    for other in ["http:", "https:", "//", "<script", "@import", "<link", "src="] {
        let outside = page.replace("&lt;img src=x", "").replace("&lt;script", "");
        assert!(!outside.contains(other), "{other}");
    }
}

#[test]
fn a_long_run_with_a_flood_of_beats_and_events_is_a_page_of_less_than_two_megabytes() {
    let usual = html(&chaos(120, 8, 500), &checks());
    assert!(usual.len() < 500_000, "{}", usual.len());
    // A beat every ten milliseconds, the shortest interval there is.
    let record = chaos(120, 8, 10);
    let beats: usize = record.workers().map(|(_, id)| record.about(id).count()).sum();
    assert!(beats > 50_000, "{beats}");
    let flood = html(&record, &checks());
    assert!(flood.len() < 2_000_000, "{}", flood.len());

    let mut scene = Scene::new("a flapping link", 120_000, 8);
    for ms in (1000..119_000).step_by(50) {
        for n in 1..=8 {
            let worker = format!("w{n}");
            let reason = "x".repeat(500).into();
            let body = rollout_core::event::WorkerSuspected { epoch: 1, reason };
            scene.says("coord", f64::from(ms), Some(&worker), body);
            let body = rollout_core::event::WorkerRecovered { epoch: 1, gap_ms: 1.0 };
            scene.says("coord", f64::from(ms) + 5.0, Some(&worker), body);
        }
    }
    let flapping = html(&scene.finish(), &[]);
    assert!(flapping.len() < 2_000_000, "{}", flapping.len());
    assert!(flapping.contains("suspected ×"), "what is left out is counted");
}

#[test]
fn a_record_of_nothing_is_a_page_all_the_same() {
    let mut record = Scene::new("nothing", 0, 0).finish();
    assert!(html(&record, &[]).contains("nothing was judged"));
    record.processes.clear();
    record.ended = record.began;
    let page = html(&record, &[]);
    assert!(page.ends_with("</html>\n") && !page.contains("NaN") && !page.contains("inf"));
}

#[test]
#[ignore = "writes example pages to the directory named in PAGES, to be looked at"]
fn examples() {
    let Some(dir) = std::env::var_os("PAGES").map(std::path::PathBuf::from) else { return };
    let pages =
        [("everything", everything()), ("chaos", chaos(120, 8, 500)), ("flood", chaos(120, 8, 10))];
    for (name, record) in pages {
        let start = std::time::Instant::now();
        let page = html(&record, &checks());
        println!("{name}: {} bytes in {:?}", page.len(), start.elapsed());
        std::fs::write(dir.join(format!("{name}.html")), page).unwrap();
    }
}
