//! `crosstie status`: what runs, from the pid files and, where a server answers, its management API.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use crosstie_process::pidfile;
use serde_json::{Value, json};

use crate::certificates;
use crate::client::Client;
use crate::command::Context;
use crate::component::Component;
use crate::environment::{Environment, ServerDirectory};
use crate::lifecycle::Target;
use crate::output::{Column, closed, field, line, time_field};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The environment, or one component of it (DIR/server1)
    directory: Option<PathBuf>,
}

/// Prints the components of an environment.
pub(crate) fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let directory = arguments.directory.as_ref().or(context.directory());
    let target = Target::of(directory.map(PathBuf::as_path))?;
    let components: Vec<Value> =
        target.components.iter().map(|it| component(&target.environment, it)).collect();
    if !context.output.is_for_people() {
        return context.output.value(&json!({"components": components}));
    }
    let columns = [
        Column::new("NAME", |row| field(row, "name")),
        Column::new("KIND", |row| field(row, "kind")),
        Column::new("STATE", |row| field(row, "state")),
        Column::new("PID", |row| field(row, "pid")),
        Column::new("ADDRESS", |row| field(row, "address")),
        Column::new("REVISION", |row| field(row, "revision")),
    ];
    let rows = Value::Array(components);
    context.output.list(&rows, &columns, "there is no component")?;
    for row in rows.as_array().into_iter().flatten() {
        workers(context, row)?;
    }
    Ok(())
}

fn workers(context: &Context, component: &Value) -> Result<()> {
    if let Some(reason) = component.get("reason").and_then(Value::as_str) {
        line(&format!("\n{} is {}: {reason}", field(component, "name"), field(component, "state")))?;
    }
    if let Some(reason) = component.pointer("/bus/error").and_then(Value::as_str) {
        line(&format!("\nThe bus of {} is away: {reason}", field(component, "name")))?;
    }
    for service in component.get("quarantined").and_then(Value::as_array).into_iter().flatten() {
        line(&format!("\nQuarantined: {} ({})", field(service, "name"), field(service, "reason")))?;
    }
    refused_settings(component)?;
    for ending in component.get("certificates").and_then(Value::as_array).into_iter().flatten() {
        if ending.get("renew") == Some(&Value::Bool(true)) {
            let (which, ends) = (field(ending, "certificate"), time_field(ending, "expires"));
            line(&format!("\nThe {which} certificate of {} ends {ends}", field(component, "name")))?;
        }
    }
    for (key, kind) in [("closed_channels", "channel"), ("closed_outgoings", "outgoing")] {
        for row in component.get(key).and_then(Value::as_array).into_iter().flatten() {
            closed(kind, row, kind)?;
        }
    }
    let Some(workers) = component.get("workers").filter(|workers| **workers != json!([])) else {
        return Ok(());
    };
    line(&format!("\nWorkers of {}:", field(component, "name")))?;
    let columns = [
        Column::new("PID", |row| field(row, "pid")),
        Column::new("STATE", |row| field(row, "state")),
        Column::new("SINGLETON", |row| field(row, "singleton")),
        Column::new("LEADER", |row| field(row, "leader")),
        Column::new("CONNECTIONS", |row| field(row, "connections")),
        Column::new("IN FLIGHT", |row| field(row, "in_flight")),
        Column::new("REQUESTS", |row| field(row, "requests")),
        Column::new("RESTARTS", |row| field(row, "restarts")),
    ];
    context.output.list(workers, &columns, "")
}

fn refused_settings(component: &Value) -> Result<()> {
    let faults = component.get("refused_settings").and_then(Value::as_array);
    let Some(faults) = faults.filter(|faults| !faults.is_empty()) else { return Ok(()) };
    line(&format!("\n{} goes on with earlier settings; its files are refused:", field(component, "name")))?;
    for fault in faults.iter().filter_map(Value::as_str) {
        line(&format!("  {fault}"))?;
    }
    Ok(())
}

/// One component as the status shows it.
fn component(environment: &Environment, component: &Component) -> Value {
    let part = match component {
        Component::Server(server) => return server_row(environment, server),
        Component::LoadBalancer(balancer) => return balancer.status(),
        Component::Part(part) => part,
    };
    let pid = component.pid();
    let state = if pid.is_some() { "running" } else { "stopped" };
    let files = part.certificate();
    let certificates = certificates::ends([(part.kind.kind(), files.certificate), ("ca", files.ca)]);
    json!({
        "name": component.name(), "kind": part.kind.kind(), "state": state, "pid": pid,
        "address": part.address, "certificates": certificates, "workers": [],
    })
}

/// A server. What cannot be asked is left out: a status always answers.
fn server_row(environment: &Environment, server: &ServerDirectory) -> Value {
    let pid = pidfile::running_supervisor(server.path());
    let addresses = server.addresses().unwrap_or_default();
    let mut row = json!({
        "name": server.name(), "kind": "server", "state": "stopped", "pid": pid,
        "address": addresses.service_url(), "workers": [],
    });
    let Some(fields) = row.as_object_mut() else { return row };
    if pid.is_none() {
        return row;
    }
    let asked = addresses
        .management
        .ok_or_else(|| anyhow::anyhow!("[management] address is missing"))
        .and_then(|address| Client::at(environment, address))
        .and_then(|client| client.get("/status"));
    match asked {
        Ok(status) => {
            let degraded = status.get("degraded").filter(|reason| !reason.is_null()).cloned();
            fields.insert("state".into(), status.get("state").cloned().unwrap_or_else(|| "running".into()));
            for key in [
                "version",
                "member",
                "bus",
                "workers",
                "quarantined",
                "refused_settings",
                "closed_channels",
                "closed_outgoings",
                "certificates",
            ] {
                if let Some(value) = status.get(key) {
                    fields.insert(key.into(), value.clone());
                }
            }
            if let Some(revision) = status.pointer("/odb/revision") {
                fields.insert("revision".into(), revision.clone());
            }
            if let Some(reason) = degraded {
                fields.insert("reason".into(), reason);
            }
        }
        Err(error) => {
            fields.insert("state".into(), "unresponsive".into());
            fields.insert("reason".into(), format!("{error:#}").into());
        }
    }
    row
}
