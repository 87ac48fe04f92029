//! Certificates on record and tokens for joining.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::{Handle, now};
use super::{member, revision};
use crate::certificate::{Admission, CertificateRow, JoinTokenRow, NewCertificate, NewJoinToken};
use crate::decode;
use crate::error::OdbError;
use crate::tables::{certificate, join_token, revocation};

pub(crate) async fn record(connection: &mut Handle, new: &NewCertificate) -> Result<(), OdbError> {
    diesel::insert_into(certificate::table)
        .values((
            certificate::serial.eq(&new.serial),
            certificate::kind.eq(&new.kind),
            certificate::name.eq(&new.name),
            certificate::fingerprint.eq(&new.fingerprint),
            certificate::author.eq(decode::prose(&new.author)),
            certificate::issued_us.eq(now()),
            certificate::expires_us.eq(new.expires_us),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

type Columns = (String, String, String, String, String, i64, i64);

pub(crate) async fn certificates(connection: &mut Handle) -> Result<Vec<CertificateRow>, OdbError> {
    let rows: Vec<Columns> = certificate::table
        .order((certificate::kind, certificate::name, certificate::expires_us))
        .select(certificate::all_columns)
        .load(connection)
        .await?;
    let revoked = revision::revoked(connection).await?;
    let read = |(serial, kind, name, fingerprint, author, issued_us, expires_us): Columns| {
        let revoked = revoked.contains(&serial);
        let certificate = NewCertificate { serial, kind, name, fingerprint, author, expires_us };
        CertificateRow { certificate, issued_us, revoked }
    };
    Ok(rows.into_iter().map(read).collect())
}

pub(crate) async fn is_revoked(connection: &mut Handle, serial: &str) -> Result<bool, OdbError> {
    let found = revocation::table.find(serial).select(revocation::revoked_us);
    Ok(found.first::<i64>(connection).await.optional()?.is_some())
}

pub(crate) async fn put_join_token(connection: &mut Handle, new: &NewJoinToken) -> Result<(), OdbError> {
    let now: i64 = diesel::select(now()).get_result(connection).await?;
    let expires = now.saturating_add(decode::column("ttl", new.ttl.as_micros())?);
    diesel::insert_into(join_token::table)
        .values((
            join_token::id.eq(&new.id),
            join_token::hash.eq(&new.hash),
            join_token::author.eq(decode::prose(&new.author)),
            join_token::created_us.eq(now),
            join_token::expires_us.eq(expires),
            join_token::used_by.eq(""),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn join_token(connection: &mut Handle, id: &str) -> Result<Option<JoinTokenRow>, OdbError> {
    let row: Option<(String, String, String, i64)> = join_token::table
        .find(id)
        .filter(join_token::used_us.is_null())
        .filter(join_token::expires_us.gt(now()))
        .select((join_token::id, join_token::hash, join_token::author, join_token::expires_us))
        .first(connection)
        .await
        .optional()?;
    Ok(row.map(|(id, hash, author, expires_us)| JoinTokenRow { id, hash, author, expires_us }))
}

pub(crate) async fn admit(connection: &mut Handle, admission: &Admission) -> Result<bool, OdbError> {
    let name = &admission.member.name;
    // The update locks the token's row: whoever comes second waits and then finds it used.
    let good = join_token::table
        .filter(join_token::id.eq(&admission.token))
        .filter(join_token::used_us.is_null())
        .filter(join_token::expires_us.gt(now()));
    let used = diesel::update(good)
        .set((join_token::used_us.eq(now().nullable()), join_token::used_by.eq(name)))
        .execute(connection)
        .await?;
    if used == 0 {
        return Ok(false);
    }
    if member::member(connection, name).await?.is_some_and(|member| member.state.is_live()) {
        return Err(OdbError::Exists { what: format!("a server {name}, which runs,") });
    }
    member::put(connection, &admission.member).await?;
    for certificate in &admission.certificates {
        record(connection, certificate).await?;
    }
    Ok(true)
}
