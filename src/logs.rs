//! `crosstie logs`: a server's log for people.
use crate::command::Context;
use anyhow::Result;
use clap::Args;
#[derive(Args)]
pub(crate) struct Arguments {
    /// Go on as records are written
    #[arg(short, long)]
    follow: bool,
}
pub(crate) fn run(_: &Context, arguments: &Arguments) -> Result<()> {
    let _ = arguments.follow;
    Ok(())
}
