//! `crosstie deployment` and `undeploy`: which version of every unit runs, what became of each attempt to
//! change that, and the way back.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::segment;
use crate::command::Context;
use crate::output::{Column, digest_field, field, time_field};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Active deployments and the latest refused ones, with the reasons
    List,
    /// One unit: its active deployment, services, and what each worker serves
    Show {
        /// The unit
        unit: String,
    },
    /// The deployments of a unit that are kept
    History {
        /// The unit
        unit: String,
    },
    /// Activate an earlier deployment again
    Rollback {
        /// The unit
        unit: String,
        /// Beginning of that deployment's digest; the previous one otherwise
        #[arg(long, value_name = "DIGEST")]
        to: Option<String>,
    },
}

#[derive(Args)]
pub(crate) struct UndeployArguments {
    /// The unit
    unit: String,
}

/// Runs one of the subcommands.
pub(crate) fn run(context: &Context, command: &Command) -> Result<()> {
    let client = context.client()?;
    match command {
        Command::List => {
            let columns = [
                Column::new("UNIT", |row| field(row, "unit")),
                Column::new("DIGEST", |row| digest_field(row, "digest")),
                Column::new("LIVE", live),
                Column::new("SINCE", |row| time_field(row, "created")),
                Column::new("BY", |row| field(row, "author")),
                Column::new("SERVICES", |row| field(row, "services")),
                Column::new("REFUSED", refusal),
            ];
            context.output.list(&client.get("/deployments")?, &columns, "nothing is deployed")
        }
        Command::Show { unit } => {
            context.output.value(&client.get(&format!("/deployments/{}", segment(unit)))?)
        }
        Command::History { unit } => {
            let columns = [
                Column::new("DIGEST", |row| digest_field(row, "digest")),
                Column::new("ACTIVE", |row| field(row, "active")),
                Column::new("WHEN", |row| time_field(row, "created")),
                Column::new("BY", |row| field(row, "author")),
                Column::new("BYTES", |row| field(row, "size")),
                Column::new("SERVICES", |row| field(row, "services")),
            ];
            let rows = client.get(&format!("/deployments/{}/history", segment(unit)))?;
            context.output.list(&rows, &columns, "this unit has no deployments")
        }
        Command::Rollback { unit, to } => {
            let body = to.as_ref().map_or_else(|| json!({}), |to| json!({"to": to}));
            let answer = client.post(&format!("/deployments/{}/rollback", segment(unit)), &body)?;
            let sentence = format!("{unit} is back at {}", digest_field(&answer, "digest"));
            context.output.done(&answer, &sentence)
        }
    }
}

/// Where a deployment is live: `server1 2/2`, or the state it is in there.
fn live(row: &Value) -> String {
    let places = row.get("live").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let texts: Vec<_> = places
        .iter()
        .map(|place| match (place.get("serving"), place.get("workers")) {
            (Some(serving), Some(workers)) => format!("{} {serving}/{workers}", field(place, "server")),
            _ => format!("{} {}", field(place, "server"), field(place, "state")),
        })
        .collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}

/// The latest attempt that was refused, when it is newer than what runs; of several faults the first.
fn refusal(row: &Value) -> String {
    let Some(refused) = row.get("refused") else { return "-".to_owned() };
    let time = time_field(refused, "time");
    match refused.get("faults").and_then(Value::as_array).map(Vec::as_slice) {
        Some([first, rest @ ..]) if !rest.is_empty() => {
            let (first, more, unit) = (first.as_str().unwrap_or_default(), rest.len(), field(row, "unit"));
            format!("{time}: {first} (+{more} more: crosstie deployment show {unit})")
        }
        _ => format!("{time}: {}", field(refused, "reason")),
    }
}

/// Takes a unit out of service. Its file may stay in the pickup directory: only a changed one is deployed.
pub(crate) fn undeploy(context: &Context, arguments: &UndeployArguments) -> Result<()> {
    let unit = &arguments.unit;
    let answer = context.client()?.delete(&format!("/deployments/{}", segment(unit)))?;
    let answer = if answer.is_null() { json!({"unit": unit}) } else { answer };
    context.output.done(&answer as &Value, &format!("undeployed {unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_the_first_of_several_faults() {
        let refused = |more: Value| {
            let mut refused = json!({"time": "2026-01-02T03:04:05Z", "reason": "one (and 2 more)"});
            if let (Some(refused), Value::Object(more)) = (refused.as_object_mut(), more) {
                refused.extend(more);
            }
            refusal(&json!({"unit": "crm", "refused": refused}))
        };
        assert_eq!(
            refused(json!({"faults": ["one", "two", "three"]})),
            "2026-01-02 03:04:05Z: one (+2 more: crosstie deployment show crm)"
        );
        assert_eq!(refused(json!({})), "2026-01-02 03:04:05Z: one (and 2 more)");
        assert_eq!(refusal(&json!({"unit": "crm"})), "-");
    }
}
