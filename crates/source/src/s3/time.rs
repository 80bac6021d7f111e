//! Times as object stores write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dfs_model::{date_of, days_of};

use crate::Timestamp;

/// `20130524T000000Z`, of seconds since 1970.
pub(super) fn compact(seconds: u64) -> String {
    let (year, month, day) = date_of(i64::try_from(seconds / 86_400).unwrap_or(i64::MAX / 2));
    let second = seconds % 86_400;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Reads `2009-10-12T17:50:30.000Z` and the same with an offset instead of `Z`.
pub(crate) fn iso(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once(['T', ' '])?;
    let mut parts = date.splitn(3, '-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = time.splitn(3, ':').map(digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let sound = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && year <= 9999;
    if !sound {
        return None;
    }
    let seconds = days_of(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Timestamp { seconds: seconds - offset(zone)?, nanos: nanos(fraction)? })
}

/// The same moment as the `Last-Modified` of HTTP, which knows whole seconds.
pub(super) fn http_date(time: Timestamp) -> Option<String> {
    let since = Duration::from_secs(u64::try_from(time.seconds).ok()?);
    Some(httpdate::fmt_http_date(UNIX_EPOCH.checked_add(since)?))
}

/// The moment as the clock has it.
pub(super) fn system_time(time: Timestamp) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::new(u64::try_from(time.seconds).ok()?, time.nanos))
}

fn digits(text: &str) -> Option<i64> {
    let all = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    all.then(|| text.parse().ok())?
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn nanos(fraction: &str) -> Option<u32> {
    if fraction.is_empty() {
        return Some(0);
    }
    let kept = fraction.get(..fraction.len().min(9))?;
    let value = u32::try_from(digits(kept)?).ok()?;
    Some(value * 10_u32.pow(9 - u32::try_from(kept.len()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_times_of_stores_are_read() {
        let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
        assert_eq!(iso("2009-10-12T17:50:30.000Z"), at(1_255_369_830, 0));
        assert_eq!(iso("2009-10-12T19:50:30.5+02:00"), at(1_255_369_830, 500_000_000));
        assert_eq!(iso("1970-01-01T00:00:00Z"), at(0, 0));
        for bad in
            ["", "2009-10-12", "2009-13-12T00:00:00Z", "2009-10-12T24:00:00Z", "x-y-zTa:b:cZ"]
        {
            assert_eq!(iso(bad), None, "{bad}");
        }
        assert_eq!(compact(1_369_353_600), "20130524T000000Z");
        let time = Timestamp { seconds: 784_111_777, nanos: 5 };
        assert_eq!(http_date(time).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(seconds in 0u64..200_000_000_000) {
            let text = compact(seconds);
            let (date, time) = text.split_at(text.len() - 8);
            let (year, rest) = date.split_at(date.len() - 4);
            let iso_text = format!(
                "{year}-{}-{}T{}:{}:{}Z", &rest[..2], &rest[2..], &time[1..3], &time[3..5], &time[5..7],
            );
            if year.len() == 4 {
                prop_assert_eq!(iso(&iso_text).map(|time| time.seconds), Some(seconds as i64));
            }
        }

        #[test]
        fn nothing_makes_it_panic(text in "[0-9TZ:.+\\-é]{0,40}") {
            let _ = iso(&text);
        }
    }
}
