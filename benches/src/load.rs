//! Load: `wrk` for throughput, and a paced generator for latency at a given rate.
//!
//! The paced generator is open-loop: each request has a time at which it should start, and its latency
//! counts from then, so a server that stalls is charged for everything it held up.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// What one `wrk` run saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WrkResult {
    /// Requests answered.
    pub requests: u64,
    /// Requests per second.
    pub rate: f64,
    /// 99th percentile of latency in microseconds.
    pub p99_us: f64,
    /// Answers other than 2xx and 3xx, and broken connections and timeouts.
    pub failures: u64,
}

/// Runs `wrk` with one thread for `seconds`, posting `body` as JSON.
///
/// # Errors
/// `wrk` is missing or its output is not understood.
pub(crate) fn wrk(port: u16, path: &str, body: &str, connections: usize, seconds: u64) -> Result<WrkResult> {
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("post.lua");
    write_script(&script, body)?;
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--latency", "-s"])
        .arg(&script)
        .arg(format!("http://127.0.0.1:{port}{path}"))
        .output()
        .context("wrk is not installed")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("RESULT ")).with_context(|| text.to_string())?;
    let numbers: Vec<f64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let [requests, duration_us, p99_us, failures] = numbers.as_slice() else { bail!("wrk said {line}") };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "wrk prints whole counts")]
    let (count, failures) = (*requests as u64, *failures as u64);
    Ok(WrkResult { requests: count, rate: requests / (duration_us / 1e6), p99_us: *p99_us, failures })
}

fn write_script(path: &Path, body: &str) -> Result<()> {
    let script = format!(
        r#"wrk.method = "POST"
wrk.body = [[{body}]]
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency, requests)
  local e = summary.errors
  print(string.format("RESULT %d %d %d %d", summary.requests, summary.duration, latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#
    );
    Ok(fs::write(path, script)?)
}

/// One keep-alive connection that posts JSON.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to a loopback port.
    ///
    /// # Errors
    /// Nothing listens there.
    pub(crate) fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, buffer: vec![0; 16 * 1024] })
    }

    /// Posts `body` and gives status and answer.
    ///
    /// # Errors
    /// The connection broke, or the answer is no HTTP/1.1 response with a length.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> Result<(u16, String)> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes())?;
        let mut received = Vec::new();
        loop {
            let count = self.stream.read(&mut self.buffer)?;
            ensure!(count > 0, "the connection was closed");
            received.extend_from_slice(self.buffer.get(..count).unwrap_or_default());
            if let Some(answer) = parse(&received)? {
                return Ok(answer);
            }
        }
    }
}

fn parse(received: &[u8]) -> Result<Option<(u16, String)>> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(received.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).context("no status")?;
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse().ok())
        .context("no content-length")?;
    let body = received.get(end + 4..).unwrap_or_default();
    Ok((body.len() >= length)
        .then(|| (status, String::from_utf8_lossy(body.get(..length).unwrap_or_default()).into_owned())))
}

/// Posts once on a connection of its own.
///
/// # Errors
/// As [`Connection::open`] and [`Connection::post`].
pub(crate) fn post_once(port: u16, path: &str, body: &str) -> Result<(u16, String)> {
    Connection::open(port)?.post(path, body)
}

/// Posts at `rate` requests per second over `connections` connections for `length` and gives every latency,
/// sorted. Requests that fail are errors: at half the rate nothing may.
///
/// # Errors
/// A connection broke or an answer was not 200.
pub(crate) fn paced(
    port: u16,
    path: &str,
    body: &str,
    connections: u32,
    rate: f64,
    length: Duration,
) -> Result<Vec<Duration>> {
    let interval = Duration::from_secs_f64(f64::from(connections) / rate);
    let start = Instant::now() + Duration::from_millis(50);
    let mut latencies = std::thread::scope(|scope| -> Result<Vec<Duration>> {
        let clients: Vec<_> = (0..connections)
            .map(|index| {
                let first = start + interval * index / connections;
                scope.spawn(move || one_client(port, path, body, first, interval, start + length))
            })
            .collect();
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok(all)
    })?;
    latencies.sort_unstable();
    Ok(latencies)
}

fn one_client(
    port: u16,
    path: &str,
    body: &str,
    first: Instant,
    interval: Duration,
    end: Instant,
) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(port)?;
    let mut due = first;
    let mut latencies = Vec::new();
    while due < end {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (status, _) = connection.post(path, body)?;
        ensure!(status == 200, "status {status}");
        latencies.push(due.elapsed());
        due += interval;
    }
    Ok(latencies)
}

/// The `percent`th percentile of sorted values; zero of none.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}
