//! Asks every worker itself: one connection to each, kept for as long as its worker lives.
//!
//! A worker answers whatever comes over a connection that it accepted, so what is asked here is known to have
//! been answered by that worker. New connections would go to whichever worker accepts them, and say little
//! about the one that is slow to.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use crosstie_test_support::HANG;
use serde_json::Value;

use crate::connection::{Connection, Entrance};
use crate::environment::LOOK;

/// The unit that tells which version and which worker answers, and where it answers.
pub(crate) const UNIT: &str = "version.py";
/// See [`UNIT`].
pub(crate) const PATH: &str = "/version";

/// Connections opened at once in search of a worker. A server's workers share connections evenly, so this is
/// plenty.
const TRIES: usize = 32;

/// Version `version` of [`UNIT`].
pub(crate) fn source(version: usize) -> String {
    format!(
        r#"
import os
from crosstie import Service, rest

class Version(Service):
    name = "bench.version"
    channels = [rest(["GET", "PUT", "POST"], "{PATH}")]

    def handle(self):
        self.response.payload = {{"version": {version}, "pid": os.getpid()}}
"#
    )
}

/// What [`UNIT`] answered.
pub(crate) struct Answer {
    /// Its version.
    pub version: usize,
    /// The worker's process id.
    pub pid: i32,
}

impl Answer {
    /// Posts on `connection`.
    ///
    /// # Errors
    /// The connection broke, the status is not 200, or the answer is not of [`UNIT`].
    pub(crate) fn of(connection: &mut Connection) -> Result<Self> {
        let (status, answer) = connection.post(PATH, "{}")?;
        ensure!(status == 200, "{PATH} answered {status}: {answer}");
        let value: Value = serde_json::from_str(&answer)?;
        let number = |key: &str| value.get(key).and_then(Value::as_i64).context("no answer of the unit");
        Ok(Self { version: usize::try_from(number("version")?)?, pid: i32::try_from(number("pid")?)? })
    }
}

/// A connection to each worker of some servers.
pub(crate) struct Watch {
    connections: Vec<Connection>,
    version: usize,
}

impl Watch {
    /// Finds the `workers` workers behind each entrance; [`UNIT`] must be served.
    ///
    /// # Errors
    /// A server does not answer, or not with so many workers.
    pub(crate) fn over(entrances: &[Entrance], workers: usize) -> Result<Self> {
        let mut connections = Vec::new();
        for entrance in entrances {
            connections.extend(one_per_worker(entrance, workers)?);
        }
        Ok(Self { connections, version: 0 })
    }

    /// The version that every worker answered with last.
    pub(crate) fn version(&self) -> usize {
        self.version
    }

    /// Waits until every worker answers with `version`.
    ///
    /// # Errors
    /// A request fails, or the version does not arrive.
    pub(crate) fn await_version(&mut self, version: usize) -> Result<()> {
        let start = Instant::now();
        let mut waiting: Vec<&mut Connection> = self.connections.iter_mut().collect();
        loop {
            let mut behind = Vec::new();
            for connection in waiting {
                if Answer::of(connection)?.version != version {
                    behind.push(connection);
                }
            }
            if behind.is_empty() {
                self.version = version;
                return Ok(());
            }
            waiting = behind;
            ensure!(start.elapsed() < HANG, "version {version} did not reach {} workers", waiting.len());
            std::thread::sleep(LOOK);
        }
    }

    /// Has `drop_file` put version `version` of [`UNIT`] into a pickup directory and gives the time from then
    /// until every worker answers with it.
    ///
    /// # Errors
    /// The file cannot be written, or as for [`Watch::await_version`].
    pub(crate) fn redeploy(
        &mut self,
        version: usize,
        drop_file: impl Fn(&str, &str) -> Result<()>,
    ) -> Result<Duration> {
        let source = source(version);
        let start = Instant::now();
        drop_file(UNIT, &source)?;
        self.await_version(version)?;
        Ok(start.elapsed())
    }
}

/// A connection to each of a server's workers. All that are opened stay open meanwhile, so that a worker with
/// its share of connections leaves the next one to another.
fn one_per_worker(entrance: &Entrance, workers: usize) -> Result<Vec<Connection>> {
    let mut seen = Vec::new();
    let (mut found, mut spare) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        let mut connection = Connection::open(entrance)?;
        let pid = Answer::of(&mut connection)?.pid;
        if seen.contains(&pid) {
            spare.push(connection);
        } else {
            seen.push(pid);
            found.push(connection);
        }
        if found.len() == workers {
            return Ok(found);
        }
    }
    drop(spare);
    anyhow::bail!("{} workers answer, not {workers}", found.len())
}
