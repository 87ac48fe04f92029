//! `crosstie config`: the history of a server's configuration files, what a change was, and the way back.

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;

use crate::client::segment;
use crate::command::Context;
use crate::output::{Column, field, time_field, write_all};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Accepted changes, the newest first
    Log,
    /// What one change was; the newest otherwise
    Diff {
        /// The change's id, or its beginning
        commit: Option<String>,
    },
    /// Put the files back to how they were after an earlier change
    Rollback {
        /// That change's id, or its beginning
        commit: String,
    },
}

/// Runs one of the subcommands.
pub(crate) fn run(context: &Context, command: &Command) -> Result<()> {
    let client = context.client()?;
    match command {
        Command::Log => {
            let columns = [
                Column::new("ID", |row| field(row, "id").chars().take(12).collect()),
                Column::new("WHEN", |row| time_field(row, "time")),
                Column::new("BY", |row| field(row, "author")),
                Column::new("WHAT", |row| field(row, "message")),
            ];
            context.output.list(&client.get("/config/log")?, &columns, "nothing was changed yet")
        }
        Command::Diff { commit } => {
            let commit = commit.as_deref().unwrap_or("HEAD");
            let answer = client.get(&format!("/config/diff/{}", segment(commit)))?;
            match answer.get("diff").and_then(|diff| diff.as_str()) {
                Some(diff) if context.output.is_for_people() => write_all(diff),
                _ => context.output.value(&answer),
            }
        }
        Command::Rollback { commit } => {
            let answer = client.post("/config/rollback", &json!({"to": commit}))?;
            context.output.done(&answer, &format!("the configuration is back at {commit}"))
        }
    }
}
