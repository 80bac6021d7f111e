//! Points in time and durations for people, without a time zone database: UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dfs_model::date_of;

/// `2026-11-20T09:16:34Z`.
pub fn iso(seconds: i64) -> String {
    let (year, month, day) = date_of(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `2026-11-20 09:16Z`.
pub fn minute(seconds: i64) -> String {
    let text = iso(seconds);
    match text.rsplit_once(':') {
        Some((upto_minute, _)) => format!("{}Z", upto_minute.replace('T', " ")),
        None => text,
    }
}

/// `3 m ago`, by the clock of this machine.
pub fn ago(unix_ms: u64) -> String {
    let then = UNIX_EPOCH + Duration::from_millis(unix_ms);
    match SystemTime::now().duration_since(then) {
        Ok(passed) if unix_ms > 0 => format!("{} ago", rough(passed)),
        _ => "-".to_owned(),
    }
}

/// `0.8 s`, `17.2 s`, `4 m`, `3 h`, `5 d`.
pub fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 if duration < Duration::from_millis(100) => format!("{} ms", duration.as_millis()),
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} m", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// `30 s`, `1 m`, `90 s`, `6 h`: a time that somebody named.
pub fn every(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let whole =
        |unit: u64| seconds > 0 && seconds.is_multiple_of(unit) && duration.subsec_nanos() == 0;
    match [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")]
        .into_iter()
        .find(|(unit, _)| whole(*unit))
    {
        Some((unit, letter)) => format!("{} {letter}", seconds / unit),
        None => format!("{} s", duration.as_secs_f64()),
    }
}

/// `0:05`, `12:30`, `1:02:03`: time left.
pub fn countdown(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days_and_before_1970() {
        assert_eq!(iso(0), "1970-01-01T00:00:00Z");
        assert_eq!(iso(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(iso(-1), "1969-12-31T23:59:59Z");
        assert_eq!(iso(1_795_166_194), "2026-11-20T09:16:34Z");
        assert_eq!(minute(1_795_166_194), "2026-11-20 09:16Z");
        for extreme in [i64::MIN, i64::MAX] {
            assert!(iso(extreme).ends_with('Z'));
        }
    }

    #[test]
    fn what_somebody_named_is_said_as_it_was() {
        let said = [30, 60, 90, 3600, 86_400].map(|seconds| every(Duration::from_secs(seconds)));
        assert_eq!(said, ["30 s", "1 m", "90 s", "1 h", "1 d"]);
        assert_eq!(every(Duration::from_millis(1500)), "1.5 s");
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(rough(Duration::from_millis(4)), "4 ms");
        assert_eq!(rough(Duration::from_millis(17_240)), "17.2 s");
        assert_eq!(rough(Duration::from_secs(7300)), "2 h");
        assert_eq!(countdown(Duration::from_secs(5)), "0:05");
        assert_eq!(countdown(Duration::from_secs(3723)), "1:02:03");
    }
}
