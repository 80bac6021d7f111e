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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Spans {
        #[serde(with = "super")]
        any: Duration,
        #[serde(with = "waited")]
        waited: Duration,
    }

    #[test]
    fn a_span_in_which_something_must_happen_is_a_second_at_least() {
        let read = |waited: &str| -> Result<Spans, _> {
            serde_json::from_value(serde_json::json!({ "any": "0s", "waited": waited }))
        };
        let spans = read("1s").unwrap();
        assert_eq!((spans.any, spans.waited), (Duration::ZERO, Duration::from_secs(1)));
        for short in ["0s", "999ms"] {
            assert!(read(short).unwrap_err().to_string().contains("a second at least"), "{short}");
        }
    }
}
