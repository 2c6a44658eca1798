//! The results as they lie in the output directory, against what they have to be.

use std::collections::{BTreeMap, BTreeSet};

use rollout_core::job::item_seed;
use serde::Deserialize;
use serde_json::{Value, json};

/// What the results are a function of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// How many items there are.
    pub items: u64,
    /// The job's seed.
    pub seed: u64,
}

/// The result that an item has to have: what `tests/work/digests.py` returns.
#[must_use]
pub fn expected(job: Job, item: u64) -> Value {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let text = format!("{item}:{}", item_seed(job.seed, item));
    let step = |value: u64, byte: u8| (value ^ u64::from(byte)).wrapping_mul(PRIME);
    json!({ "digest": format!("{:016x}", text.bytes().fold(OFFSET, step)) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    item: u64,
    result: Value,
}

/// What is wrong with results.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Items without a result.
    pub(super) lost: Vec<u64>,
    /// Items with more than one.
    pub(super) duplicate: Vec<u64>,
    /// Items that the job does not have, that nobody has run, or whose result is another one.
    pub(super) invented: Vec<u64>,
    /// Lines that are no results, in words.
    pub(super) malformed: Vec<String>,
}

impl Wrong {
    /// Looks for what is wrong. `executed` are the items that were run at all.
    pub(super) fn find(job: Job, text: &[u8], executed: &BTreeSet<u64>) -> Self {
        let mut wrong = Self::default();
        let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
        let mut last = None;
        if text.last().is_some_and(|byte| *byte != b'\n') {
            wrong.malformed.push("the last line has no end".into());
        }
        let lines = text.split(|byte| *byte == b'\n');
        for (number, line) in (1..).zip(lines).filter(|(_, line)| !line.is_empty()) {
            let line: Line = match serde_json::from_slice(line) {
                Ok(line) => line,
                Err(error) => {
                    wrong.malformed.push(format!("line {number} is no result: {error}"));
                    continue;
                }
            };
            if last > Some(line.item) {
                wrong.malformed.push(format!("line {number}: item {} is late", line.item));
            }
            last = Some(line.item);
            *seen.entry(line.item).or_default() += 1;
            let is_of_job = line.item < job.items && executed.contains(&line.item);
            if !is_of_job || line.result != expected(job, line.item) {
                wrong.invented.push(line.item);
            }
        }
        wrong.lost = (0..job.items).filter(|item| !seen.contains_key(item)).collect();
        let twice = seen.iter().filter(|(_, times)| **times > 1);
        wrong.duplicate = twice.map(|(item, _)| *item).collect();
        wrong
    }

    /// Whether nothing is.
    pub(super) const fn is_nothing(&self) -> bool {
        self.lost.is_empty()
            && self.duplicate.is_empty()
            && self.invented.is_empty()
            && self.malformed.is_empty()
    }

    /// All of it, in a line.
    pub(super) fn words(&self) -> String {
        let Self { lost, duplicate, invented, malformed } = self;
        let mut text = format!(
            "{} lost, {} duplicate, {} invented",
            lost.len(),
            duplicate.len(),
            invented.len()
        );
        for (word, items) in [("lost", lost), ("duplicate", duplicate), ("invented", invented)] {
            if let Some(first) = items.first() {
                text += &format!("; the first {word} is item {first}");
            }
        }
        if let Some(first) = malformed.first() {
            text += &format!("; {first}");
        }
        text
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const JOB: Job = Job { items: 20, seed: 7 };

    pub(in super::super) fn lines(job: Job) -> Vec<String> {
        let line = |item| {
            let result = expected(job, item);
            format!("{{\"item\":{item},\"result\":{result}}}\n")
        };
        (0..job.items).map(line).collect()
    }

    fn find(lines: &[String]) -> Wrong {
        Wrong::find(JOB, lines.concat().as_bytes(), &(0..JOB.items).collect())
    }

    #[test]
    fn the_digest_is_the_one_that_the_plugin_computes() {
        // `digest("0:" + str(seed))` of tests/work/digests.py.
        assert_eq!(item_seed(7, 0), 4_106_355_846_469_399);
        assert_eq!(expected(JOB, 0), json!({ "digest": "67a9d7f6da2bb5bd" }));
    }

    #[test]
    fn what_was_never_run_or_does_not_exist_is_invented() {
        let mut lines = lines(JOB);
        assert!(find(&lines).is_nothing());
        let found = Wrong::find(JOB, lines.concat().as_bytes(), &(1..JOB.items).collect());
        assert_eq!(found.invented, [0]);
        lines.push("{\"item\":20,\"result\":null}\n".into());
        assert_eq!(find(&lines), Wrong { invented: vec![20], ..Wrong::default() });
    }

    #[test]
    fn a_torn_line_a_strange_key_and_a_wrong_order_are_no_results() {
        let text = lines(JOB).concat();
        let torn = Wrong::find(JOB, &text.as_bytes()[..text.len() - 4], &(0..20).collect());
        assert_eq!((torn.lost.as_slice(), torn.malformed.len()), ([19].as_slice(), 2));
        let mut strange = lines(JOB);
        strange[3] = strange[3].replace("}\n", ",\"attempt\":2}\n");
        assert_eq!(
            (find(&strange).lost.as_slice(), find(&strange).malformed.len()),
            ([3].as_slice(), 1)
        );
        let mut swapped = lines(JOB);
        swapped.swap(3, 4);
        assert_eq!(find(&swapped).malformed, ["line 5: item 3 is late"]);
    }

    proptest! {
        #[test]
        fn every_line_that_is_missing_doubled_or_changed_is_found(
            fate in prop::collection::vec(0u8..6, 20),
        ) {
            let (mut text, mut due) = (Vec::new(), Wrong::default());
            for (item, (line, fate)) in (0..).zip(lines(JOB).into_iter().zip(fate)) {
                match fate {
                    0 => due.lost.push(item),
                    1 => {
                        due.duplicate.push(item);
                        text.extend([line.clone(), line]);
                    }
                    2 => {
                        due.invented.push(item);
                        text.push(line.replace("digest\":\"", "digest\":\"0"));
                    }
                    _ => text.push(line),
                }
            }
            prop_assert_eq!(find(&text), due);
        }
    }
}
