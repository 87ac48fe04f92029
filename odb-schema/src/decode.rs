//! From columns to the model's types and back. A row that does not fit is reported with its name, never
//! skipped: it means a newer release wrote it or the file was edited by hand.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::OdbError;

/// Largest JSON body of a definition or manifest, in bytes: below MariaDB's default packet of 16 MiB.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// A stored text as the type it was made from.
pub(crate) fn text<T: FromStr<Err: Display>>(what: impl Display, stored: &str) -> Result<T, OdbError> {
    stored.parse().map_err(|error| OdbError::stored(what, error))
}

/// A stored JSON body.
pub(crate) fn json<T: DeserializeOwned>(what: impl Display, stored: &str) -> Result<T, OdbError> {
    serde_json::from_str(stored).map_err(|error| OdbError::stored(what, error))
}

/// A stored JSON body that may be absent.
pub(crate) fn optional_json(what: impl Display, stored: Option<&str>) -> Result<Option<Value>, OdbError> {
    stored.map(|stored| json(what, stored)).transpose()
}

/// A stored number that counts something.
pub(crate) fn count<T: TryFrom<i64, Error: Display>>(what: impl Display, stored: i64) -> Result<T, OdbError> {
    T::try_from(stored).map_err(|error| OdbError::stored(what, error))
}

/// A number for a column.
pub(crate) fn column<T: TryInto<i64, Error: Display>>(
    what: impl Display,
    number: T,
) -> Result<i64, OdbError> {
    number.try_into().map_err(|error| OdbError::invalid(what, error))
}

/// A JSON body for a column.
pub(crate) fn body(what: impl Display, value: &Value) -> Result<String, OdbError> {
    let body = value.to_string();
    if body.len() > MAX_BODY_BYTES {
        let detail = format!("it has {} bytes as JSON; at most {MAX_BODY_BYTES} are stored", body.len());
        return Err(OdbError::invalid(what, detail));
    }
    Ok(body)
}

/// A key for a column: neither empty nor longer than `limit` bytes, and without NUL, which PostgreSQL does
/// not store.
pub(crate) fn key<'a>(what: &str, key: &'a str, limit: usize) -> Result<&'a str, OdbError> {
    if key.is_empty() {
        return Err(OdbError::invalid(what, "it is empty"));
    }
    if key.len() > limit {
        return Err(OdbError::invalid(
            what,
            format!("it has {} bytes; at most {limit} are stored", key.len()),
        ));
    }
    if key.contains('\0') {
        return Err(OdbError::invalid(what, "it contains a NUL character"));
    }
    Ok(key)
}

/// Free text for a column: NUL characters become U+FFFD, and what exceeds 64 KiB is cut off at a character.
pub(crate) fn prose(text: &str) -> String {
    const LIMIT: usize = 64 * 1024;
    let end = if text.len() <= LIMIT { text.len() } else { text.floor_char_boundary(LIMIT) };
    text.get(..end).unwrap_or_default().replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_cut_at_a_character_and_has_no_nul() {
        assert_eq!(prose("a\0b"), "a\u{fffd}b");
        let long = "é".repeat(40_000);
        assert_eq!(prose(&long).len(), 64 * 1024);
        let odd = format!("x{long}");
        assert_eq!(prose(&odd).len(), 64 * 1024 - 1);
    }

    #[test]
    fn keys_are_bounded() {
        assert!(key("key", "a", 1).is_ok());
        assert!(key("key", "", 1).is_err());
        assert!(key("key", "ab", 1).is_err());
        assert!(key("key", "\0", 1).is_err());
    }
}
