//! `crosstie server`: the servers of the cluster, from joining to leaving.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::{Client, segment};
use crate::command::{Context, say};
use crate::environment::Environment;
use crate::output::{Column, field, shows_progress, time_field};
use crate::{internal, join, process, upgrade};

/// How often a server that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Subcommand)]
pub(crate) enum Command {
    /// The servers of the cluster
    List,
    /// One server of the cluster
    Show {
        /// The server
        name: String,
    },
    /// Take a server out of service: load balancers send it no more requests, and it finishes those it has
    Drain(WaitArguments),
    /// Take a server back into service
    Undrain(WaitArguments),
    /// Remove a server that was stopped from the cluster
    Leave(LeaveArguments),
    /// Make a token with which one server can join, on any host
    Token(TokenArguments),
    /// Make another server in this environment
    Create(CreateArguments),
    /// Make a server that joins the cluster of a token
    Join(JoinArguments),
    /// Change over to the binary that was installed in the place of the running one, without losing a request
    Upgrade(upgrade::Arguments),
    /// Run the supervisor of the server in a directory
    #[command(hide = true)]
    Run(internal::RunArguments),
}

#[derive(Args)]
pub(crate) struct WaitArguments {
    /// The server
    name: String,
    /// How long to wait until it is done, in seconds; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

#[derive(Args)]
pub(crate) struct LeaveArguments {
    /// The server
    name: String,
    /// Drain it first if it runs, and stop it if it is in this environment
    #[arg(long)]
    force: bool,
    /// How long draining may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "force")]
    timeout: u64,
}

#[derive(Args)]
pub(crate) struct TokenArguments {
    /// Where the new server reaches the management API of a server of the cluster, such as 10.0.0.1:17110; as
    /// often as there are some; those of the servers that run otherwise
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<SocketAddr>,
    /// For how many minutes it is good
    #[arg(long, value_name = "MINUTES", default_value_t = 15,
          value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
}

#[derive(Args)]
pub(crate) struct CreateArguments {
    /// The server's name, which is also its directory's
    name: String,
    #[command(flatten)]
    listening: Listening,
}

#[derive(Args)]
pub(crate) struct JoinArguments {
    /// The directory to create; its name is the server's, unique in the cluster: DIR/server2
    directory: PathBuf,
    /// The token, which `crosstie server token` made
    #[arg(long, value_name = "TOKEN", required_unless_present = "token_file")]
    token: Option<String>,
    /// A file that holds the token; - for the first line of standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    listening: Listening,
}

/// Where a new server listens, and under what it is reached.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Listening {
    /// Address of plain HTTP service traffic
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,
    /// Address of HTTPS service traffic
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) https: Option<SocketAddr>,
    /// Address of the management API
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) management: Option<SocketAddr>,
    /// A DNS name under which it is reached, for its certificate; as often as there are some
    #[arg(long, value_name = "NAME")]
    pub(crate) dns: Vec<String>,
    /// An address under which it is reached besides those it listens on, for its certificate
    #[arg(long, value_name = "IP")]
    pub(crate) ip: Vec<IpAddr>,
}

/// Runs a supervisor, which ends in an exit code of its own; `None` for everything else.
pub(crate) fn run_supervisor(command: &Command) -> Option<ExitCode> {
    match command {
        Command::Run(arguments) => Some(internal::run_server(arguments)),
        _ => None,
    }
}

/// Runs one of the other subcommands.
pub(crate) fn run(context: &Context, command: &Command) -> Result<()> {
    match command {
        Command::List => list(context),
        Command::Show { name } => {
            let member = context.client()?.get(&path_of(name))?;
            context.output.value(&member)
        }
        Command::Drain(arguments) => drain(context, arguments),
        Command::Undrain(arguments) => undrain(context, arguments),
        Command::Leave(arguments) => leave(context, arguments),
        Command::Token(arguments) => token(context, arguments),
        Command::Create(arguments) => create(context, arguments),
        Command::Upgrade(arguments) => upgrade::run(context, arguments),
        Command::Join(arguments) => {
            let token = join::read_token(arguments.token.as_deref(), arguments.token_file.as_deref())?;
            join::join(context, &arguments.directory, &token, &arguments.listening)
        }
        // Taken before.
        Command::Run(_) => Ok(()),
    }
}

fn list(context: &Context) -> Result<()> {
    let columns = [
        Column::new("NAME", |row| field(row, "name")),
        Column::new("STATE", |row| field(row, "state")),
        Column::new("WANTED", |row| field(row, "wanted")),
        Column::new("LEADER", |row| field(row, "leader")),
        Column::new("ADDRESS", |row| field(row, "address")),
        Column::new("MANAGEMENT", |row| field(row, "management")),
        Column::new("VERSION", |row| field(row, "version")),
        Column::new("REVISION", |row| field(row, "revision")),
        Column::new("IN FLIGHT", |row| field(row, "in_flight")),
        Column::new("SEEN", |row| time_field(row, "seen")),
    ];
    context.output.list(&context.client()?.get("/members")?, &columns, "there are no servers")
}

fn path_of(name: &str) -> String {
    format!("/members/{}", segment(name))
}

fn drain(context: &Context, arguments: &WaitArguments) -> Result<()> {
    let member = drain_and_wait(&context.client()?, &arguments.name, arguments.timeout)?;
    let sentence = match field(&member, "state").as_str() {
        "drained" => format!("{} is drained: it has no requests and gets no more", arguments.name),
        state if is_live(&member) => format!("{} is {state}", arguments.name),
        state => format!("{} is {state} and will be out of service when it is started", arguments.name),
    };
    context.output.done(&member, &sentence)
}

/// Drains `name` and waits until it has no more requests, or does not run at all.
fn drain_and_wait(client: &Client, name: &str, timeout: u64) -> Result<Value> {
    let path = path_of(name);
    let member = client.post(&format!("{path}/drain"), &json!({}))?;
    if timeout == 0 {
        return Ok(member);
    }
    let done = |member: &Value| field(member, "state") == "drained" || !is_live(member);
    let member = wait(client, &path, timeout, done)?;
    if !done(&member) {
        let left = field(&member, "in_flight");
        bail!(
            "{name} still has {left} requests after {timeout} s; it stays out of service: \
             wait on with `crosstie server drain {name}` or take it back with `crosstie server undrain {name}`"
        );
    }
    Ok(member)
}

fn undrain(context: &Context, arguments: &WaitArguments) -> Result<()> {
    let (client, name) = (context.client()?, &arguments.name);
    let path = path_of(name);
    let mut member = client.post(&format!("{path}/undrain"), &json!({}))?;
    let settled =
        |member: &Value| matches!(field(member, "state").as_str(), "ready" | "failed") || !is_live(member);
    if arguments.timeout > 0 {
        member = wait(&client, &path, arguments.timeout, settled)?;
        if !settled(&member) {
            bail!("{name} is still {} after {} s", field(&member, "state"), arguments.timeout);
        }
    }
    let reason = member.get("reason").and_then(Value::as_str).map(|reason| format!(": {reason}"));
    let sentence = format!("{name} is {}{}", field(&member, "state"), reason.unwrap_or_default());
    context.output.done(&member, &sentence)
}

/// Looks at a server until it is as wanted, or time is up; gives how it is then.
fn wait(client: &Client, path: &str, timeout: u64, done: impl Fn(&Value) -> bool) -> Result<Value> {
    let until = Instant::now() + Duration::from_secs(timeout);
    let mut said = String::new();
    loop {
        let member = client.get(path)?;
        if done(&member) || Instant::now() >= until {
            return Ok(member);
        }
        let (name, state) = (field(&member, "name"), field(&member, "state"));
        let progress = format!("{name} is {state}, {} requests in flight …", field(&member, "in_flight"));
        if shows_progress() && progress != said {
            say(&progress);
        }
        said = progress;
        std::thread::sleep(LOOK);
    }
}

/// Whether a server runs, as far as the cluster knows.
fn is_live(member: &Value) -> bool {
    !matches!(field(member, "state").as_str(), "left" | "dead")
}

fn leave(context: &Context, arguments: &LeaveArguments) -> Result<()> {
    let (client, name) = (context.client()?, &arguments.name);
    let path = path_of(name);
    let member = client.get(&path)?;
    if !is_live(&member) {
        client.delete(&path)?;
        return context.output.done(&json!({"left": name}), &format!("{name} left the cluster"));
    }
    if !arguments.force {
        let state = field(&member, "state");
        bail!("{name} is {state}: stop it first, or let --force drain, stop and remove it");
    }
    // What the cluster knows is removed while the server still runs and answers this: it may be the one asked.
    let drained = drain_and_wait(&client, name, arguments.timeout.max(1))?;
    let query = if is_live(&drained) { "?drained=true" } else { "" };
    client.delete(&format!("{path}{query}"))?;
    let stopped = stop_here(&context.environment()?, name, &member)?;
    let advice = if stopped { "" } else { "; stop it on its host, where it serves until then" };
    context
        .output
        .done(&json!({"left": name, "stopped": stopped}), &format!("{name} left the cluster{advice}"))
}

/// Stops the server if it is one of this environment; says whether it does not run here any more.
fn stop_here(environment: &Environment, name: &str, member: &Value) -> Result<bool> {
    let server = environment.server(name);
    let management = server.addresses().ok().and_then(|addresses| addresses.management);
    let is_here = management.is_some_and(|address| address.to_string() == field(member, "management"));
    if is_here {
        process::end(&server)?;
    }
    Ok(is_here)
}

fn token(context: &Context, arguments: &TokenArguments) -> Result<()> {
    let answer = order_token(&context.client()?, &arguments.address, arguments.minutes)?;
    if !context.output.is_for_people() {
        return context.output.value(&answer);
    }
    crate::output::line(&field(&answer, "token"))?;
    if shows_progress() {
        let expires = time_field(&answer, "expires");
        say(&format!("good for one server until {expires}: `crosstie server join DIR/NAME --token …` there"));
    }
    Ok(())
}

fn order_token(client: &Client, addresses: &[SocketAddr], minutes: u64) -> Result<Value> {
    client.post("/join-tokens", &json!({"addresses": addresses, "ttl_s": minutes * 60}))
}

fn create(context: &Context, arguments: &CreateArguments) -> Result<()> {
    let environment = context.environment()?;
    let directory = environment.root().join(&arguments.name);
    if directory.parent() != Some(environment.root()) {
        bail!("{} is no name of a server", arguments.name);
    }
    let listening = beside(&environment, arguments)?;
    let answer = order_token(&context.client()?, &[], 5)?;
    let token = answer.get("token").and_then(Value::as_str).context("the server gave no token")?;
    join::join(context, &directory, token, &listening)
}

/// Where a new server listens that nobody gave addresses: like the first one, as many ports further as makes
/// them unlike those of every other server.
fn beside(environment: &Environment, arguments: &CreateArguments) -> Result<Listening> {
    let mut listening = arguments.listening.clone();
    let servers = environment.servers()?;
    let taken = servers.iter().filter_map(|server| server.addresses().ok()).collect::<Vec<_>>();
    let first = taken.first().cloned().unwrap_or_default();
    let taken: Vec<SocketAddr> =
        taken.iter().flat_map(|known| [known.http, known.https, known.management]).flatten().collect();
    let moved = |address: Option<SocketAddr>, by: u16| {
        address.map(|mut address| {
            address.set_port(address.port().saturating_add(by));
            address
        })
    };
    let count = u16::try_from(servers.len()).unwrap_or(u16::MAX);
    let free = |by: &u16| {
        let wanted = [moved(first.http, *by), moved(first.https, *by), moved(first.management, *by)];
        wanted.iter().flatten().all(|address| !taken.contains(address))
    };
    let by = (count..count.saturating_add(50)).find(free).context("no ports are left: give addresses")?;
    let given = listening.http.is_some() || listening.https.is_some();
    if !given {
        listening.http = moved(first.http, by);
        listening.https = moved(first.https, by);
    }
    listening.management = listening.management.or_else(|| moved(first.management, by));
    Ok(listening)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_beside_others_listens_on_ports_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment::new(directory.path().to_owned());
        for (name, port) in [("server1", 17_010), ("server3", 17_011)] {
            let server = environment.server(name);
            std::fs::create_dir_all(server.config()).unwrap();
            let text = format!(
                "[server]\nhttps = \"127.0.0.1:{port}\"\n[management]\naddress = \"127.0.0.1:{}\"\n",
                port + 100
            );
            std::fs::write(server.settings_file(), text).unwrap();
        }
        let arguments = CreateArguments { name: "server2".into(), listening: Listening::default() };
        let listening = beside(&environment, &arguments).unwrap();
        assert_eq!(listening.http, None);
        assert_eq!(listening.https, "127.0.0.1:17012".parse().ok());
        assert_eq!(listening.management, "127.0.0.1:17112".parse().ok());
    }
}
