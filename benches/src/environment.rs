//! Environments as `crosstie quickstart` makes them, of one server and of a cluster.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use crosstie_test_support::{Cluster, Environment, HANG};
use serde_json::Value;

use crate::connection::Entrance;

/// How often something that is waited for is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(2);

/// One server, running with `workers` workers.
///
/// # Errors
/// What `quickstart` or `start` said.
pub(crate) fn one_server(workers: usize) -> Result<Environment> {
    one_server_with(workers, &[])
}

/// The same with more settings.
///
/// # Errors
/// What `quickstart` or `start` said.
pub(crate) fn one_server_with(workers: usize, settings: &[(&str, &str)]) -> Result<Environment> {
    let builder = Environment::builder().setting("server.workers", &workers.to_string());
    let builder = settings.iter().fold(builder, |builder, (name, value)| builder.setting(name, value));
    let environment = builder.start()?;
    // `start` returns when the first of them answers.
    wait("all workers", || Ok(environment.ready_workers()?.len() == workers))?;
    Ok(environment)
}

/// A cluster of two servers with `workers` workers each, with HAProxy, RabbitMQ and PostgreSQL of its own,
/// running.
///
/// # Errors
/// What `quickstart` or `start` said.
pub(crate) fn two_servers(workers: usize) -> Result<Cluster> {
    let cluster = Cluster::create(2)?;
    for number in 1..=cluster.servers() {
        cluster.set(number, "server.workers", &workers.to_string())?;
    }
    cluster.run(&["start"])?.success()?;
    Ok(cluster)
}

/// Applies definitions.
///
/// # Errors
/// They are refused.
pub(crate) fn apply(environment: &Environment, definitions: &Value) -> Result<()> {
    let command = environment.command(&["apply", "-f", "-"])?.input(definitions.to_string());
    command.run()?.success().map(drop)
}

/// Waits until a service is deployed.
///
/// # Errors
/// It is not within a minute.
pub(crate) fn await_service(environment: &Environment, name: &str) -> Result<()> {
    wait(&format!("the service {name}"), || {
        Ok(environment.run(&["service", "list"])?.success()?.stdout.contains(name))
    })
}

/// Waits until `POST path` with `body` gives an answer that is `expected`.
///
/// # Errors
/// It does not within a minute.
pub(crate) fn await_answer(
    entrance: &Entrance,
    path: &str,
    body: &str,
    expected: impl Fn(&str) -> bool,
) -> Result<()> {
    wait(&format!("the answer of {path}"), || {
        Ok(entrance.post(path, body).is_ok_and(|(status, answer)| status == 200 && expected(&answer)))
    })
}

/// Waits until no worker holds a connection: what one run left would count in the next.
///
/// # Errors
/// The environment does not answer, or connections stay.
pub(crate) fn await_no_connections(environment: &Environment) -> Result<()> {
    wait("the end of all connections", || {
        let component = environment.component()?;
        let workers = component.get("workers").and_then(Value::as_array).context("no workers")?;
        let open = workers.iter().filter_map(|worker| worker.get("connections")?.as_u64());
        Ok(open.sum::<u64>() == 0)
    })
}

/// Waits until `condition` holds.
///
/// # Errors
/// It fails, or does not hold within a minute.
pub(crate) fn wait(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        ensure!(start.elapsed() < HANG, "waited {} s in vain for {what}", HANG.as_secs());
        std::thread::sleep(LOOK);
    }
    Ok(())
}
