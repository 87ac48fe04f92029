//! The bus: what is changed on one server is heard by the others at once, and the other way round, as long as
//! there is a broker; without it everything still works.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crosstie_bus::{Bus, BusOptions, BusSecrets, ClientConfig, Heard};
use crosstie_model::secret::SecretValue;
use crosstie_model::settings::BusUrl;
use crosstie_model::{Definition, DefinitionId, DefinitionKind, Event, Revision};
use crosstie_odb::{Change, ChangeSet, Odb, OdbOptions};
use crosstie_parts::{PartPlan, PartTls, RabbitMq};
use crosstie_security::private_file::{read_private, read_public, write_private};
use crosstie_security::tls::{ClientIdentity, client_config, roots_from_file};
use crosstie_test_support::parts::TestPart;
use crosstie_test_support::{Environment, processes, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::hot_deploy::service;

/// A server of the same environment, as far as the bus goes.
struct Other {
    runtime: Runtime,
    bus: Bus,
    heard: mpsc::Receiver<Heard>,
    odb: Odb,
}

struct Secrets {
    password: Vec<u8>,
    tls: Arc<ClientConfig>,
}

impl BusSecrets for Secrets {
    fn password(&self) -> Result<Option<SecretValue>, String> {
        Ok(Some(SecretValue::new(self.password.clone())))
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        Ok(Arc::clone(&self.tls))
    }
}

/// A certificate of the environment's authority.
fn issue(environment: &Environment, kind: &str, name: &str) -> PartTls {
    let out = environment.root().join("issued");
    let directory = out.to_str().unwrap();
    let arguments = ["ca", "issue", kind, name, "--ip", "127.0.0.1", "--out", directory];
    environment.run(&arguments).unwrap().success().unwrap();
    let file = |end: &str| out.join(format!("{name}.{end}"));
    PartTls { ca: out.join("ca.pem"), certificate: file("pem"), key: file("key") }
}

/// What a server called `name` shows and trusts.
fn tls(environment: &Environment, name: &str) -> Arc<ClientConfig> {
    let own = issue(environment, "server", name);
    let (chain, key) = (read_public(&own.certificate).unwrap(), read_private(&own.key).unwrap());
    let identity = ClientIdentity { chain_pem: &chain, key_pem: &key };
    client_config(roots_from_file(&own.ca).unwrap(), Some(&identity), &[]).unwrap()
}

impl Other {
    fn join(environment: &Environment, broker: &TestPart) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, heard) = mpsc::channel(64);
        let secrets = Secrets {
            password: broker.credentials.password.expose().to_vec(),
            tls: tls(environment, "other"),
        };
        let options = BusOptions {
            url: BusUrl::parse(&url(broker)).unwrap(),
            server: "other".parse().unwrap(),
            exchange: "crosstie".into(),
            secrets: Box::new(secrets),
        };
        let settings = crosstie_config::settings::load(&environment.server()).unwrap();
        let odb = OdbOptions::from_settings(&settings, environment.server(), None);
        let (bus, odb) =
            runtime.block_on(async { (Bus::start(options, sender), Odb::connect(&odb).unwrap()) });
        let mut other = Self { runtime, bus, heard, odb };
        assert_eq!(other.hears(), Heard::CompareNow);
        other
    }

    fn hears(&mut self) -> Heard {
        let next = async { tokio::time::timeout(Duration::from_secs(20), self.heard.recv()).await };
        self.runtime.block_on(next).expect("nothing was heard").unwrap()
    }

    /// Hears of a revision that is at least `newest`: by a notice, or, where this end came back later than the
    /// notice, by comparing when it is told to.
    fn hears_of(&mut self, newest: u64) {
        loop {
            let heard = match self.hears() {
                Heard::Changed(Event::RevisionChanged { revision }) => revision,
                Heard::CompareNow => self.runtime.block_on(self.odb.revision()).unwrap(),
                Heard::Changed(_) => continue,
            };
            if heard >= Revision(newest) {
                return;
            }
        }
    }

    /// Changes the configuration as another server would, and says so.
    fn changes(&self, entry: u64) -> Revision {
        let body = json!({"entries": {"last": entry}});
        let definition = Definition::from_value(
            DefinitionId { kind: DefinitionKind::Dictionary, name: "numbers".parse().unwrap() },
            body,
        )
        .unwrap();
        let set = ChangeSet {
            author: "other".into(),
            message: "change".into(),
            expected: None,
            changes: vec![Change::PutDefinition(definition)],
        };
        let revision = self.runtime.block_on(self.odb.change(&set)).unwrap();
        self.bus.publish(&Event::RevisionChanged { revision });
        revision
    }
}

fn url(broker: &TestPart) -> String {
    format!("amqps://crosstie@127.0.0.1:{}/crosstie", broker.address.port())
}

/// An environment of one server with two workers, and the broker it uses: told of it while it runs, it takes
/// it up by a roll.
fn environment() -> (Environment, TestPart) {
    let environment = Environment::builder()
        .setting("server.workers", "2")
        .setting("telemetry.metrics_path", "\"/metrics\"")
        .start()
        .unwrap();
    let certificate = issue(&environment, "broker", "broker");
    let give = |plan: &mut PartPlan| plan.tls = Some(certificate);
    let broker = TestPart::start_with("rabbitmq", RabbitMq::new, give).unwrap();
    let password = environment.server().join("tls/bus.password");
    write_private(&password, broker.credentials.password.expose()).unwrap();
    own_as(&password, &environment.server().join("tls/server.key"));
    environment.set("bus.password", "\"file:tls/bus.password\"").unwrap();
    environment.set("bus.url", &format!("{:?}", url(&broker))).unwrap();
    wait_until_connected(&environment, true);
    (environment, broker)
}

/// Gives `path` the owner of `like`: a server that root starts runs as another user.
fn own_as(path: &Path, like: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let owner = std::fs::metadata(like).unwrap();
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

fn bus(environment: &Environment) -> Value {
    environment.component().unwrap()["bus"].clone()
}

fn wait_until_connected(environment: &Environment, connected: bool) {
    wait_until(&format!("the bus is connected: {connected}"), || {
        environment.component().is_ok_and(|component| {
            component["bus"]["kind"] == "rabbitmq" && component["bus"]["reachable"] == connected
        })
    });
}

fn deploy(environment: &Environment, answer: &str) -> u64 {
    let file = environment.root().join("told.py");
    std::fs::write(&file, service("told", answer)).unwrap();
    environment.run(&["deploy", file.to_str().unwrap()]).unwrap().success().unwrap();
    environment.component().unwrap()["revision"].as_u64().unwrap()
}

fn metrics(environment: &Environment) -> String {
    environment.http().get("/metrics").unwrap().text()
}

#[test]
fn servers_hear_of_each_other_s_changes_at_once() {
    let (environment, broker) = environment();
    let mut other = Other::join(&environment, &broker);

    let revision = deploy(&environment, "one");
    other.hears_of(revision);

    let began = Instant::now();
    for entry in 0..6 {
        let revision = other.changes(entry);
        wait_until("the other's change is served here", || {
            let workers = environment.component().unwrap()["workers"].clone();
            workers.as_array().unwrap().iter().all(|worker| worker["revision"] == revision.0)
        });
    }
    // Comparing alone finds one change in two seconds, and the next one two seconds after that.
    assert!(began.elapsed() < Duration::from_secs(8), "six changes took {:?}", began.elapsed());

    // What was heard is not said again: the two deployments are all that this server said, besides what it
    // was at when it started.
    other.hears_of(deploy(&environment, "two"));
    let counts = other.bus.state().counts;
    assert!(counts.received <= 3 && counts.unreadable == 0, "{counts:?}");
}

#[test]
fn the_bus_moves_with_the_singleton_and_its_loss_is_shown_and_harms_nothing() {
    let (environment, broker) = environment();
    let mut other = Other::join(&environment, &broker);
    assert!(metrics(&environment).contains("crosstie_bus_connected 1"), "{}", metrics(&environment));
    assert_eq!(bus(&environment)["kind"], "rabbitmq");

    let workers = environment.component().unwrap()["workers"].clone();
    let singleton = workers.as_array().unwrap().iter().find(|worker| worker["singleton"] == true).unwrap();
    let pid = i32::try_from(singleton["pid"].as_i64().unwrap()).unwrap();
    processes::send(pid, Signal::SIGKILL).unwrap();
    wait_until_connected(&environment, true);
    other.hears_of(deploy(&environment, "one"));

    broker.part.stop().unwrap();
    wait_until_connected(&environment, false);
    assert!(bus(&environment)["error"].as_str().unwrap().contains("the broker at amqps://127.0.0.1"));
    assert!(metrics(&environment).contains("crosstie_bus_connected 0"));
    deploy(&environment, "two");
    let newest = deploy(&environment, "three");
    broker.part.start().unwrap();
    wait_until_connected(&environment, true);
    other.hears_of(newest);
}

#[test]
fn without_a_broker_there_is_no_bus_to_be_away() {
    let environment =
        Environment::builder().setting("telemetry.metrics_path", "\"/metrics\"").start().unwrap();
    assert_eq!(bus(&environment), json!({"kind": "in-host", "reachable": true}));
    assert!(!metrics(&environment).contains("crosstie_bus_connected "));
}
