//! `crosstie user` and `crosstie token`: who may use the management API. Passwords never stand on the
//! command line: they come from standard input or a file, or are made here and shown once.

use std::fs;
use std::io::{BufRead as _, Read as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use crosstie_api::access::Role;
use crosstie_security::password::MAX_PASSWORD_BYTES;
use serde_json::json;

use crate::client::segment;
use crate::command::Context;
use crate::output::{Column, field, time_field};

const SECONDS_OF_A_DAY: u64 = 86_400;

#[derive(Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user
    Add(UserAddArguments),
    /// Change a user's role or password
    Change(UserChangeArguments),
    /// Everybody who may use the management API
    List,
    /// Take a user's access away
    Delete {
        /// The user
        name: String,
    },
}

#[derive(Args)]
pub(crate) struct UserAddArguments {
    /// The user's name
    name: String,
    /// What the user may do: viewer, operator or admin
    #[arg(long, default_value_t = Role::Viewer, value_name = "ROLE")]
    role: Role,
    /// A file that holds the password; - for the first line of standard input; generated otherwise
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct UserChangeArguments {
    /// The user's name
    name: String,
    /// What the user may do from now on: viewer, operator or admin
    #[arg(long, value_name = "ROLE", required_unless_present = "password_file")]
    role: Option<Role>,
    /// A file that holds the new password; - for the first line of standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it is shown once
    Add(TokenAddArguments),
    /// Every token, without its secret
    List,
    /// Make a token worthless
    Delete {
        /// The token's id
        id: String,
    },
}

#[derive(Args)]
pub(crate) struct TokenAddArguments {
    /// The user on whose behalf the token's holder acts
    user: String,
    /// What the holder may do: viewer, operator or admin, at most what the user may; all of that otherwise
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,
    /// After how many days the token becomes worthless; never otherwise
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
}

/// Runs one of the subcommands of `user`.
pub(crate) fn user(context: &Context, command: &UserCommand) -> Result<()> {
    let client = context.client()?;
    match command {
        UserCommand::Add(arguments) => {
            let mut body = json!({"name": arguments.name, "role": arguments.role});
            if let (Some(path), Some(fields)) = (&arguments.password_file, body.as_object_mut()) {
                fields.insert("password".into(), read_password(path)?.into());
            }
            let answer = client.post("/users", &body)?;
            let made = answer.get("password").and_then(|password| password.as_str());
            let password =
                made.map(|made| format!("; the password, shown only now, is {made}")).unwrap_or_default();
            let sentence = format!("added {} as {}{password}", arguments.name, arguments.role);
            context.output.done(&answer, &sentence)
        }
        UserCommand::Change(arguments) => {
            let password = arguments.password_file.as_ref().map(read_password).transpose()?;
            let body = json!({"role": arguments.role, "password": password});
            let answer = client.patch(&format!("/users/{}", segment(&arguments.name)), &body)?;
            context.output.done(&answer, &format!("changed {}", arguments.name))
        }
        UserCommand::List => {
            let columns = [
                Column::new("NAME", |row| field(row, "name")),
                Column::new("ROLE", |row| field(row, "role")),
            ];
            context.output.list(&client.get("/users")?, &columns, "there are no users")
        }
        UserCommand::Delete { name } => {
            client.delete(&format!("/users/{}", segment(name)))?;
            context.output.done(&json!({"deleted": name}), &format!("deleted {name}"))
        }
    }
}

/// Runs one of the subcommands of `token`.
pub(crate) fn token(context: &Context, command: &TokenCommand) -> Result<()> {
    let client = context.client()?;
    match command {
        TokenCommand::Add(arguments) => {
            let ttl = arguments.days.map(|days| u64::from(days) * SECONDS_OF_A_DAY);
            let body = json!({"user": arguments.user, "role": arguments.role, "ttl_s": ttl});
            let answer = client.post("/tokens", &body)?;
            let sentence =
                format!("token {}, shown only now: {}", field(&answer, "id"), field(&answer, "token"));
            context.output.done(&answer, &sentence)
        }
        TokenCommand::List => {
            let columns = [
                Column::new("ID", |row| field(row, "id")),
                Column::new("USER", |row| field(row, "user")),
                Column::new("ROLE", |row| field(row, "role")),
                Column::new("EXPIRES", |row| time_field(row, "expires")),
            ];
            context.output.list(&client.get("/tokens")?, &columns, "there are no tokens")
        }
        TokenCommand::Delete { id } => {
            client.delete(&format!("/tokens/{}", segment(id)))?;
            context.output.done(&json!({"deleted": id}), &format!("token {id} is worthless now"))
        }
    }
}

fn read_password(path: &PathBuf) -> Result<String> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        let input = std::io::stdin().lock().take(MAX_PASSWORD_BYTES as u64 + 1);
        std::io::BufReader::new(input).read_line(&mut text).context("cannot read standard input")?;
    } else {
        fs::File::open(path)
            .and_then(|file| file.take(MAX_PASSWORD_BYTES as u64 + 1).read_to_string(&mut text))
            .with_context(|| format!("cannot read {}", path.display()))?;
    }
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
        bail!("a password has 1 to {MAX_PASSWORD_BYTES} bytes; this one has {}", password.len());
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_may_end_in_a_line_break() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        fs::write(&path, "correct horse\r\n").unwrap();
        assert_eq!(read_password(&path).unwrap(), "correct horse");
        fs::write(&path, "\n").unwrap();
        assert!(read_password(&path).is_err());
        fs::write(&path, "x".repeat(2000)).unwrap();
        assert!(read_password(&path).is_err());
    }
}
