//! Reading the cluster's state and its history.

use std::collections::{BTreeMap, BTreeSet};

use crosstie_model::names::{Digest, Revision, UnitName};
use crosstie_model::snapshot::ActiveUnit;
use crosstie_model::{Definition, DefinitionBody, DefinitionId, Snapshot};
use diesel::dsl::min;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;

use super::super::{Handle, now};
use crate::change::{Subject, stored_secrets};
use crate::decode;
use crate::error::OdbError;
use crate::revision::{AuditChange, AuditEntry, PastState};
use crate::tables::{
    active_deployment, audit, audit_change, cluster_state, definition, deployment, revocation, secret,
};

pub(crate) async fn clock_us(connection: &mut Handle) -> Result<i64, OdbError> {
    Ok(diesel::select(now()).get_result(connection).await?)
}

pub(crate) async fn revision(connection: &mut Handle) -> Result<Revision, OdbError> {
    let revision: i64 = cluster_state::table.select(cluster_state::revision).first(connection).await?;
    Ok(Revision(decode::count("revision", revision)?))
}

pub(crate) async fn snapshot(connection: &mut Handle) -> Result<Snapshot, OdbError> {
    let revision = revision(connection).await?;
    let definitions = definitions(connection).await?;
    let units = active_units(connection).await?;
    let secrets = secrets(connection, &definitions).await?;
    let revoked = revoked(connection).await?;
    Ok(Snapshot { revision, definitions, units, secrets, revoked })
}

/// The serial numbers of revoked certificates.
pub(crate) async fn revoked(connection: &mut Handle) -> Result<BTreeSet<String>, OdbError> {
    let serials: Vec<String> = revocation::table.select(revocation::serial).load(connection).await?;
    Ok(serials.into_iter().collect())
}

async fn definitions(connection: &mut Handle) -> Result<BTreeMap<DefinitionId, DefinitionBody>, OdbError> {
    let rows: Vec<(String, String, String)> = definition::table
        .select((definition::kind, definition::name, definition::body))
        .load(connection)
        .await?;
    let read = |(kind, name, body): (String, String, String)| {
        let what = format!("{kind}/{name}");
        let id = DefinitionId { kind: decode::text(&what, &kind)?, name: decode::text(&what, &name)? };
        let body = decode::json(&what, &body)?;
        definition_of(id, body)
    };
    rows.into_iter().map(read).collect()
}

fn definition_of(id: DefinitionId, body: Value) -> Result<(DefinitionId, DefinitionBody), OdbError> {
    let what = id.to_string();
    match Definition::from_value(id, body) {
        Ok(definition) => Ok((definition.id, definition.body)),
        Err(faults) => {
            let faults: Vec<_> = faults.iter().map(|f| format!("{} {}", f.pointer, f.detail)).collect();
            Err(OdbError::stored(what, faults.join("; ")))
        }
    }
}

type UnitColumns = (String, String, String, String);

async fn active_units(connection: &mut Handle) -> Result<BTreeMap<UnitName, ActiveUnit>, OdbError> {
    let rows: Vec<UnitColumns> = active_deployment::table
        .inner_join(
            deployment::table.on(deployment::unit
                .eq(active_deployment::unit)
                .and(deployment::digest.eq(active_deployment::digest))),
        )
        .select((deployment::unit, deployment::digest, deployment::kind, deployment::manifest))
        .load(connection)
        .await?;
    rows.into_iter().map(active_unit).collect()
}

fn active_unit(columns: UnitColumns) -> Result<(UnitName, ActiveUnit), OdbError> {
    let (unit, digest, kind, manifest) = columns;
    let what = format!("deployment {digest} of {unit}");
    let active = ActiveUnit {
        digest: decode::text(&what, &digest)?,
        kind: decode::text(&what, &kind)?,
        manifest: decode::json(&what, &manifest)?,
    };
    Ok((decode::text(&what, &unit)?, active))
}

/// The sealed secrets that `definitions` refer to.
async fn secrets(
    connection: &mut Handle,
    definitions: &BTreeMap<DefinitionId, DefinitionBody>,
) -> Result<BTreeMap<(String, u32), Vec<u8>>, OdbError> {
    let wanted: BTreeSet<(String, u32)> = definitions
        .iter()
        .flat_map(|(id, body)| stored_secrets(&Definition { id: id.clone(), body: body.clone() }))
        .collect();
    let mut secrets = BTreeMap::new();
    for (name, version) in wanted {
        let row = secret::table.find((name.as_str(), i64::from(version))).select(secret::sealed);
        if let Some(sealed) = row.first(connection).await.optional()? {
            secrets.insert((name, version), sealed);
        }
    }
    Ok(secrets)
}

type ChangeColumns = (i64, String, Option<String>, Option<String>);

pub(crate) async fn audit(
    connection: &mut Handle,
    after: Revision,
    limit: u32,
) -> Result<Vec<AuditEntry>, OdbError> {
    let rows: Vec<(i64, i64, String, String)> = audit::table
        .filter(audit::revision.gt(decode::column("revision", after.0)?))
        .order(audit::revision)
        .limit(i64::from(limit))
        .select((audit::revision, audit::time_us, audit::author, audit::message))
        .load(connection)
        .await?;
    let ([first, ..], [.., last]) = (rows.as_slice(), rows.as_slice()) else { return Ok(Vec::new()) };
    let changes: Vec<ChangeColumns> = audit_change::table
        .filter(audit_change::revision.between(first.0, last.0))
        .order((audit_change::revision, audit_change::subject))
        .select((
            audit_change::revision,
            audit_change::subject,
            audit_change::before_body,
            audit_change::after_body,
        ))
        .load(connection)
        .await?;
    let mut changes = changes.into_iter().peekable();
    let mut entries = Vec::with_capacity(rows.len());
    for (revision, time_us, author, message) in rows {
        let mut entry = AuditEntry {
            revision: Revision(decode::count("revision", revision)?),
            time_us,
            author,
            message,
            changes: Vec::new(),
        };
        while let Some((_, id, before, after)) = changes.next_if(|change| change.0 == revision) {
            let before = decode::optional_json(&id, before.as_deref())?;
            let after = decode::optional_json(&id, after.as_deref())?;
            entry.changes.push(AuditChange { id, before, after });
        }
        entries.push(entry);
    }
    Ok(entries)
}

pub(crate) async fn state_at(connection: &mut Handle, wanted: Revision) -> Result<PastState, OdbError> {
    let current = revision(connection).await?;
    if wanted > current {
        return Err(OdbError::not_found(format!("revision {wanted}; the newest is {current}")));
    }
    if wanted < current {
        require_history(connection, wanted).await?;
    }
    let mut definitions = definitions(connection).await?;
    let mut units = active_units(connection).await?;
    let mut missing = Vec::new();
    // The first change of each object after the wanted revision says what the object was at it.
    let rows: Vec<(String, Option<String>)> = audit_change::table
        .filter(audit_change::revision.gt(decode::column("revision", wanted.0)?))
        .order(audit_change::revision)
        .select((audit_change::subject, audit_change::before_body))
        .load(connection)
        .await?;
    let mut seen = BTreeSet::new();
    for (text, before) in rows {
        let subject: Subject = decode::text(&text, &text)?;
        if !seen.insert(subject.clone()) {
            continue;
        }
        match (subject, decode::optional_json(&text, before.as_deref())?) {
            (Subject::Definition(id), None) => {
                definitions.remove(&id);
            }
            (Subject::Definition(id), Some(body)) => {
                let (id, body) = definition_of(id, body)?;
                definitions.insert(id, body);
            }
            // What was revoked since stays so.
            (Subject::Certificate(_), _) => {}
            (Subject::Unit(unit), None) => {
                units.remove(&unit);
            }
            (Subject::Unit(unit), Some(document)) => {
                units.remove(&unit);
                match past_unit(connection, &unit, &document).await? {
                    Ok(active) => drop(units.insert(unit, active)),
                    Err(digest) => missing.push((unit, digest)),
                }
            }
        }
    }
    let secrets = secrets(connection, &definitions).await?;
    let revoked = revoked(connection).await?;
    let snapshot = Snapshot { revision: wanted, definitions, units, secrets, revoked };
    Ok(PastState { snapshot, missing })
}

/// Sees that every change after `wanted` is still on record.
async fn require_history(connection: &mut Handle, wanted: Revision) -> Result<(), OdbError> {
    let oldest: Option<i64> = audit::table.select(min(audit::revision)).first(connection).await?;
    let oldest: u64 = decode::count("revision", oldest.unwrap_or(0))?;
    if oldest > wanted.0.saturating_add(1) {
        let kept = Revision(oldest.saturating_sub(1));
        return Err(OdbError::not_found(format!("revision {wanted} any more; the oldest kept is {kept}")));
    }
    Ok(())
}

/// The deployment that an audit document names, or its digest when it is no longer kept.
async fn past_unit(
    connection: &mut Handle,
    unit: &UnitName,
    document: &Value,
) -> Result<Result<ActiveUnit, Digest>, OdbError> {
    let what = format!("deployment/{unit}");
    let digest = document.get("digest").and_then(Value::as_str).unwrap_or_default();
    let row: Option<UnitColumns> = deployment::table
        .find((unit.as_str(), digest))
        .select((deployment::unit, deployment::digest, deployment::kind, deployment::manifest))
        .first(connection)
        .await
        .optional()?;
    match row {
        Some(columns) => Ok(Ok(active_unit(columns)?.1)),
        None => Ok(Err(decode::text(what, digest)?)),
    }
}
