//! A real environment: made by `crosstie quickstart` on reserved loopback ports, stopped by process id.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Command, Outcome};
use crate::http::Http;
use crate::ports::PortBase;
use crate::processes::{self, Process};
use crate::wait::{wait_for, wait_until};

/// How much of each log a failed test prints, in bytes.
const LOG_TAIL: u64 = 8 * 1024;

/// An environment that is to be made.
#[derive(Debug, Default)]
pub struct Builder {
    settings: Vec<(String, String)>,
    variables: Vec<(String, String)>,
}

/// An environment that was made, with its one server. Dropping it stops the server and deletes everything.
#[derive(Debug)]
pub struct Environment {
    directory: TempDir,
    ports: PortBase,
    variables: Vec<(String, String)>,
}

impl Builder {
    /// Changes a setting of `server.toml` before the first start: `("python.handler_threads", "2")`; the
    /// value is TOML.
    #[must_use]
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Sets an environment variable of the server.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Makes the environment without starting it.
    ///
    /// # Errors
    /// What `quickstart` said.
    pub fn create(self) -> Result<Environment> {
        let ports = PortBase::reserve()?;
        let directory = tempfile::Builder::new().prefix("crosstie-").tempdir()?;
        let made = Environment { directory, ports, variables: self.variables };
        let root = made.root().to_str().context("the temporary directory's path is not UTF-8")?.to_owned();
        let base = made.ports.number().to_string();
        let arguments = ["quickstart", &root, "--port-base", &base, "--no-start"];
        Command::new()?.args(arguments).run()?.success()?;
        for (key, value) in &self.settings {
            made.set(key, value)?;
        }
        Ok(made)
    }

    /// Makes the environment and starts it.
    ///
    /// # Errors
    /// What `quickstart` or `start` said.
    pub fn start(self) -> Result<Environment> {
        let made = self.create()?;
        made.start_again()?;
        Ok(made)
    }
}

impl Environment {
    /// An environment with other settings than quickstart's.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// An environment as quickstart makes it, running.
    ///
    /// # Errors
    /// What `quickstart` or `start` said.
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// The environment's directory.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("environment")
    }

    /// The server's directory.
    #[must_use]
    pub fn server(&self) -> PathBuf {
        self.root().join("server1")
    }

    /// The pickup directory.
    #[must_use]
    pub fn pickup(&self) -> PathBuf {
        self.server().join("pickup")
    }

    /// `server.toml`.
    #[must_use]
    pub fn settings_file(&self) -> PathBuf {
        self.server().join("config/server.toml")
    }

    /// Where plain HTTP is served.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.number()).into()
    }

    /// Where HTTPS is served.
    #[must_use]
    pub fn tls_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.number() + 50).into()
    }

    /// Where the management API is served.
    #[must_use]
    pub fn management_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.number() + 100).into()
    }

    /// A client of the services over plain HTTP.
    #[must_use]
    pub fn http(&self) -> Http {
        Http::new(self.url(""))
    }

    /// A client of the services over HTTPS.
    ///
    /// # Errors
    /// The CA's certificate is not readable.
    pub fn https(&self) -> Result<Http> {
        Http::trusting(format!("https://{}", self.tls_address()), &self.ca()?)
    }

    /// The CA's certificate (PEM).
    ///
    /// # Errors
    /// It is not readable.
    pub fn ca(&self) -> Result<Vec<u8>> {
        fs::read(self.root().join("client/ca.pem")).context("no CA certificate")
    }

    /// A service URL.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Runs `crosstie` with `arguments` on this environment.
    ///
    /// # Errors
    /// The command could not be run; that it failed is an outcome.
    pub fn run(&self, arguments: &[&str]) -> Result<Outcome> {
        self.command(arguments)?.run()
    }

    /// `crosstie` with `arguments` on this environment, to be given more.
    ///
    /// # Errors
    /// There is no binary.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let command = Command::new()?.environment(&self.root()).args(arguments);
        Ok(self.variables.iter().fold(command, |command, (name, value)| command.variable(name, value)))
    }

    /// Runs `crosstie … -o json` and gives what it prints.
    ///
    /// # Errors
    /// The command failed.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        self.run(&[arguments, &["-o", "json"]].concat())?.success()?.json()
    }

    /// Writes a file into the pickup directory the way careful tools do: beside, then renamed.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn drop_file(&self, name: &str, content: &str) -> Result<()> {
        let target = self.pickup().join(name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let beside = self.directory.path().join(format!("{}.part", name.replace('/', "_")));
        fs::write(&beside, content)?;
        fs::rename(&beside, &target).context("cannot move into pickup")
    }

    /// Waits until GET `path` answers with `status` and gives that answer.
    ///
    /// # Panics
    /// When it never does.
    #[expect(clippy::must_use_candidate, reason = "most callers only wait")]
    pub fn wait_for_status(&self, path: &str, status: u16) -> crate::http::Reply {
        let http = self.http();
        wait_for(&format!("GET {path} answers {status}"), || {
            http.get(path).ok().filter(|reply| reply.status == status)
        })
    }

    /// Waits until GET `path` answers 200 with `body` as JSON.
    ///
    /// # Panics
    /// When it never does.
    pub fn wait_for_json(&self, path: &str, body: &Value) {
        let http = self.http();
        wait_until(&format!("GET {path} answers {body}"), || {
            http.get(path).is_ok_and(|reply| reply.status == 200 && reply.json() == *body)
        });
    }

    /// Changes a setting in `server.toml`: `("server.workers", "1")`; the value is TOML.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let path = self.settings_file();
        let text = fs::read_to_string(&path)?;
        fs::write(&path, with_setting(&text, key, value)).context("cannot write server.toml")
    }

    /// Starts the server that was stopped or killed, and waits until it answers.
    ///
    /// # Errors
    /// What `start` said.
    pub fn start_again(&self) -> Result<()> {
        self.run(&["start"])?.success().map(drop)
    }

    /// Stops the server as a person would.
    ///
    /// # Errors
    /// What `stop` said.
    pub fn stop(&self) -> Result<()> {
        self.run(&["stop"])?.success().map(drop)
    }

    /// The supervisor's process id, while it lives.
    #[must_use]
    pub fn supervisor(&self) -> Option<i32> {
        let text = fs::read_to_string(self.server().join("work/server.pid")).ok()?;
        text.trim().parse().ok().filter(|pid| processes::is_alive(*pid))
    }

    /// The supervisor and everything it started.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        self.supervisor().map(processes::tree).unwrap_or_default()
    }

    /// What `crosstie status -o json` says of the server.
    ///
    /// # Errors
    /// The command failed.
    pub fn component(&self) -> Result<Value> {
        let status = self.json(&["status"])?;
        status.pointer("/components/0").cloned().context("status names no component")
    }

    /// The process ids of the workers that are ready.
    ///
    /// # Errors
    /// The command failed.
    pub fn ready_workers(&self) -> Result<Vec<i32>> {
        let component = self.component()?;
        let workers = component.get("workers").and_then(Value::as_array).cloned().unwrap_or_default();
        let ready = workers.iter().filter(|worker| worker.get("state") == Some(&"ready".into()));
        Ok(ready
            .filter_map(|worker| worker.get("pid").and_then(Value::as_i64))
            .filter_map(|pid| i32::try_from(pid).ok())
            .collect())
    }

    /// Kills the supervisor and everything it started, at once, as a power cut would.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill_all(&self) -> Result<()> {
        let everything = self.processes();
        // The supervisor comes first in the list, so that it cannot replace what dies after it.
        for process in &everything {
            processes::send(process.pid, Signal::SIGKILL)?;
        }
        wait_until("everything is dead", || {
            everything.iter().all(|process| !processes::is_alive(process.pid))
        });
        Ok(())
    }

    /// Asks the supervisor to roll its workers.
    ///
    /// # Errors
    /// No server runs, or the kernel refuses.
    pub fn reload(&self) -> Result<()> {
        processes::send(self.supervisor().context("no server runs")?, Signal::SIGHUP)
    }

    /// The end of a log file: `server.log`, `access.log`, `console.log`.
    #[must_use]
    pub fn log_tail(&self, name: &str) -> String {
        tail(&self.server().join("logs").join(name)).unwrap_or_default()
    }

    fn stop_hard(&self) {
        let everything = self.processes();
        let Some(supervisor) = everything.first().map(|process| process.pid) else { return };
        // Nothing is left to do about a failure here; the test has ended.
        let _ = processes::send(supervisor, Signal::SIGTERM);
        let patience = std::time::Instant::now();
        while processes::is_alive(supervisor) && patience.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
        for process in everything.iter().chain(&self.processes()) {
            let _ = processes::send(process.pid, Signal::SIGKILL);
        }
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["console.log", "server.log", "access.log"] {
                #[expect(clippy::print_stderr, reason = "a failed test shows what the server said")]
                {
                    eprintln!("---- end of {name} ----\n{}", self.log_tail(name));
                }
            }
        }
        self.stop_hard();
    }
}

/// The end of a log file.
pub(crate) fn tail(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `text` with `key` set, in its table when that is there. Comments stay.
pub(crate) fn with_setting(text: &str, key: &str, value: &str) -> String {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let header = format!("[{table}]");
    let mut lines: Vec<String> = Vec::new();
    let mut inside = table.is_empty();
    let mut found_table = inside;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with('[') {
            inside = trimmed == header;
        } else if inside && trimmed.split('=').next().map(str::trim) == Some(name) {
            continue;
        }
        lines.push(line.to_owned());
        if trimmed == header {
            found_table = true;
            lines.push(format!("{name} = {value}"));
        }
    }
    if !found_table {
        lines.push(header);
        lines.push(format!("{name} = {value}"));
    } else if table.is_empty() {
        lines.insert(0, format!("{name} = {value}"));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_replaced_in_its_own_table() {
        let text = "# top\n[a]\nx = 1\n# x = 3\n[b]\nx = 2\n";
        assert_eq!(with_setting(text, "b.x", "9"), "# top\n[a]\nx = 1\n# x = 3\n[b]\nx = 9\n");
        assert_eq!(with_setting(text, "c.y", "\"z\""), format!("{text}[c]\ny = \"z\"\n"));
    }
}
