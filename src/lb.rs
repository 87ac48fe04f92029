//! What a load balancer runs of itself: its agent. Not for people, who use `start` and `stop`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::internal;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the agent of the load balancer in a directory
    Run(RunArguments),
}

#[derive(Args)]
pub(crate) struct RunArguments {
    directory: PathBuf,
    /// Leave the session of whoever started it, so that closing their terminal does not end it
    #[arg(long)]
    detached: bool,
}

/// Runs an agent to its end. Its log is also shown unless it is detached.
pub(crate) fn run(command: &Command) -> ExitCode {
    let Command::Run(arguments) = command;
    if arguments.detached
        && let Err(code) = internal::leave_session()
    {
        return code;
    }
    crosstie_lb::run(&arguments.directory, !arguments.detached)
}
