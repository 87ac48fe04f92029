//! Values on their way to MariaDB and MySQL and back.
//!
//! Their wire has numbers, texts and times, and says too little of some columns: JSON, UUID and INET columns
//! of MariaDB come as text, and BOOLEAN is a number of one digit. What a column is beyond that, a call says in
//! `types`.

use crosstie_model::outgoing::{SqlType, SqlValue};
use mysql_async::Value;
use mysql_async::consts::{ColumnFlags, ColumnType};
use time::{Date, Duration, Month, PrimitiveDateTime, Time};

use crate::sql::convert::{self, is_decimal, uuid_text, word};
use crate::sql::{json, temporal};

/// The character set that says that a column holds bytes and no text.
const BINARY: u16 = 63;

/// The character set and collation numbers aside, what a column of a result is.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// Its name.
    pub(super) name: String,
    kind: Kind,
    /// The type that the call names for it.
    wanted: Option<SqlType>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    /// One digit: how BOOLEAN is kept.
    Digit,
    Float,
    Decimal,
    Text,
    Bytes,
    Bits,
    Date,
    Time,
    Timestamp,
    /// TIMESTAMP, which is kept in UTC.
    Moment,
    Json,
    Nothing,
}

/// Why a value cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    /// Services have no type for a column.
    #[error("the column {column:?} is of type {found}, which has no counterpart here: CAST it")]
    Type {
        /// The column.
        column: String,
        /// Its type.
        found: String,
    },
    /// Services' types have no room for a value.
    #[error("the column {column:?} holds {found}, which has no counterpart here: CAST it")]
    Value {
        /// The column.
        column: String,
        /// What it holds.
        found: &'static str,
    },
    /// A value is not what the call says it is.
    #[error(transparent)]
    Mismatch(#[from] convert::Mismatch),
}

impl Column {
    /// What the server says of a column.
    ///
    /// # Errors
    /// Its type is none of services'.
    pub(super) fn of(column: &mysql_async::Column, wanted: Option<SqlType>) -> Result<Self, ValueError> {
        use ColumnType as T;
        let name = column.name_str().into_owned();
        let is_binary = column.character_set() == BINARY;
        let is_unsigned = column.flags().contains(ColumnFlags::UNSIGNED_FLAG);
        let kind = match column.column_type() {
            T::MYSQL_TYPE_TINY if column.column_length() == 1 && !is_unsigned => Kind::Digit,
            T::MYSQL_TYPE_TINY
            | T::MYSQL_TYPE_SHORT
            | T::MYSQL_TYPE_INT24
            | T::MYSQL_TYPE_LONG
            | T::MYSQL_TYPE_LONGLONG
            | T::MYSQL_TYPE_YEAR => Kind::Int,
            T::MYSQL_TYPE_FLOAT | T::MYSQL_TYPE_DOUBLE => Kind::Float,
            T::MYSQL_TYPE_DECIMAL | T::MYSQL_TYPE_NEWDECIMAL => Kind::Decimal,
            T::MYSQL_TYPE_DATE | T::MYSQL_TYPE_NEWDATE => Kind::Date,
            T::MYSQL_TYPE_TIME | T::MYSQL_TYPE_TIME2 => Kind::Time,
            T::MYSQL_TYPE_DATETIME | T::MYSQL_TYPE_DATETIME2 => Kind::Timestamp,
            T::MYSQL_TYPE_TIMESTAMP | T::MYSQL_TYPE_TIMESTAMP2 => Kind::Moment,
            T::MYSQL_TYPE_BIT => Kind::Bits,
            T::MYSQL_TYPE_JSON => Kind::Json,
            T::MYSQL_TYPE_ENUM | T::MYSQL_TYPE_SET => Kind::Text,
            T::MYSQL_TYPE_NULL => Kind::Nothing,
            T::MYSQL_TYPE_VARCHAR
            | T::MYSQL_TYPE_VAR_STRING
            | T::MYSQL_TYPE_STRING
            | T::MYSQL_TYPE_TINY_BLOB
            | T::MYSQL_TYPE_MEDIUM_BLOB
            | T::MYSQL_TYPE_LONG_BLOB
            | T::MYSQL_TYPE_BLOB => {
                if is_binary {
                    Kind::Bytes
                } else {
                    Kind::Text
                }
            }
            other => {
                let found = format!("{other:?}").trim_start_matches("MYSQL_TYPE_").to_lowercase();
                return Err(ValueError::Type { column: name, found });
            }
        };
        Ok(Self { name, kind, wanted })
    }

    /// The value that the server sent.
    ///
    /// # Errors
    /// It has no counterpart.
    pub(super) fn value(&self, value: Value) -> Result<SqlValue, ValueError> {
        let value = match value {
            Value::NULL => SqlValue::Null,
            Value::Bytes(bytes) => self.of_bytes(bytes)?,
            Value::Int(number) => self.of_int(number),
            Value::UInt(number) => match i64::try_from(number) {
                Ok(number) => self.of_int(number),
                Err(_) => SqlValue::UInt(number),
            },
            // The double that is written as the float is: 0.1 stays 0.1.
            Value::Float(number) => {
                SqlValue::Float(number.to_string().parse().unwrap_or_else(|_| f64::from(number)))
            }
            Value::Double(number) => SqlValue::Float(number),
            Value::Date(year, month, day, hour, minute, second, micros) => {
                let timestamp = timestamp(year, [month, day, hour, minute, second], micros);
                let Some(timestamp) = timestamp else {
                    return Err(self.refused("a date that is in no calendar"));
                };
                match self.kind {
                    Kind::Date => SqlValue::Date(timestamp.date()),
                    Kind::Moment => SqlValue::TimestampTz(timestamp.assume_utc()),
                    _ => SqlValue::Timestamp(timestamp),
                }
            }
            Value::Time(is_negative, days, hours, minutes, seconds, micros) => {
                let whole = Duration::days(days.into())
                    + Duration::hours(hours.into())
                    + Duration::minutes(minutes.into())
                    + Duration::seconds(seconds.into())
                    + Duration::microseconds(micros.into());
                SqlValue::Interval(if is_negative { -whole } else { whole })
            }
        };
        match self.wanted {
            Some(wanted) => Ok(convert::convert(&self.name, value, wanted)?),
            None => Ok(value),
        }
    }

    fn refused(&self, found: &'static str) -> ValueError {
        ValueError::Value { column: self.name.clone(), found }
    }

    /// One digit is a bool if it is 0 or 1; any other is not lost.
    fn of_int(&self, number: i64) -> SqlValue {
        match (self.kind, number) {
            (Kind::Digit, 0 | 1) => SqlValue::Bool(number == 1),
            _ => SqlValue::Int(number),
        }
    }

    fn of_bytes(&self, bytes: Vec<u8>) -> Result<SqlValue, ValueError> {
        if self.kind == Kind::Bytes {
            return Ok(SqlValue::Bytes(bytes.into()));
        }
        if self.kind == Kind::Bits {
            return self.of_bits(&bytes);
        }
        let text = String::from_utf8(bytes).map_err(|_| self.refused("text that is no UTF-8"))?;
        let malformed = || self.refused("text that is not what its type promises");
        // Numbers and times come as text where a statement could not be prepared.
        Ok(match self.kind {
            Kind::Decimal if is_decimal(&text) => SqlValue::Decimal(text),
            Kind::Json => SqlValue::Json(text),
            Kind::Int | Kind::Digit => match text.parse() {
                Ok(number) => self.of_int(number),
                Err(_) => SqlValue::UInt(text.parse().map_err(|_| malformed())?),
            },
            Kind::Float => SqlValue::Float(text.parse().map_err(|_| malformed())?),
            Kind::Date => SqlValue::Date(temporal::date(&text).ok_or_else(malformed)?),
            Kind::Time => SqlValue::Interval(temporal::span(&text).ok_or_else(malformed)?),
            Kind::Timestamp | Kind::Moment => match temporal::timestamp(&text) {
                Some((timestamp, _)) if self.kind == Kind::Moment => {
                    SqlValue::TimestampTz(timestamp.assume_utc())
                }
                Some((timestamp, _)) => SqlValue::Timestamp(timestamp),
                None => return Err(malformed()),
            },
            Kind::Decimal => return Err(malformed()),
            Kind::Text | Kind::Bytes | Kind::Bits | Kind::Nothing => SqlValue::Text(text),
        })
    }

    fn of_bits(&self, bytes: &[u8]) -> Result<SqlValue, ValueError> {
        let mut number = [0; 8];
        let start = number.len().checked_sub(bytes.len()).ok_or_else(|| self.refused("more than 64 bits"))?;
        if let Some(end) = number.get_mut(start..) {
            end.copy_from_slice(bytes);
        }
        let number = u64::from_be_bytes(number);
        Ok(i64::try_from(number).map_or(SqlValue::UInt(number), SqlValue::Int))
    }
}

fn timestamp(year: u16, parts: [u8; 5], micros: u32) -> Option<PrimitiveDateTime> {
    let [month, day, hour, minute, second] = parts;
    // The database has days and months of number 0.
    let date = Date::from_calendar_date(year.into(), Month::try_from(month).ok()?, day).ok()?;
    let time = Time::from_hms_micro(hour, minute, second, micros).ok()?;
    (date.year() >= 1).then(|| PrimitiveDateTime::new(date, time))
}

/// A value as the server takes it. A moment is sent as UTC has it, which is the session's time zone.
///
/// # Errors
/// Why it takes none such.
pub(super) fn parameter(value: &SqlValue) -> Result<Value, String> {
    Ok(match value {
        SqlValue::Null => Value::NULL,
        SqlValue::Bool(value) => Value::Int((*value).into()),
        SqlValue::Int(number) => Value::Int(*number),
        SqlValue::UInt(number) => Value::UInt(*number),
        SqlValue::Float(number) if number.is_finite() => Value::Double(*number),
        SqlValue::Decimal(text) | SqlValue::Text(text) | SqlValue::Json(text) => {
            Value::Bytes(text.as_bytes().to_vec())
        }
        SqlValue::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
        SqlValue::Date(date) => date_value(PrimitiveDateTime::new(*date, Time::MIDNIGHT)),
        SqlValue::Timestamp(timestamp) => date_value(*timestamp),
        SqlValue::TimestampTz(moment) => {
            date_value(temporal::in_utc(*moment).ok_or("is beyond the year 9999 in UTC")?)
        }
        SqlValue::Time(time) => span_value(*time - Time::MIDNIGHT)?,
        SqlValue::Interval(span) => span_value(*span)?,
        SqlValue::Uuid(uuid) => Value::Bytes(uuid_text(*uuid).into_bytes()),
        SqlValue::Array(items) => {
            let mut text = String::new();
            json::write_list(&mut text, items)?;
            Value::Bytes(text.into_bytes())
        }
        SqlValue::Float(_) | SqlValue::TimeTz(..) => {
            return Err(format!("is {}, which this database does not take", unfit(value)));
        }
    })
}

fn unfit(value: &SqlValue) -> &'static str {
    match value {
        SqlValue::Float(_) => "no finite number",
        SqlValue::TimeTz(..) => "a time with a zone",
        other => word(other),
    }
}

fn date_value(at: PrimitiveDateTime) -> Value {
    let year = u16::try_from(at.year()).unwrap_or_default();
    Value::Date(year, at.month().into(), at.day(), at.hour(), at.minute(), at.second(), at.microsecond())
}

/// The longest span is 838 hours and a bit less than 60 minutes; the server would cut a longer one short.
fn span_value(span: Duration) -> Result<Value, String> {
    let length = span.abs();
    if length >= Duration::hours(839) {
        return Err("is longer than 838:59:59, the longest time this database has".to_owned());
    }
    let small = |number: i64| u8::try_from(number).unwrap_or_default();
    let (days, seconds) = (length.whole_days(), length.whole_seconds());
    Ok(Value::Time(
        span.is_negative(),
        u32::try_from(days).unwrap_or_default(),
        small(length.whole_hours() % 24),
        small(length.whole_minutes() % 60),
        small(seconds % 60),
        u32::try_from(length.subsec_microseconds()).unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::{datetime, time as clock};

    fn column(kind: ColumnType) -> mysql_async::Column {
        mysql_async::Column::new(kind).with_name(b"c").with_character_set(33).with_column_length(11)
    }

    fn read(column: &mysql_async::Column, value: Value) -> Result<SqlValue, ValueError> {
        Column::of(column, None).unwrap().value(value)
    }

    #[test]
    fn one_digit_is_a_bool_unless_it_is_another() {
        let digit = column(ColumnType::MYSQL_TYPE_TINY).with_column_length(1);
        assert_eq!(read(&digit, Value::Int(1)), Ok(SqlValue::Bool(true)));
        assert_eq!(read(&digit, Value::Int(7)), Ok(SqlValue::Int(7)));
        assert_eq!(read(&column(ColumnType::MYSQL_TYPE_TINY), Value::Int(1)), Ok(SqlValue::Int(1)));
    }

    #[test]
    fn bytes_and_text_are_told_apart_by_their_character_set() {
        let blob = column(ColumnType::MYSQL_TYPE_BLOB);
        assert_eq!(read(&blob, Value::Bytes(b"x".to_vec())), Ok(SqlValue::Text("x".into())));
        let blob = blob.with_character_set(BINARY);
        assert_eq!(read(&blob, Value::Bytes(b"\xff".to_vec())), Ok(SqlValue::Bytes(vec![0xff].into())));
        let bits = column(ColumnType::MYSQL_TYPE_BIT);
        assert_eq!(read(&bits, Value::Bytes(vec![1, 0])), Ok(SqlValue::Int(256)));
    }

    #[test]
    fn what_has_no_counterpart_is_an_error_that_names_its_column() {
        let zero = read(&column(ColumnType::MYSQL_TYPE_DATE), Value::Date(0, 0, 0, 0, 0, 0, 0));
        assert!(zero.unwrap_err().to_string().contains("\"c\""));
        let geometry = Column::of(&column(ColumnType::MYSQL_TYPE_GEOMETRY), None).unwrap_err();
        assert!(geometry.to_string().contains("geometry"), "{geometry}");
    }

    #[test]
    fn times_survive_the_way_there_and_back() {
        let time = column(ColumnType::MYSQL_TYPE_TIME);
        for micros in [0, 1, -1, 59_999_999, 3_020_399_000_000, -3_020_399_000_000] {
            let span = SqlValue::Interval(Duration::microseconds(micros));
            assert_eq!(read(&time, parameter(&span).unwrap()), Ok(span));
        }
        assert!(parameter(&SqlValue::Interval(Duration::hours(839))).is_err());
        let moment = SqlValue::TimestampTz(datetime!(2026-02-28 1:02:03.000004 +02:00));
        let read = read(&column(ColumnType::MYSQL_TYPE_TIMESTAMP), parameter(&moment).unwrap());
        assert_eq!(read, Ok(SqlValue::TimestampTz(datetime!(2026-02-27 23:02:03.000004 UTC))));
        let wanted = Column::of(&time, Some(SqlType::Time)).unwrap();
        let clock = SqlValue::Time(clock!(1:02:03));
        assert_eq!(wanted.value(parameter(&clock).unwrap()), Ok(clock));
    }
}
