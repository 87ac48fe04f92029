//! Load: `wrk` where it can connect, and clients of our own, closed-loop for throughput and open-loop for
//! latency at a given rate.
//!
//! In the open loop each request has a time at which it should start, and its latency counts from then, so a
//! server that stalls is charged for everything it held up.

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use crosstie_test_support::HANG;
use crosstie_test_support::wrk::{self, Report};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::connection::{Connection, Entrance};

/// Requests a second that have to be answered for it to count as load.
pub(crate) const LEAST_RATE: f64 = 200.0;

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

/// Keep-alive connections. In a closed loop each has a thread of its own; in an open loop one thread serves all
/// of them, so that the generator leaves as much of the machine to the server as it can.
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
        let (path, body) = (self.path.as_str(), self.body.as_str());
        let client = |connection: &mut Connection| -> Result<Vec<Duration>> {
            let mut latencies = Vec::new();
            while start.elapsed() < length {
                let sent = Instant::now();
                post(connection, path, body)?;
                latencies.push(sent.elapsed());
            }
            Ok(latencies)
        };
        let latencies = std::thread::scope(|scope| -> Result<Vec<Duration>> {
            let clients: Vec<_> =
                self.connections.iter_mut().map(|connection| scope.spawn(|| client(connection))).collect();
            let mut all = Vec::new();
            for client in clients {
                all.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
            }
            Ok(all)
        })?;
        Ok(Run::of(latencies, start))
    }

    /// Posts at `rate` requests per second over all connections for `length`.
    ///
    /// # Errors
    /// As for [`Clients::closed_loop`]: below the maximum rate no request may fail.
    pub(crate) fn open_loop(&mut self, rate: f64, length: Duration) -> Result<Run> {
        let end = Instant::now() + length;
        self.at_rate(rate, |due| due < end)
    }

    /// Posts at `rate` requests per second over all connections until `stop` is set.
    ///
    /// # Errors
    /// As for [`Clients::closed_loop`].
    pub(crate) fn open_loop_until(&mut self, rate: f64, stop: &AtomicBool) -> Result<Run> {
        self.at_rate(rate, |_| !stop.load(Ordering::Relaxed))
    }

    fn at_rate(&mut self, rate: f64, goes_on: impl Fn(Instant) -> bool) -> Result<Run> {
        for connection in &self.connections {
            connection.set_waiting(false)?;
        }
        let start = Instant::now();
        let latencies = self.post_when_due(start, Duration::from_secs_f64(1.0 / rate), goes_on)?;
        for connection in &self.connections {
            connection.set_waiting(true)?;
        }
        Ok(Run::of(latencies, start))
    }

    /// Posts every `interval` on the connection that has been idle longest; a request that finds none waits, and
    /// its latency counts from when it was due.
    fn post_when_due(
        &mut self,
        start: Instant,
        interval: Duration,
        goes_on: impl Fn(Instant) -> bool,
    ) -> Result<Vec<Duration>> {
        let mut due = start;
        let mut latencies = Vec::new();
        let mut idle: VecDeque<usize> = (0..self.connections.len()).collect();
        let mut busy: Vec<(usize, Instant)> = Vec::new();
        loop {
            while due <= Instant::now() && goes_on(due) {
                let Some(index) = idle.pop_front() else { break };
                let connection = self.connections.get_mut(index).context("no such connection")?;
                connection.send(&self.path, &self.body)?;
                busy.push((index, due));
                due += interval;
            }
            if busy.is_empty() && !goes_on(due) {
                return Ok(latencies);
            }
            let next = if idle.is_empty() || !goes_on(due) { Instant::now() + HANG } else { due };
            for at in self.readable(&busy, next)?.into_iter().rev() {
                let Some(&(index, since)) = busy.get(at) else { continue };
                let connection = self.connections.get_mut(index).context("no such connection")?;
                if let Some((status, answer)) = connection.answer()? {
                    ensure!(status == 200, "status {status}: {answer}");
                    latencies.push(since.elapsed());
                    busy.swap_remove(at);
                    idle.push_back(index);
                }
            }
        }
    }

    /// The places in `busy` whose connections have something to read, waiting for it until `until`.
    fn readable(&self, busy: &[(usize, Instant)], until: Instant) -> Result<Vec<usize>> {
        let mut sockets: Vec<PollFd<'_>> = busy
            .iter()
            .filter_map(|&(index, _)| self.connections.get(index))
            .map(|connection| PollFd::new(connection.as_fd(), PollFlags::POLLIN))
            .collect();
        let left = until.saturating_duration_since(Instant::now());
        let ready = ppoll(&mut sockets, Some(TimeSpec::from_duration(left)), None)?;
        ensure!(ready > 0 || left < HANG, "no answer within {} s", HANG.as_secs());
        Ok((0..).zip(&sockets).filter(|(_, socket)| socket.any() == Some(true)).map(|(at, _)| at).collect())
    }
}

impl Run {
    fn of(mut latencies: Vec<Duration>, start: Instant) -> Self {
        let lasted = start.elapsed().as_secs_f64();
        latencies.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
        let rate = latencies.len() as f64 / lasted;
        Self { requests: latencies.len(), rate, p99: percentile(&latencies, 99) }
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
