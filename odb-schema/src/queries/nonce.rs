//! Nonces that were used.

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::RunQueryDsl;

use super::super::{Handle, now};
use crate::decode;
use crate::error::OdbError;
use crate::nonce::REMEMBERED_BEYOND;
use crate::tables::used_nonce;

pub(crate) async fn use_once(connection: &mut Handle, digest: &str, until: i64) -> Result<(), OdbError> {
    let row = (used_nonce::digest.eq(digest), used_nonce::until_us.eq(until));
    match diesel::insert_into(used_nonce::table).values(row).execute(connection).await {
        Ok(_) => Ok(()),
        Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => {
            Err(OdbError::Exists { what: "the nonce".to_owned() })
        }
        Err(error) => Err(error.into()),
    }
}

pub(crate) async fn purge(connection: &mut Handle) -> Result<usize, OdbError> {
    let now: i64 = diesel::select(now()).get_result(connection).await?;
    let before = now.saturating_sub(decode::column("time", REMEMBERED_BEYOND.as_micros())?);
    Ok(diesel::delete(used_nonce::table.filter(used_nonce::until_us.le(before))).execute(connection).await?)
}
