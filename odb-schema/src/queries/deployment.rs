//! Deployments as stored.

use bytes::Bytes;
use crosstie_model::names::{Digest, UnitName};
use crosstie_model::unit::{Artifact, UnitManifest};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;

use super::super::Handle;
use crate::decode;
use crate::deployment::{DeploymentRow, document};
use crate::error::OdbError;
use crate::tables::{active_deployment, deployment, deployment_chunk};

pub(crate) async fn artifact(
    connection: &mut Handle,
    unit: &UnitName,
    digest: &Digest,
) -> Result<Option<Artifact>, OdbError> {
    let text = digest.to_string();
    let row = deployment::table.find((unit.as_str(), text.as_str()));
    let row: Option<(String, i64)> =
        row.select((deployment::kind, deployment::size)).first(connection).await.optional()?;
    let Some((kind, size)) = row else { return Ok(None) };
    let chunks: Vec<Vec<u8>> = deployment_chunk::table
        .filter(deployment_chunk::unit.eq(unit.as_str()))
        .filter(deployment_chunk::digest.eq(&text))
        .order(deployment_chunk::ordinal)
        .select(deployment_chunk::content)
        .load(connection)
        .await?;
    let what = format!("artifact {} of {unit}", digest.short());
    let mut content = Vec::with_capacity(decode::count(&what, size)?);
    chunks.iter().for_each(|chunk| content.extend_from_slice(chunk));
    let artifact = Artifact::new(unit.clone(), decode::text(&what, &kind)?, Bytes::from(content));
    match artifact.digest == *digest {
        true => Ok(Some(artifact)),
        false => Err(OdbError::stored(what, "its bytes do not have its digest")),
    }
}

type Columns = (String, String, String, i64, String, String, i64, Option<String>);

pub(crate) async fn deployments(
    connection: &mut Handle,
    unit: Option<&UnitName>,
) -> Result<Vec<DeploymentRow>, OdbError> {
    let joined = deployment::table.left_join(active_deployment::table.on(
        active_deployment::unit.eq(deployment::unit).and(active_deployment::digest.eq(deployment::digest)),
    ));
    let query = joined.order((deployment::unit, deployment::recency.desc())).select((
        deployment::unit,
        deployment::digest,
        deployment::kind,
        deployment::size,
        deployment::manifest,
        deployment::author,
        deployment::created_us,
        active_deployment::digest.nullable(),
    ));
    let rows: Vec<Columns> = match unit {
        Some(unit) => query.filter(deployment::unit.eq(unit.as_str())).load(connection).await?,
        None => query.load(connection).await?,
    };
    rows.into_iter().map(row).collect()
}

fn row(columns: Columns) -> Result<DeploymentRow, OdbError> {
    let (unit, digest, kind, size, manifest, author, created_us, active) = columns;
    let what = format!("deployment {digest} of {unit}");
    Ok(DeploymentRow {
        unit: decode::text(&what, &unit)?,
        digest: decode::text(&what, &digest)?,
        kind: decode::text(&what, &kind)?,
        size: decode::count(&what, size)?,
        manifest: decode::json(&what, &manifest)?,
        author,
        created_us,
        active: active.is_some(),
    })
}

/// What the audit says of the unit's active deployment, if it has one.
pub(crate) async fn active_document(
    connection: &mut Handle,
    unit: &UnitName,
) -> Result<Option<Value>, OdbError> {
    let row: Option<(String, String, String)> = active_deployment::table
        .inner_join(
            deployment::table.on(deployment::unit
                .eq(active_deployment::unit)
                .and(deployment::digest.eq(active_deployment::digest))),
        )
        .filter(active_deployment::unit.eq(unit.as_str()))
        .select((deployment::digest, deployment::kind, deployment::manifest))
        .first(connection)
        .await
        .optional()?;
    let Some((digest, kind, manifest)) = row else { return Ok(None) };
    let manifest: UnitManifest = decode::json(format!("deployment {digest} of {unit}"), &manifest)?;
    Ok(Some(document(&digest, &kind, &manifest)))
}
