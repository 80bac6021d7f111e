//! Times of members, in the three ways that zips tell them.

use dfs_model::days_of;

use crate::tree::Mtime;

use super::{u16_at, u32_at, u64_at};

/// Seconds from 1601, from where Windows counts, to 1970.
const FROM_1601: i64 = 11_644_473_600;

/// DOS's date and time, to two seconds; they have no zone and are taken for UTC.
pub(super) fn of_dos(date: u16, time: u16) -> Mtime {
    let (day, month) = (i64::from(date & 31).max(1), i64::from(date >> 5 & 15).clamp(1, 12));
    let days = days_of(1980 + i64::from(date >> 9), month, day);
    let (hour, minute) = (i64::from(time >> 11), i64::from(time >> 5 & 63));
    let secs = days * 86_400 + hour * 3600 + minute * 60 + i64::from(time & 31) * 2;
    Mtime { secs, nanos: 0 }
}

/// Info-ZIP's extended timestamp: flags, then seconds since 1970.
pub(super) fn of_unix(field: &[u8]) -> Option<Mtime> {
    let there = field.len() >= 5 && field[0] & 1 != 0;
    let secs = there.then(|| u32_at(field, 1).cast_signed());
    secs.map(|secs| Mtime { secs: secs.into(), nanos: 0 })
}

/// NTFS's: four reserved bytes, then attributes of which the first holds three times.
pub(super) fn of_ntfs(field: &[u8]) -> Option<Mtime> {
    let attribute = field.get(4..)?;
    let times = attribute.len() >= 12 && u16_at(attribute, 0) == 1;
    let ticks = times.then(|| u64_at(attribute, 4))?;
    let secs = i64::try_from(ticks / 10_000_000).ok()? - FROM_1601;
    Some(Mtime { secs, nanos: (ticks % 10_000_000) as u32 * 100 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_time_is_read() {
        let date = (2024 - 1980) << 9 | 2 << 5 | 29;
        let time = 23 << 11 | 59 << 5 | 29;
        assert_eq!(of_dos(date, time), Mtime { secs: 1_709_251_198, nanos: 0 });
        assert_eq!(of_dos(0, 0).secs, 315_532_800);
        assert_eq!(of_unix(&[1, 0xff, 0xff, 0xff, 0xff]), Some(Mtime { secs: -1, nanos: 0 }));
        assert_eq!(of_unix(&[2, 0, 0, 0, 0]), None);
        let ticks = (1_709_251_198 + FROM_1601) as u64 * 10_000_000 + 5;
        let field = [&[0; 4][..], &[1, 0, 24, 0], &ticks.to_le_bytes(), &[0; 16]].concat();
        assert_eq!(of_ntfs(&field), Some(Mtime { secs: 1_709_251_198, nanos: 500 }));
    }
}
