//! The one transaction that changes definitions and deployments.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crosstie_model::limits::KEPT_DEPLOYMENTS;
use crosstie_model::names::{Digest, Revision, UnitName};
use crosstie_model::unit::{Artifact, UnitManifest};
use crosstie_model::{Definition, DefinitionId};
use diesel::dsl::max;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};

use super::super::{Handle, conflict_target, lock_revision, now};
use super::deployment::active_document;
use crate::change::{Change, ChangeSet, Subject};
use crate::decode;
use crate::deployment::CHUNK_BYTES;
use crate::error::OdbError;
use crate::tables::{
    active_deployment, audit, audit_change, cluster_state, definition, deployment, deployment_chunk,
    revocation, secret,
};

/// What each subject of a change was before the first change of it.
type Before = BTreeMap<Subject, Option<Value>>;

pub(crate) async fn change(connection: &mut Handle, set: &ChangeSet) -> Result<Revision, OdbError> {
    let found = Revision(decode::count("revision", lock_revision(connection).await?)?);
    if let Some(expected) = set.expected.filter(|expected| *expected != found) {
        return Err(OdbError::Conflict { expected, found });
    }
    let mut before = Before::new();
    for change in &set.changes {
        apply(connection, &mut before, set, change).await?;
    }
    for (name, version) in set.secrets() {
        if self::secret(connection, &name, version).await?.is_none() {
            return Err(OdbError::not_found(format!("version {version} of the secret {name}")));
        }
    }
    let mut changed = Vec::new();
    for (subject, before) in before {
        if let Subject::Unit(unit) = &subject {
            prune(connection, unit).await?;
        }
        let after = stored(connection, &subject).await?;
        if before != after {
            changed.push((subject, before, after));
        }
    }
    if changed.is_empty() {
        return Ok(found);
    }
    let next = Revision(found.0.saturating_add(1));
    record(connection, next, set, changed).await?;
    Ok(next)
}

/// Writes the audit row and moves the revision on.
async fn record(
    connection: &mut Handle,
    revision: Revision,
    set: &ChangeSet,
    changed: Vec<(Subject, Option<Value>, Option<Value>)>,
) -> Result<(), OdbError> {
    let revision = decode::column("revision", revision.0)?;
    diesel::insert_into(audit::table)
        .values((
            audit::revision.eq(revision),
            audit::time_us.eq(now()),
            audit::author.eq(decode::prose(&set.author)),
            audit::message.eq(decode::prose(&set.message)),
        ))
        .execute(connection)
        .await?;
    for (subject, before, after) in changed {
        diesel::insert_into(audit_change::table)
            .values((
                audit_change::revision.eq(revision),
                audit_change::subject.eq(subject.to_string()),
                audit_change::before_body.eq(before.map(|value| value.to_string())),
                audit_change::after_body.eq(after.map(|value| value.to_string())),
            ))
            .execute(connection)
            .await?;
    }
    diesel::update(cluster_state::table)
        .set(cluster_state::revision.eq(revision))
        .execute(connection)
        .await?;
    Ok(())
}

async fn apply(
    connection: &mut Handle,
    before: &mut Before,
    set: &ChangeSet,
    change: &Change,
) -> Result<(), OdbError> {
    match change {
        Change::PutDefinition(definition) => put_definition(connection, before, definition).await,
        Change::DeleteDefinition(id) => delete_definition(connection, before, id).await,
        Change::PutSecret { name, version, sealed } => put_secret(connection, name, *version, sealed).await,
        Change::StoreDeployment { artifact, manifest } => {
            touch(connection, before, Subject::Unit(artifact.unit.clone())).await?;
            store(connection, &set.author, artifact, manifest).await
        }
        Change::Activate { unit, digest } => {
            touch(connection, before, Subject::Unit(unit.clone())).await?;
            activate(connection, unit, digest).await
        }
        Change::Undeploy { unit } => {
            touch(connection, before, Subject::Unit(unit.clone())).await?;
            let active = active_deployment::table.filter(active_deployment::unit.eq(unit.as_str()));
            match diesel::delete(active).execute(connection).await? {
                0 => Err(OdbError::not_found(format!("active deployment of {unit}"))),
                _ => Ok(()),
            }
        }
        Change::Revoke { serial } => {
            touch(connection, before, Subject::Certificate(serial.clone())).await?;
            revoke(connection, serial).await
        }
    }
}

/// Revokes a certificate; one that is revoked already keeps the time at which it was.
async fn revoke(connection: &mut Handle, serial: &str) -> Result<(), OdbError> {
    diesel::insert_into(revocation::table)
        .values((revocation::serial.eq(serial), revocation::revoked_us.eq(now())))
        .on_conflict(conflict_target(revocation::serial))
        .do_update()
        .set(revocation::serial.eq(serial))
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes what `subject` is before the first change of it in this set.
async fn touch(connection: &mut Handle, before: &mut Before, subject: Subject) -> Result<(), OdbError> {
    if let Entry::Vacant(entry) = before.entry(subject) {
        let value = stored(connection, entry.key()).await?;
        entry.insert(value);
    }
    Ok(())
}

/// What is stored of `subject` now.
async fn stored(connection: &mut Handle, subject: &Subject) -> Result<Option<Value>, OdbError> {
    match subject {
        Subject::Unit(unit) => active_document(connection, unit).await,
        Subject::Certificate(serial) => {
            let revoked = revocation::table.find(serial).select(revocation::revoked_us);
            let revoked: Option<i64> = revoked.first(connection).await.optional()?;
            Ok(revoked.map(|_| json!({"revoked": true})))
        }
        Subject::Definition(id) => {
            let body: Option<String> = definition::table
                .find((id.kind.as_str(), id.name.as_str()))
                .select(definition::body)
                .first(connection)
                .await
                .optional()?;
            decode::optional_json(id, body.as_deref())
        }
    }
}

async fn put_definition(
    connection: &mut Handle,
    before: &mut Before,
    put: &Definition,
) -> Result<(), OdbError> {
    touch(connection, before, Subject::Definition(put.id.clone())).await?;
    let value = put.to_value().map_err(|error| OdbError::invalid(&put.id, error))?;
    let body = decode::body(&put.id, &value)?;
    diesel::insert_into(definition::table)
        .values((
            definition::kind.eq(put.id.kind.as_str()),
            definition::name.eq(put.id.name.as_str()),
            definition::body.eq(&body),
        ))
        .on_conflict(conflict_target((definition::kind, definition::name)))
        .do_update()
        .set(definition::body.eq(&body))
        .execute(connection)
        .await?;
    Ok(())
}

async fn delete_definition(
    connection: &mut Handle,
    before: &mut Before,
    id: &DefinitionId,
) -> Result<(), OdbError> {
    touch(connection, before, Subject::Definition(id.clone())).await?;
    let row = definition::table.find((id.kind.as_str(), id.name.as_str()));
    match diesel::delete(row).execute(connection).await? {
        0 => Err(OdbError::not_found(id)),
        _ => Ok(()),
    }
}

async fn put_secret(
    connection: &mut Handle,
    name: &str,
    version: u32,
    sealed: &[u8],
) -> Result<(), OdbError> {
    if secret(connection, name, version).await?.is_some() {
        return Err(OdbError::Exists { what: format!("version {version} of the secret {name}") });
    }
    diesel::insert_into(secret::table)
        .values((secret::name.eq(name), secret::version.eq(i64::from(version)), secret::sealed.eq(sealed)))
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn secret(
    connection: &mut Handle,
    name: &str,
    version: u32,
) -> Result<Option<Vec<u8>>, OdbError> {
    let row = secret::table.find((name, i64::from(version))).select(secret::sealed);
    Ok(row.first(connection).await.optional()?)
}

pub(crate) async fn next_secret_version(connection: &mut Handle, name: &str) -> Result<u32, OdbError> {
    let newest: Option<i64> =
        secret::table.filter(secret::name.eq(name)).select(max(secret::version)).first(connection).await?;
    decode::count("secret version", newest.unwrap_or(0).saturating_add(1))
}

/// Stores `artifact`, or only its manifest when its bytes are there already.
async fn store(
    connection: &mut Handle,
    author: &str,
    artifact: &Artifact,
    manifest: &UnitManifest,
) -> Result<(), OdbError> {
    let unit = artifact.unit.as_str();
    let digest = artifact.digest.to_string();
    let what = format!("the manifest of {unit}");
    let manifest = serde_json::to_value(manifest).map_err(|error| OdbError::invalid(&what, error))?;
    let manifest = decode::body(&what, &manifest)?;
    let recency = next_recency(connection, unit).await?;
    let row = deployment::table.find((unit, digest.as_str()));
    let known = diesel::update(row)
        .set((deployment::manifest.eq(&manifest), deployment::recency.eq(recency)))
        .execute(connection)
        .await?;
    if known > 0 {
        return Ok(());
    }
    diesel::insert_into(deployment::table)
        .values((
            deployment::unit.eq(unit),
            deployment::digest.eq(&digest),
            deployment::kind.eq(artifact.kind.as_str()),
            deployment::size.eq(decode::column("size", artifact.content.len())?),
            deployment::manifest.eq(&manifest),
            deployment::author.eq(decode::prose(author)),
            deployment::created_us.eq(now()),
            deployment::recency.eq(recency),
        ))
        .execute(connection)
        .await?;
    for (ordinal, chunk) in artifact.content.chunks(CHUNK_BYTES).enumerate() {
        diesel::insert_into(deployment_chunk::table)
            .values((
                deployment_chunk::unit.eq(unit),
                deployment_chunk::digest.eq(&digest),
                deployment_chunk::ordinal.eq(decode::column("ordinal", ordinal)?),
                deployment_chunk::content.eq(chunk),
            ))
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn activate(connection: &mut Handle, unit: &UnitName, digest: &Digest) -> Result<(), OdbError> {
    let text = digest.to_string();
    let recency = next_recency(connection, unit.as_str()).await?;
    let known = diesel::update(deployment::table.find((unit.as_str(), text.as_str())))
        .set(deployment::recency.eq(recency))
        .execute(connection)
        .await?;
    if known == 0 {
        return Err(OdbError::not_found(format!("deployment {} of {unit}", digest.short())));
    }
    diesel::insert_into(active_deployment::table)
        .values((active_deployment::unit.eq(unit.as_str()), active_deployment::digest.eq(&text)))
        .on_conflict(conflict_target(active_deployment::unit))
        .do_update()
        .set(active_deployment::digest.eq(&text))
        .execute(connection)
        .await?;
    Ok(())
}

/// One more than the newest of the unit's deployments; the lock on the revision makes it unique.
async fn next_recency(connection: &mut Handle, unit: &str) -> Result<i64, OdbError> {
    let newest: Option<i64> = deployment::table
        .filter(deployment::unit.eq(unit))
        .select(max(deployment::recency))
        .first(connection)
        .await?;
    Ok(newest.unwrap_or(0).saturating_add(1))
}

/// Removes the unit's deployments beyond the last [`KEPT_DEPLOYMENTS`], never the active one.
async fn prune(connection: &mut Handle, unit: &UnitName) -> Result<(), OdbError> {
    let digests: Vec<String> = deployment::table
        .filter(deployment::unit.eq(unit.as_str()))
        .order(deployment::recency.desc())
        .select(deployment::digest)
        .load(connection)
        .await?;
    let active: Option<String> = active_deployment::table
        .find(unit.as_str())
        .select(active_deployment::digest)
        .first(connection)
        .await
        .optional()?;
    for digest in digests.iter().skip(KEPT_DEPLOYMENTS).filter(|digest| active.as_ref() != Some(*digest)) {
        diesel::delete(deployment::table.find((unit.as_str(), digest.as_str()))).execute(connection).await?;
    }
    Ok(())
}
