//! `crosstie completion SHELL`.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

use crate::command;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The shell the script is for
    shell: Shell,
}

/// Prints the script. It is made in memory first: the generator panics when its writer fails, and the
/// reader of a pipe may leave.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command::definition(), "crosstie", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(())
}
