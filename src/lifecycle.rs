//! `crosstie start` and `stop`: a whole environment, or one component of it by its directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::json;

use crate::command::Context;
use crate::component::Component;
use crate::environment::Environment;
use crate::output::line;
use crate::{balancer, process};

#[derive(Args)]
pub(crate) struct StartArguments {
    /// The environment, or one component of it (DIR/server1)
    directory: Option<PathBuf>,
    /// Stay in the foreground and log to the terminal; for one server or the load balancer
    #[arg(long)]
    pub(crate) foreground: bool,
}

#[derive(Args)]
pub(crate) struct StopArguments {
    /// The environment, or one component of it (DIR/server1)
    directory: Option<PathBuf>,
}

/// What a path on the command line stands for: a whole environment or one component of it.
#[derive(Debug)]
pub(crate) struct Target {
    /// The environment.
    pub(crate) environment: Environment,
    /// The components that are meant, in the order in which they start.
    pub(crate) components: Vec<Component>,
}

impl Target {
    /// Reads `DIR` as an environment, or `DIR/server1` as one component.
    pub(crate) fn of(directory: Option<&Path>) -> Result<Self> {
        let given = directory.unwrap_or(Path::new("."));
        let path = fs::canonicalize(given).with_context(|| format!("there is no {}", given.display()))?;
        if let Some(parent) = path.parent()
            && let Ok(environment) = Environment::find(Some(parent))
        {
            let mut components = Component::all(&environment)?;
            components.retain(|component| component.is_at(&path));
            if !components.is_empty() {
                return Ok(Self { environment, components });
            }
        }
        let environment = Environment::find(Some(given))?;
        let components = Component::all(&environment)?;
        Ok(Self { environment, components })
    }

    fn given(context: &Context, directory: Option<&PathBuf>) -> Result<Self> {
        Self::of(directory.or(context.directory()).map(PathBuf::as_path))
    }
}

/// Starts every component that does not run, one after the other, and waits until each answers.
pub(crate) fn start(context: &Context, arguments: &StartArguments) -> Result<()> {
    let target = Target::given(context, arguments.directory.as_ref())?;
    let mut report = Vec::new();
    for component in &target.components {
        let (ran, pid) = ensure(component, &target.environment)?;
        let word = if ran { "already runs" } else { "runs" };
        if context.output.is_for_people() {
            line(&format!("{} {word} (pid {pid})", component.name()))?;
        }
        report.push(json!({"name": component.name(), "pid": pid}));
    }
    if context.output.is_for_people() { Ok(()) } else { context.output.value(&report.into()) }
}

/// Starts what does not run of a new environment, saying nothing.
pub(crate) fn start_all(environment: &Environment) -> Result<()> {
    Component::all(environment)?.iter().try_for_each(|component| ensure(component, environment).map(drop))
}

/// Starts `component` unless it runs; gives whether it ran, and its first process.
fn ensure(component: &Component, environment: &Environment) -> Result<(bool, u32)> {
    match component.pid() {
        Some(pid) => Ok((true, pid)),
        None => Ok((false, component.start(environment)?)),
    }
}

/// Runs one component in this process.
pub(crate) fn start_foreground(context: &Context, arguments: &StartArguments) -> Result<ExitCode> {
    let target = Target::given(context, arguments.directory.as_ref())?;
    let [component] = target.components.as_slice() else {
        bail!("--foreground runs one component: name it, as in `crosstie start DIR/server1 --foreground`");
    };
    if let Some(pid) = component.pid() {
        bail!("{} runs already (pid {pid}): `crosstie stop` stops it", component.name());
    }
    match component {
        Component::Server(server) => process::run_here(&target.environment, server),
        Component::LoadBalancer(balancer) => balancer::run_here(balancer),
        Component::Part(part) => bail!("{} runs in the background only", part.kind.name()),
    }
}

/// Stops every component, the last one started first, and waits until each is gone.
pub(crate) fn stop(context: &Context, arguments: &StopArguments) -> Result<()> {
    let target = Target::given(context, arguments.directory.as_ref())?;
    let mut report = Vec::new();
    for component in target.components.iter().rev() {
        let ran = component.stop()?;
        if context.output.is_for_people() {
            let word = if ran { "stopped" } else { "does not run" };
            line(&format!("{} {word}", component.name()))?;
        }
        report.push(json!({"name": component.name(), "stopped": ran}));
    }
    if context.output.is_for_people() { Ok(()) } else { context.output.value(&report.into()) }
}

/// Stops every component of `environment`, saying nothing.
pub(crate) fn stop_all(environment: &Environment) -> Result<()> {
    Component::all(environment)?.iter().rev().try_for_each(|component| component.stop().map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_name_one_component() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["server1", "server2"] {
            let server = Environment::new(directory.path().to_owned()).server(name);
            fs::create_dir_all(server.config()).unwrap();
            fs::write(server.settings_file(), "").unwrap();
        }
        assert_eq!(Target::of(Some(directory.path())).unwrap().components.len(), 2);
        let target = Target::of(Some(&directory.path().join("server2"))).unwrap();
        assert_eq!(target.components[0].name(), "server2");
        assert!(target.environment.one_server(None).is_err());
        assert_eq!(target.environment.one_server(Some("server1")).unwrap().name(), "server1");
    }
}
