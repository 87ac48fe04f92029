//! `wrk`, the load generator of Debian's packages, with its report as numbers.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// A load to generate. Always bounded in time.
#[derive(Debug, Clone)]
pub struct Load {
    /// What is requested.
    pub url: String,
    /// Connections kept open.
    pub connections: u32,
    /// How long it lasts.
    pub duration: Duration,
    /// Lua that shapes requests, as wrk reads it.
    pub script: Option<std::path::PathBuf>,
    /// Header fields of every request.
    pub headers: Vec<String>,
}

/// What a load met.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Requests answered.
    pub requests: u64,
    /// Answers whose status was neither 2xx nor 3xx.
    pub not_ok: u64,
    /// Errors of connecting, reading, writing, and answers that took too long.
    pub socket_errors: u64,
    /// Answers per second.
    pub per_second: f64,
    /// The 50th, 75th, 90th and 99th percentile of latency.
    pub latency: [Duration; 4],
    /// wrk's own words.
    pub text: String,
}

/// A load that is being generated.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
}

impl Load {
    /// GET of `url` for `duration` on 16 connections.
    #[must_use]
    pub fn new(url: impl Into<String>, duration: Duration) -> Self {
        Self { url: url.into(), connections: 16, duration, script: None, headers: Vec::new() }
    }

    /// Starts the load.
    ///
    /// # Errors
    /// wrk is not installed.
    pub fn start(&self) -> Result<Running> {
        let mut command = Command::new("wrk");
        command.args(["--threads", "1", "--latency", "--timeout", "30s"]);
        command.args(["--connections", &self.connections.to_string()]);
        command.args(["--duration", &format!("{}s", self.duration.as_secs().max(1))]);
        for header in &self.headers {
            command.args(["--header", header]);
        }
        if let Some(script) = &self.script {
            command.arg("--script").arg(script);
        }
        command.arg(&self.url).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().context("cannot run wrk: apt-get install wrk")?;
        Ok(Running { child: Some(child) })
    }

    /// Generates the whole load.
    ///
    /// # Errors
    /// As for [`Load::start`] and [`Running::finish`].
    pub fn run(&self) -> Result<Report> {
        self.start()?.finish()
    }
}

impl Running {
    /// Whether it still goes on.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends the load now and reads the report.
    ///
    /// # Errors
    /// As for [`Running::finish`].
    pub fn finish_early(self) -> Result<Report> {
        if let Some(child) = &self.child {
            // wrk prints what it has when it is interrupted. One that has ended needs no signal.
            let _ = crate::processes::send(i32::try_from(child.id())?, nix::sys::signal::Signal::SIGINT);
        }
        self.finish()
    }

    /// Waits for the end and reads the report.
    ///
    /// # Errors
    /// wrk failed or its report is not understood.
    pub fn finish(mut self) -> Result<Report> {
        let child = self.child.take().context("this load was finished before")?;
        let output = child.wait_with_output().context("cannot read from wrk")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("wrk failed: {text}{}", String::from_utf8_lossy(&output.stderr));
        }
        Report::parse(&text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Report {
    /// Reads what wrk 4 prints.
    ///
    /// # Errors
    /// The count of requests or the rate is missing.
    pub fn parse(text: &str) -> Result<Self> {
        let mut report = Self { text: text.to_owned(), ..Self::default() };
        let mut counted = false;
        for line in text.lines().map(str::trim) {
            let first = line.split_whitespace().next().unwrap_or_default();
            if line.contains(" requests in ") {
                report.requests = first.parse().context("requests")?;
                counted = true;
            } else if let Some(rate) = line.strip_prefix("Requests/sec:") {
                report.per_second = rate.trim().parse().context("rate")?;
            } else if let Some(errors) = line.strip_prefix("Socket errors:") {
                report.socket_errors =
                    errors.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum();
            } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
                report.not_ok = count.trim().parse().context("statuses")?;
            } else if let Some(slot) = ["50%", "75%", "90%", "99%"].iter().position(|p| *p == first) {
                let value = line.split_whitespace().nth(1).and_then(duration);
                if let (Some(cell), Some(value)) = (report.latency.get_mut(slot), value) {
                    *cell = value;
                }
            }
        }
        if !counted {
            bail!("not a report of wrk: {text}");
        }
        Ok(report)
    }

    /// The 99th percentile of latency.
    #[must_use]
    pub fn p99(&self) -> Duration {
        self.latency[3]
    }

    /// Whether every request was answered, and well.
    #[must_use]
    pub fn lost_nothing(&self) -> bool {
        self.not_ok == 0 && self.socket_errors == 0 && self.requests > 0
    }
}

fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * factor).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_numbers() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 16 connections\n  Thread Stats   \
                    Avg      Stdev     Max   +/- Stdev\n    Latency     1.00ms    2.00ms  30.00ms   97.00%\n  \
                    Latency Distribution\n     50%  350.00us\n     75%  420.00us\n     90%    1.50ms\n     \
                    99%    2.10s\n  12345 requests in 1.00s, 2.00MB read\n  Socket errors: connect 0, read 3, \
                    write 1, timeout 2\n  Non-2xx or 3xx responses: 7\nRequests/sec:  12300.50\nTransfer/sec: 2MB\n";
        let report = Report::parse(text).unwrap();
        assert_eq!((report.requests, report.socket_errors, report.not_ok), (12345, 6, 7));
        assert_eq!(report.latency[0], Duration::from_micros(350));
        assert_eq!(report.p99(), Duration::from_millis(2100));
        assert!((report.per_second - 12300.5).abs() < 1e-6);
        assert!(!report.lost_nothing());
        assert!(Report::parse("unable to connect").is_err());
    }
}
