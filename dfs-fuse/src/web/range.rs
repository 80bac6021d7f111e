//! `Range: bytes=…` of one part. Pure; hostile until checked.

use dfs_model::ByteRange;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE};
use hyper::{HeaderMap, StatusCode};

use super::answer::put;

/// What of a content is to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: nothing else was asked, or in a way that may be passed over (RFC 9110, 14.2).
    All,
    /// This part.
    Part(ByteRange),
    /// A part that there is not.
    Beyond,
}

impl Wanted {
    /// Of a content of this length.
    pub fn of(range: Option<&str>, length: u64) -> Self {
        let Some(parts) = range.and_then(|range| range.trim().strip_prefix("bytes=")) else {
            return Self::All;
        };
        // Several at once are given as the whole.
        let Some((first, last)) = parts.trim().split_once('-') else { return Self::All };
        match (number(first), number(last)) {
            (Some(Some(first)), Some(last)) => {
                let last = last.unwrap_or(u64::MAX);
                if last < first {
                    return Self::All;
                }
                if first >= length {
                    return Self::Beyond;
                }
                Self::Part(ByteRange::new(first, last.saturating_add(1).min(length)))
            }
            (Some(None), Some(Some(0))) => Self::Beyond,
            (Some(None), Some(Some(_))) if length == 0 => Self::Beyond,
            (Some(None), Some(Some(tail))) => {
                Self::Part(ByteRange::new(length.saturating_sub(tail), length))
            }
            _ => Self::All,
        }
    }
}

impl Wanted {
    /// Says in the head of all of it what is given: the status, and the bytes, where there are any.
    pub fn told(self, head: &mut HeaderMap, length: u64) -> (StatusCode, Option<ByteRange>) {
        match self {
            Self::All => (StatusCode::OK, Some(ByteRange::new(0, length))),
            Self::Part(part) => {
                let range = format!("bytes {}-{}/{length}", part.start, part.end - 1);
                put(head, CONTENT_RANGE, &range);
                head.insert(CONTENT_LENGTH, part.len().into());
                (StatusCode::PARTIAL_CONTENT, Some(part))
            }
            Self::Beyond => {
                put(head, CONTENT_RANGE, &format!("bytes */{length}"));
                head.remove(CONTENT_LENGTH);
                (StatusCode::RANGE_NOT_SATISFIABLE, None)
            }
        }
    }
}

/// A number, or nothing in its place; `None` for anything else.
fn number(text: &str) -> Option<Option<u64>> {
    match text {
        "" => Some(None),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok().map(Some),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(range: &str) -> Wanted {
        Wanted::of(Some(range), 100)
    }

    #[test]
    fn one_part_is_given_as_it_is_asked_for() {
        let part = |start, end| Wanted::Part(ByteRange::new(start, end));
        for (range, wanted) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=10-19", part(10, 20)),
            ("bytes=90-", part(90, 100)),
            ("bytes=90-1000", part(90, 100)),
            ("bytes=0-18446744073709551615", part(0, 100)),
            ("bytes=-10", part(90, 100)),
            ("bytes=-1000", part(0, 100)),
            ("bytes=100-", Wanted::Beyond),
            ("bytes=-0", Wanted::Beyond),
        ] {
            assert_eq!(of(range), wanted, "{range}");
        }
    }

    #[test]
    fn what_may_be_passed_over_is_answered_whole() {
        for range in [
            "",
            "items=0-1",
            "bytes=",
            "bytes=-",
            "bytes=5-4",
            "bytes=0-1,5-6",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=0-18446744073709551616",
        ] {
            assert_eq!(of(range), Wanted::All, "{range}");
        }
        assert_eq!(Wanted::of(None, 0), Wanted::All);
        assert_eq!(Wanted::of(Some("bytes=0-0"), 0), Wanted::Beyond);
        assert_eq!(Wanted::of(Some("bytes=-5"), 0), Wanted::Beyond);
    }
}
