//! `docs/three-hosts.md` followed step by step, with `docs/databases.md` where it refers there: each host is a
//! loopback address and a directory, and the programs of host `c` are set up by hand with the lines of the guide.
//!
//! Blocks run as they stand, with addresses and directories of the test's own. `systemctl enable --now` starts
//! what its unit would.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crosstie_security::CertificateAuthority;
use crosstie_test_support::command::binary;
use crosstie_test_support::{Http, processes, wait_until};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};

use super::TURN;
use crate::documentation::blocks;

const PAGE: &str = "docs/three-hosts.md";
const POSTGRESQL: &str = "/usr/lib/postgresql/15/bin";

/// What units of systemd start, and the capability a unit grants: ports below 1024.
const SHELL: &str = r#"
systemctl() {
  case "$*" in
    "enable --now crosstie@"*) crosstie start "$HOST/${3#crosstie@}" ;;
    "enable --now crosstie-lb") crosstie start "$HOST/lb" ;;
    *) echo "no such unit: $*" >&2; return 1 ;;
  esac
}
"#;

/// The hosts.
struct Hosts {
    root: tempfile::TempDir,
    network: String,
    is_root: bool,
}

impl Hosts {
    fn new() -> Self {
        let root = tempfile::Builder::new().prefix("crosstie-hosts-").tempdir().unwrap();
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let hosts = Self {
            root,
            network: format!("127.{}.{low}", 16 + high % 100),
            is_root: Uid::effective().is_root(),
        };
        hosts.make("");
        for name in ["a", "b", "c", "etc", "desk", "c/postgresql/tls", "c/rabbitmq/tls", "c/lb/tls"] {
            hosts.make(name);
        }
        hosts
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A directory that users of programs pass through.
    fn make(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn address(&self, host: u8) -> String {
        format!("{}.{host}", self.network)
    }

    /// The guide's text for host `host`.
    fn fit(&self, text: &str, host: &str) -> String {
        let mut text = text
            .replace("10.0.0.0/24", "127.0.0.0/8")
            // The page on databases has another host for it.
            .replace("10.0.0.5", "10.0.0.3")
            .replace("10.0.0", &self.network)
            .replace("/var/lib/crosstie", self.path(host).to_str().unwrap())
            .replace("/etc/crosstie", self.path("etc").to_str().unwrap())
            .replace("/etc/postgresql", self.path("c/postgresql").to_str().unwrap())
            .replace("/etc/rabbitmq", self.path("c/rabbitmq").to_str().unwrap())
            .replace('…', "hush");
        if !self.is_root {
            text = text.replace(":80\"", ":8080\"").replace(":443\"", ":8443\"").replace("chown ", ": ");
        }
        text
    }

    fn shell(&self, host: &str, text: &str, input: &str) -> Output {
        let directory = binary().unwrap().parent().unwrap().to_owned();
        let path = format!("{}:/usr/sbin:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
        let mut child = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &format!("{SHELL}{}", self.fit(text, host))])
            .current_dir(self.path("desk"))
            .env("PATH", path)
            .env("HOST", self.path(host))
            .env_remove("CROSSTIE_DIR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Runs `text` on a host and gives what it prints.
    fn run(&self, host: &str, text: &str, input: &str) -> String {
        let output = self.shell(host, text, input);
        let (said, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{text}\nfailed: {said}{error}");
        said.trim().to_owned()
    }

    /// A command of host `c` as the user that its program becomes.
    fn as_user(&self, name: &str, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path("c")).stdin(Stdio::null());
        if let Some(user) = self.user(name) {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    fn user(&self, name: &str) -> Option<User> {
        self.is_root.then(|| User::from_name(name).unwrap().unwrap())
    }

    /// Gives a directory of host `c` and what is in it to the user of its program.
    fn give(&self, directory: &str, name: &str) {
        let Some(user) = self.user(name) else { return };
        let mut left = vec![self.path(directory)];
        while let Some(path) = left.pop() {
            chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
            if path.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }

    /// Copies the files of a certificate to where a program of host `c` has them.
    fn copy(&self, from: &str, to: &str, name: &str) {
        for entry in fs::read_dir(self.path(from)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, self.path(to).join(path.file_name().unwrap())).unwrap();
        }
        self.give(to, name);
    }

    fn postgresql(&self, program: &str, arguments: &[&str]) {
        let data = self.path("c/postgresql/data");
        let mut command = self.as_user("postgres", &Path::new(POSTGRESQL).join(program));
        let output = command.arg("-D").arg(&data).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// RabbitMQ as a package would run it, but for its directories and the ports by which its nodes find each
    /// other.
    fn rabbitmq(&self, program: &str) -> Command {
        let home = self.path("c/rabbitmq");
        let mut command = self.as_user("rabbitmq", &Path::new("/usr/lib/rabbitmq/bin").join(program));
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &home)
            .env("RABBITMQ_NODENAME", format!("crosstie{}@localhost", std::process::id()))
            .env("RABBITMQ_CONFIG_FILE", home.join("rabbitmq.conf"))
            .env("RABBITMQ_MNESIA_BASE", home.join("data"))
            .env("RABBITMQ_LOG_BASE", home.join("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("plugins"))
            .env("ERL_EPMD_ADDRESS", self.address(3))
            .env("ERL_EPMD_PORT", "4370")
            .env("RABBITMQ_DIST_PORT", (40_000 + std::process::id() % 10_000).to_string());
        command
    }

    /// What `crosstie server list` says of each server.
    fn states(&self, host: &str) -> Vec<String> {
        let output = self.shell(host, "crosstie server list --dir /var/lib/crosstie -o json", "");
        let members: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let members = members.as_array().cloned().unwrap_or_default();
        members.iter().map(|member| member["state"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in
                ["a/server1/logs/server.log", "c/postgresql/log", "c/rabbitmq/out", "c/lb/logs/server.log"]
            {
                let text = fs::read_to_string(self.path(log)).unwrap_or_default();
                let lines: Vec<_> = text.lines().rev().take(30).collect();
                eprintln!("---- end of {log}, backwards\n{}", lines.join("\n"));
            }
        }
        for pid in processes::working_below(self.root.path()) {
            let _ = processes::send(pid, Signal::SIGKILL);
        }
        // It answers for the nodes of this test alone, and nobody else ends it.
        let _ = self.rabbitmq("../../../bin/epmd").arg("-kill").output();
    }
}

/// The block of a page that holds `text`.
fn block(page: &str, text: &str) -> String {
    let mut found = blocks(page).into_iter().filter(|block| block.text.contains(text));
    found.next().unwrap_or_else(|| panic!("{page} has no block with {text}")).text
}

/// A database as the guide sets it up, with a certificate of another authority than the cluster's.
fn set_up_the_database(hosts: &Hosts) {
    let company = CertificateAuthority::create("company").unwrap();
    let tls = hosts.path("c/postgresql/tls");
    let address = hosts.address(3).parse().unwrap();
    let issued = company.issue_server("db", &[], &[address]).unwrap();
    issued.save(&tls.join("db.pem"), &tls.join("db.key")).unwrap();
    for path in [tls.join("ca.pem"), hosts.path("etc/db-ca.pem")] {
        fs::write(path, company.certificate_pem()).unwrap();
    }
    hosts.give("c/postgresql", "postgres");
    hosts.postgresql("initdb", &["--auth=trust", "--no-sync"]);
    let settings = hosts.fit(&block("docs/databases.md", "listen_addresses"), "c");
    let sockets =
        format!("unix_socket_directories = '{}'\nfsync = off\n", hosts.path("c/postgresql").display());
    let path = hosts.path("c/postgresql/data/postgresql.conf");
    fs::write(&path, fs::read_to_string(&path).unwrap() + &settings + &sockets).unwrap();
    admit(hosts, "");
    let log = hosts.path("c/postgresql/log");
    hosts.postgresql("pg_ctl", &["--wait", "--log", log.to_str().unwrap(), "start"]);
    let statements = hosts.fit(&block("docs/databases.md", "CREATE ROLE"), "c");
    let mut psql = hosts.as_user("postgres", Path::new("/usr/bin/psql"));
    for statement in statements.lines() {
        psql.args(["-c", statement]);
    }
    let done =
        psql.args(["-v", "ON_ERROR_STOP=1", "-h"]).arg(hosts.path("c/postgresql")).arg("postgres").output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Lets the servers' addresses in by the guide's line, without one of its words or with all.
fn admit(hosts: &Hosts, without: &str) {
    let line = hosts.fit(&block("docs/databases.md", "hostssl"), "c");
    let line = if without.is_empty() { line.replace("clientcert=verify-ca", "") } else { line };
    let path = hosts.path("c/postgresql/data/pg_hba.conf");
    fs::write(&path, format!("local all all trust\n{line}")).unwrap();
}

fn set_up_the_broker(hosts: &Hosts) {
    hosts.copy("desk/c/rabbit", "c/rabbitmq/tls", "rabbitmq");
    let settings = hosts.fit(&block(PAGE, "listeners.ssl.default"), "c");
    // The one thing that a host of its own does not need: an address of its own.
    let settings = settings.replace("default = 5671", &format!("default = {}:5671", hosts.address(3)));
    fs::write(hosts.path("c/rabbitmq/rabbitmq.conf"), settings).unwrap();
    fs::write(hosts.path("c/rabbitmq/plugins"), "[].\n").unwrap();
    fs::write(hosts.path("c/password"), "hush\n").unwrap();
    hosts.give("c/rabbitmq", "rabbitmq");
    let out = fs::File::create(hosts.path("c/rabbitmq/out")).unwrap();
    let mut server = hosts.rabbitmq("rabbitmq-server");
    let mut server = server.stdout(out.try_clone().unwrap()).stderr(out).process_group(0).spawn().unwrap();
    // It is stopped with its host; whoever started it takes note of that.
    std::thread::spawn(move || server.wait());
    wait_until("RabbitMQ runs", || {
        hosts.rabbitmq("rabbitmqctl").arg("await_startup").output().unwrap().status.success()
    });
    for line in block(PAGE, "rabbitmqctl").lines() {
        let arguments = line.strip_prefix("rabbitmqctl ").unwrap();
        let mut command = hosts.rabbitmq("rabbitmqctl");
        let (arguments, input) = arguments.split_once(" < ").map_or((arguments, None), |(a, b)| (a, Some(b)));
        command.args(arguments.split_whitespace().map(|word| word.trim_matches('\'')));
        if let Some(input) = input {
            command.stdin(fs::File::open(hosts.path("c").join(input)).unwrap());
        }
        let done = command.output().unwrap();
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

const SERVICE: &str = r#"
import os
from crosstie import Service, rest

class Where(Service):
    name = "demo.where"
    channels = [rest("GET", "/where", security="clients")]

    def handle(self):
        self.response.payload = {"server": os.path.basename(os.getcwd())}
"#;

#[test]
fn the_guide_to_three_hosts_works_as_it_stands() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let hosts = Hosts::new();
    set_up_the_database(&hosts);
    hosts.run("a", &block(PAGE, "crosstie quickstart"), "");
    hosts.run("a", &block(PAGE, "crosstie ca issue"), "");

    // Every link from now on is of the cluster's own authority.
    hosts.copy("desk/c/db", "c/postgresql/tls", "postgres");
    admit(&hosts, "nothing");
    hosts.postgresql("pg_ctl", &["reload"]);
    let path = hosts.path("a/server1/config/server.toml");
    let settings = fs::read_to_string(&path).unwrap();
    let parameters = hosts.fit("?ca=/etc/crosstie/db-ca.pem&cert=none", "a");
    assert!(settings.contains(&parameters), "{settings}");
    fs::write(&path, settings.replace(&parameters, "")).unwrap();
    wait_until("the edit is committed", || {
        let log = hosts.shell("a", "crosstie config log --dir /var/lib/crosstie", "");
        String::from_utf8_lossy(&log.stdout).contains("hand edit")
    });
    wait_until("the database is reached with the cluster's certificates", || {
        hosts.shell("a", "crosstie odb status --dir /var/lib/crosstie", "").status.success()
            && hosts.states("a") == ["ready"]
    });

    set_up_the_broker(&hosts);
    let token = hosts.run("a", "crosstie server token --dir /var/lib/crosstie", "");
    hosts.run("b", &block(PAGE, "crosstie server join"), &token);
    wait_until("both are ready, on either host", || {
        ["a", "b"].iter().all(|host| hosts.states(host) == ["ready", "ready"])
    });
    for host in ["a", "b"] {
        wait_until("it is on the bus", || {
            let status = hosts.shell(host, "crosstie status --dir /var/lib/crosstie -o json", "");
            let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
            status["components"][0]["bus"]["reachable"] == true
        });
    }

    hosts.copy("desk/c/lb", "c/lb/tls", "crosstie");
    fs::write(hosts.path("c/lb/lb.toml"), hosts.fit(&block(PAGE, "members = "), "c")).unwrap();
    hosts.run("c", &block(PAGE, "crosstie-lb"), "");

    let definition = "security:\n  clients: {type: basic_auth, username: a, password: b}\n";
    hosts.run("a", "crosstie apply -f - --dir /var/lib/crosstie", definition);
    fs::write(hosts.path("b/server2/pickup/where.py"), SERVICE).unwrap();
    let port = if hosts.is_root { 80 } else { 8080 };
    let http = Http::new(format!("http://{}:{port}", hosts.address(3)));
    assert_eq!(http.get("/health/live").unwrap().status, 200);
    let http = http.basic_auth("a", "b");
    for name in ["server1", "server2"] {
        wait_until(&format!("{name} answers"), || {
            http.get("/where").is_ok_and(|reply| reply.status == 200 && reply.json()["server"] == name)
        });
    }
}
