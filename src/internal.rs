//! What a server runs of itself: its supervisor, its workers, and scratch processes that check artifacts.
//! None of it is for people.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crosstie_worker::{AcceptedSettings, ServerRun};

use crate::command::say;

#[derive(Args)]
pub(crate) struct RunArguments {
    directory: PathBuf,
    /// Show the log on the terminal too
    #[arg(long)]
    foreground: bool,
    /// Where the accepted settings are kept: an upgrade gives its successor the other file
    #[arg(long, default_value_t)]
    accepted: AcceptedSettings,
    /// Leave the session of whoever started it, so that closing their terminal does not end it
    #[arg(long)]
    detached: bool,
}

#[derive(Args)]
pub(crate) struct WorkerArguments {
    /// Where the supervisor keeps the accepted settings
    #[arg(long, default_value_t)]
    accepted: AcceptedSettings,
}

#[derive(Args)]
pub(crate) struct CheckArguments {
    /// The virtual environment the services will run with
    venv: PathBuf,
}

/// Leaves the session of whoever started this process.
///
/// # Errors
/// The exit code, when that is not possible; it was told why.
pub(crate) fn leave_session() -> Result<(), ExitCode> {
    nix::unistd::setsid().map(drop).map_err(|error| {
        say(&format!("crosstie: cannot leave the terminal's session: {error}"));
        ExitCode::FAILURE
    })
}

/// Runs a supervisor to its end.
pub(crate) fn run_server(arguments: &RunArguments) -> ExitCode {
    if arguments.detached
        && let Err(code) = leave_session()
    {
        return code;
    }
    crosstie_worker::run_server(&ServerRun {
        directory: arguments.directory.clone(),
        foreground: arguments.foreground,
        accepted: arguments.accepted,
    })
}

/// Runs a worker to its end.
pub(crate) fn worker(arguments: &WorkerArguments) -> ExitCode {
    crosstie_worker::run_worker(arguments.accepted)
}

/// Checks the artifact on standard input and describes it on standard output.
pub(crate) fn check_unit(arguments: &CheckArguments) -> ExitCode {
    crosstie_runtime::python::check::run(&arguments.venv)
}
