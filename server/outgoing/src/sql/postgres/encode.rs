//! Values on their way to PostgreSQL. A statement's parameters have types that the server infers, helped by
//! those of the values where it would find none; a value then goes as text, which the server reads by its own
//! rules for that type, so that text fits an enum, an address or a range as well as a `text`. Bytes alone go
//! in binary.

use std::error::Error;
use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};
use crosstie_model::outgoing::SqlValue;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type, to_sql_checked};

use crate::sql::convert::{uuid_text, word};
use crate::sql::{json, temporal};

/// The type that `value` suggests, as a literal of it would have; the server finds a better one where a column
/// or a cast says more.
pub(super) fn suggested(value: &SqlValue) -> Type {
    match value {
        SqlValue::Bool(_) => Type::BOOL,
        SqlValue::Int(number) if i32::try_from(*number).is_ok() => Type::INT4,
        SqlValue::Int(_) => Type::INT8,
        SqlValue::UInt(_) | SqlValue::Decimal(_) => Type::NUMERIC,
        SqlValue::Float(_) => Type::FLOAT8,
        SqlValue::Bytes(_) => Type::BYTEA,
        SqlValue::Date(_) => Type::DATE,
        SqlValue::Time(_) => Type::TIME,
        SqlValue::TimeTz(..) => Type::TIMETZ,
        SqlValue::Timestamp(_) => Type::TIMESTAMP,
        SqlValue::TimestampTz(_) => Type::TIMESTAMPTZ,
        SqlValue::Interval(_) => Type::INTERVAL,
        SqlValue::Uuid(_) => Type::UUID,
        SqlValue::Null | SqlValue::Text(_) | SqlValue::Json(_) | SqlValue::Array(_) => Type::UNKNOWN,
    }
}

/// A value as a parameter.
#[derive(Debug)]
pub(super) struct Parameter<'v>(pub(super) &'v SqlValue);

impl ToSql for Parameter<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0 {
            SqlValue::Null => return Ok(IsNull::Yes),
            SqlValue::Bytes(bytes) => out.put_slice(bytes),
            value => {
                let mut text = String::new();
                write_value(&mut text, value, is_json(ty))?;
                // The protocol's texts may hold anything but this, which would end them.
                if text.contains('\0') {
                    return Err("holds a NUL character, which PostgreSQL has no place for".into());
                }
                out.put_slice(text.as_bytes());
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        if matches!(self.0, SqlValue::Bytes(_)) { Format::Binary } else { Format::Text }
    }

    to_sql_checked!();
}

/// Whether a parameter of type `ty` can take `value` at all: what would be read as something else is refused
/// here.
///
/// # Errors
/// Why not.
pub(super) fn check(value: &SqlValue, ty: &Type) -> Result<(), String> {
    let ty = base(ty);
    let takes = match value {
        SqlValue::Bytes(_) => *ty == Type::BYTEA,
        SqlValue::Array(_) => is_json(ty) || matches!(ty.kind(), Kind::Array(_)),
        _ => true,
    };
    if takes { Ok(()) } else { Err(format!("is {}, which PostgreSQL does not take as {ty}", word(value))) }
}

fn is_json(ty: &Type) -> bool {
    matches!(*base(ty), Type::JSON | Type::JSONB)
}

/// What a domain is made of.
pub(super) fn base(ty: &Type) -> &Type {
    match ty.kind() {
        Kind::Domain(inner) => base(inner),
        _ => ty,
    }
}

type Written = Result<(), Box<dyn Error + Sync + Send>>;

/// Writes `value` as PostgreSQL reads it; an array as JSON has it where `as_json` says so.
fn write_value(out: &mut String, value: &SqlValue, as_json: bool) -> Written {
    match value {
        SqlValue::Null => {}
        SqlValue::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        SqlValue::Int(number) => write!(out, "{number}")?,
        SqlValue::UInt(number) => write!(out, "{number}")?,
        SqlValue::Float(number) if number.is_nan() => out.push_str("NaN"),
        SqlValue::Float(number) if number.is_infinite() => {
            out.push_str(if *number > 0.0 { "Infinity" } else { "-Infinity" });
        }
        // With an exponent where the digits would be many.
        SqlValue::Float(number) => write!(out, "{number:?}")?,
        SqlValue::Decimal(text) | SqlValue::Text(text) | SqlValue::Json(text) => out.push_str(text),
        SqlValue::Bytes(bytes) => {
            out.push_str("\\x");
            bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
        }
        SqlValue::Date(date) => temporal::write_date(out, *date),
        SqlValue::Time(time) => temporal::write_time(out, *time),
        SqlValue::TimeTz(time, offset) => {
            temporal::write_time(out, *time);
            temporal::write_offset(out, *offset);
        }
        SqlValue::Timestamp(timestamp) => temporal::write_timestamp(out, *timestamp),
        SqlValue::TimestampTz(moment) => temporal::write_moment(out, *moment),
        SqlValue::Interval(span) => write_interval(out, *span),
        SqlValue::Uuid(uuid) => out.push_str(&uuid_text(*uuid)),
        SqlValue::Array(items) if as_json => json::write_list(out, items)?,
        SqlValue::Array(items) => write_array(out, items)?,
    }
    Ok(())
}

/// Days and seconds apart: PostgreSQL keeps them so, as a day may have more hours than others.
fn write_interval(out: &mut String, span: time::Duration) {
    let rest = span - time::Duration::days(span.whole_days());
    let _ = write!(out, "{} days {} microseconds", span.whole_days(), rest.whole_microseconds());
}

/// An array literal: each item in quotes, so that none can be taken for several, or for NULL.
fn write_array(out: &mut String, items: &[SqlValue]) -> Written {
    out.push('{');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        match item {
            SqlValue::Null => out.push_str("NULL"),
            SqlValue::Array(inner) => write_array(out, inner)?,
            item => {
                let mut text = String::new();
                write_value(&mut text, item, false)?;
                out.push('"');
                for letter in text.chars() {
                    if matches!(letter, '"' | '\\') {
                        out.push('\\');
                    }
                    out.push(letter);
                }
                out.push('"');
            }
        }
    }
    out.push('}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use time::macros::{date, datetime, time as clock};

    fn text(value: &SqlValue, ty: &Type) -> String {
        let mut out = BytesMut::new();
        assert!(matches!(Parameter(value).to_sql(ty, &mut out), Ok(IsNull::No)));
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn values_are_texts_that_the_server_reads() {
        let cases = [
            (SqlValue::Bool(true), "true"),
            (SqlValue::UInt(u64::MAX), "18446744073709551615"),
            (SqlValue::Float(1e300), "1e300"),
            (SqlValue::Float(0.1), "0.1"),
            (SqlValue::Float(f64::NEG_INFINITY), "-Infinity"),
            (SqlValue::Date(date!(2026 - 02 - 28)), "2026-02-28"),
            (SqlValue::TimestampTz(datetime!(2026-02-28 1:02:03 -05:30)), "2026-02-28 01:02:03-05:30"),
            (SqlValue::Interval(time::Duration::microseconds(-86_400_000_001)), "-1 days -1 microseconds"),
            (SqlValue::TimeTz(clock!(1:02:03), time::UtcOffset::UTC), "01:02:03+00:00"),
        ];
        for (value, wanted) in cases {
            assert_eq!(text(&value, &Type::UNKNOWN), wanted);
        }
    }

    #[test]
    fn no_item_of_an_array_can_be_taken_for_something_else() {
        let items = ["", "NULL", "a,b", "{}", "\"", "\\", " x "].map(|item| SqlValue::Text(item.into()));
        let mut items = items.to_vec();
        items.extend([SqlValue::Null, SqlValue::Bytes(Bytes::from_static(b"\x00\xff"))]);
        let literal = text(&SqlValue::Array(items), &Type::TEXT_ARRAY);
        assert_eq!(literal, r#"{"","NULL","a,b","{}","\"","\\"," x ",NULL,"\\x00ff"}"#);
    }

    #[test]
    fn a_list_for_a_json_column_is_json() {
        let list =
            SqlValue::Array(vec![SqlValue::Int(1), SqlValue::Json("{\"a\":[]}".into()), SqlValue::Null]);
        assert_eq!(text(&list, &Type::JSONB), r#"[1,{"a":[]},null]"#);
        assert!(check(&list, &Type::JSON).is_ok());
        assert!(check(&list, &Type::INT4).is_err());
        assert!(check(&SqlValue::Bytes(Bytes::new()), &Type::TEXT).unwrap_err().contains("bytes"));
    }

    #[test]
    fn a_text_that_would_end_early_is_refused() {
        let mut out = BytesMut::new();
        assert!(Parameter(&SqlValue::Text("a\0b".into())).to_sql(&Type::TEXT, &mut out).is_err());
    }
}
