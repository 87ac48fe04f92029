//! `crosstie service`: what can be called, calling it, checking code before it is deployed, and lifting a
//! quarantine.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::segment;
use crate::command::Context;
use crate::deploy::{Intent, upload_all};
use crate::output::{Column, field};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Every service of the active deployments
    List,
    /// One service: its documentation, declared input and output, channels
    Show {
        /// The service
        name: String,
    },
    /// Call a service and print what it answers
    Invoke {
        /// The service
        name: String,
        /// What it gets, as JSON
        #[arg(long, value_name = "JSON", conflicts_with = "file")]
        payload: Option<String>,
        /// A file that holds what it gets, as JSON; - for standard input
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Say whether files could be deployed, and change nothing
    Check {
        /// Python files and package directories
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The unit that the one FILE is a version of; its own name otherwise
        #[arg(long, value_name = "NAME")]
        unit: Option<String>,
    },
    /// Lift the quarantine of a service that crashed its workers
    Release {
        /// The service
        name: String,
    },
}

/// Runs one of the subcommands.
pub(crate) fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::List => {
            let columns = [
                Column::new("NAME", |row| field(row, "name")),
                Column::new("UNIT", |row| field(row, "unit")),
                Column::new("STATE", state),
                Column::new("CHANNELS", channels),
            ];
            let rows = context.client()?.get("/services")?;
            context.output.list(&rows, &columns, "no service is deployed")
        }
        Command::Show { name } => {
            context.output.value(&context.client()?.get(&format!("/services/{}", segment(name)))?)
        }
        Command::Invoke { name, payload, file } => {
            let payload = read_payload(payload.as_deref(), file.as_ref())?;
            let path = format!("/services/{}/invoke", segment(name));
            let answer = context.client()?.call(&path, payload.as_ref())?;
            match serde_json::from_slice::<Value>(&answer) {
                Ok(value) => context.output.value(&value),
                // Text or bytes of the service's own making are passed on as they are.
                Err(_) => Ok(std::io::stdout().lock().write_all(&answer)?),
            }
        }
        Command::Check { files, unit } => upload_all(context, files, unit.as_deref(), Intent::Check),
        Command::Release { name } => {
            let answer =
                context.client()?.post(&format!("/services/{}/release", segment(name)), &json!({}))?;
            let answer = if answer.is_null() { json!({"service": name}) } else { answer };
            context.output.done(&answer, &format!("released {name}"))
        }
    }
}

fn state(row: &Value) -> String {
    match (row.get("quarantined"), row.get("active").and_then(Value::as_bool)) {
        (Some(quarantine), _) => format!("quarantined: {}", field(quarantine, "reason")),
        (None, Some(false)) => "inactive".to_owned(),
        (None, _) => "active".to_owned(),
    }
}

fn channels(row: &Value) -> String {
    let channels = row.get("channels").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let texts: Vec<_> = channels
        .iter()
        .map(|channel| format!("{} {}", field(channel, "type"), field(channel, "path")))
        .collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}

fn read_payload(text: Option<&str>, file: Option<&PathBuf>) -> Result<Option<Value>> {
    let text = match (text, file) {
        (Some(text), _) => text.to_owned(),
        (None, Some(path)) if path.as_os_str() == "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            text
        }
        (None, Some(path)) => {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        (None, None) => return Ok(None),
    };
    serde_json::from_str(&text).map(Some).context("the payload is not JSON (a text needs quotes of its own)")
}
