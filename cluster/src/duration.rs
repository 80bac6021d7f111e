//! Durations in configuration: `500ms`, `30s`, `5m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

/// Writes a duration in milliseconds, as [`deserialize`] reads it.
pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}ms", span.as_millis()))
}

/// Reads a duration with its unit.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    dfs_model::parse_duration(&text).map_err(de::Error::custom)
}

/// Spans in which something must be able to happen: a second at least.
pub mod waited {
    use super::{Deserializer, Duration, de};

    pub use super::serialize;

    /// As [`super::deserialize`], and refuses what is shorter.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let span = super::deserialize(deserializer)?;
        match span >= Duration::from_secs(1) {
            true => Ok(span),
            false => Err(de::Error::custom("it must be a second at least: 1s, 30s, 5m")),
        }
    }
}
