//! `crosstie server upgrade`: servers change over to the binary that was installed in the place of theirs.
//!
//! The supervisor does it when a signal asks for it, and says in a file how it went; this command asks, waits
//! and tells. It needs nothing of the new release, so either binary's command line will do.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use crosstie_process::pidfile;
use crosstie_process::supervisor::{self, Outcome, Report};
use serde_json::json;

use crate::command::{Context, say};
use crate::component::Component;
use crate::environment::ServerDirectory;
use crate::lifecycle::Target;
use crate::output::{line, shows_progress};
use crate::service_user;

/// How often the outcome is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// How much longer than its patience with the new binary a server may take to say how it went.
const MARGIN: Duration = Duration::from_secs(15);

/// What a server that runs an older configuration may have as its patience, at most.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Args)]
pub(crate) struct Arguments {
    /// The environment, or one server of it (DIR/server1)
    directory: Option<PathBuf>,
}

/// Upgrades every server that runs, one after the other; stops at the first that keeps its old binary.
pub(crate) fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let target = Target::of(arguments.directory.as_deref().or(context.directory().map(PathBuf::as_path)))?;
    let servers = target.components.iter().filter_map(|component| match component {
        Component::Server(server) => Some(server),
        Component::Part(_) | Component::LoadBalancer(_) => None,
    });
    let mut report = Vec::new();
    for server in servers {
        let old = pidfile::running_supervisor(server.path());
        let new = old.map(|pid| upgrade(server, pid)).transpose()?;
        if context.output.is_for_people() {
            match (old, new) {
                (Some(old), Some(new)) => line(&format!(
                    "{} runs the new binary (pid {new}); pid {old} finishes its requests and leaves",
                    server.name()
                ))?,
                _ => line(&format!("{} does not run", server.name()))?,
            }
        }
        report.push(json!({"name": server.name(), "pid": new, "predecessor": old}));
    }
    if report.is_empty() {
        bail!("there is no server: name the environment or one server of it, as in DIR/server1");
    }
    if context.output.is_for_people() { Ok(()) } else { context.output.value(&report.into()) }
}

/// Upgrades `server`, whose supervisor is `pid`, and gives the new supervisor's process id.
fn upgrade(server: &ServerDirectory, pid: u32) -> Result<u32> {
    let name = server.name();
    if shows_progress() {
        say(&format!("{name} changes over to the new binary …"));
    }
    let before = look(server)?;
    pidfile::signal(pid, pidfile::Signal::Upgrade)
        .with_context(|| format!("cannot signal {name} (pid {pid})"))?;
    // A file that was broken meanwhile is the new binary's to complain about.
    let settings =
        service_user::as_owner_of(server.path(), || Ok(crosstie_config::settings::load(server.path()).ok()))?;
    let patience = settings.map_or(LONGEST, |settings| Duration::from_secs(settings.server.upgrade_s));
    let begun = Instant::now();
    while begun.elapsed() < patience + MARGIN {
        match look(server)?.filter(|report| Some(report) != before.as_ref() && report.supervisor == pid) {
            Some(Report { outcome: Outcome::Serving { pid }, .. }) => return Ok(pid),
            Some(Report { outcome: Outcome::Failed { reason }, .. }) => {
                let words = server.console_log();
                bail!(
                    "{name} goes on with its old binary (pid {pid}): {reason}; {} may tell more",
                    words.display()
                )
            }
            Some(Report { outcome: Outcome::Starting, .. }) | None => {}
        }
        if pidfile::wait_gone(pid, LOOK)? {
            bail!("{name} (pid {pid}) ended during the upgrade: its log says why");
        }
    }
    bail!("{name} (pid {pid}) did not say how the upgrade went: its log may tell")
}

fn look(server: &ServerDirectory) -> Result<Option<Report>> {
    service_user::as_owner_of(server.path(), || Ok(supervisor::report(server.path())))
}
