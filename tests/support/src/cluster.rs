//! A real cluster: made by `crosstie quickstart --cluster`, with its own PostgreSQL, RabbitMQ and HAProxy,
//! taken apart by process id.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Command, Outcome};
use crate::environment::{tail, with_setting};
use crate::http::Http;
use crate::ports::ClusterPorts;
use crate::processes::{self, Process};
use crate::wait::{wait_for, wait_until};

/// A cluster on this host. Dropping it kills every process of it and deletes everything.
#[derive(Debug)]
pub struct Cluster {
    directory: TempDir,
    ports: ClusterPorts,
    servers: u16,
}

impl Cluster {
    /// A cluster of `servers` servers, running and answering through its load balancer.
    ///
    /// # Errors
    /// What `quickstart` said.
    pub fn start(servers: u16) -> Result<Self> {
        let cluster = Self::create(servers)?;
        cluster.run(&["start"])?.success()?;
        Ok(cluster)
    }

    /// A cluster that was made and not started.
    ///
    /// # Errors
    /// What `quickstart` said.
    pub fn create(servers: u16) -> Result<Self> {
        let ports = ClusterPorts::reserve()?;
        let directory = tempfile::Builder::new().prefix("crosstie-cluster-").tempdir()?;
        // Parts that run as users of their own pass through.
        fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let cluster = Self { directory, ports, servers };
        let root = cluster.root().to_str().context("the temporary directory's path is not UTF-8")?.to_owned();
        let base = cluster.ports.number().to_string();
        let count = servers.to_string();
        let arguments =
            ["quickstart", &root, "--cluster", "--servers", &count, "--port-base", &base, "--no-start"];
        Command::new()?.args(arguments).run()?.success()?;
        Ok(cluster)
    }

    /// The environment's directory.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("environment")
    }

    /// The directory of server `number`, counted from 1.
    #[must_use]
    pub fn server(&self, number: u16) -> PathBuf {
        self.root().join(format!("server{number}"))
    }

    /// How many servers `quickstart` made.
    #[must_use]
    pub fn servers(&self) -> u16 {
        self.servers
    }

    /// Where the load balancer serves plain HTTP.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.at(200)
    }

    /// Where the load balancer serves HTTPS.
    #[must_use]
    pub fn tls_address(&self) -> SocketAddr {
        self.at(250)
    }

    /// Where server `number` answers the management API.
    #[must_use]
    pub fn management_address(&self, number: u16) -> SocketAddr {
        self.at(100 + number - 1)
    }

    /// The address at an offset from the base port.
    #[must_use]
    pub fn at(&self, offset: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.number() + offset).into()
    }

    /// A client of the services through the load balancer, over plain HTTP.
    #[must_use]
    pub fn http(&self) -> Http {
        Http::new(format!("http://{}", self.address()))
    }

    /// The CA's certificate (PEM).
    ///
    /// # Errors
    /// It is not readable.
    pub fn ca(&self) -> Result<Vec<u8>> {
        fs::read(self.root().join("client/ca.pem")).context("no CA certificate")
    }

    /// Runs `crosstie` with `arguments` on this environment.
    ///
    /// # Errors
    /// The command could not be run; that it failed is an outcome.
    pub fn run(&self, arguments: &[&str]) -> Result<Outcome> {
        Command::new()?.environment(&self.root()).args(arguments).run()
    }

    /// Runs `crosstie … -o json` and gives what it prints.
    ///
    /// # Errors
    /// The command failed.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        self.run(&[arguments, &["-o", "json"]].concat())?.success()?.json()
    }

    /// Runs `crosstie … --server serverN -o json` and gives what it prints.
    ///
    /// # Errors
    /// The command failed.
    pub fn json_of(&self, number: u16, arguments: &[&str]) -> Result<Value> {
        let name = format!("server{number}");
        self.json(&[arguments, &["--server", &name]].concat())
    }

    /// Starts one component, `server2` or `postgresql`, and waits until it answers.
    ///
    /// # Errors
    /// What `start` said.
    pub fn start_component(&self, name: &str) -> Result<()> {
        let path = self.root().join(name);
        let path = path.to_str().context("the path is not UTF-8")?;
        self.run(&["start", path])?.success().map(drop)
    }

    /// Changes a setting of one server: `("odb.url", "\"…\"")`; the value is TOML.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn set(&self, number: u16, key: &str, value: &str) -> Result<()> {
        let path = self.server(number).join("config/server.toml");
        let text = fs::read_to_string(&path)?;
        fs::write(&path, with_setting(&text, key, value)).context("cannot write server.toml")
    }

    /// A setting of one server as its file has it.
    ///
    /// # Errors
    /// The file cannot be read, or does not have the key.
    pub fn setting(&self, number: u16, table: &str, key: &str) -> Result<String> {
        let text = fs::read_to_string(self.server(number).join("config/server.toml"))?;
        let mut inside = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                inside = line == format!("[{table}]");
            } else if let (true, Some((name, value))) = (inside, line.split_once('='))
                && name.trim() == key
            {
                return Ok(value.trim().trim_matches('"').to_owned());
            }
        }
        anyhow::bail!("server.toml has no {key} in [{table}]")
    }

    /// Writes a file into a server's pickup directory the way careful tools do: beside, then renamed.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn drop_file(&self, number: u16, name: &str, content: &str) -> Result<()> {
        let beside = self.directory.path().join(format!("{number}-{name}.part"));
        fs::write(&beside, content)?;
        fs::rename(&beside, self.server(number).join("pickup").join(name)).context("cannot move into pickup")
    }

    /// Waits until GET `path` through the load balancer answers 200 with `body` as JSON.
    ///
    /// # Panics
    /// When it never does.
    pub fn wait_for_json(&self, path: &str, body: &Value) {
        let http = self.http();
        wait_until(&format!("GET {path} answers {body}"), || {
            http.get(path).is_ok_and(|reply| reply.status == 200 && reply.json() == *body)
        });
    }

    /// The members as server `number` knows them, by name and state.
    ///
    /// # Errors
    /// The command failed.
    pub fn members(&self, number: u16) -> Result<Vec<(String, String)>> {
        let members = self.json_of(number, &["server", "list"])?;
        let text = |member: &Value, key: &str| {
            member.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let members = members.as_array().cloned().unwrap_or_default();
        Ok(members.iter().map(|member| (text(member, "name"), text(member, "state"))).collect())
    }

    /// Waits until every server is a member that is ready.
    ///
    /// # Panics
    /// When they never are.
    pub fn wait_until_ready(&self) {
        wait_until("every server is ready", || {
            let members = self.members(1).unwrap_or_default();
            members.iter().filter(|(_, state)| state == "ready").count() == usize::from(self.servers)
        });
    }

    /// The newest revision, once every server serves it.
    ///
    /// # Panics
    /// When they never do.
    #[must_use]
    pub fn wait_until_converged(&self) -> u64 {
        let serving = |number| {
            let status = self.json_of(number, &["server", "show", &format!("server{number}")]).ok()?;
            status.get("revision").and_then(Value::as_u64)
        };
        wait_for("the servers serve the newest revision", || {
            let status = self.json(&["status"]).ok()?;
            let components = status.get("components")?.as_array()?;
            let newest = components.iter().filter_map(|it| it.get("revision")?.as_u64()).max()?;
            (1..=self.servers).all(|number| serving(number) == Some(newest)).then_some(newest)
        })
    }

    /// The process id in a file of the environment, while that process lives.
    #[must_use]
    pub fn pid(&self, file: &str) -> Option<i32> {
        let text = fs::read_to_string(self.root().join(file)).ok()?;
        text.lines().next()?.trim().parse().ok().filter(|pid| processes::is_alive(*pid))
    }

    /// A server's supervisor, its workers, and all they started; the supervisor first.
    #[must_use]
    pub fn processes_of(&self, number: u16) -> Vec<Process> {
        let supervisor = self.pid(&format!("server{number}/work/server.pid"));
        supervisor.map(processes::tree).unwrap_or_default()
    }

    /// The workers of a server.
    #[must_use]
    pub fn workers_of(&self, number: u16) -> Vec<i32> {
        let all = self.processes_of(number);
        let supervisor = all.first().map_or(0, |process| process.pid);
        all.iter().filter(|process| process.parent == supervisor).map(|process| process.pid).collect()
    }

    /// The load balancer's agent.
    #[must_use]
    pub fn agent(&self) -> Option<i32> {
        self.pid("lb/work/lb.pid")
    }

    /// HAProxy's master process.
    #[must_use]
    pub fn haproxy(&self) -> Option<i32> {
        self.pid("lb/work/haproxy.pid")
    }

    /// PostgreSQL's first process.
    #[must_use]
    pub fn postgresql(&self) -> Option<i32> {
        self.pid("postgresql/part.pid")
    }

    /// RabbitMQ's first process.
    #[must_use]
    pub fn broker(&self) -> Option<i32> {
        self.pid("broker/part.pid")
    }

    /// Kills `first` and everything that descends from it, at once, and waits until all are dead.
    ///
    /// # Errors
    /// There is no such process, or the kernel refuses.
    pub fn kill_tree(&self, first: Option<i32>) -> Result<()> {
        let everything = processes::tree(first.context("the process does not run")?);
        for process in &everything {
            processes::send(process.pid, Signal::SIGKILL)?;
        }
        wait_until("everything is dead", || {
            everything.iter().all(|process| !processes::is_alive(process.pid))
        });
        Ok(())
    }

    fn stop_hard(&self) {
        let files = [
            "lb/work/lb.pid".to_owned(),
            "lb/work/haproxy.pid".to_owned(),
            "postgresql/part.pid".to_owned(),
            "broker/part.pid".to_owned(),
        ];
        let servers = (1..=self.servers + 1).map(|number| format!("server{number}/work/server.pid"));
        for file in servers.chain(files) {
            for process in self.pid(&file).map(processes::tree).unwrap_or_default() {
                // Nothing is left to do about a failure here; the test has ended.
                let _ = processes::send(process.pid, Signal::SIGKILL);
            }
        }
        // What descends from nobody any more still works in the environment's directory.
        for pid in processes::working_below(&self.root()) {
            let _ = processes::send(pid, Signal::SIGKILL);
        }
    }

    fn show_logs(&self) {
        let mut files: Vec<PathBuf> =
            ["postgresql/part.log", "broker/part.log", "lb/logs/server.log", "lb/logs/haproxy.log"]
                .iter()
                .map(|name| self.root().join(name))
                .collect();
        for number in 1..=self.servers {
            files.extend(
                ["console.log", "server.log"].map(|name| self.server(number).join("logs").join(name)),
            );
        }
        for file in files {
            show(&file);
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what the cluster said")]
fn show(file: &Path) {
    if let Ok(text) = tail(file) {
        eprintln!("---- end of {} ----\n{text}", file.display());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        self.stop_hard();
    }
}
