//! `crosstie deploy` and the check behind `crosstie service check`: artifacts uploaded over the management
//! API, each one accepted or refused for itself.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use crosstie_model::unit::Artifact;
use serde_json::{Value, json};

use crate::client::{Client, segment};
use crate::command::{Context, say};
use crate::output::{digest_field, field, line, pending};
use crate::{archive, output};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Python files and package directories; a directory called lib is the shared library
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The unit that the one FILE is a version of; its own name otherwise
    #[arg(long, value_name = "NAME")]
    unit: Option<String>,
}

/// What the server is asked to do with an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    /// Deploy it.
    Deploy,
    /// Say whether it could be deployed, and change nothing.
    Check,
}

/// Deploys every file; those that are refused do not keep the others back.
pub(crate) fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    upload_all(context, &arguments.files, arguments.unit.as_deref(), Intent::Deploy)
}

/// Uploads `files` and prints what became of each.
///
/// # Errors
/// At least one was refused; each reason has been printed by then.
pub(crate) fn upload_all(
    context: &Context,
    files: &[PathBuf],
    unit: Option<&str>,
    intent: Intent,
) -> Result<()> {
    if unit.is_some() && files.len() > 1 {
        bail!("--unit names one unit and {} files were given: deploy them one by one", files.len());
    }
    let client = context.client()?;
    let mut answers = Vec::new();
    let mut refused = 0;
    for path in files {
        if files.len() > 1 && output::shows_progress() {
            say(&format!("{} …", path.display()));
        }
        match archive::read(path, unit).and_then(|artifact| upload(&client, &artifact, intent)) {
            Ok(answer) => {
                if context.output.is_for_people() {
                    line(&format!("{}{}", sentence(&answer, intent), pending(&answer)))?;
                }
                answers.push(answer);
            }
            Err(error) if files.len() == 1 => return Err(error),
            Err(error) => {
                refused += 1;
                say(&format!("crosstie: {}: {error:#}", path.display()));
                answers.push(json!({"file": path, "error": format!("{error:#}")}));
            }
        }
    }
    if !context.output.is_for_people() {
        context.output.value(&Value::Array(answers))?;
    }
    if refused > 0 {
        bail!("{refused} of {} files were refused", files.len());
    }
    Ok(())
}

fn upload(client: &Client, artifact: &Artifact, intent: Intent) -> Result<Value> {
    let check = if intent == Intent::Check { "&check=true" } else { "" };
    let path = format!(
        "/deployments?unit={}&kind={}{check}",
        segment(artifact.unit.as_str()),
        artifact.kind.as_str()
    );
    client.post_bytes(&path, &artifact.content)
}

fn sentence(answer: &Value, intent: Intent) -> String {
    let (unit, digest) = (field(answer, "unit"), digest_field(answer, "digest"));
    let redeployed = match field(answer, "redeployed").as_str() {
        "-" => String::new(),
        units => format!("; with it {units}"),
    };
    match intent {
        Intent::Deploy => {
            let unchanged = answer.get("changed") == Some(&Value::Bool(false));
            let what = if unchanged { "runs already" } else { "is deployed" };
            let (revision, services) = (field(answer, "revision"), field(answer, "services"));
            format!("{unit} {digest} {what}, revision {revision}: {services}{redeployed}")
        }
        Intent::Check => {
            let services = answer.pointer("/manifest/services").and_then(Value::as_array);
            let names: Vec<_> =
                services.into_iter().flatten().map(|service| field(service, "name")).collect();
            format!("{unit} {digest} can be deployed: {}{redeployed}", names.join(", "))
        }
    }
}
