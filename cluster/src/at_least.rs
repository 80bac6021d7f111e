//! Numbers in configuration of which fewer mean nothing.

use std::fmt::Display;

use serde::{Deserialize, Deserializer, de};

/// Reads a number that is not 0.
pub fn one<'de, D, N>(value: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de> + PartialOrd + From<u8> + Display,
{
    at_least(N::from(1), value)
}

/// Reads a number above 1.
pub fn two<'de, D, N>(value: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de> + PartialOrd + From<u8> + Display,
{
    at_least(N::from(2), value)
}

fn at_least<'de, D, N>(least: N, value: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: Deserialize<'de> + PartialOrd + Display,
{
    let number = N::deserialize(value)?;
    match number >= least {
        true => Ok(number),
        false => {
            Err(de::Error::custom(format!("{number} is too few: it must be {least} at least")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::scheduler::Options;

    #[test]
    fn what_would_leave_nobody_is_refused() {
        let read = |key: &str, number: u64| {
            serde_json::from_value::<Options>(json!({ key: number })).map_err(|e| e.to_string())
        };
        for (key, least) in [("upload-slots", 1), ("at-source", 1), ("delegate-from", 2)] {
            assert!(read(key, least).is_ok(), "{key}");
            let said = read(key, least - 1).unwrap_err();
            assert!(said.contains(&format!("must be {least} at least")), "{said}");
        }
        assert!(read("delegate-above", 0).is_ok(), "never");
    }
}
