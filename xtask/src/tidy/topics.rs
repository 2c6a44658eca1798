//! Every topic is in the book, and some test sees a real part of rollout emit it.

use crate::tree::{Complaint, File, Tree, words};

/// Where topics are defined, and where they are explained.
const EVENTS: &str = "crates/rollout-core/src/event.rs";
const CHAPTER: &str = "docs/src/events.md";

/// Tests that make events up, to judge the judge: they show nothing of who emits them.
const MADE_UP: &str = "crates/rollout-harness/";

/// Topics without a word in the book, or without a test.
pub(crate) fn told_and_tried(tree: &Tree) -> Vec<Complaint> {
    let Some(events) = tree.get(EVENTS) else {
        return vec![Complaint::of(EVENTS, "is gone: name in tidy where topics are defined now")];
    };
    let chapter = tree.get(CHAPTER).map_or("", |file| &*file.text);
    let mut found = Vec::new();
    for (body, topic, at) in topics(events) {
        if !chapter.contains(&format!("`{topic}`")) {
            let what = format!("the topic {topic} is not in {CHAPTER}");
            found.push(Complaint::at(events, at, what));
        }
        let seen = |file: &File| {
            let scenario = file.path.starts_with("tests/scenarios/");
            let text = if scenario { &file.text } else { &file.tests };
            let named = |name: &str| words(text, name).next().is_some();
            file.path != EVENTS
                && !file.path.starts_with(MADE_UP)
                && (file.is_rust() || scenario)
                && (named(topic) || named(body))
        };
        if !tree.files().any(seen) {
            let what = format!("no test looks for the topic {topic} in what a process says");
            found.push(Complaint::at(events, at, what));
        }
    }
    found
}

/// Each `Body = "topic", Level {` of the table.
fn topics(file: &File) -> Vec<(&str, &str, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in file.text.split_inclusive('\n') {
        let parts = line.trim().split_once(" = \"").filter(|_| line.trim_end().ends_with('{'));
        if let Some((body, (topic, _))) =
            parts.and_then(|(b, rest)| Some((b, rest.split_once('"')?)))
        {
            found.push((body, topic, at));
        }
        at += line.len();
    }
    found
}
