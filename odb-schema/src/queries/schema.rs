//! Which migrations were applied.

use diesel::QueryableByName;
use diesel_async::RunQueryDsl;

use super::super::{COUNT_MIGRATION_TABLES, Handle};
use crate::error::OdbError;

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    number: i64,
}

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = diesel::sql_types::Text)]
    version: String,
}

/// The newest migration applied.
pub(crate) async fn applied(connection: &mut Handle) -> Result<Option<String>, OdbError> {
    let tables: Count = diesel::sql_query(COUNT_MIGRATION_TABLES).get_result(connection).await?;
    if tables.number == 0 {
        return Ok(None);
    }
    let versions: Vec<Version> =
        diesel::sql_query("SELECT version FROM __diesel_schema_migrations").load(connection).await?;
    Ok(versions.into_iter().map(|row| row.version).max())
}
