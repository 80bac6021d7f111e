//! A group of users as people name it.

use std::fmt;
use std::str::FromStr;

use nix::unistd::Group;
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

/// A group that may use a socket: by its number, or by a name that this machine knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SocketGroup(u32);

impl SocketGroup {
    /// The group of this number; the last one is what calls of the system take for "none".
    pub fn of(number: u32) -> Option<Self> {
        (number != u32::MAX).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Why a text names no group.
#[derive(Debug, thiserror::Error)]
pub enum NoGroup {
    /// The machine has none of this name.
    #[error("this machine has no group '{0}'")]
    Unknown(String),
    /// Its groups cannot be looked through.
    #[error("the group '{name}' cannot be looked up: {source}")]
    Failed {
        /// Which.
        name: String,
        /// Why not.
        source: nix::Error,
    },
}

impl FromStr for SocketGroup {
    type Err = NoGroup;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(number) = text.parse() {
            return Self::of(number).ok_or_else(|| NoGroup::Unknown(text.to_owned()));
        }
        match Group::from_name(text) {
            Ok(Some(group)) => Ok(Self(group.gid.as_raw())),
            Ok(None) => Err(NoGroup::Unknown(text.to_owned())),
            Err(source) => Err(NoGroup::Failed { name: text.to_owned(), source }),
        }
    }
}

impl<'de> Deserialize<'de> for SocketGroup {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct NumberOrName;

        impl Visitor<'_> for NumberOrName {
            type Value = SocketGroup;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number or the name of a group")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<SocketGroup, E> {
                let fits = u64::try_from(number).ok();
                fits.map_or_else(
                    || Err(E::custom("a group has no such number")),
                    |it| self.visit_u64(it),
                )
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<SocketGroup, E> {
                let fits = u32::try_from(number).ok();
                fits.and_then(SocketGroup::of)
                    .ok_or_else(|| E::custom("a group has no such number"))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<SocketGroup, E> {
                text.parse().map_err(E::custom)
            }
        }

        value.deserialize_any(NumberOrName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_named_by_its_number_or_its_name() {
        let read = |json: &str| serde_json::from_str::<SocketGroup>(json).ok();
        assert_eq!(read("7"), Some(SocketGroup(7)));
        assert_eq!(read("\"7\""), Some(SocketGroup(7)));
        assert_eq!(read("\"root\""), Some(SocketGroup(0)));
        for bad in [
            "-1",
            "4294967295",
            "\"4294967295\"",
            "4294967296",
            "\"no such group\"",
            "\"\"",
            "true",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(serde_json::to_string(&SocketGroup(7)).unwrap(), "7");
    }
}
