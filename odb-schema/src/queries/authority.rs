//! The certificate authority's one row.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::{Handle, conflict_target, now};
use crate::authority::AuthorityRow;
use crate::error::OdbError;
use crate::tables::certificate_authority;

/// The row's key; the schema allows no other.
const ONLY: i64 = 1;

pub(crate) async fn authority(connection: &mut Handle) -> Result<Option<AuthorityRow>, OdbError> {
    let row: Option<(Vec<u8>, String)> = certificate_authority::table
        .find(ONLY)
        .select((certificate_authority::sealed_key, certificate_authority::certificate_pem))
        .first(connection)
        .await
        .optional()?;
    Ok(row.map(|(sealed_key, certificate_pem)| AuthorityRow { sealed_key, certificate_pem }))
}

pub(crate) async fn put_authority(
    connection: &mut Handle,
    sealed_key: &[u8],
    certificate_pem: &str,
) -> Result<(), OdbError> {
    diesel::insert_into(certificate_authority::table)
        .values((
            certificate_authority::id.eq(ONLY),
            certificate_authority::sealed_key.eq(sealed_key),
            certificate_authority::certificate_pem.eq(certificate_pem),
            certificate_authority::created_us.eq(now()),
        ))
        .on_conflict(conflict_target(certificate_authority::id))
        .do_update()
        .set((
            certificate_authority::sealed_key.eq(sealed_key),
            certificate_authority::certificate_pem.eq(certificate_pem),
            certificate_authority::created_us.eq(now()),
        ))
        .execute(connection)
        .await?;
    Ok(())
}
