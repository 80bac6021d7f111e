//! Sizes, rates and durations as people write them; ambiguous ones are refused (design §3.10).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Invariant;

/// A number of bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct ByteSize(pub u64);

/// Disk that a cache may take: enough for some of the largest pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Capacity(ByteSize);

/// Bytes in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Rate(pub u64);

/// A quantity that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitParseError {
    /// No number with a known unit.
    #[error("'{text}' is not {what}: write it as in {example}")]
    Unknown {
        /// What was given.
        text: String,
        /// What was wanted.
        what: &'static str,
        /// Accepted forms.
        example: &'static str,
    },
    /// Two readings.
    #[error("'{text}' has two readings: did you mean {first} or {second}?")]
    Ambiguous {
        /// What was given.
        text: String,
        /// One reading.
        first: String,
        /// The other.
        second: String,
    },
    /// Nothing could be done with so little.
    #[error("{given} is too little for a cache: it takes at least {least}")]
    TooSmall {
        /// What was given.
        given: ByteSize,
        /// What is enough.
        least: ByteSize,
    },
}

fn split_number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

fn scaled(number: f64, factor: f64) -> Option<u64> {
    let value = number * factor;
    (value.is_finite() && value >= 0.0 && value < u64::MAX as f64).then_some(value.round() as u64)
}

/// Whether a unit is one of these prefixes and no more: nobody knows its base.
fn is_bare(unit: &str, prefixes: &str) -> bool {
    let bare = unit.len() == 1 && prefixes.contains(&unit.to_ascii_uppercase());
    bare && !Invariant::UnitsAreClear.is_broken()
}

fn byte_factor(unit: &str) -> Option<f64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "m" if Invariant::UnitsAreClear.is_broken() => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    })
}

impl FromStr for ByteSize {
    type Err = UnitParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnitParseError::Unknown {
            text: text.to_owned(),
            what: "a size",
            example: "4096, 10MiB or 1.5GB",
        };
        let (number, unit) = split_number(text).ok_or_else(unknown)?;
        if is_bare(unit, "KMGT") {
            let letter = unit.to_ascii_uppercase();
            return Err(UnitParseError::Ambiguous {
                text: text.to_owned(),
                first: format!("{number}{letter}iB"),
                second: format!("{number}{letter}B"),
            });
        }
        byte_factor(unit).and_then(|factor| scaled(number, factor)).map(Self).ok_or_else(unknown)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.0.to_string()
    }
}

impl TryFrom<String> for ByteSize {
    type Error = UnitParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Capacity {
    /// The smallest one.
    pub const LEAST: ByteSize = ByteSize(64 << 20);

    /// How much that is.
    pub fn size(self) -> ByteSize {
        self.0
    }
}

impl FromStr for Capacity {
    type Err = UnitParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<ByteSize>()?.try_into()
    }
}

impl TryFrom<ByteSize> for Capacity {
    type Error = UnitParseError;

    fn try_from(given: ByteSize) -> Result<Self, Self::Error> {
        if given < Self::LEAST {
            return Err(UnitParseError::TooSmall { given, least: Self::LEAST });
        }
        Ok(Self(given))
    }
}

impl From<Capacity> for String {
    fn from(capacity: Capacity) -> Self {
        capacity.0.into()
    }
}

impl TryFrom<String> for Capacity {
    type Error = UnitParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for Rate {
    type Err = UnitParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnitParseError::Unknown {
            text: text.to_owned(),
            what: "a rate",
            example: "100Mbit/s, 10MiB/s or 1Gbit",
        };
        let (number, unit) = split_number(text).ok_or_else(unknown)?;
        let unit = unit.strip_suffix("/s").unwrap_or(unit);
        if is_bare(unit, "KMG") {
            let letter = unit.to_ascii_uppercase();
            return Err(UnitParseError::Ambiguous {
                text: text.to_owned(),
                first: format!("{number}{letter}bit/s"),
                second: format!("{number}{letter}iB/s"),
            });
        }
        let bits = match unit.to_ascii_lowercase().as_str() {
            "bit" => Some(1.0),
            "kbit" => Some(1e3),
            "mbit" => Some(1e6),
            "gbit" => Some(1e9),
            _ => None,
        };
        let factor = bits.map(|bits| bits / 8.0).or_else(|| byte_factor(unit));
        factor.and_then(|factor| scaled(number, factor)).map(Self).ok_or_else(unknown)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/s", ByteSize(self.0)))
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        format!("{}B/s", rate.0)
    }
}

impl TryFrom<String> for Rate {
    type Error = UnitParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Reads `150ms`, `30s`, `5m`, `2h` or `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitParseError> {
    let unknown = || UnitParseError::Unknown {
        text: text.to_owned(),
        what: "a duration",
        example: "150ms, 30s, 5m, 2h or 7d",
    };
    let (number, unit) = split_number(text).ok_or_else(unknown)?;
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err(unknown()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rates_read_as_written() {
        assert_eq!("10MiB".parse(), Ok(ByteSize(10 << 20)));
        assert_eq!("1.5GB".parse(), Ok(ByteSize(1_500_000_000)));
        assert_eq!("100Mbit/s".parse(), Ok(Rate(12_500_000)));
        assert_eq!("1MiB/s".parse(), Ok(Rate(1 << 20)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
    }

    #[test]
    fn ambiguous_units_name_both_readings() {
        let error = "10M".parse::<ByteSize>().unwrap_err().to_string();
        assert!(error.contains("10MiB") && error.contains("10MB"), "{error}");
        assert!("10M/s".parse::<Rate>().is_err());
        let unknown = "10T/s".parse::<Rate>().unwrap_err().to_string();
        assert!(!unknown.contains("10Tbit/s"), "which is no rate either: {unknown}");
        for bad in ["", "MiB", "1e9999GiB", "-1", "10XB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_print_with_one_decimal() {
        assert_eq!(ByteSize(0).to_string(), "0 B");
        assert_eq!(ByteSize(1 << 20).to_string(), "1.0 MiB");
        assert_eq!(ByteSize((1 << 20) - 1).to_string(), "1.0 MiB");
    }
}
