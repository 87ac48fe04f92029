//! Times as the API shows them: RFC 3339 in UTC, made of the ODB's microseconds since 1970.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `microseconds` since 1970 UTC as RFC 3339. A number no calendar has becomes the epoch.
pub(crate) fn timestamp(microseconds: i64) -> String {
    let nanoseconds = i128::from(microseconds) * 1_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn microseconds_read_as_a_date() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(1_700_000_000_123_456), "2023-11-14T22:13:20.123456Z");
        assert_eq!(timestamp(i64::MAX), "1970-01-01T00:00:00Z");
    }
}
