//! `crosstie get`, `apply`, `export` and `delete`: definitions as the YAML that people keep in version
//! control.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use crosstie_model::DefinitionKind;
use serde_json::{Value, json};

use crate::client::segment;
use crate::command::Context;
use crate::output::{Column, closed, field, line, write_all};

/// Most files of one `apply`; a wrong directory is refused before it is read.
const MAX_FILES: usize = 10_000;

/// Largest document of one `apply`, in bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Args)]
pub(crate) struct GetArguments {
    /// The kind of definitions: channel, dictionary, outgoing, security or service
    kind: DefinitionKind,
    /// One definition; all of the kind otherwise
    name: Option<String>,
}

#[derive(Args)]
pub(crate) struct ApplyArguments {
    /// YAML files, directories of them, or - for standard input
    #[arg(short, long = "file", required = true, num_args = 1.., value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// The revision you looked at: refuse when others have changed something since
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
}

#[derive(Args)]
pub(crate) struct ExportArguments {
    /// Only definitions of this kind
    kind: Option<DefinitionKind>,
}

#[derive(Args)]
pub(crate) struct DeleteArguments {
    /// The kind of the definition
    kind: DefinitionKind,
    /// The definition
    name: String,
}

/// Prints one definition, or the list of a kind.
pub(crate) fn get(context: &Context, arguments: &GetArguments) -> Result<()> {
    let client = context.client()?;
    if let Some(name) = &arguments.name {
        return context.output.value(&client.get(&one(arguments.kind, name))?);
    }
    let rows = client.get(&format!("/definitions?kind={}", arguments.kind))?;
    let columns = [
        Column::new("NAME", |row| field(row, "name")),
        Column::new("TYPE", |row| body_field(row, "type")),
        Column::new("STATE", |row| field(row, "state")),
        Column::new("FROM", |row| if in_code(row) { "code".into() } else { "definition".into() }),
        Column::new("PATH", |row| body_field(row, "path")),
        Column::new("SERVICE", |row| body_field(row, "service")),
        Column::new("SECURITY", |row| body_field(row, "security")),
    ];
    let outgoing = [
        Column::new("NAME", |row| field(row, "name")),
        Column::new("TYPE", |row| body_field(row, "type")),
        Column::new("STATE", |row| field(row, "state")),
        Column::new("ADDRESS", |row| body_field(row, "address")),
        Column::new("SECURITY", |row| body_field(row, "security")),
    ];
    let shown = match arguments.kind {
        DefinitionKind::Channel => &columns[..],
        DefinitionKind::Outgoing => &outgoing[..],
        _ => &columns[..2],
    };
    context.output.list(&rows, shown, &format!("there are no definitions of kind {}", arguments.kind))?;
    if context.output.is_for_people() {
        let kind = arguments.kind.as_str();
        rows.as_array().into_iter().flatten().try_for_each(|row| closed(kind, row, "name"))?;
    }
    Ok(())
}

fn body_field(row: &Value, key: &str) -> String {
    field(row.get("body").unwrap_or(row), key)
}

fn in_code(row: &Value) -> bool {
    row.get("in_code").and_then(Value::as_bool).unwrap_or(false)
}

fn one(kind: DefinitionKind, name: &str) -> String {
    format!("/definitions/{kind}/{}", segment(name))
}

/// Applies documents: all of them or none.
pub(crate) fn apply(context: &Context, arguments: &ApplyArguments) -> Result<()> {
    let files = collect(&arguments.files)?;
    let mut request = json!({"files": files, "dry_run": arguments.dry_run});
    if let (Some(message), Some(fields)) = (&arguments.message, request.as_object_mut()) {
        fields.insert("message".into(), message.as_str().into());
    }
    let answer = context.client()?.expecting(arguments.expect).post("/apply", &request)?;
    if !context.output.is_for_people() {
        return context.output.value(&answer);
    }
    let definitions = answer.get("definitions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut unchanged = 0;
    for definition in definitions {
        match field(definition, "action").as_str() {
            "unchanged" => unchanged += 1,
            action => {
                let id = format!("{}/{}", field(definition, "kind"), field(definition, "name"));
                let would = format!("{id} would be {action}");
                line(&if arguments.dry_run { would } else { format!("{action} {id}") })?;
            }
        }
    }
    let changed = definitions.len() - unchanged;
    if arguments.dry_run {
        line(&format!("{changed} would change, {unchanged} are the same; nothing was applied"))
    } else {
        line(&format!("{changed} changed, {unchanged} are the same; revision {}", field(&answer, "revision")))
    }
}

/// Prints what `apply` reads.
pub(crate) fn export(context: &Context, arguments: &ExportArguments) -> Result<()> {
    let client = context.client()?;
    let query = arguments.kind.map(|kind| format!("?kind={kind}")).unwrap_or_default();
    if context.output.is_for_people() {
        return write_all(&client.get_text(&format!("/export{query}"))?);
    }
    context.output.value(&client.get(&format!("/definitions{query}"))?)
}

/// Deletes one definition.
pub(crate) fn delete(context: &Context, arguments: &DeleteArguments) -> Result<()> {
    let answer = context.client()?.delete(&one(arguments.kind, &arguments.name))?;
    let id = format!("{}/{}", arguments.kind, arguments.name);
    let answer = if answer.is_null() { json!({"deleted": id}) } else { answer };
    context.output.done(&answer, &format!("deleted {id}"))
}

/// Every document below `paths`, in a stable order, as `{name, content}`.
fn collect(paths: &[PathBuf]) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            let mut input = std::io::stdin().take(MAX_FILE_BYTES + 1);
            input.read_to_string(&mut text).context("cannot read standard input as text")?;
            found.push(document("(standard input)", text)?);
        } else if path.is_dir() {
            let mut files = Vec::new();
            documents_below(path, &mut files)?;
            if files.is_empty() {
                bail!("{} holds no .yaml file", path.display());
            }
            files.sort();
            for file in files {
                found.push(read(&file)?);
            }
        } else {
            found.push(read(path)?);
        }
    }
    Ok(found)
}

fn documents_below(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        // Neither hidden files (editors, .git) nor links: a link could lead round in a circle.
        if entry.file_name().to_string_lossy().starts_with('.') || entry.file_type()?.is_symlink() {
            continue;
        }
        if path.is_dir() {
            documents_below(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            bail!("{} holds more than {MAX_FILES} files: apply a smaller directory", directory.display());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Value> {
    let shown = path.display().to_string();
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .with_context(|| format!("cannot read {shown}"))?;
    document(&shown, text)
}

fn document(name: &str, content: String) -> Result<Value> {
    if content.len() as u64 > MAX_FILE_BYTES {
        bail!("{name} has more than {MAX_FILE_BYTES} bytes: split it");
    }
    Ok(json!({"name": name, "content": content}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_documents_in_a_stable_order() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "sub/c.yaml", ".hidden.yaml", "notes.txt"] {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}").unwrap();
        }
        let found = collect(&[directory.path().to_owned()]).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|file| file["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a.yml", "b.yaml", "c.yaml"]);
    }

    #[test]
    fn an_empty_directory_is_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        assert!(collect(&[directory.path().to_owned()]).is_err());
    }
}
