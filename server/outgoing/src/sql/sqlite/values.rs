//! Values on their way to SQLite and back.
//!
//! SQLite keeps five kinds of values; what a column is beyond that it says in its declaration alone. So a text
//! in a column declared DATE is a date here, and so on; what a column holds that is not such a text is given
//! as it is kept.

use crosstie_model::outgoing::{SqlType, SqlValue};
use rusqlite::types::{Value, ValueRef};

use crate::sql::convert::{Mismatch, convert, uuid_text};
use crate::sql::{json, temporal};

/// A column of a result.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// Its name.
    pub(super) name: String,
    /// What it is declared to be, in types that are not SQLite's own.
    declared: Option<SqlType>,
    /// The type that the call names for it.
    wanted: Option<SqlType>,
}

impl Column {
    /// A column called `name` with the declaration `declared`.
    pub(super) fn new(name: &str, declared: Option<&str>, wanted: Option<SqlType>) -> Self {
        Self { name: name.to_owned(), declared: declared.and_then(declared_type), wanted }
    }

    /// The value that is kept as `value`.
    ///
    /// # Errors
    /// It is not what its column is declared to be, or the call says.
    pub(super) fn value(&self, value: ValueRef<'_>) -> Result<SqlValue, Mismatch> {
        let kept = match value {
            ValueRef::Null => return Ok(SqlValue::Null),
            ValueRef::Integer(number) => SqlValue::Int(number),
            ValueRef::Real(number) => SqlValue::Float(number),
            ValueRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => SqlValue::Text(text.to_owned()),
                // SQLite takes any bytes for text.
                Err(_) => SqlValue::Bytes(text.to_vec().into()),
            },
            ValueRef::Blob(bytes) => SqlValue::Bytes(bytes.to_vec().into()),
        };
        let declared = self.declared.filter(|declared| is_form_of(*declared, &kept));
        match self.wanted.or(declared) {
            Some(wanted) => convert(&self.name, kept, wanted),
            None => Ok(kept),
        }
    }
}

/// Whether values of a type are kept as `kept` is.
fn is_form_of(declared: SqlType, kept: &SqlValue) -> bool {
    matches!(
        (declared, kept),
        (SqlType::Bool, SqlValue::Int(0 | 1))
            | (SqlType::Decimal, SqlValue::Int(_) | SqlValue::Float(_) | SqlValue::Text(_))
            | (SqlType::Uuid, SqlValue::Text(_) | SqlValue::Bytes(_))
            | (
                SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::Interval | SqlType::Json,
                SqlValue::Text(_)
            )
    )
}

/// The type that a declaration such as `DECIMAL(10, 2)` names.
fn declared_type(declaration: &str) -> Option<SqlType> {
    let word: String = declaration.chars().take_while(|letter| letter.is_ascii_alphanumeric()).collect();
    match word.to_ascii_uppercase().as_str() {
        "BOOL" | "BOOLEAN" => Some(SqlType::Bool),
        "DECIMAL" | "NUMERIC" => Some(SqlType::Decimal),
        "DATE" => Some(SqlType::Date),
        "TIME" => Some(SqlType::Time),
        "DATETIME" | "TIMESTAMP" | "TIMESTAMPTZ" => Some(SqlType::Timestamp),
        "INTERVAL" => Some(SqlType::Interval),
        "UUID" | "GUID" => Some(SqlType::Uuid),
        "JSON" => Some(SqlType::Json),
        _ => None,
    }
}

/// A value as SQLite keeps it.
///
/// # Errors
/// Why it cannot.
pub(super) fn parameter(value: &SqlValue) -> Result<Value, String> {
    let written = |write: &dyn Fn(&mut String)| {
        let mut text = String::new();
        write(&mut text);
        Value::Text(text)
    };
    Ok(match value {
        SqlValue::Null => Value::Null,
        SqlValue::Bool(value) => Value::Integer((*value).into()),
        SqlValue::Int(number) => Value::Integer(*number),
        // It would be kept as nothing.
        SqlValue::Float(number) if number.is_nan() => {
            return Err("is not a number, which SQLite has no place for".to_owned());
        }
        SqlValue::Float(number) => Value::Real(*number),
        SqlValue::UInt(number) => return Err(format!("is {number}, and SQLite's numbers end at 2^63")),
        SqlValue::Decimal(text) | SqlValue::Text(text) | SqlValue::Json(text) => Value::Text(text.clone()),
        SqlValue::Bytes(bytes) => Value::Blob(bytes.to_vec()),
        SqlValue::Date(date) => written(&|out| temporal::write_date(out, *date)),
        SqlValue::Time(time) => written(&|out| temporal::write_time(out, *time)),
        SqlValue::TimeTz(..) => return Err("is a time with a zone, which SQLite does not have".to_owned()),
        SqlValue::Timestamp(timestamp) => written(&|out| temporal::write_timestamp(out, *timestamp)),
        // All in one zone, so that texts sort as moments do.
        SqlValue::TimestampTz(moment) => {
            let utc = temporal::in_utc(*moment).ok_or("is beyond the year 9999 in UTC")?;
            written(&|out| temporal::write_moment(out, utc.assume_utc()))
        }
        SqlValue::Interval(span) => written(&|out| temporal::write_span(out, *span)),
        SqlValue::Uuid(uuid) => Value::Text(uuid_text(*uuid)),
        SqlValue::Array(items) => {
            let mut text = String::new();
            json::write_list(&mut text, items)?;
            Value::Text(text)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::{date, datetime};

    #[test]
    fn a_declared_type_counts_for_texts_alone() {
        let read = |declared: &str, value: ValueRef<'_>| Column::new("c", Some(declared), None).value(value);
        let text = |text: &'static str| ValueRef::Text(text.as_bytes());
        assert_eq!(read("DATE", text("2026-02-28")), Ok(SqlValue::Date(date!(2026 - 02 - 28))));
        assert_eq!(read("date", ValueRef::Integer(1_700_000_000)), Ok(SqlValue::Int(1_700_000_000)));
        assert_eq!(read("decimal(10, 2)", ValueRef::Real(1.1)), Ok(SqlValue::Decimal("1.1".into())));
        assert_eq!(read("DECIMAL_TEXT", text("1.10")), Ok(SqlValue::Decimal("1.10".into())));
        assert_eq!(read("BOOLEAN", ValueRef::Integer(2)), Ok(SqlValue::Int(2)));
        assert_eq!(read("BOOLEAN", ValueRef::Null), Ok(SqlValue::Null));
        assert_eq!(read("VARCHAR(3)", text("1")), Ok(SqlValue::Text("1".into())));
        assert!(read("DATE", text("yesterday")).is_err());
    }

    #[test]
    fn what_sqlite_would_change_is_refused() {
        for value in [SqlValue::UInt(u64::MAX), SqlValue::Float(f64::NAN)] {
            assert!(parameter(&value).is_err(), "{value:?}");
        }
        let late = SqlValue::TimestampTz(datetime!(9999-12-31 23:59:59 -01:00));
        assert!(parameter(&late).unwrap_err().contains("9999"));
        let moment = SqlValue::TimestampTz(datetime!(2026-02-28 1:02:03 +02:00));
        assert_eq!(parameter(&moment), Ok(Value::Text("2026-02-27 23:02:03+00:00".into())));
    }
}
