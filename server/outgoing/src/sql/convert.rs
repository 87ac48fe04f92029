//! Values made what a column is declared to be, where the database itself has fewer types: SQLite's columns,
//! and those whose type a call names.

use crosstie_model::outgoing::{SqlType, SqlValue};
use time::PrimitiveDateTime;

use super::temporal;

/// Why a value is not what its column is declared to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the column {column:?} holds {found} that is no {wanted}; CAST it to another type, or name its type in `types`"
)]
pub(super) struct Mismatch {
    column: String,
    found: &'static str,
    wanted: &'static str,
}

/// `value` as a `wanted`; nothing stays nothing.
///
/// # Errors
/// It is none.
pub(super) fn convert(column: &str, value: SqlValue, wanted: SqlType) -> Result<SqlValue, Mismatch> {
    let found = word(&value);
    let converted = match (wanted, value) {
        (_, SqlValue::Null) => Some(SqlValue::Null),
        (SqlType::Bool, value) => to_bool(value),
        (SqlType::Int, value) => to_int(value),
        (SqlType::Float, value) => to_float(value),
        (SqlType::Decimal, value) => to_decimal(value),
        (SqlType::Text, value) => to_text(value),
        (SqlType::Bytes, SqlValue::Text(text)) => Some(SqlValue::Bytes(text.into_bytes().into())),
        (SqlType::Bytes, value @ SqlValue::Bytes(_)) => Some(value),
        (SqlType::Uuid, value) => to_uuid(value),
        (SqlType::Json, SqlValue::Text(text) | SqlValue::Json(text)) => Some(SqlValue::Json(text)),
        (SqlType::Json, SqlValue::Bytes(bytes)) => String::from_utf8(bytes.into()).ok().map(SqlValue::Json),
        (SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::Interval, value) => {
            to_temporal(value, wanted)
        }
        _ => None,
    };
    converted.ok_or_else(|| Mismatch { column: column.to_owned(), found, wanted: name(wanted) })
}

fn name(wanted: SqlType) -> &'static str {
    SqlType::ALL.into_iter().find_map(|(word, known)| (known == wanted).then_some(word)).unwrap_or_default()
}

/// What a value is, for a person.
pub(super) fn word(value: &SqlValue) -> &'static str {
    match value {
        SqlValue::Null => "nothing",
        SqlValue::Bool(_) => "a bool",
        SqlValue::Int(_) | SqlValue::UInt(_) => "a whole number",
        SqlValue::Float(_) => "a float",
        SqlValue::Decimal(_) => "a decimal",
        SqlValue::Text(_) => "text",
        SqlValue::Bytes(_) => "bytes",
        SqlValue::Date(_) => "a date",
        SqlValue::Time(_) | SqlValue::TimeTz(..) => "a time",
        SqlValue::Timestamp(_) | SqlValue::TimestampTz(_) => "a timestamp",
        SqlValue::Interval(_) => "an interval",
        SqlValue::Uuid(_) => "a UUID",
        SqlValue::Json(_) => "JSON",
        SqlValue::Array(_) => "an array",
    }
}

fn to_bool(value: SqlValue) -> Option<SqlValue> {
    match value {
        SqlValue::Bool(_) => Some(value),
        SqlValue::Int(0) => Some(SqlValue::Bool(false)),
        SqlValue::Int(1) => Some(SqlValue::Bool(true)),
        _ => None,
    }
}

fn to_int(value: SqlValue) -> Option<SqlValue> {
    match value {
        SqlValue::Int(_) | SqlValue::UInt(_) => Some(value),
        SqlValue::Bool(value) => Some(SqlValue::Int(value.into())),
        SqlValue::Text(text) | SqlValue::Decimal(text) => {
            let signed = text.parse().map(SqlValue::Int);
            signed.or_else(|_| text.parse().map(SqlValue::UInt)).ok()
        }
        _ => None,
    }
}

fn to_float(value: SqlValue) -> Option<SqlValue> {
    match value {
        SqlValue::Float(_) => Some(value),
        #[expect(clippy::cast_precision_loss, reason = "the caller asks for a float")]
        SqlValue::Int(number) => Some(SqlValue::Float(number as f64)),
        #[expect(clippy::cast_precision_loss, reason = "the caller asks for a float")]
        SqlValue::UInt(number) => Some(SqlValue::Float(number as f64)),
        SqlValue::Text(text) | SqlValue::Decimal(text) => text.parse().ok().map(SqlValue::Float),
        _ => None,
    }
}

/// A float becomes the shortest number that stands for it: what was stored has fifteen digits that count.
fn to_decimal(value: SqlValue) -> Option<SqlValue> {
    match value {
        SqlValue::Decimal(_) => Some(value),
        SqlValue::Int(number) => Some(SqlValue::Decimal(number.to_string())),
        SqlValue::UInt(number) => Some(SqlValue::Decimal(number.to_string())),
        SqlValue::Float(number) if number.is_finite() => Some(SqlValue::Decimal(number.to_string())),
        SqlValue::Text(text) if is_decimal(&text) => Some(SqlValue::Decimal(text)),
        _ => None,
    }
}

/// Whether `text` is a decimal number, or one of the words for what is none.
pub(super) fn is_decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, "NaN" | "Infinity") {
        return true;
    }
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    !exponent.is_empty()
        && digits(exponent)
        && whole.len() + fraction.len() > 0
        && digits(whole)
        && digits(fraction)
}

fn to_text(value: SqlValue) -> Option<SqlValue> {
    let text = match value {
        SqlValue::Text(text) | SqlValue::Decimal(text) | SqlValue::Json(text) => text,
        SqlValue::Int(number) => number.to_string(),
        SqlValue::UInt(number) => number.to_string(),
        SqlValue::Float(number) => number.to_string(),
        SqlValue::Bytes(bytes) => String::from_utf8(bytes.into()).ok()?,
        _ => return None,
    };
    Some(SqlValue::Text(text))
}

fn to_uuid(value: SqlValue) -> Option<SqlValue> {
    match value {
        SqlValue::Uuid(_) => Some(value),
        SqlValue::Text(text) => uuid(&text).map(SqlValue::Uuid),
        SqlValue::Bytes(bytes) => {
            <[u8; 16]>::try_from(bytes.as_ref()).ok().map(|bytes| SqlValue::Uuid(u128::from_be_bytes(bytes)))
        }
        _ => None,
    }
}

/// Thirty-two digits, with hyphens where RFC 9562 puts them or without.
pub(super) fn uuid(text: &str) -> Option<u128> {
    let is_hyphenated =
        text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes().get(*at) == Some(&b'-'));
    let digits: String = if is_hyphenated { text.split('-').collect() } else { text.to_owned() };
    let is_plain = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_plain.then(|| u128::from_str_radix(&digits, 16).ok()).flatten()
}

/// `f81d4fae-7dec-11d0-a765-00a0c91e6bf6`
pub(super) fn uuid_text(uuid: u128) -> String {
    let digits = format!("{uuid:032x}");
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn to_temporal(value: SqlValue, wanted: SqlType) -> Option<SqlValue> {
    match (wanted, &value) {
        (SqlType::Date, SqlValue::Date(_))
        | (SqlType::Time, SqlValue::Time(_) | SqlValue::TimeTz(..))
        | (SqlType::Timestamp, SqlValue::Timestamp(_) | SqlValue::TimestampTz(_))
        | (SqlType::Interval, SqlValue::Interval(_)) => Some(value),
        (SqlType::Time, SqlValue::Interval(span)) => {
            let is_time = !span.is_negative() && span.whole_days() == 0;
            is_time.then(|| SqlValue::Time(time::Time::MIDNIGHT + *span))
        }
        (SqlType::Interval, SqlValue::Time(time)) => Some(SqlValue::Interval(*time - time::Time::MIDNIGHT)),
        (SqlType::Date, SqlValue::Text(text)) => temporal::date(text).map(SqlValue::Date),
        (SqlType::Time, SqlValue::Text(text)) => temporal::time(text).map(SqlValue::Time),
        (SqlType::Interval, SqlValue::Text(text)) => temporal::span(text).map(SqlValue::Interval),
        (SqlType::Timestamp, SqlValue::Text(text)) => timestamp(text),
        _ => None,
    }
}

/// A day alone is its first moment, as SQLite has it.
fn timestamp(text: &str) -> Option<SqlValue> {
    if let Some(day) = temporal::date(text) {
        return Some(SqlValue::Timestamp(PrimitiveDateTime::new(day, time::Time::MIDNIGHT)));
    }
    Some(match temporal::timestamp(text)? {
        (timestamp, Some(offset)) => SqlValue::TimestampTz(timestamp.assume_offset(offset)),
        (timestamp, None) => SqlValue::Timestamp(timestamp),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::{date, datetime, time};

    fn text(text: &str) -> SqlValue {
        SqlValue::Text(text.to_owned())
    }

    #[test]
    fn values_become_what_their_column_is_declared_to_be() {
        let uuid = SqlValue::Uuid(0xf81d_4fae_7dec_11d0_a765_00a0_c91e_6bf6);
        let cases = [
            (SqlType::Bool, SqlValue::Int(1), SqlValue::Bool(true)),
            (SqlType::Int, text("18446744073709551615"), SqlValue::UInt(u64::MAX)),
            (SqlType::Float, SqlValue::Int(3), SqlValue::Float(3.0)),
            (SqlType::Decimal, SqlValue::Float(0.1), SqlValue::Decimal("0.1".into())),
            (SqlType::Decimal, text("-1.10"), SqlValue::Decimal("-1.10".into())),
            (SqlType::Uuid, text("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), uuid.clone()),
            (SqlType::Uuid, text("F81D4FAE7DEC11D0A76500A0C91E6BF6"), uuid),
            (SqlType::Json, text("[1]"), SqlValue::Json("[1]".into())),
            (SqlType::Date, text("2026-02-28"), SqlValue::Date(date!(2026 - 02 - 28))),
            (SqlType::Timestamp, text("2026-02-28"), SqlValue::Timestamp(datetime!(2026-02-28 0:00))),
            (
                SqlType::Timestamp,
                text("2026-02-28T01:02:03Z"),
                SqlValue::TimestampTz(datetime!(2026-02-28 01:02:03 UTC)),
            ),
            (SqlType::Time, SqlValue::Interval(time::Duration::hours(3)), SqlValue::Time(time!(3:00))),
            (SqlType::Date, SqlValue::Null, SqlValue::Null),
        ];
        for (wanted, value, result) in cases {
            assert_eq!(convert("c", value.clone(), wanted), Ok(result), "{value:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_names_its_column() {
        let cases = [
            (SqlType::Bool, SqlValue::Int(2)),
            (SqlType::Int, SqlValue::Float(1.5)),
            (SqlType::Decimal, text("1,5")),
            (SqlType::Decimal, text("")),
            (SqlType::Decimal, SqlValue::Float(f64::NAN)),
            (SqlType::Uuid, text("f81d4fae-7dec11d0-a765-00a0-c91e6bf6")),
            (SqlType::Date, text("yesterday")),
            (SqlType::Date, SqlValue::Int(1_700_000_000)),
            (SqlType::Time, SqlValue::Interval(time::Duration::hours(24))),
            (SqlType::Json, SqlValue::Int(1)),
        ];
        for (wanted, value) in cases {
            let error = convert("born", value.clone(), wanted).expect_err(&format!("{value:?}"));
            assert!(error.to_string().contains("\"born\""), "{error}");
        }
    }

    #[test]
    fn a_uuid_survives_its_text() {
        for number in [0, 1, u128::MAX, 0xf81d_4fae_7dec_11d0_a765_00a0_c91e_6bf6] {
            assert_eq!(uuid(&uuid_text(number)), Some(number));
        }
    }
}
