//! Servers of a cluster: joining, draining, leading, dying and coming back, leaving; and their certificates.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crosstie_test_support::{Command, Environment, Http, PortBase, processes, wait_for, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SLOW: &str = r#"
import time
from crosstie import Service, rest

class Slow(Service):
    name = "demo.slow"
    channels = [rest("GET", "/slow/{seconds}")]

    def handle(self):
        time.sleep(float(self.request.http.params["seconds"]))
        self.response.payload = {"slept": True}
"#;

fn greeting(text: &str) -> String {
    format!(
        "from crosstie import Service, rest\n\nclass Hello(Service):\n    name = \"demo.hello\"\n    \
         channels = [rest(\"GET\", \"/hello\")]\n\n    def handle(self):\n        \
         self.response.payload = {{\"text\": \"{text}\"}}\n"
    )
}

/// A further server of an environment, on ports of its own. Its processes end with it.
pub(crate) struct Second {
    root: PathBuf,
    name: &'static str,
    ports: PortBase,
}

impl Second {
    fn reserve(root: PathBuf, name: &'static str) -> Self {
        Self { root, name, ports: PortBase::reserve().unwrap() }
    }

    fn http_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.ports.number()).into()
    }

    fn listening(&self) -> [String; 4] {
        let management = SocketAddr::from(([127, 0, 0, 1], self.ports.number() + 100));
        let (http, management) = (self.http_address().to_string(), management.to_string());
        ["--http".into(), http, "--management".into(), management]
    }

    fn directory(&self) -> PathBuf {
        self.root.join(self.name)
    }

    pub(crate) fn http(&self) -> Http {
        Http::new(format!("http://{}", self.http_address()))
    }

    fn start(&self) {
        Command::new().unwrap().args(["start"]).args([self.directory()]).run().unwrap().success().unwrap();
    }

    fn stop(&self) {
        Command::new().unwrap().args(["stop"]).args([self.directory()]).run().unwrap().success().unwrap();
    }

    fn status(&self) -> Value {
        let asked = Command::new().unwrap().args(["status", "-o", "json"]).args([self.directory()]).run();
        asked.unwrap().json().unwrap()["components"][0].clone()
    }

    pub(crate) fn kill(&self) {
        for pid in processes::working_below(&self.directory()) {
            let _ = processes::send(pid, Signal::SIGKILL);
        }
        let directory = self.directory();
        wait_until("the server is gone", || processes::working_below(&directory).is_empty());
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory().join("logs/server.log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!("---- end of {}'s log, backwards ----\n{}", self.name, tail.join("\n"));
        }
        self.kill();
    }
}

/// An environment with two servers that run.
pub(crate) fn pair() -> (Environment, Second) {
    let environment = Environment::start().unwrap();
    let second = create(&environment, "server2");
    second.start();
    (environment, second)
}

fn create(environment: &Environment, name: &'static str) -> Second {
    let second = Second::reserve(environment.root(), name);
    let mut arguments = vec!["server".to_owned(), "create".into(), name.into()];
    arguments.extend(second.listening());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    environment.run(&arguments).unwrap().success().unwrap();
    second
}

fn member(environment: &Environment, name: &str) -> Value {
    environment.json(&["server", "show", name]).unwrap()
}

fn wait_for_state(environment: &Environment, name: &str, state: &str) {
    wait_until(&format!("{name} is {state}"), || member(environment, name)["state"] == state);
}

fn deploy(environment: &Environment, name: &str, text: &str) {
    let path = environment.root().join(format!("{name}.py"));
    fs::write(&path, text).unwrap();
    environment.run(&["deploy", path.to_str().unwrap()]).unwrap().success().unwrap();
}

fn history(environment: &Environment, server: &str) -> Vec<String> {
    let log = environment.json(&["config", "log", "--definitions", "--server", server]).unwrap();
    log.as_array().unwrap().iter().map(|entry| entry["commit"].as_str().unwrap().to_owned()).collect()
}

fn leads(component: &Value) -> bool {
    component["workers"].as_array().unwrap().iter().any(|worker| worker["leader"] == true)
}

fn answers(http: &Http, path: &str, text: &str) -> bool {
    http.get(path).is_ok_and(|reply| reply.status == 200 && reply.json()["text"] == text)
}

#[test]
fn a_server_joins_with_one_command_and_serves_what_the_others_do() {
    let environment = Environment::start().unwrap();
    deploy(&environment, "hello", &greeting("before"));
    let second = create(&environment, "server2");
    assert_eq!(member(&environment, "server2")["state"], "left");
    second.start();
    assert!(answers(&second.http(), "/hello", "before"));
    wait_for_state(&environment, "server2", "ready");
    wait_for_state(&environment, "server1", "ready");

    fs::write(second.directory().join("pickup/hello.py"), greeting("after")).unwrap();
    wait_until("both servers serve it", || {
        answers(&second.http(), "/hello", "after") && answers(&environment.http(), "/hello", "after")
    });
    wait_until("the histories are equal", || {
        let (one, two) = (history(&environment, "server1"), history(&environment, "server2"));
        one.len() == 2 && one == two
    });
    let leaders = [environment.component().unwrap(), second.status()];
    assert_eq!(leaders.iter().filter(|component| leads(component)).count(), 1);
    let listed = environment.json(&["server", "list"]).unwrap();
    for (component, member) in leaders.iter().zip(listed.as_array().unwrap()) {
        assert_eq!(member["leader"].as_bool(), Some(leads(component)), "{listed}");
    }
    let table = environment.run(&["server", "list"]).unwrap().stdout;
    assert!(table.lines().next().unwrap().contains("LEADER"), "{table}");
    let issued = environment.json(&["ca", "list"]).unwrap();
    assert!(issued.as_array().unwrap().iter().any(|row| row["name"] == "server2"), "{issued}");
    // What is sealed on one server opens on the other.
    let key = |server: &Path| fs::read(server.join("tls/cluster.key")).unwrap();
    assert_eq!(key(&environment.server()), key(&second.directory()));
}

#[test]
fn a_token_lets_one_server_in_and_only_to_its_own_cluster() {
    let environment = Environment::start().unwrap();
    let token = environment.json(&["server", "token"]).unwrap()["token"].as_str().unwrap().to_owned();
    let elsewhere = tempfile::tempdir().unwrap();
    let join = |server: &Second, token: &str| {
        let arguments = ["server", "join", "--token", token];
        let command = Command::new().unwrap().args(arguments).args([server.directory()]);
        command.args(server.listening()).run().unwrap()
    };
    let newcomer = Second::reserve(elsewhere.path().join("host"), "server2");
    for wrong in ["nonsense", "ctj1.nonsense"] {
        assert_eq!(join(&newcomer, wrong).code, 1);
    }
    // Somebody else answers under the address in the token.
    let other = Environment::start().unwrap();
    let foreign =
        other.json(&["server", "token", "--address", &environment.management_address().to_string()]);
    let refused = join(&newcomer, foreign.unwrap()["token"].as_str().unwrap());
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("another cluster"), "{}", refused.stderr);
    assert!(!newcomer.directory().exists());

    join(&newcomer, &token).success().unwrap();
    // The host has what it needs to start the server and to ask it.
    newcomer.start();
    wait_for_state(&environment, "server2", "ready");
    let late = Second::reserve(elsewhere.path().join("host"), "server3");
    let refused = join(&late, &token);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("used"), "{}", refused.stderr);
    assert!(!late.directory().exists());
    assert_eq!(environment.json(&["server", "list"]).unwrap().as_array().unwrap().len(), 2);
}

#[test]
fn draining_waits_for_requests_and_refuses_none() {
    let (environment, second) = pair();
    deploy(&environment, "slow", SLOW);
    wait_until("the second server serves it", || second.http().get("/slow/0").is_ok_and(|r| r.status == 200));
    wait_for_state(&environment, "server2", "ready");
    let http = second.http();
    let begun = Instant::now();
    let slow = std::thread::spawn(move || http.get("/slow/8").unwrap().status);
    wait_until("the request is in hand", || member(&environment, "server2")["in_flight"] == 1);
    let impatient = environment.run(&["server", "drain", "server2", "--timeout", "1"]).unwrap();
    assert_eq!(impatient.code, 1);
    assert!(impatient.stderr.contains("1 requests"), "{}", impatient.stderr);
    let ready = wait_for("not ready", || second.http().get("/health/ready").ok().filter(|r| r.status == 503));
    assert!(ready.text().contains("draining"), "{}", ready.text());
    // Whoever has not heard of it is answered.
    assert_eq!(second.http().get("/slow/0").unwrap().status, 200);
    environment.run(&["server", "drain", "server2"]).unwrap().success().unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(8));
    assert_eq!(slow.join().unwrap(), 200);
    assert_eq!(member(&environment, "server2")["state"], "drained");

    // What is wanted outlives a restart, in every worker.
    second.stop();
    assert_eq!(member(&environment, "server2")["state"], "left");
    second.start();
    wait_until("it is drained again", || member(&environment, "server2")["state"] == "drained");
    assert_eq!(second.http().get("/health/ready").unwrap().status, 503);
    environment.run(&["server", "undrain", "server2"]).unwrap().success().unwrap();
    assert_eq!(member(&environment, "server2")["state"], "ready");
    assert_eq!(second.http().get("/health/ready").unwrap().status, 200);
}

#[test]
fn a_leader_that_dies_is_replaced_and_returns_consistent() {
    let (environment, second) = pair();
    wait_until("the first server leads", || leads(&environment.component().unwrap()));
    assert!(!leads(&second.status()));
    deploy(&environment, "hello", &greeting("0"));
    environment.kill_all().unwrap();
    let killed = Instant::now();
    wait_until("the second server leads", || leads(&second.status()));
    println!("another leader after {:?}", killed.elapsed());
    wait_for_state(&environment, "server1", "dead");
    println!("marked dead after {:?}", killed.elapsed());
    for version in 1..=50 {
        let definition = format!("dictionary:\n  d: {{entries: {{value: {version}}}}}\n");
        environment
            .command(&["apply", "-f", "-"])
            .unwrap()
            .input(definition)
            .run()
            .unwrap()
            .success()
            .unwrap();
    }
    deploy(&environment, "hello", &greeting("newest"));
    let address = environment.address();
    let first_ready = std::thread::spawn(move || {
        let http = Http::new(format!("http://{address}"));
        wait_for("ready again", || http.get("/health/ready").ok().filter(|reply| reply.status == 200));
        http.get("/hello").unwrap().json()
    });
    environment.start_again().unwrap();
    assert_eq!(first_ready.join().unwrap(), json!({"text": "newest"}));
    wait_for_state(&environment, "server1", "ready");
    wait_until("what it missed is replayed", || {
        let (one, two) = (history(&environment, "server1"), history(&environment, "server2"));
        one.len() == 52 && one == two
    });
}

#[test]
fn a_server_that_cannot_load_a_deployment_says_so() {
    let (environment, second) = pair();
    let needs_file = r#"
import os
from crosstie import Service, rest

if os.path.exists("/proc/self/cwd/refuse"):
    raise RuntimeError("not on this server")

class Picky(Service):
    name = "demo.picky"
    channels = [rest("GET", "/picky")]

    def handle(self):
        self.response.payload = {"text": "fine"}
"#;
    fs::write(second.directory().join("refuse"), "").unwrap();
    deploy(&environment, "picky", needs_file);
    wait_for_state(&environment, "server2", "failed");
    let shown = member(&environment, "server2");
    assert!(shown["reason"].as_str().unwrap().contains("picky"), "{shown}");
    let ready = || second.http().get("/health/ready").ok();
    let failed = wait_for("out of service", || ready().filter(|reply| reply.status == 503));
    assert!(failed.text().contains("failed") && !failed.text().contains("RuntimeError"), "{}", failed.text());
    assert_eq!(member(&environment, "server1")["state"], "ready");
    wait_until("the list of deployments tells", || {
        environment.json(&["deployment", "list"]).unwrap().to_string().contains("server2")
    });
    // Once nobody does better it serves what it has, and says what it lacks.
    environment.kill_all().unwrap();
    let alone = wait_for("in service", || ready().filter(|reply| reply.status == 200));
    assert!(alone.text().contains("failed") && alone.text().contains("picky"), "{}", alone.text());
    environment.start_again().unwrap();
    wait_until("out of service", || ready().is_some_and(|reply| reply.status == 503));
    // A server that starts with it has nothing older to go on with, and others that serve it: `start` returns.
    second.stop();
    second.start();
    assert_eq!(ready().unwrap().status, 503);
    fs::remove_file(second.directory().join("refuse")).unwrap();
    deploy(&environment, "picky", &format!("{needs_file}\n# again"));
    wait_for_state(&environment, "server2", "ready");
    assert!(answers(&second.http(), "/picky", "fine"));
}

#[test]
fn edits_of_two_people_at_once_are_put_in_order_and_the_loser_is_told() {
    let (environment, _second) = pair();
    let apply = |server: &str, value: u32, revision: u64| {
        let text = format!("dictionary:\n  d: {{entries: {{value: {value}}}}}\n");
        let revision = revision.to_string();
        let arguments = ["apply", "-f", "-", "--server", server, "--expect", &revision];
        environment.command(&arguments).unwrap().input(text).run().unwrap()
    };
    apply("server1", 1, 0).success().unwrap();
    let lost = apply("server2", 2, 0);
    assert_eq!(lost.code, 1);
    assert!(lost.stderr.contains("revision 1, not 0"), "{}", lost.stderr);
    apply("server2", 2, 1).success().unwrap();
    wait_until("the first server has it", || environment.component().unwrap()["workers"][0]["revision"] == 2);
    let shown = environment.json(&["get", "dictionary", "d"]).unwrap();
    assert_eq!(shown["body"]["entries"]["value"], 2, "{shown}");
    let first = history(&environment, "server2").pop().unwrap();
    environment.run(&["config", "rollback", &first, "--server", "server2"]).unwrap().success().unwrap();
    wait_until("the whole cluster is back", || {
        let one = environment.json(&["get", "dictionary", "d", "--server", "server1"]).unwrap();
        one["body"]["entries"]["value"] == 1 && history(&environment, "server1").len() == 3
    });
    assert_eq!(history(&environment, "server1"), history(&environment, "server2"));
}

#[test]
fn a_server_leaves_once_it_is_stopped_or_forced_to() {
    let (environment, second) = pair();
    wait_for_state(&environment, "server2", "ready");
    let refused = environment.run(&["server", "leave", "server2"]).unwrap();
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    environment.run(&["server", "leave", "server2", "--force"]).unwrap().success().unwrap();
    assert!(processes::working_below(&second.directory()).is_empty());
    let left = |environment: &Environment| environment.json(&["server", "list"]).unwrap();
    assert_eq!(left(&environment).as_array().unwrap().len(), 1);

    let third = create(&environment, "server3");
    third.start();
    wait_for_state(&environment, "server3", "ready");
    third.stop();
    assert_eq!(member(&environment, "server3")["state"], "left");
    environment.run(&["server", "leave", "server3"]).unwrap().success().unwrap();
    assert_eq!(left(&environment).as_array().unwrap().len(), 1);
}

#[test]
fn a_renewed_certificate_is_served_at_once_and_costs_no_request() {
    let environment = Environment::start().unwrap();
    deploy(&environment, "hello", &greeting("x"));
    let https = environment.https().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let asked = std::sync::atomic::AtomicU32::new(0);
    let serial = || {
        let text = fs::read_to_string(environment.server().join("tls/server.pem")).unwrap();
        crosstie_security::authority::describe(&text).unwrap().serial
    };
    let before = serial();
    let failed = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut failed = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                failed += u32::from(!answers(&https, "/hello", "x"));
            }
            failed
        });
        let renewed = environment.json(&["ca", "renew", "server1"]).unwrap();
        assert_eq!(renewed[0]["name"], "server1");
        wait_until("it is on record", || {
            environment.json(&["ca", "list"]).unwrap().to_string().contains(&serial())
        });
        let so_far = || asked.load(std::sync::atomic::Ordering::Relaxed);
        let renewed_at = so_far();
        wait_until("requests after the renewal", || so_far() > renewed_at + 20);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        load.join().unwrap()
    });
    let asked = asked.into_inner();
    assert_ne!(serial(), before);
    assert!(asked > 20 && failed == 0, "{failed} of {asked}");
    // A new connection gets it: the authority's certificate is all that is trusted, and it has not changed.
    assert!(answers(&environment.https().unwrap(), "/hello", "x"));
    assert_eq!(environment.json(&["ca", "renew"]).unwrap(), json!([]));
    let directory = environment.root().join("issued");
    let out = directory.to_str().unwrap();
    let arguments = ["ca", "issue", "load_balancer", "lb", "--dns", "lb.example.org", "--out", out];
    environment.run(&arguments).unwrap().success().unwrap();
    let issued = fs::read_to_string(directory.join("lb.pem")).unwrap();
    let issued = crosstie_security::authority::describe(&issued).unwrap();
    assert_eq!(issued.subject.names, ["lb.example.org"]);
    assert_eq!(environment.run(&arguments).unwrap().code, 1);
}

#[test]
fn a_server_that_left_is_no_member_again_before_it_has_a_new_certificate() {
    let (environment, second) = pair();
    wait_for_state(&environment, "server2", "ready");
    environment.run(&["server", "leave", "server2", "--force"]).unwrap().success().unwrap();
    let members = || environment.json(&["server", "list"]).unwrap();
    let of_second = |certificate: &Value| certificate["kind"] == "server" && certificate["name"] == "server2";
    let certificates = environment.json(&["ca", "list"]).unwrap();
    let revoked: Vec<_> = certificates.as_array().unwrap().iter().filter(|row| of_second(row)).collect();
    assert!(!revoked.is_empty() && revoked.iter().all(|row| row["revoked"] == true), "{certificates}");

    // It serves, whoever started it must have had a reason; the cluster does not count on it.
    second.start();
    wait_until("it says that it left", || second.status()["member"] == "left");
    assert_eq!(members().as_array().unwrap().len(), 1);
    let said = fs::read_to_string(second.directory().join("logs/server.log")).unwrap();
    assert!(said.contains("its certificate is revoked"), "{said}");

    environment.run(&["ca", "renew", "server2"]).unwrap().success().unwrap();
    wait_until("it is back", || {
        members().as_array().unwrap().iter().any(|row| row["name"] == "server2" && row["state"] == "ready")
    });
}

#[test]
fn a_revoked_certificate_is_refused_by_every_server_from_then_on() {
    let (environment, second) = pair();
    wait_for_state(&environment, "server2", "ready");
    let out = environment.root().join("issued");
    let arguments = ["ca", "issue", "client", "ops", "--out", out.to_str().unwrap()];
    let serial = environment.json(&arguments).unwrap()["serial"].as_str().unwrap().to_owned();
    let file = |name: &str| fs::read(out.join(name)).unwrap();
    let management = member(&environment, "server2")["management"].as_str().unwrap().to_owned();
    let addresses = [environment.management_address().to_string(), management];
    // Connections are kept: those that are open are refused as well.
    let clients = addresses.map(|address| {
        let url = format!("https://{address}/api/v1");
        Http::showing(url, &file("ca.pem"), &file("ops.pem"), &file("ops.key")).unwrap()
    });
    for client in &clients {
        assert_eq!(client.get("/me").unwrap().json()["name"], "ops");
    }
    environment.run(&["ca", "revoke", &serial]).unwrap().success().unwrap();
    for client in &clients {
        wait_until("it is refused", || client.get("/me").unwrap().status == 401);
    }
    let listed = environment.json(&["ca", "list"]).unwrap();
    let row = listed.as_array().unwrap().iter().find(|row| row["serial"] == serial.as_str()).unwrap();
    assert_eq!(row["revoked"], true, "{row}");
    let entry = environment.json(&["config", "log", "--definitions"]).unwrap()[0].clone();
    assert!(entry["message"].as_str().unwrap().contains("client ops"), "{entry}");

    // Nor does going back to a time before help, nor a restart, nor is the last administrator locked out.
    wait_until("the history is written", || !history(&environment, "server2").is_empty());
    second.kill();
    second.start();
    wait_until("it answers again", || clients[1].get("/me").is_ok_and(|reply| reply.status == 401));
    let own = fs::read_to_string(environment.root().join("client/client.pem")).unwrap();
    let own = crosstie_security::authority::describe(&own).unwrap().serial;
    let refused = environment.run(&["ca", "revoke", &own]).unwrap();
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("made with"), "{}", refused.stderr);
    assert_eq!(environment.run(&["ca", "revoke", "00ff"]).unwrap().code, 1);
}
