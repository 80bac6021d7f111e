//! Days and dates of the proleptic Gregorian calendar, in UTC.

// Years are counted from March, so that the leap day is the last; eras are of 400 years.

/// Days from 1970-01-01 to the first of March of the year 0, with the other sign.
const FROM_MARCH_OF_YEAR_0: i64 = 719_468;

const DAYS_OF_ERA: i64 = 146_097;

/// Days from 1970-01-01 to a date; `month` is 1 to 12.
pub fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * DAYS_OF_ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year - FROM_MARCH_OF_YEAR_0
}

/// The year, month and day that is `days` after 1970-01-01.
pub fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(FROM_MARCH_OF_YEAR_0);
    let (era, of_era) = (days.div_euclid(DAYS_OF_ERA), days.rem_euclid(DAYS_OF_ERA));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_has_one_date_and_follows_the_one_before() {
        assert_eq!((days_of(1970, 1, 1), date_of(0)), (0, (1970, 1, 1)));
        assert_eq!((days_of(2000, 2, 29), date_of(-1)), (11_016, (1969, 12, 31)));
        let mut before = date_of(-800_000);
        for day in -799_999..800_000 {
            let date = date_of(day);
            assert!(date > before, "{date:?} after {before:?}");
            assert_eq!(days_of(date.0, date.1, date.2), day);
            before = date;
        }
    }
}
