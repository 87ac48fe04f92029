//! What `quickstart` says when it is done: the addresses, and how to go on.

use anyhow::Result;
use serde_json::{Value, json};

use super::cluster::Plan;
use super::{Ports, SERVER};
use crate::balancer;
use crate::command::Context;
use crate::component::Component;
use crate::environment::Environment;
use crate::output::{self, line};

/// Prints the report; `plan` of a cluster, `started` unless it was only made.
pub(super) fn print(
    context: &Context,
    environment: &Environment,
    ports: Ports,
    plan: Option<&Plan>,
    started: bool,
) -> Result<()> {
    let answer = answer(environment, ports, plan)?;
    if !context.output.is_for_people() {
        return context.output.value(&answer);
    }
    for text in sentences(&answer, environment, plan, started) {
        line(&text)?;
    }
    Ok(())
}

fn answer(environment: &Environment, ports: Ports, plan: Option<&Plan>) -> Result<Value> {
    let server = environment.server(SERVER);
    let (http, https) = match plan {
        Some(_) => (balancer::http(ports), balancer::https(ports)),
        None => (ports.http(), ports.https()),
    };
    let pid = crosstie_process::pidfile::running_supervisor(server.path());
    let mut answer = json!({
        "directory": environment.root(),
        "pid": pid,
        "http": format!("http://{http}"),
        "https": format!("https://{https}"),
        "management": format!("https://{}", ports.management()),
        "pickup": server.pickup(),
        "ca": environment.client().join("ca.pem"),
        "admin_password_file": environment.client().join("admin-password"),
    });
    if plan.is_some() {
        let components = Component::all(environment)?;
        let names: Vec<Value> = components
            .iter()
            .map(|component| json!({"name": component.name(), "pid": component.pid()}))
            .collect();
        if let Some(fields) = answer.as_object_mut() {
            fields.insert("components".into(), names.into());
        }
    }
    Ok(answer)
}

fn sentences(answer: &Value, environment: &Environment, plan: Option<&Plan>, started: bool) -> Vec<String> {
    let field = |key: &str| output::field(answer, key);
    let root = environment.root().display();
    // As it was called: it need not be on the PATH.
    let command = std::env::args_os().next().unwrap_or_else(|| "crosstie".into());
    let command = command.display();
    let state = if started { "runs" } else { "is ready; `crosstie start` starts it" };
    let what = match plan {
        Some(plan) => format!("The cluster {root} of {} servers {state}.", plan.servers),
        None => format!("The environment {root} {state}."),
    };
    let probe = if plan.is_some() { "/openapi" } else { "/health/ready" };
    let mut lines = vec![
        what,
        String::new(),
        format!("  services          {}", field("http")),
        format!("  services (TLS)    {}  (CA: {})", field("https"), field("ca")),
        format!("  management API    {}", field("management")),
        format!("  admin password    {}", field("admin_password_file")),
        format!("  pickup directory  {}", field("pickup")),
        String::new(),
        "Try it:".to_owned(),
        format!("  curl {}{probe}", field("http")),
        String::new(),
        "Deploy a service and call it:".to_owned(),
        format!("  cp examples/hello/hello.py {}/", field("pickup")),
        format!("  curl {}/hello/Ada", field("http")),
        String::new(),
        "Commands find the environment by its directory:".to_owned(),
        format!("  export CROSSTIE_DIR={root}"),
        format!("  {command} status"),
    ];
    if plan.is_some() {
        lines.push(format!("  {command} server list"));
    }
    lines
}
