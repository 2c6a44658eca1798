//! Durations as people write them, `"500ms"` or `"5s"`, for serde's `with` attribute.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// Reads a duration such as `"250ms"`, `"5s"` or `"1m 30s"`.
///
/// # Errors
/// When the value is not a text, or the text is not a duration with its unit.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(|e| {
        D::Error::custom(format!("`{text}` is not a duration such as \"500ms\" or \"5s\": {e}"))
    })
}

/// Writes a duration so that [`deserialize`] reads it back.
///
/// # Errors
/// Only those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_duration(*duration))
}

/// The duration in milliseconds, for the wire and for events: three decimals, so microseconds
/// survive.
#[must_use]
pub fn as_ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// [`serialize`] and [`deserialize`] as a type, for those that have a schema: there what serde's `with`
/// names is asked for its own.
#[derive(Debug)]
pub struct AsText;

impl AsText {
    /// As [`deserialize`].
    ///
    /// # Errors
    /// As [`deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        deserialize(from)
    }

    /// As [`serialize`].
    ///
    /// # Errors
    /// As [`serialize`].
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        serialize(duration, to)
    }
}
