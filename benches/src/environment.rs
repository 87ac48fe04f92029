//! A quickstart environment of the release build, started and stopped the way a user does it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::load;

/// How long anything may take before it counts as hung.
const HANG: Duration = Duration::from_secs(60);

/// A running environment; stopped and removed when dropped.
pub(crate) struct Environment {
    crosstie: PathBuf,
    // Held so that the directory lives as long as the environment.
    directory: tempfile::TempDir,
    /// Port of service traffic.
    pub port: u16,
}

impl Environment {
    /// Creates and starts one with `workers` workers.
    ///
    /// # Errors
    /// The command failed; its output is in the error.
    pub(crate) fn start(crosstie: &Path, workers: usize) -> Result<Self> {
        let crosstie =
            crosstie.canonicalize().with_context(|| format!("{} is missing", crosstie.display()))?;
        let directory = tempfile::tempdir()?;
        let port = free_port_block()?;
        let environment = Self { crosstie, directory, port };
        let base = port.to_string();
        environment.run(&["quickstart", &environment.path("").to_string_lossy(), "--port-base", &base])?;
        environment.set_workers(workers)?;
        Ok(environment)
    }

    fn set_workers(&self, workers: usize) -> Result<()> {
        let path = self.path("server1/config/server.toml");
        let text = fs::read_to_string(&path)?;
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("workers"))
            .map(str::to_owned)
            .collect();
        let section = lines.iter().position(|line| line.trim() == "[server]").context("no [server]")?;
        lines.insert(section + 1, format!("workers = {workers}"));
        self.stop()?;
        fs::write(&path, lines.join("\n") + "\n")?;
        self.start_again()?;
        ensure!(self.workers()?.len() == workers, "the server has not {workers} workers");
        Ok(())
    }

    /// Starts a stopped environment and waits until it answers, as the command does.
    ///
    /// # Errors
    /// The command failed.
    pub(crate) fn start_again(&self) -> Result<()> {
        self.run(&["start", &self.path("").to_string_lossy()])
    }

    /// Stops it and waits until it is gone.
    ///
    /// # Errors
    /// The command failed.
    pub(crate) fn stop(&self) -> Result<()> {
        self.run(&["stop", &self.path("").to_string_lossy()])
    }

    /// A path inside the environment.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join("env").join(below)
    }

    /// Puts `text` into the pickup directory as `name`, by rename, as a careful uploader does.
    ///
    /// # Errors
    /// The disk refused.
    pub(crate) fn drop_file(&self, name: &str, text: &str) -> Result<()> {
        let beside = self.directory.path().join(name);
        fs::write(&beside, text)?;
        fs::rename(beside, self.path("server1/pickup").join(name))?;
        Ok(())
    }

    /// Waits until `POST path` with `body` answers `expected`.
    ///
    /// # Errors
    /// It does not within a minute.
    pub(crate) fn await_answer(&self, path: &str, body: &str, expected: impl Fn(&str) -> bool) -> Result<()> {
        let start = Instant::now();
        let mut last = String::new();
        while start.elapsed() < HANG {
            match load::post_once(self.port, path, body) {
                Ok((200, answer)) if expected(&answer) => return Ok(()),
                Ok((status, answer)) => last = format!("{status} {answer}"),
                Err(error) => last = error.to_string(),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("{path} did not answer as expected; last: {last}")
    }

    /// The supervisor's pid.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn supervisor(&self) -> Result<u32> {
        let text = fs::read_to_string(self.path("server1/work/server.pid"))?;
        text.trim().parse().context("server.pid holds no pid")
    }

    /// The workers' pids.
    ///
    /// # Errors
    /// The environment does not answer.
    pub(crate) fn workers(&self) -> Result<Vec<u32>> {
        let pids = self.figures("pid")?;
        Ok(pids.into_iter().filter_map(|pid| u32::try_from(pid).ok()).collect())
    }

    /// Waits until no worker holds a connection: what one run left would count in the next.
    ///
    /// # Errors
    /// The environment does not answer.
    pub(crate) fn await_no_connections(&self) -> Result<()> {
        let start = Instant::now();
        while self.figures("connections")?.iter().sum::<u64>() > 0 {
            ensure!(start.elapsed() < HANG, "connections stay open");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// One figure of each worker, as the status shows it.
    fn figures(&self, key: &str) -> Result<Vec<u64>> {
        let output =
            Command::new(&self.crosstie).arg("status").arg(self.path("")).args(["-o", "json"]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let status: Value = serde_json::from_slice(&output.stdout)?;
        let workers = status
            .pointer("/components")
            .and_then(Value::as_array)
            .and_then(|components| {
                components.iter().find_map(|component| component.get("workers")?.as_array())
            })
            .context("no workers in the status")?;
        Ok(workers.iter().filter_map(|worker| worker.get(key).and_then(Value::as_u64)).collect())
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(&self.crosstie).args(arguments).output()?;
        ensure!(
            output.status.success(),
            "crosstie {} failed: {}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if self.stop().is_err()
            && let Ok(pid) = self.supervisor()
        {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

/// A base port such that P, P+50 and P+100 are free now.
fn free_port_block() -> Result<u16> {
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (20_000..30_000u16)
        .step_by(400)
        .find(|base| [0, 50, 100].iter().all(|offset| free(base + offset)))
        .context("no free ports")
}
