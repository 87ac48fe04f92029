//! Users and tokens.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::{Handle, conflict_target, now};
use crate::account::{NewToken, TokenRow, User};
use crate::decode;
use crate::error::OdbError;
use crate::tables::{access_token, account};

type UserColumns = (String, String, String);

fn user_of((name, role, password_hash): UserColumns) -> Result<User, OdbError> {
    let role = decode::text(format!("user {name}"), &role)?;
    Ok(User { name, role, password_hash })
}

pub(crate) async fn users(connection: &mut Handle) -> Result<Vec<User>, OdbError> {
    let rows: Vec<UserColumns> = account::table
        .order(account::name)
        .select((account::name, account::role, account::password_hash))
        .load(connection)
        .await?;
    rows.into_iter().map(user_of).collect()
}

pub(crate) async fn user(connection: &mut Handle, name: &str) -> Result<Option<User>, OdbError> {
    let row: Option<UserColumns> = account::table
        .find(name)
        .select((account::name, account::role, account::password_hash))
        .first(connection)
        .await
        .optional()?;
    row.map(user_of).transpose()
}

pub(crate) async fn put_user(connection: &mut Handle, user: &User) -> Result<(), OdbError> {
    diesel::insert_into(account::table)
        .values((
            account::name.eq(&user.name),
            account::role.eq(user.role.as_str()),
            account::password_hash.eq(&user.password_hash),
            account::created_us.eq(now()),
        ))
        .on_conflict(conflict_target(account::name))
        .do_update()
        .set((account::role.eq(user.role.as_str()), account::password_hash.eq(&user.password_hash)))
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn delete_user(connection: &mut Handle, name: &str) -> Result<bool, OdbError> {
    Ok(diesel::delete(account::table.find(name)).execute(connection).await? > 0)
}

pub(crate) async fn put_token(connection: &mut Handle, token: &NewToken) -> Result<(), OdbError> {
    use diesel::result::{DatabaseErrorKind, Error};
    let now: i64 = diesel::select(now()).get_result(connection).await?;
    let expires = token
        .ttl
        .map(|ttl| decode::column("ttl", ttl.as_micros()).map(|ttl| now.saturating_add(ttl)))
        .transpose()?;
    diesel::delete(access_token::table.filter(access_token::expires_us.le(now))).execute(connection).await?;
    let stored = diesel::insert_into(access_token::table)
        .values((
            access_token::id.eq(&token.id),
            access_token::account.eq(&token.user),
            access_token::hash.eq(&token.hash),
            access_token::role.eq(token.role.as_str()),
            access_token::created_us.eq(now),
            access_token::expires_us.eq(expires),
        ))
        .execute(connection)
        .await;
    match stored {
        Err(Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _)) => {
            Err(OdbError::not_found(format!("user {}", token.user)))
        }
        Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => {
            Err(OdbError::Exists { what: format!("token {}", token.id) })
        }
        other => Ok(other.map(drop)?),
    }
}

type TokenColumns = (String, String, String, String, i64, Option<i64>);

fn token_of((id, user, hash, role, created_us, expires_us): TokenColumns) -> Result<TokenRow, OdbError> {
    let role = decode::text(format!("token {id}"), &role)?;
    Ok(TokenRow { id, user, hash, role, created_us, expires_us })
}

pub(crate) async fn token(connection: &mut Handle, id: &str) -> Result<Option<TokenRow>, OdbError> {
    let row: Option<TokenColumns> = access_token::table
        .find(id)
        .filter(access_token::expires_us.is_null().or(access_token::expires_us.gt(now().nullable())))
        .select(access_token::all_columns)
        .first(connection)
        .await
        .optional()?;
    row.map(token_of).transpose()
}

pub(crate) async fn tokens(connection: &mut Handle) -> Result<Vec<TokenRow>, OdbError> {
    let rows: Vec<TokenColumns> = access_token::table
        .filter(access_token::expires_us.is_null().or(access_token::expires_us.gt(now().nullable())))
        .order((access_token::account, access_token::created_us))
        .select(access_token::all_columns)
        .load(connection)
        .await?;
    rows.into_iter().map(token_of).collect()
}

pub(crate) async fn delete_token(connection: &mut Handle, id: &str) -> Result<bool, OdbError> {
    Ok(diesel::delete(access_token::table.find(id)).execute(connection).await? > 0)
}
