//! What an origin says of one thing.

use std::fmt;
use std::time::Duration;

use dfs_model::{CanonicalUrl, Validator};

/// What an origin says of one thing, before any of its bytes is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Length in bytes; `None` when only reading it tells.
    pub length: Option<u64>,
    /// Names the version; pins every read of it.
    pub validator: Validator,
    /// Media type as the origin writes it.
    pub content_type: Option<String>,
    /// Whether ranges are honoured, as far as the origin showed.
    pub ranges: bool,
    /// File or directory.
    pub kind: StatKind,
    /// Where it is, after permanent redirects that stay at the same origin. A temporary redirect,
    /// or one to another origin, is followed anew each time and never becomes the name of the
    /// thing.
    pub url: CanonicalUrl,
    /// The origin gives no validator but the length: a change of the same length would not be seen.
    pub unpinned: bool,
    /// When the content was last changed, as whoever wrote it told ([`crate::WriteOptions`]).
    pub modified: Option<Timestamp>,
    /// How long the origin says that its answer stays right.
    pub max_age: Option<Duration>,
}

/// Whether a URL names bytes or a place that can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatKind {
    /// Bytes.
    File,
    /// A place with something below it.
    Directory,
}

/// A moment as file systems keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970 UTC; negative before.
    pub seconds: i64,
    /// Nanoseconds after that second, below 10⁹.
    pub nanos: u32,
}

/// `seconds.nanoseconds`, the form of [`Validator::modified`] for files.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.seconds, self.nanos)
    }
}

impl Timestamp {
    /// Reads the `modified` of a validator: `seconds.nanoseconds` of files or an HTTP date.
    pub fn of_validator(validator: &Validator) -> Option<Self> {
        let text = validator.modified.as_deref()?;
        if let Some((seconds, nanos)) = text.split_once('.') {
            let digits = nanos.len() == 9 && nanos.bytes().all(|byte| byte.is_ascii_digit());
            let nanos = digits.then(|| nanos.parse().ok())??;
            return Some(Self { seconds: seconds.parse().ok()?, nanos });
        }
        let time = httpdate::parse_http_date(text).ok()?;
        let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(Self { seconds: i64::try_from(since.as_secs()).ok()?, nanos: 0 })
    }

    /// Reads `2009-10-12T17:50:30.000Z` and the same with an offset instead of `Z`.
    pub fn of_iso(text: &str) -> Option<Self> {
        crate::s3::time::iso(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modified(text: &str) -> Option<Timestamp> {
        Timestamp::of_validator(&Validator { modified: Some(text.into()), ..Validator::default() })
    }

    #[test]
    fn the_time_of_a_validator_reads_back_in_both_spellings() {
        let time = Timestamp { seconds: -2, nanos: 5 };
        assert_eq!(modified(&time.to_string()), Some(time));
        let web = modified("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(web, Some(Timestamp { seconds: 784_111_777, nanos: 0 }));
        assert_eq!(modified("yesterday"), None);
        assert_eq!(modified("1.5"), None);
    }
}
