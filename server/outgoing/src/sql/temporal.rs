//! Days, times and spans as text: what is sent to databases that take text, and what comes from those that
//! keep them so. All to the microsecond, which is as far as services and these databases go.

use std::fmt::Write as _;

use time::{Date, Duration, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

/// `2026-02-28`
pub(super) fn write_date(out: &mut String, date: Date) {
    let _ = write!(out, "{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day());
}

/// `07:08:09` or `07:08:09.000010`
pub(super) fn write_time(out: &mut String, time: Time) {
    let _ = write!(out, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
    if time.microsecond() != 0 {
        let _ = write!(out, ".{:06}", time.microsecond());
    }
}

/// `+02:00` or `-05:30:15`
pub(super) fn write_offset(out: &mut String, offset: UtcOffset) {
    let (hours, minutes, seconds) = offset.as_hms();
    let sign = if offset.is_negative() { '-' } else { '+' };
    let _ = write!(out, "{sign}{:02}:{:02}", hours.unsigned_abs(), minutes.unsigned_abs());
    if seconds != 0 {
        let _ = write!(out, ":{:02}", seconds.unsigned_abs());
    }
}

/// `2026-02-28 07:08:09.000010`
pub(super) fn write_timestamp(out: &mut String, timestamp: PrimitiveDateTime) {
    write_date(out, timestamp.date());
    out.push(' ');
    write_time(out, timestamp.time());
}

/// A moment with its offset: `2026-02-28 07:08:09.000010+02:00`
pub(super) fn write_moment(out: &mut String, moment: OffsetDateTime) {
    write_timestamp(out, PrimitiveDateTime::new(moment.date(), moment.time()));
    write_offset(out, moment.offset());
}

/// A moment as UTC has it; none within hours of the year 10000 or -9999.
pub(super) fn in_utc(moment: OffsetDateTime) -> Option<PrimitiveDateTime> {
    let moment = moment.checked_to_offset(UtcOffset::UTC)?;
    Some(PrimitiveDateTime::new(moment.date(), moment.time()))
}

/// `-12:34:56.000007`, in hours as many as there are.
pub(super) fn write_span(out: &mut String, span: Duration) {
    let (seconds, micros) = (span.whole_seconds().unsigned_abs(), span.subsec_microseconds().unsigned_abs());
    if span.is_negative() {
        out.push('-');
    }
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if micros != 0 {
        let _ = write!(out, ".{micros:06}");
    }
}

/// Reads what [`write_date`] writes.
pub(super) fn date(text: &str) -> Option<Date> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if year.len() != 4 {
        return None;
    }
    Date::from_calendar_date(number(year)?, Month::try_from(number::<u8>(month)?).ok()?, number(day)?).ok()
}

/// Reads what [`write_time`] writes, with the seconds left out perhaps, or with more digits.
pub(super) fn time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.splitn(3, ':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
    Time::from_hms_micro(number(hour)?, number(minute)?, number(second)?, micros(fraction)?).ok()
}

/// Reads a day and a time, with an offset or without: `Z`, `+02:00`, `+0200`.
pub(super) fn timestamp(text: &str) -> Option<(PrimitiveDateTime, Option<UtcOffset>)> {
    let (day, rest) = text.split_once([' ', 'T'])?;
    let (clock, offset) = match rest.find(['Z', '+', '-']) {
        Some(index) => (rest.get(..index)?, Some(offset(rest.get(index..)?)?)),
        None => (rest, None),
    };
    Some((PrimitiveDateTime::new(date(day)?, time(clock.trim_end())?), offset))
}

/// Reads what [`write_span`] writes.
pub(super) fn span(text: &str) -> Option<Duration> {
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.splitn(3, ':');
    let hours: i64 = number(parts.next()?)?;
    let (minutes, seconds): (i64, i64) = (number(parts.next()?)?, number(parts.next().unwrap_or("0"))?);
    if minutes > 59 || seconds > 59 {
        return None;
    }
    let seconds = hours.checked_mul(3600)?.checked_add(minutes * 60 + seconds)?;
    let span = Duration::seconds(seconds).checked_add(Duration::microseconds(micros(fraction)?.into()))?;
    Some(if is_negative { -span } else { span })
}

fn offset(text: &str) -> Option<UtcOffset> {
    if text == "Z" {
        return Some(UtcOffset::UTC);
    }
    let sign: i8 = if text.starts_with('-') { -1 } else { 1 };
    let digits: String = text.get(1..)?.chars().filter(|letter| *letter != ':').collect();
    let part = |start: usize| digits.get(start..start + 2).map_or(Some(0), number::<i8>);
    if !matches!(digits.len(), 2 | 4 | 6) {
        return None;
    }
    let offset = UtcOffset::from_hms(sign * part(0)?, sign * part(2)?, sign * part(4)?).ok()?;
    (offset.whole_seconds().abs() < 86_400).then_some(offset)
}

/// Digits behind the point, as microseconds; further ones are dropped.
fn micros(fraction: &str) -> Option<u32> {
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    number(&digits)
}

/// A number without a sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::macros::{date as day, datetime, offset as at, time as clock};

    fn text<T>(write: fn(&mut String, T), value: T) -> String {
        let mut out = String::new();
        write(&mut out, value);
        out
    }

    #[test]
    fn texts_are_what_databases_read() {
        assert_eq!(text(write_date, day!(0001 - 02 - 03)), "0001-02-03");
        assert_eq!(text(write_time, clock!(07:08:09.000010)), "07:08:09.000010");
        let moment = datetime!(2026-01-01 00:30:00 +02:00);
        assert_eq!(text(write_moment, moment), "2026-01-01 00:30:00+02:00");
        assert_eq!(in_utc(moment), Some(datetime!(2025-12-31 22:30:00)));
        assert_eq!(in_utc(datetime!(9999-12-31 23:00:00 -02:00)), None);
        assert_eq!(text(write_offset, at!(-05:30:15)), "-05:30:15");
        assert_eq!(text(write_span, Duration::microseconds(-90_061_000_007)), "-25:01:01.000007");
    }

    #[test]
    fn what_is_no_day_or_time_is_refused() {
        for wrong in ["", "2026-13-01", "2026-02-30", "26-02-01", "2026-2", "+2026-02-01", "2026-02-01x"] {
            assert_eq!(date(wrong), None, "{wrong}");
        }
        for wrong in ["", "24:00:00", "12", "12:60:00", "12:00:00.x", "-1:00"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
        for wrong in ["2026-02-01", "2026-02-01 12:00:00+1", "2026-02-01 12:00:00+25:00", "x 12:00"] {
            assert_eq!(timestamp(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn offsets_are_read_in_every_usual_form() {
        for (text, wanted) in
            [("Z", at!(UTC)), ("+02", at!(+2)), ("-0530", at!(-5:30)), ("+05:45", at!(+5:45))]
        {
            let read = timestamp(&format!("2026-02-01T12:00:00{text}"));
            assert_eq!(read, Some((datetime!(2026-02-01 12:00:00), Some(wanted))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_and_span_survives(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap();
            let read = timestamp(&text(write_moment, moment));
            prop_assert_eq!(read.map(|(read, _)| read), in_utc(moment));
            prop_assert_eq!(time(&text(write_time, moment.time())), Some(moment.time()));
            let length = Duration::microseconds(micros);
            prop_assert_eq!(span(&text(write_span, length)), Some(length));
        }
    }
}
