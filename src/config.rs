//! `crosstie config`: the history of a server's configuration files, what a change was, and the way back.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::client::segment;
use crate::command::Context;
use crate::output::{Column, field, time_field, write_all};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Accepted changes, the newest first
    Log {
        #[command(flatten)]
        which: Which,
        /// How many at most
        #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100,
              value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// What one change was; the newest otherwise
    Diff {
        #[command(flatten)]
        which: Which,
        /// The change's id, or its beginning
        commit: Option<String>,
    },
    /// Bring things back to how they were after an earlier change, whose history its id tells: the files of
    /// one server, or definitions, deployments and secrets of the whole cluster at once
    Rollback {
        #[command(flatten)]
        which: Which,
        /// That change's id, or its beginning
        commit: String,
    },
}

/// Which history.
#[derive(Args)]
pub(crate) struct Which {
    /// The history of definitions and deployments instead of that of the server's own files
    #[arg(long)]
    definitions: bool,
}

impl Which {
    fn repository(&self) -> &'static str {
        if self.definitions { "cluster" } else { "server" }
    }
}

/// Runs one of the subcommands.
pub(crate) fn run(context: &Context, command: &Command) -> Result<()> {
    let client = context.client()?;
    match command {
        Command::Log { which, limit } => {
            let columns = [
                Column::new("ID", |row| field(row, "commit").chars().take(12).collect()),
                Column::new("WHEN", |row| time_field(row, "time")),
                Column::new("BY", |row| field(row, "author")),
                Column::new("WHAT", |row| field(row, "message")),
            ];
            let path = format!("/config/log?repository={}&limit={limit}", which.repository());
            context.output.list(&client.get(&path)?, &columns, "nothing was changed yet")
        }
        Command::Diff { which, commit } => {
            let commit = segment(commit.as_deref().unwrap_or("HEAD"));
            let path = format!("/config/diff/{commit}?repository={}", which.repository());
            let answer = client.get(&path)?;
            match answer.get("diff").and_then(|diff| diff.as_str()) {
                Some(diff) if context.output.is_for_people() => write_all(diff),
                _ => context.output.value(&answer),
            }
        }
        Command::Rollback { which, commit } => {
            let mut body = json!({"to": commit});
            if let (true, Some(fields)) = (which.definitions, body.as_object_mut()) {
                fields.insert("repository".into(), which.repository().into());
            }
            let answer = client.post("/config/rollback", &body)?;
            let mut sentence = format!("back at {commit}");
            if field(&answer, "revision") != "-" {
                sentence.push_str(&format!("; the cluster is at revision {}", field(&answer, "revision")));
            }
            if field(&answer, "set_aside") != "-" {
                sentence.push_str(&format!("; what was not accepted is in {}", field(&answer, "set_aside")));
            }
            if field(&answer, "needs_restart") != "-" {
                let keys = field(&answer, "needs_restart");
                sentence.push_str(&format!("; {keys} take effect at the next start"));
            }
            context.output.done(&answer, &sentence)
        }
    }
}
