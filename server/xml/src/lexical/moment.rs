//! Dates and times of XML Schema: checked against the calendar, and compared.

use std::cmp::Ordering;

/// Which of the types a text is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calendar {
    DateTime,
    Date,
    Time,
    YearMonth,
    Year,
    MonthDay,
    Day,
    Month,
}

/// A point in time, or the first such point of what is named. Without a zone it counts as UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    seconds: i64,
    nanoseconds: u32,
    /// Minutes east of UTC, when it names a zone.
    pub(crate) zone: Option<i16>,
}

impl Moment {
    pub(crate) fn parse(calendar: Calendar, text: &str) -> Option<Self> {
        let mut rest = Rest(text);
        // What is not named: a leap year, so that 29 February is a day.
        let (mut year, mut month, mut day) = (1972, 1, 1);
        match calendar {
            Calendar::Year => year = rest.year()?,
            Calendar::YearMonth | Calendar::Date | Calendar::DateTime => {
                year = rest.year()?;
                rest.skip("-")?;
                month = rest.pair(1..=12)?;
                if calendar != Calendar::YearMonth {
                    rest.skip("-")?;
                    day = rest.pair(1..=31)?;
                }
            }
            Calendar::MonthDay | Calendar::Month => {
                rest.skip("--")?;
                month = rest.pair(1..=12)?;
                if calendar == Calendar::MonthDay {
                    rest.skip("-")?;
                    day = rest.pair(1..=31)?;
                }
            }
            Calendar::Day => {
                rest.skip("---")?;
                day = rest.pair(1..=31)?;
            }
            Calendar::Time => {}
        }
        if calendar == Calendar::DateTime {
            rest.skip("T")?;
        }
        let (seconds, nanoseconds) = match calendar {
            Calendar::DateTime | Calendar::Time => rest.time()?,
            _ => (0, 0),
        };
        let zone = rest.zone()?;
        if !rest.0.is_empty() || day > days_in(year, month) {
            return None;
        }
        let offset = i64::from(zone.unwrap_or(0)) * 60;
        let seconds = days_before(year, month, day) * 86_400 + seconds - offset;
        Some(Self { seconds, nanoseconds, zone })
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub(crate) fn unix_seconds(&self) -> i64 {
        self.seconds
    }
}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some((self.seconds, self.nanoseconds).cmp(&(other.seconds, other.nanoseconds)))
    }
}

struct Rest<'t>(&'t str);

impl Rest<'_> {
    fn skip(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn digits(&mut self) -> &str {
        let length = self.0.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        digits
    }

    /// At least four digits, and no more than make sense.
    fn year(&mut self) -> Option<i64> {
        let negative = self.skip("-").is_some();
        let digits = self.digits();
        let padded = digits.len() > 4 && digits.starts_with('0');
        if !(4..=9).contains(&digits.len()) || padded {
            return None;
        }
        let year: i64 = digits.parse().ok()?;
        Some(if negative { -year } else { year })
    }

    fn pair(&mut self, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let (pair, rest) = self.0.split_at_checked(2)?;
        if !pair.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        self.0 = rest;
        pair.parse().ok().filter(|value| range.contains(value))
    }

    fn time(&mut self) -> Option<(i64, u32)> {
        let hour = self.pair(0..=24)?;
        self.skip(":")?;
        let minute = self.pair(0..=59)?;
        self.skip(":")?;
        let second = self.pair(0..=59)?;
        let mut nanoseconds = 0;
        if self.skip(".").is_some() {
            let digits = self.digits();
            if digits.is_empty() {
                return None;
            }
            // More than nine digits are allowed and make no difference here.
            let known = digits.get(..9).unwrap_or(digits);
            nanoseconds = format!("{known:0<9}").parse().ok()?;
        }
        let seconds = (hour * 60 + minute) * 60 + second;
        // Midnight may be called 24:00:00; nothing is after it.
        (hour < 24 || (seconds == 86_400 && nanoseconds == 0)).then_some((seconds, nanoseconds))
    }

    fn zone(&mut self) -> Option<Option<i16>> {
        if self.0.is_empty() {
            return Some(None);
        }
        if self.skip("Z").is_some() {
            return Some(Some(0));
        }
        let sign = if self.skip("+").is_some() { 1 } else { self.skip("-").map(|()| -1)? };
        let hour = self.pair(0..=14)?;
        self.skip(":")?;
        let minute = self.pair(0..=59)?;
        let minutes = hour * 60 + minute;
        (minutes <= 14 * 60).then(|| i16::try_from(sign * minutes).ok())
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to that day of the Gregorian calendar, by the formula of Howard Hinnant's
/// `days_from_civil`: years begin in March, so that a leap day is a year's last.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_checked_against_the_calendar() {
        use Calendar::{Date, DateTime, Day, Month, MonthDay, Time, Year, YearMonth};
        for (calendar, text) in [
            (DateTime, "2024-02-29T12:30:00.5+02:00"),
            (DateTime, "2024-12-31T24:00:00"),
            (DateTime, "-0044-03-15T00:00:00Z"),
            (DateTime, "12024-01-01T00:00:00-14:00"),
            (Date, "2024-02-29"),
            (Date, "2024-01-01Z"),
            (Time, "23:59:59.999999999999"),
            (Time, "00:00:00+14:00"),
            (YearMonth, "2024-02"),
            (Year, "2024"),
            (Year, "-2024Z"),
            (MonthDay, "--02-29"),
            (Day, "---31"),
            (Month, "--12"),
        ] {
            assert!(Moment::parse(calendar, text).is_some(), "{text}");
        }
        for (calendar, text) in [
            (DateTime, "2024-02-30T00:00:00"),
            (DateTime, "2024-01-01 00:00:00"),
            (DateTime, "2024-01-01T24:00:01"),
            (DateTime, "2024-01-01T00:00"),
            (DateTime, "2024-01-01T00:00:60Z"),
            (DateTime, "2024-01-01T00:00:00+14:01"),
            (DateTime, "2024-01-01T00:00:00."),
            (Date, "2023-02-29"),
            (Date, "24-01-01"),
            (Date, "02024-01-01"),
            (Date, "2024-13-01"),
            (Date, "2024-1-1"),
            (Date, "2024-01-01x"),
            (Time, "25:00:00"),
            (Time, "1:00:00"),
            (Year, "99999999999"),
            (MonthDay, "--02-30"),
            (Day, "---32"),
            (Month, "--13"),
            (Date, "+2024-01-01"),
            (Date, ""),
            (Date, "２０２４-01-01"),
        ] {
            assert!(Moment::parse(calendar, text).is_none(), "{text}");
        }
    }

    #[test]
    fn moments_are_ordered_across_zones() {
        let moment = |text| Moment::parse(Calendar::DateTime, text).unwrap();
        assert_eq!(moment("1970-01-01T00:00:00Z").unix_seconds(), 0);
        assert_eq!(moment("2000-03-01T00:00:00Z").unix_seconds(), 951_868_800);
        assert_eq!(moment("1969-12-31T23:00:00-01:00").unix_seconds(), 0);
        assert!(moment("2024-01-01T12:00:00+02:00") < moment("2024-01-01T11:00:00Z"));
        assert!(moment("2024-01-01T12:00:00.2Z") > moment("2024-01-01T12:00:00.19Z"));
        assert_eq!(
            moment("2023-12-31T24:00:00Z").unix_seconds(),
            moment("2024-01-01T00:00:00Z").unix_seconds()
        );
    }

    #[test]
    fn days_follow_each_other() {
        let mut expected = days_before(1599, 12, 31);
        for year in 1600..2101 {
            for month in 1..=12 {
                for day in 1..=days_in(year, month) {
                    expected += 1;
                    assert_eq!(days_before(year, month, day), expected);
                }
            }
        }
    }
}
