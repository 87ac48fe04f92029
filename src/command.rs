//! The command line: what subcommands there are, how they are parsed, and how an outcome becomes an exit
//! code: 0 done, 1 refused or failed, 2 bad usage.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::client::Client;
use crate::environment::{Environment, ServerDirectory};
use crate::faults::Faults;
use crate::output::{Format, Output};
use crate::{
    ca, completion, config, definitions, deploy, deployment, identity, internal, lb, lifecycle, logs,
    message, odb, ping, quickstart, server, service, status, venv,
};

/// Exit code of a command line that makes no sense, as everywhere on UNIX.
const BAD_USAGE: u8 = 2;

/// Deploys, configures and watches integration services.
#[derive(Parser)]
#[command(name = "crosstie", version, propagate_version = true)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    options: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

/// Options that every subcommand takes.
#[derive(Args)]
struct GlobalOptions {
    /// The environment's directory; otherwise the current directory is tried
    #[arg(long, global = true, env = "CROSSTIE_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The server that is meant; otherwise the only one, or for what every server can do the first that runs
    #[arg(long, global = true, value_name = "NAME")]
    server: Option<String>,
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
}

#[derive(Subcommand)]
enum Command {
    /// Create an environment and start it
    Quickstart(quickstart::Arguments),
    /// Start an environment, or one component of it
    Start(lifecycle::StartArguments),
    /// Stop an environment, or one component of it, letting requests in flight finish
    Stop(lifecycle::StopArguments),
    /// Show what runs
    Status(status::Arguments),
    /// Deploy Python files and packages
    Deploy(deploy::Arguments),
    /// Take a unit and its services out of service
    Undeploy(deployment::UndeployArguments),
    /// Look at deployments and go back to an earlier one
    #[command(subcommand)]
    Deployment(deployment::Command),
    /// Look at services, call, check and release them
    #[command(subcommand)]
    Service(service::Command),
    /// Show definitions of a kind
    Get(definitions::GetArguments),
    /// Create or change definitions from YAML: all of them or none
    Apply(definitions::ApplyArguments),
    /// Print all definitions as YAML that `apply` reads
    Export(definitions::ExportArguments),
    /// Delete a definition
    Delete(definitions::DeleteArguments),
    /// Ask the other end of an outgoing for a sign of life
    Ping(ping::Arguments),
    /// Messages that channels and outgoings keep: search them, look at one, send one again
    #[command(subcommand)]
    Message(message::Command),
    /// The history of a server's configuration files
    #[command(subcommand)]
    Config(config::Command),
    /// The operational database: where it is, which schema it has, and the upgrade
    #[command(subcommand)]
    Odb(odb::Command),
    /// Servers of the cluster: join, drain, leave
    #[command(subcommand)]
    Server(server::Command),
    /// Certificates of the cluster's authority
    #[command(subcommand)]
    Ca(ca::Command),
    /// People who may use the management API
    #[command(subcommand)]
    User(identity::UserCommand),
    /// Tokens with which programs use the management API
    #[command(subcommand)]
    Token(identity::TokenCommand),
    /// Show a server's log
    Logs(logs::Arguments),
    /// Python packages that services may import
    #[command(subcommand)]
    Venv(venv::Command),
    /// Print a completion script for a shell
    Completion(completion::Arguments),
    /// Run as a worker of the supervisor that started it
    #[command(hide = true)]
    Worker(internal::WorkerArguments),
    /// Check an artifact that arrives on standard input
    #[command(hide = true)]
    CheckUnit(internal::CheckArguments),
    /// Run a load balancer
    #[command(subcommand, hide = true)]
    Lb(lb::Command),
}

/// What a subcommand needs besides its own arguments.
pub(crate) struct Context {
    directory: Option<PathBuf>,
    server: Option<String>,
    /// Where results go.
    pub(crate) output: Output,
}

impl Context {
    /// The environment named by `--dir` or `CROSSTIE_DIR`, or the current directory.
    pub(crate) fn environment(&self) -> Result<Environment> {
        Environment::find(self.directory.as_deref())
    }

    /// What `--dir` or `CROSSTIE_DIR` says.
    pub(crate) fn directory(&self) -> Option<&PathBuf> {
        self.directory.as_ref()
    }

    /// What `--server` says.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// The server named by `--server`, or the only one.
    pub(crate) fn server(&self) -> Result<ServerDirectory> {
        self.environment()?.one_server(self.server.as_deref())
    }

    /// A client of the management API: of the server named by `--server`, or of one that runs, as each of them
    /// speaks for all.
    pub(crate) fn client(&self) -> Result<Client> {
        let environment = self.environment()?;
        let server = match &self.server {
            Some(name) => environment.one_server(Some(name))?,
            None => environment.any_server()?,
        };
        Client::of(&environment, &server)
    }
}

/// Parses the process's command line.
///
/// # Errors
/// The exit code, when there is nothing to run: help was asked for and printed, or the usage is wrong.
pub(crate) fn parse() -> Result<CommandLine, ExitCode> {
    CommandLine::try_parse().map_err(|error| {
        // Standard output may be closed already, which is nothing to complain about.
        let _ = error.print();
        ExitCode::from(if error.use_stderr() { BAD_USAGE } else { 0 })
    })
}

/// The definition of the command line, for completion scripts.
pub(crate) fn definition() -> clap::Command {
    CommandLine::command()
}

impl CommandLine {
    /// Runs the subcommand and gives the process's exit code.
    pub(crate) fn run(self) -> ExitCode {
        let GlobalOptions { dir, server, output } = self.options;
        let context = Context { directory: dir, server, output: Output::new(output) };
        let outcome = match self.command {
            Command::Worker(arguments) => return internal::worker(&arguments),
            Command::CheckUnit(arguments) => return internal::check_unit(&arguments),
            Command::Lb(command) => return lb::run(&command),
            Command::Start(arguments) if arguments.foreground => {
                return lifecycle::start_foreground(&context, &arguments).unwrap_or_else(|e| failed(&e));
            }
            Command::Server(command) => match server::run_supervisor(&command) {
                Some(code) => return code,
                None => server::run(&context, &command),
            },
            command => command.dispatch(&context),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        }
    }
}

impl Command {
    fn dispatch(self, context: &Context) -> Result<()> {
        match self {
            Self::Quickstart(arguments) => quickstart::run(context, &arguments),
            Self::Start(arguments) => lifecycle::start(context, &arguments),
            Self::Stop(arguments) => lifecycle::stop(context, &arguments),
            Self::Status(arguments) => status::run(context, &arguments),
            Self::Deploy(arguments) => deploy::run(context, &arguments),
            Self::Undeploy(arguments) => deployment::undeploy(context, &arguments),
            Self::Deployment(command) => deployment::run(context, &command),
            Self::Service(command) => service::run(context, &command),
            Self::Get(arguments) => definitions::get(context, &arguments),
            Self::Apply(arguments) => definitions::apply(context, &arguments),
            Self::Export(arguments) => definitions::export(context, &arguments),
            Self::Delete(arguments) => definitions::delete(context, &arguments),
            Self::Ping(arguments) => ping::run(context, &arguments),
            Self::Message(command) => message::run(context, &command),
            Self::Ca(command) => ca::run(context, &command),
            Self::Config(command) => config::run(context, &command),
            Self::Odb(command) => odb::run(context, &command),
            Self::User(command) => identity::user(context, &command),
            Self::Token(command) => identity::token(context, &command),
            Self::Logs(arguments) => logs::run(context, &arguments),
            Self::Venv(command) => venv::run(context, &command),
            Self::Completion(arguments) => completion::run(&arguments),
            // These end in an exit code of their own and were taken before.
            Self::Server(_) | Self::Worker(_) | Self::CheckUnit(_) | Self::Lb(_) => Ok(()),
        }
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let text = format!("{error:#}");
    complain(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    if let Some(faults) = error.downcast_ref::<Faults>() {
        faults.lines().for_each(|line| say(&line));
    }
    ExitCode::FAILURE
}

/// Whether the reader of standard output went away (`crosstie get … | head`), which is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn complain(text: &str) {
    say(&format!("crosstie: {text}"));
}

/// Writes one line to standard error. Nobody can be told when that fails.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn the_environment_may_be_named_anywhere_on_the_line() {
        let line =
            CommandLine::try_parse_from(["crosstie", "deployment", "list", "--dir", "/e", "-o", "json"]);
        let options = line.unwrap().options;
        assert_eq!(options.dir, Some(PathBuf::from("/e")));
        assert_eq!(options.output, Format::Json);
    }
}
