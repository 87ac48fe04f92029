//! Run-time key/value data that services write: TTL by the database's clock, compare-and-set by version.

use std::time::Duration;

use async_trait::async_trait;
use crosstie_model::ports::{DataChange, DataEntry, DataError, DataStore};
use serde_json::Value;

use crate::error::OdbError;
use crate::handle::{Odb, run};

/// Longest key, in bytes.
pub const MAX_DATA_KEY_BYTES: usize = 512;

/// Largest value, in bytes of JSON.
pub const MAX_DATA_VALUE_BYTES: usize = 1024 * 1024;

/// For how long a lapsed or deleted entry still remembers its version, so that whoever held it cannot
/// mistake a later entry of the same key for its own.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// Longest time to live: a hundred years, so that times stay within their columns.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// An entry has another version than was expected.
pub(crate) struct Conflict {
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

impl From<Conflict> for DataError {
    fn from(Conflict { expected, found }: Conflict) -> Self {
        Self::Conflict { expected, found }
    }
}

/// A change within the limits.
pub(crate) enum Change<'a> {
    Set { key: &'a str, body: String, ttl: Option<Duration>, expected: Option<u64> },
    Delete { key: &'a str },
}

impl<'a> Change<'a> {
    fn of(change: &DataChange<'a>) -> Result<Self, DataError> {
        match *change {
            DataChange::Set { key, value, ttl, expected } => {
                check_key(key)?;
                check_ttl(ttl)?;
                Ok(Self::Set { key, body: body(value)?, ttl, expected })
            }
            DataChange::Delete { key } => {
                check_key(key)?;
                Ok(Self::Delete { key })
            }
        }
    }
}

/// The data store of the services, in the ODB.
#[derive(Debug, Clone)]
pub struct OdbDataStore {
    odb: Odb,
}

impl OdbDataStore {
    /// The data store in `odb`.
    #[must_use]
    pub fn new(odb: Odb) -> Self {
        Self { odb }
    }
}

impl Odb {
    /// Removes data entries that lapsed more than a day ago; says how many. For whoever tidies up now and
    /// then: lapsed entries are invisible without it.
    ///
    /// # Errors
    /// The database is away.
    pub async fn purge_data(&self) -> Result<usize, OdbError> {
        run!(self, Write, data::purge())
    }
}

fn check_key(key: &str) -> Result<(), DataError> {
    match key.len() {
        0 => Err(DataError::Invalid("a key must not be empty".into())),
        1..=MAX_DATA_KEY_BYTES if key.contains('\0') => {
            Err(DataError::Invalid("a key must not contain a NUL character".into()))
        }
        1..=MAX_DATA_KEY_BYTES => Ok(()),
        length => {
            let text = format!("a key has at most {MAX_DATA_KEY_BYTES} bytes; this one has {length}");
            Err(DataError::Invalid(text))
        }
    }
}

fn check_ttl(ttl: Option<Duration>) -> Result<(), DataError> {
    if ttl.is_some_and(|ttl| ttl.is_zero() || ttl > MAX_TTL) {
        return Err(DataError::Invalid("a time to live is above zero and at most 100 years".into()));
    }
    Ok(())
}

fn body(value: &Value) -> Result<String, DataError> {
    let body = value.to_string();
    if body.len() > MAX_DATA_VALUE_BYTES {
        let text =
            format!("a value has at most {MAX_DATA_VALUE_BYTES} bytes as JSON; this one has {}", body.len());
        return Err(DataError::Invalid(text));
    }
    Ok(body)
}

/// A service can act on nothing but that the store did not answer; why is in the log.
fn unreachable(error: OdbError) -> DataError {
    tracing::warn!(%error, "the data store did not answer");
    DataError::Unreachable
}

#[async_trait]
impl DataStore for OdbDataStore {
    async fn get(&self, key: &str) -> Result<Option<DataEntry>, DataError> {
        check_key(key)?;
        run!(self.odb, Single, data::get(key)).map_err(unreachable)
    }

    async fn set(
        &self,
        key: &str,
        value: &Value,
        ttl: Option<Duration>,
        expected: Option<u64>,
    ) -> Result<u64, DataError> {
        check_key(key)?;
        let body = body(value)?;
        check_ttl(ttl)?;
        let set = run!(self.odb, Write, data::set(key, &body, ttl, expected)).map_err(unreachable)?;
        set.map_err(DataError::from)
    }

    async fn delete(&self, key: &str) -> Result<bool, DataError> {
        check_key(key)?;
        run!(self.odb, Write, data::delete(key)).map_err(unreachable)
    }

    async fn change(&self, changes: &[DataChange<'_>]) -> Result<(), DataError> {
        let changes = changes.iter().map(Change::of).collect::<Result<Vec<_>, _>>()?;
        let changed = run!(self.odb, Write, data::change(&changes)).map_err(unreachable)?;
        changed.map_err(DataError::from)
    }

    async fn keys(&self, prefix: &str, limit: usize) -> Result<Vec<String>, DataError> {
        if prefix.len() > MAX_DATA_KEY_BYTES || prefix.contains('\0') {
            return Ok(Vec::new());
        }
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let end = successor(prefix);
        run!(self.odb, Single, data::keys(prefix, end.as_deref(), limit)).map_err(unreachable)
    }
}

/// The smallest text after all that start with `prefix`, in the order of bytes; `None` when there is none.
/// A range works alike on every backend, where patterns differ in case and escaping.
fn successor(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        // Stepping over the surrogates, which are no characters.
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(u32::from(other).saturating_add(1)),
        };
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_range_of_a_prefix_holds_what_starts_with_it_and_nothing_else(
            prefix in "[a-c\u{d7ff}\u{10ffff}é]{0,3}",
            key in "[a-d\u{d7ff}\u{e000}\u{10ffff}éê]{0,5}",
        ) {
            let end = successor(&prefix);
            let within = key >= prefix && end.is_none_or(|end| key < end);
            prop_assert_eq!(within, key.starts_with(&prefix));
        }
    }

    #[test]
    fn keys_and_values_have_limits() {
        assert!(check_key(&"k".repeat(512)).is_ok());
        for bad in [String::new(), "k".repeat(513), "a\0b".into()] {
            assert!(matches!(check_key(&bad), Err(DataError::Invalid(_))), "{bad:?}");
        }
        assert!(body(&Value::from("v".repeat(MAX_DATA_VALUE_BYTES - 2))).is_ok());
        assert!(body(&Value::from("v".repeat(MAX_DATA_VALUE_BYTES - 1))).is_err());
    }
}
