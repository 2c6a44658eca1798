//! The ring against every line ever pushed, in a list.

use proptest::collection::vec;
use proptest::prelude::*;
use rollout_core::event::Topics;

use super::ring::{Cursor, Found, Ring};

const MOST: usize = 5;
const MOST_BYTES: usize = 40;

#[derive(Debug, Clone)]
enum Step {
    Push { topic: usize, bytes: usize },
    Open { topics: usize, follow: bool },
    Read { reader: usize, about: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, prop_oneof![9 => 1..20_usize, 1 => 30..60_usize])
            .prop_map(|(topic, bytes)| Step::Push { topic, bytes }),
        1 => (0..4_usize, any::<bool>()).prop_map(|(topics, follow)| Step::Open { topics, follow }),
        3 => (0..4_usize, 0..60_usize).prop_map(|(reader, about)| Step::Read { reader, about }),
    ]
}

/// All, or one of the first three.
fn choice(topics: usize) -> Topics {
    Topics::of(Topics::names().take(3).nth(topics)).unwrap()
}

/// Every line ever pushed: its topic and its bytes.
#[derive(Default)]
struct Model(Vec<(usize, Vec<u8>)>);

impl Model {
    /// The oldest line that is kept: as many of the newest as fit.
    fn first(&self) -> usize {
        let (mut first, mut bytes) = (self.0.len(), 0);
        while first > 0 && self.0.len() - first < MOST {
            bytes += self.0[first - 1].1.len();
            if bytes > MOST_BYTES {
                break;
            }
            first -= 1;
        }
        first
    }
}

struct Reader {
    cursor: Cursor,
    topics: Topics,
    next: usize,
    end: Option<usize>,
}

impl Reader {
    /// What a reader with all lines before it finds.
    fn expect(&mut self, model: &Model, about: usize) -> Found {
        let end = self.end.unwrap_or(model.0.len());
        let mut found = Found::default();
        while self.next < end && (self.next < model.first() || found.bytes.len() < about) {
            let (topic, line) = &model.0[self.next];
            if !self.topics.has(*topic) {
            } else if self.next < model.first() {
                found.missed += 1;
            } else {
                found.bytes.extend(line);
            }
            self.next += 1;
        }
        found.more = self.next < end;
        found
    }
}

proptest! {
    #[test]
    fn every_line_that_is_wanted_is_read_once_and_in_order_or_counted_as_missed_in_its_place(
        steps in vec(step(), 0..120),
    ) {
        let (mut ring, mut model) = (Ring::new(MOST, MOST_BYTES), Model::default());
        let mut readers: Vec<Reader> = Vec::new();
        for step in steps {
            match step {
                Step::Push { topic, bytes } => {
                    let line = vec![model.0.len() as u8; bytes];
                    ring.push(topic, &line);
                    model.0.push((topic, line));
                }
                Step::Open { topics, follow } => {
                    let topics = choice(topics);
                    let cursor = ring.open(topics, follow);
                    prop_assert_eq!(cursor.is_following(), follow);
                    let end = (!follow).then_some(model.0.len());
                    readers.push(Reader { cursor, topics, next: model.first(), end });
                }
                Step::Read { reader, about } => {
                    let Some(reader) = readers.get_mut(reader) else { continue };
                    let found = ring.read(&mut reader.cursor, about);
                    prop_assert_eq!(found, reader.expect(&model, about));
                }
            }
        }
    }
}
