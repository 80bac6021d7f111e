//! Ranges of bytes and of groups.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes in a group, the unit of addressing, verification, storage state and demand reads (design §1).
pub const GROUP_BYTES: u64 = 64 * 1024;

/// Number of groups in a content of `length` bytes.
pub const fn groups_in(length: u64) -> u64 {
    length.div_ceil(GROUP_BYTES)
}

/// Bytes `start..end` of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte; never below `start`.
    pub end: u64,
}

impl ByteRange {
    /// Bytes `start..end`; an inverted range is empty at `start`.
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start, end: if end < start { start } else { end } }
    }

    /// `length` bytes from `start`, clipped at the end of the number space.
    pub const fn at(start: u64, length: u64) -> Self {
        Self { start, end: start.saturating_add(length) }
    }

    /// Number of bytes.
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether there is no byte in it.
    pub const fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// The part that both ranges cover.
    pub fn intersection(&self, other: Self) -> Self {
        let start = self.start.max(other.start);
        Self::new(start, self.end.min(other.end))
    }

    /// The groups that these bytes touch.
    pub const fn groups(&self) -> GroupRange {
        if self.is_empty() {
            return GroupRange { first: self.start / GROUP_BYTES, count: 0 };
        }
        let first = self.start / GROUP_BYTES;
        GroupRange { first, count: (self.end - 1) / GROUP_BYTES + 1 - first }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// A range in text that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a byte range: expected FIRST-LAST (both included), as in 0-1023")]
pub struct RangeParseError(String);

/// Reads HTTP's form `FIRST-LAST`, both included.
impl FromStr for ByteRange {
    type Err = RangeParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || RangeParseError(text.to_owned());
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        let first: u64 = first.trim().parse().map_err(|_| bad())?;
        let last: u64 = last.trim().parse().map_err(|_| bad())?;
        match last.checked_add(1) {
            Some(end) if first < end => Ok(Self::new(first, end)),
            _ => Err(bad()),
        }
    }
}

/// A run of groups: `first .. first + count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupRange {
    /// First group.
    pub first: u64,
    /// Number of groups.
    pub count: u64,
}

impl GroupRange {
    /// `count` groups from `first`.
    pub const fn new(first: u64, count: u64) -> Self {
        Self { first, count }
    }

    /// One past the last group.
    pub const fn end(&self) -> u64 {
        self.first.saturating_add(self.count)
    }

    /// Whether it holds no group.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether `group` lies in it.
    pub const fn contains(&self, group: u64) -> bool {
        group >= self.first && group < self.end()
    }

    /// The part that both cover.
    pub fn intersection(&self, other: Self) -> Self {
        let first = self.first.max(other.first);
        Self { first, count: self.end().min(other.end()).saturating_sub(first) }
    }

    /// The groups one by one.
    pub fn iter(&self) -> std::ops::Range<u64> {
        self.first..self.end()
    }

    /// Cut at absolute multiples of `size` groups, so that whole subtrees stay whole.
    pub fn cut(self, size: u64) -> impl Iterator<Item = Self> {
        let size = size.max(1);
        let mut at = self.first;
        std::iter::from_fn(move || {
            if at >= self.end() {
                return None;
            }
            let next = (at / size).saturating_add(1).saturating_mul(size).min(self.end());
            let part = Self::new(at, next - at);
            at = next;
            Some(part)
        })
    }

    /// The bytes these groups hold in a content of `length` bytes.
    pub fn bytes(&self, length: u64) -> ByteRange {
        let start = self.first.saturating_mul(GROUP_BYTES).min(length);
        ByteRange::new(start, self.end().saturating_mul(GROUP_BYTES).min(length))
    }
}

impl fmt::Display for GroupRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "groups {}..{}", self.first, self.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut_at_absolute_places() {
        let cut = |first, count| GroupRange::new(first, count).cut(4).collect::<Vec<_>>();
        let parts = [(3, 1), (4, 4), (8, 2)].map(|(first, count)| GroupRange::new(first, count));
        assert_eq!(cut(3, 7), parts);
        assert_eq!(cut(4, 4), [GroupRange::new(4, 4)]);
        assert_eq!(cut(9, 0), []);
        assert_eq!(cut(u64::MAX - 1, 9).len(), 1);
    }

    #[test]
    fn bytes_map_to_the_groups_they_touch_and_back() {
        assert_eq!(ByteRange::new(0, 1).groups(), GroupRange::new(0, 1));
        assert_eq!(ByteRange::new(65_535, 65_537).groups(), GroupRange::new(0, 2));
        assert_eq!(ByteRange::new(65_536, 65_536).groups(), GroupRange::new(1, 0));
        assert_eq!(GroupRange::new(1, 1).bytes(70_000), ByteRange::new(65_536, 70_000));
        assert_eq!(GroupRange::new(5, 1).bytes(70_000).len(), 0);
    }

    #[test]
    fn http_ranges_include_their_last_byte() {
        assert_eq!("0-0".parse(), Ok(ByteRange::new(0, 1)));
        for bad in ["5-4", "-1", "1-", "x-y", "0-18446744073709551615"] {
            assert!(bad.parse::<ByteRange>().is_err(), "{bad}");
        }
    }
}
