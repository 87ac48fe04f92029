//! `crosstie odb`: the operational database itself, without a server: its schema against this release's, and
//! the upgrade. `connect` is also how other subcommands reach it when no server need run.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use crosstie_model::settings::ServerSettings;
use crosstie_odb::{Odb, OdbOptions, SchemaStatus};
use crosstie_security::{ClusterKey, SecretResolver};
use serde_json::{Value, json};

use crate::command::Context;
use crate::environment::{Environment, ServerDirectory};
use crate::{service_user, settings};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show where the operational database is and which schema it has
    Status(Arguments),
    /// Bring the database's schema up to this release's; a copy of an SQLite file is kept
    Migrate(Arguments),
}

#[derive(Args)]
pub(crate) struct Arguments {
    /// Whose settings say where the database is; servers of an environment share one
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
}

/// Runs one of the subcommands.
pub(crate) fn run(context: &Context, command: &Command) -> Result<()> {
    let environment = context.environment()?;
    let (Command::Status(arguments) | Command::Migrate(arguments)) = command;
    let server = server_of(&environment, arguments.server.as_deref())?;
    // Files that SQLite makes beside the database must be the server's.
    service_user::become_owner_of(server.path())?;
    let odb = connect(&server, &settings::read(&server)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::Status(_) => status(context, &runtime, &odb),
        Command::Migrate(_) => migrate(context, &runtime, &odb),
    }
}

/// The server called `name`; any one otherwise.
fn server_of(environment: &Environment, name: Option<&str>) -> Result<ServerDirectory> {
    match (name, environment.servers()?.into_iter().next()) {
        (None, Some(first)) => Ok(first),
        (name, _) => environment.one_server(name),
    }
}

/// A handle to the database of `server`, which may be away.
pub(crate) fn connect(server: &ServerDirectory, settings: &ServerSettings) -> Result<Odb> {
    let key = Arc::new(ClusterKey::load(&server.path().join(&settings.security.cluster_key))?);
    let resolver = SecretResolver::new(key, server.path().to_owned());
    let password =
        settings.odb.password.as_deref().map(|given| resolver.resolve_setting(given)).transpose()?;
    Ok(Odb::connect(&OdbOptions::from_settings(settings, server.path(), password))?)
}

fn status(context: &Context, runtime: &tokio::runtime::Runtime, odb: &Odb) -> Result<()> {
    let (state, schema, known, reason) = match runtime.block_on(odb.schema_status()) {
        Ok(status) => {
            let state = word(&status);
            let (schema, known) = versions(status);
            (state, schema, known, None)
        }
        Err(error) => ("unreachable", None, odb.known_schema()?, Some(error.to_string())),
    };
    context.output.value(&json!({
        "backend": odb.kind(),
        "place": odb.place(),
        "reachable": reason.is_none(),
        "reason": reason,
        "state": state,
        "schema": schema,
        "known": known,
    }))
}

fn migrate(context: &Context, runtime: &tokio::runtime::Runtime, odb: &Odb) -> Result<()> {
    let (before, known) = versions(runtime.block_on(odb.schema_status())?);
    runtime.block_on(odb.migrate()).context("the database is as it was")?;
    let backup = before.as_deref().and_then(|version| odb.backup(version)).filter(|path| path.is_file());
    let answer = json!({
        "backend": odb.kind(),
        "from": before,
        "to": known,
        "migrated": before.as_ref() != Some(&known),
        "backup": backup,
    });
    context.output.done(&answer, &sentence(&answer))
}

fn sentence(answer: &Value) -> String {
    let text = |key: &str| answer.get(key).and_then(Value::as_str);
    let to = text("to").unwrap_or_default();
    match (text("from"), text("backup")) {
        (Some(from), _) if from == to => format!("the schema is {to} already"),
        (Some(from), Some(backup)) => {
            format!("the schema was upgraded from {from} to {to}; the database before that is in {backup}")
        }
        (Some(from), None) => format!("the schema was upgraded from {from} to {to}"),
        (None, _) => format!("the schema {to} was created"),
    }
}

fn word(status: &SchemaStatus) -> &'static str {
    match status {
        SchemaStatus::Missing { .. } => "missing",
        SchemaStatus::Older { .. } => "older",
        SchemaStatus::Current { .. } => "current",
        SchemaStatus::Newer { .. } => "newer",
    }
}

/// The database's version and this release's.
fn versions(status: SchemaStatus) -> (Option<String>, String) {
    match status {
        SchemaStatus::Missing { known } => (None, known),
        SchemaStatus::Older { found, known } | SchemaStatus::Newer { found, known } => (Some(found), known),
        SchemaStatus::Current { found } => (Some(found.clone()), found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_says_what_it_did() {
        let said = |answer| sentence(&answer);
        assert_eq!(said(json!({"from": "0002", "to": "0002"})), "the schema is 0002 already");
        assert_eq!(said(json!({"from": null, "to": "0002"})), "the schema 0002 was created");
        let upgraded = said(json!({"from": "0001", "to": "0002", "backup": "/e/odb.sqlite.backup-0001"}));
        assert!(upgraded.ends_with("/e/odb.sqlite.backup-0001") && upgraded.contains("from 0001 to 0002"));
    }
}
