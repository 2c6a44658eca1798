//! A choice of topics, as a reader of events names it.

use super::Body;

/// How many topics a line can have: those of events, and `log`.
pub const TOPICS: usize = Body::TOPICS.len() + 1;

const _: () = assert!(TOPICS <= 64, "a choice of topics is 64 bits");

/// Some topics, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topics(u64);

/// There is no such topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no topic `{name}`; there are {}", Topics::names().collect::<Vec<_>>().join(", "))]
pub struct UnknownTopic {
    /// What was taken for one.
    pub name: String,
}

impl Topics {
    /// Every topic.
    pub const ALL: Self = Self(u64::MAX >> (64 - TOPICS));

    /// The names there are, by [`Body::place`].
    pub fn names() -> impl Iterator<Item = &'static str> {
        Body::TOPICS.iter().copied().chain(["log"])
    }

    /// Those that are named; all of them if none is.
    ///
    /// # Errors
    /// The first name that is no topic's.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownTopic> {
        let mut chosen = 0;
        for name in names {
            let place = Self::names().position(|topic| topic == name);
            let place = place.ok_or_else(|| UnknownTopic { name: name.to_owned() })?;
            chosen |= 1 << place;
        }
        Ok(if chosen == 0 { Self::ALL } else { Self(chosen) })
    }

    /// Whether the topic at this [`Body::place`] is one of them.
    #[must_use]
    pub const fn has(self, place: usize) -> bool {
        place < TOPICS && self.0 >> place & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::Level;
    use crate::event::{CoordinatorStopping, LinesDropped, WorkerReady};

    #[test]
    fn a_topic_is_chosen_by_its_exact_name_and_no_name_chooses_all() {
        let bodies: [Body; 4] = [
            WorkerReady { epoch: 1 }.into(),
            CoordinatorStopping { signal: "SIGTERM".into() }.into(),
            LinesDropped { heartbeats: 1, others: 0 }.into(),
            Body::Log(Level::Info, Map::new()),
        ];
        for body in &bodies {
            assert_eq!(Topics::names().nth(body.place()), Some(body.topic()));
            assert!(Topics::of([]).unwrap().has(body.place()));
            let one = Topics::of([body.topic()]).unwrap();
            let others = bodies.iter().filter(|other| one.has(other.place()));
            assert_eq!(others.collect::<Vec<_>>(), [body]);
        }
        let two = Topics::of(["log", "worker_ready", "log"]).unwrap();
        assert_eq!((0..TOPICS).filter(|place| two.has(*place)).count(), 2);
        assert!(!Topics::ALL.has(TOPICS));
    }

    #[test]
    fn a_name_that_is_no_topics_is_told_which_there_are() {
        for name in ["", "worker", "Worker_Ready", "logs"] {
            let error = Topics::of(["log", name]).unwrap_err();
            assert_eq!(error.name, name);
            let text = error.to_string();
            assert!(text.contains("worker_failed, ") && text.ends_with(", log"), "{text}");
        }
    }
}
