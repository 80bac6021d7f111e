//! What the heads of answers mean. Pure; everything in them is hostile.

use std::time::{Duration, SystemTime};

use dfs_model::{Validator, ValidatorStrength};
use reqwest::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, HeaderMap, HeaderName, LAST_MODIFIED, RETRY_AFTER,
};

/// Longest header value that is kept.
const MAX_VALUE_BYTES: usize = 1024;

/// Longest pause that an origin may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// `Content-Range: bytes first-last/total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub first: u64,
    pub last: u64,
    pub total: Option<u64>,
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty() && value.len() <= MAX_VALUE_BYTES).then_some(value)
}

/// Digits and nothing else: no sign, no space.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    number(text(headers, &CONTENT_LENGTH)?)
}

pub(crate) fn content_type(headers: &HeaderMap) -> Option<String> {
    text(headers, &CONTENT_TYPE).map(str::to_owned)
}

/// Whether the content type is a web page's.
pub(crate) fn is_html(headers: &HeaderMap) -> bool {
    text(headers, &CONTENT_TYPE).is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        matches!(kind.as_str(), "text/html" | "application/xhtml+xml")
    })
}

/// Whether the content type is JSON's.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    text(headers, &CONTENT_TYPE).is_some_and(|value| {
        value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    })
}

/// The part that a 206 carries; `None` when absent or nonsense.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let value = text(headers, &CONTENT_RANGE)?;
    let (unit, rest) = value.split_once(' ')?;
    let (range, total) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    let total = match total.trim() {
        "*" => None,
        total => Some(number(total)?),
    };
    let sound = unit.eq_ignore_ascii_case("bytes")
        && first <= last
        && last < u64::MAX
        && total.is_none_or(|total| last < total);
    sound.then_some(ContentRange { first, last, total })
}

/// The total that a 416 tells: `Content-Range: bytes */total`.
pub(crate) fn unsatisfied_total(headers: &HeaderMap) -> Option<u64> {
    number(text(headers, &CONTENT_RANGE)?.strip_prefix("bytes */")?)
}

/// What `Accept-Ranges` says; `None` when it says nothing.
pub(crate) fn accepts_ranges(headers: &HeaderMap) -> Option<bool> {
    match text(headers, &ACCEPT_RANGES)?.to_ascii_lowercase().as_str() {
        "bytes" => Some(true),
        "none" => Some(false),
        _ => None,
    }
}

/// A `Content-Encoding` other than plain bytes.
pub(crate) fn encoding(headers: &HeaderMap) -> Option<String> {
    let plain = |value: &str| value.is_empty() || value.eq_ignore_ascii_case("identity");
    headers.get_all(CONTENT_ENCODING).iter().find_map(|value| {
        let value = String::from_utf8_lossy(value.as_bytes()).trim().to_owned();
        (!plain(&value)).then(|| value.chars().take(80).collect())
    })
}

/// The version that a head tells of; the length is told elsewhere.
pub(crate) fn validator(headers: &HeaderMap, length: Option<u64>) -> Validator {
    Validator {
        etag: text(headers, &ETAG).map(str::to_owned),
        modified: text(headers, &LAST_MODIFIED).map(str::to_owned),
        version: None,
        length,
    }
}

/// How the seen version differs from the pinned one; `None` when nothing pinned differs.
///
/// A strong ETag decides alone (an answer to `If-Range` may leave the rest out); otherwise
/// everything pinned must be there and equal. Lengths are compared wherever both are known.
pub(crate) fn difference(pin: &Validator, seen: &Validator) -> Option<String> {
    if let (Some(pinned), Some(seen)) = (pin.length, seen.length)
        && pinned != seen
    {
        return Some(format!("it has {seen} bytes now, {pinned} before"));
    }
    if pin.etag.is_some() && !same_tag(pin, seen) {
        return Some(changed("ETag", &pin.etag, &seen.etag));
    }
    let decided = pin.strength() == ValidatorStrength::Strong && pin.etag.is_some();
    if !decided && pin.modified.is_some() && pin.modified != seen.modified {
        return Some(changed("Last-Modified", &pin.modified, &seen.modified));
    }
    None
}

/// Strong tags must be the same strong tag; weak ones are compared without their mark, because a
/// server drops it from a file that has not changed for a while (and the time of change is compared
/// as well).
fn same_tag(pin: &Validator, seen: &Validator) -> bool {
    match (&pin.etag, &seen.etag) {
        (Some(pinned), Some(seen)) => match pinned.strip_prefix("W/") {
            Some(pinned) => pinned == seen.strip_prefix("W/").unwrap_or(seen),
            None => pinned == seen,
        },
        _ => false,
    }
}

fn changed(what: &str, pinned: &Option<String>, seen: &Option<String>) -> String {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into());
    format!("its {what} is {} now, {} before", shown(seen), shown(pinned))
}

/// The pinned ETag where it is a strong one: no other may stand in a condition.
pub(crate) fn strong_tag(pin: &Validator) -> Option<&str> {
    pin.etag.as_deref().filter(|etag| !etag.starts_with("W/"))
}

/// `Retry-After` in seconds or as a date, as a pause from `now`, bounded by a day.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = text(headers, &RETRY_AFTER)?;
    let pause = match number(value) {
        Some(seconds) => Duration::from_secs(seconds),
        None => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.min(MAX_RETRY_AFTER))
}

/// How long a cache may keep the answer.
pub(crate) fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, &CACHE_CONTROL)?.to_ascii_lowercase();
    let directives: Vec<&str> = value.split(',').map(str::trim).collect();
    if directives.iter().any(|directive| matches!(*directive, "no-store" | "no-cache")) {
        return Some(Duration::ZERO);
    }
    let seconds = directives.iter().find_map(|directive| directive.strip_prefix("max-age="))?;
    number(seconds.trim_matches('"')).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(name: &HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    fn pin(etag: Option<&str>, modified: Option<&str>, length: Option<u64>) -> Validator {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Validator { etag: owned(etag), modified: owned(modified), version: None, length }
    }

    #[test]
    fn content_ranges_are_read_strictly() {
        let range = |text: &str| content_range(&head(&CONTENT_RANGE, text));
        assert_eq!(
            range("bytes 0-9/10"),
            Some(ContentRange { first: 0, last: 9, total: Some(10) })
        );
        assert_eq!(range("bytes 5-5/*"), Some(ContentRange { first: 5, last: 5, total: None }));
        for bad in
            ["bytes 5-4/10", "bytes 0-10/10", "items 0-1/2", "bytes */5", "bytes -1-2/9", "x"]
        {
            assert_eq!(range(bad), None, "{bad}");
        }
        assert_eq!(range("bytes 0-18446744073709551615/*"), None);
        assert_eq!(unsatisfied_total(&head(&CONTENT_RANGE, "bytes */7")), Some(7));
    }

    #[test]
    fn a_strong_etag_decides_and_everything_else_must_agree() {
        let strong = pin(Some("\"a\""), Some("then"), Some(5));
        assert_eq!(difference(&strong, &pin(Some("\"a\""), None, Some(5))), None);
        assert_eq!(difference(&strong, &pin(Some("\"a\""), None, None)), None);
        for other in [
            pin(Some("\"b\""), Some("then"), Some(5)),
            pin(None, Some("then"), Some(5)),
            pin(Some("W/\"a\""), Some("then"), Some(5)),
            pin(Some("\"a\""), Some("then"), Some(6)),
        ] {
            assert!(difference(&strong, &other).is_some(), "{other:?}");
        }
        let weak = pin(Some("W/\"a\""), Some("then"), Some(5));
        assert_eq!(difference(&weak, &pin(Some("\"a\""), Some("then"), Some(5))), None);
        for other in [
            pin(Some("W/\"a\""), Some("now"), Some(5)),
            pin(Some("W/\"a\""), None, Some(5)),
            pin(Some("W/\"b\""), Some("then"), Some(5)),
        ] {
            assert!(difference(&weak, &other).is_some(), "{other:?}");
        }
        assert_eq!(difference(&pin(None, None, None), &strong), None);
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let pause = |text: &str| retry_after(&head(&RETRY_AFTER, text), now).map(|p| p.as_secs());
        assert_eq!(pause("120"), Some(120));
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
        assert_eq!(pause("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(pause("99999999999"), Some(24 * 3600));
        assert_eq!(pause("-1"), None);
        assert_eq!(pause("soon"), None);
    }

    #[test]
    fn the_other_headers_say_what_they_say() {
        assert_eq!(encoding(&head(&CONTENT_ENCODING, "x-gzip")), Some("x-gzip".into()));
        assert_eq!(encoding(&head(&CONTENT_ENCODING, "Identity")), None);
        assert_eq!(accepts_ranges(&head(&ACCEPT_RANGES, "Bytes")), Some(true));
        assert_eq!(accepts_ranges(&head(&ACCEPT_RANGES, "none")), Some(false));
        let age = |text: &str| max_age(&head(&CACHE_CONTROL, text)).map(|age| age.as_secs());
        assert_eq!(age("public, max-age=60"), Some(60));
        assert_eq!(age("no-cache, max-age=60"), Some(0));
        assert!(is_html(&head(&CONTENT_TYPE, "text/HTML; charset=utf-8")));
        assert_eq!(content_length(&head(&CONTENT_LENGTH, "+5")), None);
    }

    proptest! {
        #[test]
        fn a_content_range_that_is_taken_is_sound(text in "bytes [0-9]{1,21}-[0-9]{1,21}/([0-9]{1,21}|\\*)") {
            if let Some(range) = content_range(&head(&CONTENT_RANGE, &text)) {
                prop_assert!(range.first <= range.last);
                prop_assert!(range.total.is_none_or(|total| range.last < total));
            }
        }
    }
}
