//! The coordinator's events, as a client reads them.

use std::fmt::Write as _;

use hyper::Method;
use serde_json::value::RawValue;

use super::{CallError, Outgoing, Remote};
use crate::http::EVENTS;
use crate::lines::LineStream;
use crate::meter::Meter;
use crate::work::MAX_LINE;

impl Remote {
    /// Reads the newest of the coordinator's events that it has kept, and with `follow` those that
    /// come; of these topics, or of all if none is named. The lines are, byte for byte, those on
    /// its standard output; in the place of lines that were missed is
    /// `{"type":"missed","lines":<n>}`.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::Refused`] with 400 when there is no such topic, with 409 when
    /// there are too many readers.
    pub async fn events(
        &self,
        topics: &[String],
        follow: bool,
    ) -> Result<LineStream<Box<RawValue>>, CallError> {
        let response = self.call(Method::GET, &path(topics, follow), Outgoing::none()).await?;
        Ok(LineStream::new(response.into_body(), MAX_LINE, Meter::default()))
    }
}

fn path(topics: &[String], follow: bool) -> String {
    let mut path = format!("{EVENTS}?follow={follow}");
    for topic in topics {
        path.push_str("&topic=");
        for byte in topic.bytes() {
            if byte.is_ascii_alphanumeric() || byte == b'_' {
                path.push(byte.into());
            } else {
                // What cannot be a topic's name is refused as such by the coordinator. Writing to
                // a string does not fail.
                let _ = write!(path, "%{byte:02X}");
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_topic_is_called_it_stays_one_in_the_query() {
        let topics = ["worker_failed".into(), "a&follow=true #é".into()];
        let expected =
            "/v1/events?follow=false&topic=worker_failed&topic=a%26follow%3Dtrue%20%23%C3%A9";
        assert_eq!(path(&topics, false), expected);
    }
}
