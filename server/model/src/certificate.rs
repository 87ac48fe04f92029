//! When certificates end: what servers, the load balancer and the command line say of those they use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// A component's certificate with less than this left should be renewed.
pub const RENEW_BEFORE: Duration = Duration::days(90);

/// The gauge in which everybody shows them, in seconds since 1970, by the label `certificate`.
pub const EXPIRY_METRIC: &str = "crosstie_certificate_expiry_seconds";

/// When a certificate ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateEnd {
    /// Whose: `server`, `load_balancer`, `database` or `broker` for a component's own, `ca` for its
    /// authority's, `https` for one that clients of a load balancer see.
    pub certificate: String,
    /// When it ends (RFC 3339).
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub expires: OffsetDateTime,
    /// Whether it ends within 90 days and should be renewed.
    pub renew: bool,
}

impl CertificateEnd {
    /// The certificate called `certificate`, which ends at `expires`.
    #[must_use]
    pub fn new(certificate: &str, expires: OffsetDateTime) -> Self {
        let renew = expires - OffsetDateTime::now_utc() < RENEW_BEFORE;
        Self { certificate: certificate.to_owned(), expires, renew }
    }

    /// When it ends, in seconds since 1970.
    #[must_use]
    pub fn unix_seconds(&self) -> u64 {
        u64::try_from(self.expires.unix_timestamp()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_to_be_renewed_in_its_last_three_months() {
        let now = OffsetDateTime::now_utc();
        assert!(!CertificateEnd::new("server", now + Duration::days(91)).renew);
        assert!(CertificateEnd::new("server", now + Duration::days(89)).renew);
        assert!(CertificateEnd::new("server", now - Duration::days(1)).renew);
    }

    #[test]
    fn it_is_written_as_people_and_programs_read_it() {
        let end = CertificateEnd::new("ca", OffsetDateTime::UNIX_EPOCH + Duration::days(1));
        assert_eq!(end.unix_seconds(), 86_400);
        let written = serde_json::to_value(&end).unwrap();
        assert_eq!(written["expires"], "1970-01-02T00:00:00Z");
    }
}
