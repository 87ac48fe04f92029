//! Certificates that the cluster's authority issued, and the one-time tokens with which servers join.

use std::time::Duration;

use crate::decode;
use crate::error::OdbError;
use crate::handle::{Odb, run};
use crate::member::{MAX_NAME_BYTES, NewMember};

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCertificate {
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// What its holder is: a word such as `server`.
    pub kind: String,
    /// The holder's name.
    pub name: String,
    /// SHA-256 of it, hexadecimal.
    pub fingerprint: String,
    /// On whose behalf it was issued.
    pub author: String,
    /// When it ends: µs since 1970 UTC.
    pub expires_us: i64,
}

/// A certificate on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// The certificate.
    pub certificate: NewCertificate,
    /// When it was issued: µs since 1970 UTC, by the database's clock.
    pub issued_us: i64,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// A token with which one server may join, once.
#[derive(Clone, PartialEq, Eq)]
pub struct NewJoinToken {
    /// Names it; not secret.
    pub id: String,
    /// Hash of its secret.
    pub hash: String,
    /// Who made it.
    pub author: String,
    /// For how long it is good.
    pub ttl: Duration,
}

/// A token that is still good.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinTokenRow {
    /// Names it.
    pub id: String,
    /// Hash of its secret.
    pub hash: String,
    /// Who made it.
    pub author: String,
    /// When it ends: µs since 1970 UTC, by the database's clock.
    pub expires_us: i64,
}

/// A server that is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The token it showed.
    pub token: String,
    /// The server.
    pub member: NewMember,
    /// The certificates it is given.
    pub certificates: Vec<NewCertificate>,
}

impl std::fmt::Debug for NewJoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewJoinToken({})", self.id)
    }
}

impl std::fmt::Debug for JoinTokenRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinTokenRow({})", self.id)
    }
}

impl Odb {
    /// Records a certificate that was issued.
    ///
    /// # Errors
    /// The database is away.
    pub async fn record_certificate(&self, certificate: &NewCertificate) -> Result<(), OdbError> {
        run!(self, Write, certificate::record(certificate))
    }

    /// The certificates on record, by kind, name and end.
    ///
    /// # Errors
    /// The database is away.
    pub async fn certificates(&self) -> Result<Vec<CertificateRow>, OdbError> {
        run!(self, Read, certificate::certificates())
    }

    /// Whether the certificate with this serial number is revoked.
    ///
    /// # Errors
    /// The database is away.
    pub async fn is_revoked(&self, serial: &str) -> Result<bool, OdbError> {
        run!(self, Single, certificate::is_revoked(serial))
    }

    /// Stores a token for joining.
    ///
    /// # Errors
    /// The database is away.
    pub async fn put_join_token(&self, token: &NewJoinToken) -> Result<(), OdbError> {
        decode::key("the token's id", &token.id, MAX_NAME_BYTES)?;
        run!(self, Write, certificate::put_join_token(token))
    }

    /// The token `id`, while it is good: neither used nor over.
    ///
    /// # Errors
    /// The database is away.
    pub async fn join_token(&self, id: &str) -> Result<Option<JoinTokenRow>, OdbError> {
        run!(self, Single, certificate::join_token(id))
    }

    /// Lets a server in: uses its token up, makes it a member that has not started yet and records its
    /// certificates, all or none of it. Says whether the token was still good: of two servers that show the
    /// same one at once, one gets in.
    ///
    /// # Errors
    /// [`OdbError::Exists`] when a server of that name runs; the token stays good then. The database is away.
    pub async fn admit(&self, admission: &Admission) -> Result<bool, OdbError> {
        decode::key("the server's name", &admission.member.name, MAX_NAME_BYTES)?;
        run!(self, Write, certificate::admit(admission))
    }
}
