//! `crosstie message`: messages that channels and outgoings keep, searched on every server of the cluster, shown, and
//! sent again.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::client::{Client, segment};
use crate::command::{Context, say};
use crate::environment::ServerDirectory;
use crate::faults::Faults;
use crate::output::{Column, field, line, time_field};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Find kept messages, newest first
    Search(SearchArguments),
    /// Show all that is kept of one message, or of everything that has its correlation id
    Show {
        /// The correlation id, or a message's id
        id: String,
    },
    /// Send a kept message through its channel once more
    Replay {
        /// The message's id, or its correlation id
        id: String,
    },
}

#[derive(Args)]
pub(crate) struct SearchArguments {
    /// Only those with this correlation id
    #[arg(long, value_name = "CID")]
    cid: Option<String>,
    /// Only those of this channel
    #[arg(long, value_name = "NAME", conflicts_with = "outgoing")]
    channel: Option<String>,
    /// Only those that went to this outgoing
    #[arg(long, value_name = "NAME")]
    outgoing: Option<String>,
    /// Only those that this service answered
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only those with this status: 404, 5xx or 400-499
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only those that ended in an error
    #[arg(long)]
    failed: bool,
    /// Only those that began then or later: a time (RFC 3339), or how long ago: 90s, 15m, 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<String>,
    /// Only those that began then or earlier
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<String>,
    /// Most messages, the newest; 1000 at most
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
}

/// Runs one of the subcommands.
pub(crate) fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::Search(arguments) => search(context, arguments),
        Command::Show { id } => show(context, id),
        Command::Replay { id } => replay(context, id),
    }
}

/// A time as the management API reads it.
fn moment(text: &str) -> Result<String, String> {
    let wrong = || "a time such as 2026-01-31T08:00:00Z, or how long ago, such as 15m".to_owned();
    if OffsetDateTime::parse(text, &Rfc3339).is_ok() {
        return Ok(text.to_owned());
    }
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number: i64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    let ago = match unit {
        's' => Duration::seconds(number),
        'm' => Duration::minutes(number),
        'h' => Duration::hours(number),
        'd' => Duration::days(number),
        _ => return Err(wrong()),
    };
    let moment = OffsetDateTime::now_utc().checked_sub(ago).ok_or_else(wrong)?;
    moment.format(&Rfc3339).map_err(|error| error.to_string())
}

/// One server's management API.
struct Server {
    name: String,
    client: Client,
}

/// The servers to ask: the one named by `--server`, or all members, each for its own messages.
fn servers(context: &Context) -> Result<Vec<Server>> {
    let environment = context.environment()?;
    let local = |server: &ServerDirectory| -> Result<Server> {
        Ok(Server { name: server.name(), client: Client::of(&environment, server)? })
    };
    let wanted = context.server_name();
    // One of this environment is asked without anybody's help.
    if let Some(server) = wanted.and_then(|name| environment.one_server(Some(name)).ok()) {
        return Ok(vec![local(&server)?]);
    }
    let members = match Client::of(&environment, &environment.any_server()?)?.get("/members") {
        Ok(members) => members,
        Err(error) => {
            say(&format!("crosstie: only servers of this environment are asked: {error:#}"));
            return environment.servers()?.iter().map(local).collect();
        }
    };
    let member = |member: &Value| -> Result<Server> {
        let name = field(member, "name");
        let address: SocketAddr =
            field(member, "management").parse().with_context(|| format!("{name} has no address"))?;
        Ok(Server { client: Client::at(&environment, address)?, name })
    };
    let is_wanted = |member: &&Value| wanted.is_none_or(|name| field(member, "name") == name);
    let found: Vec<_> =
        members.as_array().into_iter().flatten().filter(is_wanted).map(member).collect::<Result<_>>()?;
    match (found.is_empty(), wanted) {
        (true, Some(name)) => bail!("the cluster has no server {name}"),
        _ => Ok(found),
    }
}

/// What every server answers to GET `path`, and the names of those that do not answer.
fn ask(servers: &[Server], path: &str) -> Result<(Vec<Value>, Vec<String>)> {
    let (mut answers, mut silent) = (Vec::new(), Vec::new());
    for server in servers {
        match server.client.get(path) {
            Ok(answer) => answers.push(answer),
            // What one refuses, all do.
            Err(error) if error.downcast_ref::<Faults>().is_some() => return Err(error),
            Err(error) => {
                say(&format!("crosstie: {} does not answer: {error:#}", server.name));
                silent.push(server.name.clone());
            }
        }
    }
    Ok((answers, silent))
}

/// What is missing is told, after what there is.
fn complete(silent: &[String]) -> Result<()> {
    if silent.is_empty() {
        return Ok(());
    }
    bail!("the messages of {} are missing: not every server answered", silent.join(", "))
}

fn search(context: &Context, arguments: &SearchArguments) -> Result<()> {
    let mut path = format!("/messages?limit={}", arguments.limit);
    let filters = [
        ("cid", &arguments.cid),
        ("channel", &arguments.channel),
        ("outgoing", &arguments.outgoing),
        ("service", &arguments.service),
        ("status", &arguments.status),
        ("from", &arguments.from),
        ("to", &arguments.to),
    ];
    for (name, value) in filters {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        }
    }
    if arguments.failed {
        path.push_str("&failed=true");
    }
    let (answers, silent) = ask(&servers(context)?, &path)?;
    for answer in &answers {
        if answer.get("complete") == Some(&Value::Bool(false)) {
            say(&format!(
                "crosstie: {} has more messages than it could look at: give an earliest time",
                field(answer, "server")
            ));
        }
        if answer.get("damaged").and_then(Value::as_u64).is_some_and(|damaged| damaged > 0) {
            say(&format!("crosstie: a file of messages of {} is damaged", field(answer, "server")));
        }
    }
    let rows = newest(answers.iter().filter_map(|answer| answer.get("messages")), arguments.limit);
    let columns = [
        Column::new("TIME", |row| time_field(row, "time")),
        Column::new("CID", |row| field(row, "cid")),
        Column::new("WAY", way),
        Column::new("SERVICE", |row| field(row, "service")),
        Column::new("REQUEST", request),
        Column::new("STATUS", status),
        Column::new("MS", milliseconds),
        Column::new("SERVER", |row| field(row, "server")),
    ];
    context.output.list(&rows, &columns, "no message is kept that fits")?;
    complete(&silent)
}

/// The newest of several lists.
fn newest<'a>(lists: impl Iterator<Item = &'a Value>, limit: usize) -> Value {
    let mut rows: Vec<Value> = lists.filter_map(Value::as_array).flatten().cloned().collect();
    rows.sort_by_cached_key(|row| std::cmp::Reverse(began(row)));
    rows.truncate(limit);
    Value::Array(rows)
}

/// When a message began. Fractions of different lengths do not sort as text.
fn began(row: &Value) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(row.get("time")?.as_str()?, &Rfc3339).ok()
}

fn way(row: &Value) -> String {
    match row.get("outgoing") {
        Some(_) => format!("→ {}", field(row, "outgoing")),
        None => field(row, "channel"),
    }
}

fn request(row: &Value) -> String {
    let path = field(row, "path");
    row.get("method")
        .and_then(Value::as_str)
        .map_or_else(|| path.clone(), |method| format!("{method} {path}"))
}

fn status(row: &Value) -> String {
    match (row.get("status"), row.get("problem")) {
        (Some(status), _) => status.to_string(),
        (None, _) => field(row, "problem"),
    }
}

fn milliseconds(row: &Value) -> String {
    let micros = row.get("us").and_then(Value::as_f64).unwrap_or_default();
    format!("{:.1}", micros / 1_000.0)
}

/// The servers that keep a message of that id, or of that cid, which `fits`; and those that do not answer.
fn holders(servers: &[Server], id: &str, fits: fn(&Value) -> bool) -> Result<(Vec<String>, Vec<String>)> {
    let path = format!("/messages?limit=1000&cid={}", utf8_percent_encode(id, NON_ALPHANUMERIC));
    let (answers, silent) = ask(servers, &path)?;
    let holds = |answer: &&Value| {
        let messages = answer.get("messages").and_then(Value::as_array);
        messages.into_iter().flatten().any(fits)
    };
    Ok((answers.iter().filter(holds).map(|answer| field(answer, "server")).collect(), silent))
}

fn show(context: &Context, id: &str) -> Result<()> {
    let servers = servers(context)?;
    let (holders, mut silent) = holders(&servers, id, |_| true)?;
    if holders.is_empty() {
        complete(&silent)?;
        bail!("no message {id} is kept: its channel keeps none, or it was too long ago");
    }
    let holding: Vec<_> = servers.into_iter().filter(|server| holders.contains(&server.name)).collect();
    let (answers, more) = ask(&holding, &format!("/messages/{}", segment(id)))?;
    silent.extend(more);
    let mut rows: Vec<Value> = answers.iter().filter_map(Value::as_array).flatten().cloned().collect();
    rows.sort_by_cached_key(began);
    context.output.value(&Value::Array(rows))?;
    complete(&silent)
}

fn replay(context: &Context, id: &str) -> Result<()> {
    let servers = servers(context)?;
    let (holders, silent) = holders(&servers, id, |message| message.get("channel").is_some())?;
    let [holder] = holders.as_slice() else {
        complete(&silent)?;
        if holders.is_empty() {
            bail!("no message {id} that came through a channel is kept");
        }
        bail!("{} keep messages of this cid: name one by its id", holders.join(" and "));
    };
    let server = servers.iter().find(|server| server.name == *holder);
    let server = server.ok_or_else(|| anyhow!("{holder} is no server of this cluster"))?;
    let answer = server.client.post(&format!("/messages/{}/replay", segment(id)), &json!({}))?;
    if !context.output.is_for_people() {
        return context.output.value(&answer);
    }
    line(&format!(
        "{} sent again through {} on {}: status {}, cid {}",
        field(&answer, "replay_of"),
        field(&answer, "channel"),
        field(&answer, "server"),
        field(&answer, "status"),
        field(&answer, "cid"),
    ))?;
    if let Some(text) = answer.pointer("/body/text").and_then(Value::as_str).filter(|text| !text.is_empty()) {
        line(text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_be_told_by_how_long_ago_it_is() {
        assert_eq!(moment("2026-01-31T08:00:00Z"), Ok("2026-01-31T08:00:00Z".to_owned()));
        let ago = OffsetDateTime::parse(&moment("15m").unwrap(), &Rfc3339).unwrap();
        let minutes = (OffsetDateTime::now_utc() - ago).whole_minutes();
        assert!((14..=16).contains(&minutes), "{minutes}");
        for wrong in ["", "m", "15", "15y", "yesterday", "é"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_of_several_servers_become_one() {
        let first = json!([{"time": "2026-01-31T08:00:02.5Z"}, {"time": "2026-01-31T08:00:00Z"}]);
        let second = json!([{"time": "2026-01-31T08:00:02Z"}]);
        let rows = newest([&first, &second].into_iter(), 2);
        let times: Vec<_> = rows.as_array().unwrap().iter().map(|row| field(row, "time")).collect();
        assert_eq!(times, ["2026-01-31T08:00:02.5Z", "2026-01-31T08:00:02Z"]);
    }
}
