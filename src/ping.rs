//! `crosstie ping`: whether the other end of an outgoing answers.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use crate::client::segment;
use crate::command::Context;
use crate::output::{field, line};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The outgoing
    name: String,
}

/// Asks a server to ping the outgoing's other end.
pub(crate) fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let path = format!("/definitions/outgoing/{}/ping", segment(&arguments.name));
    let answer = context.client()?.post(&path, &Value::Null)?;
    if !context.output.is_for_people() {
        context.output.value(&answer)?;
    }
    if answer.get("ok") != Some(&Value::Bool(true)) {
        bail!("{} does not answer as it should: {}", arguments.name, field(&answer, "detail"));
    }
    if context.output.is_for_people() {
        let elapsed = answer.get("elapsed_ms").and_then(Value::as_f64).unwrap_or_default();
        line(&format!("{}: {} ({elapsed:.1} ms)", arguments.name, field(&answer, "detail")))?;
    }
    Ok(())
}
