//! Load: `wrk` where it can connect, and clients of our own, closed-loop for throughput and open-loop for
//! latency at a given rate.
//!
//! In the open loop each request has a time at which it should start, and its latency counts from then, so a
//! server that stalls is charged for everything it held up.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use crosstie_test_support::wrk::{self, Report};

use crate::connection::{Connection, Entrance};

/// Requests a second that have to be answered for it to count as load.
pub(crate) const LEAST_RATE: f64 = 200.0;

/// What an open loop's threads have to get ready in.
const LEAD: Duration = Duration::from_millis(50);

/// A `wrk` that posts JSON.
pub(crate) struct Posting {
    running: wrk::Running,
    // wrk reads its script when it starts a thread.
    _script: tempfile::TempDir,
}

impl Posting {
    /// Starts `wrk` with one thread for `length`, posting `body`.
    ///
    /// # Errors
    /// `wrk` is not installed.
    pub(crate) fn start(
        address: SocketAddr,
        path: &str,
        body: &str,
        connections: u32,
        length: Duration,
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let script = directory.path().join("post.lua");
        fs::write(
            &script,
            format!(
                "wrk.method = \"POST\"\nwrk.body = [[{body}]]\nwrk.headers[\"Content-Type\"] = \"application/json\"\n"
            ),
        )?;
        let mut load = wrk::Load::new(format!("http://{address}{path}"), length);
        load.connections = connections;
        load.script = Some(script);
        Ok(Self { running: load.start()?, _script: directory })
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// `wrk` failed.
    pub(crate) fn finish(self) -> Result<Report> {
        self.running.finish()
    }
}

/// Answers other than 2xx and 3xx, broken connections and timeouts.
pub(crate) fn failures(report: &Report) -> u64 {
    report.not_ok + report.socket_errors
}

/// What [`Clients`] saw.
pub(crate) struct Run {
    /// Requests answered with 200.
    pub requests: usize,
    /// Requests per second.
    pub rate: f64,
    /// 99th percentile of latency.
    pub p99: Duration,
}

/// Keep-alive connections, each with a thread of its own while there is load.
pub(crate) struct Clients {
    connections: Vec<Connection>,
    path: String,
    body: String,
}

impl Clients {
    /// Opens `count` connections, spread evenly over `entrances`, and posts once on each: what they cost to
    /// make is over.
    ///
    /// # Errors
    /// A connection cannot be made.
    pub(crate) fn open(entrances: &[Entrance], count: usize, path: &str, body: &str) -> Result<Self> {
        let opened = entrances.iter().cycle().take(count).map(Connection::open);
        let mut clients =
            Self { connections: opened.collect::<Result<_>>()?, path: path.into(), body: body.into() };
        for connection in &mut clients.connections {
            post(connection, path, body)?;
        }
        Ok(clients)
    }

    /// Posts for `length`, on each connection as soon as the answer before is there.
    ///
    /// # Errors
    /// A connection broke or an answer was not 200.
    pub(crate) fn closed_loop(&mut self, length: Duration) -> Result<Run> {
        let start = Instant::now();
        self.run(start, |connection, path, body, _| {
            let mut latencies = Vec::new();
            while start.elapsed() < length {
                let sent = Instant::now();
                post(connection, path, body)?;
                latencies.push(sent.elapsed());
            }
            Ok(latencies)
        })
    }

    /// Posts at `rate` requests per second over all connections for `length`.
    ///
    /// # Errors
    /// As for [`Clients::closed_loop`]: below the maximum rate no request may fail.
    pub(crate) fn open_loop(&mut self, rate: f64, length: Duration) -> Result<Run> {
        let start = Instant::now() + LEAD;
        self.at_rate(rate, start, |due| due < start + length)
    }

    /// Posts at `rate` requests per second over all connections until `stop` is set.
    ///
    /// # Errors
    /// As for [`Clients::closed_loop`].
    pub(crate) fn open_loop_until(&mut self, rate: f64, stop: &AtomicBool) -> Result<Run> {
        self.at_rate(rate, Instant::now() + LEAD, |_| !stop.load(Ordering::Relaxed))
    }

    fn at_rate(
        &mut self,
        rate: f64,
        start: Instant,
        goes_on: impl Fn(Instant) -> bool + Sync,
    ) -> Result<Run> {
        let count = u32::try_from(self.connections.len())?;
        let interval = Duration::from_secs_f64(f64::from(count) / rate);
        self.run(start, |connection, path, body, index| {
            let mut due = start + interval * index / count;
            let mut latencies = Vec::new();
            while goes_on(due) {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                post(connection, path, body)?;
                latencies.push(due.elapsed());
                due += interval;
            }
            Ok(latencies)
        })
    }

    fn run<F>(&mut self, start: Instant, client: F) -> Result<Run>
    where
        F: Fn(&mut Connection, &str, &str, u32) -> Result<Vec<Duration>> + Sync,
    {
        let (client, path, body) = (&client, self.path.as_str(), self.body.as_str());
        let mut latencies = std::thread::scope(|scope| -> Result<Vec<Duration>> {
            let clients: Vec<_> = (0..)
                .zip(&mut self.connections)
                .map(|(index, connection)| scope.spawn(move || client(connection, path, body, index)))
                .collect();
            let mut all = Vec::new();
            for client in clients {
                all.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
            }
            Ok(all)
        })?;
        let lasted = start.elapsed().as_secs_f64();
        latencies.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
        let rate = latencies.len() as f64 / lasted;
        Ok(Run { requests: latencies.len(), rate, p99: percentile(&latencies, 99) })
    }
}

fn post(connection: &mut Connection, path: &str, body: &str) -> Result<()> {
    let (status, answer) = connection.post(path, body)?;
    ensure!(status == 200, "status {status}: {answer}");
    Ok(())
}

/// The `percent`th percentile of sorted values; zero of none.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

/// In milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
