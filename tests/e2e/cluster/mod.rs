//! What a cluster promises, tried on whole clusters with their own PostgreSQL, RabbitMQ and HAProxy under a
//! steady load whose every request is accounted for.

mod certificates;
mod changes;
mod clients;
mod deaths;
mod failures;
mod quickstart;
mod rolls;
mod split;
mod three_hosts;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crosstie_test_support::{Account, Cluster, Kind, Load};
use serde_json::json;

/// Requests a second of every load, with room for what a busy machine delays.
const RATE: u32 = 320;

/// Its connections.
const CLIENTS: u32 = 8;

/// One cluster at a time: it has a dozen processes, and its losses should be its own.
static TURN: Mutex<()> = Mutex::new(());

/// A cluster of two servers that serves `steady`, while nobody else has one.
struct Steady {
    // Dropped in this order: the turn ends when the cluster is gone.
    cluster: Cluster,
    _turn: MutexGuard<'static, ()>,
}

impl Steady {
    fn start() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = Cluster::start(2).unwrap();
        cluster.drop_file(1, "steady.py", STEADY).unwrap();
        cluster.wait_for_json("/steady", &json!({"length": 0}));
        cluster.wait_until_ready();
        wait_until_live(&cluster, "steady");
        Self { cluster, _turn: turn }
    }
}

const STEADY: &str = r#"
from crosstie import Service, rest

class Steady(Service):
    name = "steady"
    channels = [rest(["GET", "PUT", "POST"], "/steady")]

    def handle(self):
        self.response.payload = {"length": len(self.request.payload or "")}
"#;

/// Requests that may be sent again, small ones and those of 8 KiB.
fn idempotent() -> Vec<Kind> {
    vec![Kind::get("/steady"), Kind::sized("PUT", "/steady", 8 * 1024)]
}

/// All of those, and POST.
fn everything() -> Vec<Kind> {
    let mut kinds = idempotent();
    kinds.push(Kind::sized("POST", "/steady", 1024));
    kinds
}

fn load(cluster: &Cluster, kinds: &[Kind]) -> Load {
    Load::start(cluster.address(), CLIENTS, RATE, kinds)
}

/// Prints the account and fails on any lost request.
fn nothing_lost(what: &str, account: &Account) {
    println!("{what}: {account}");
    assert_eq!(account.lost(""), 0, "{what}: {account}");
}

/// A service that answers `answer` at `/NAME`.
fn service(name: &str, answer: &str) -> String {
    crate::hot_deploy::service(name, answer)
}

/// Waits until `unit` is live on every worker of both servers.
fn wait_until_live(cluster: &Cluster, unit: &str) {
    crosstie_test_support::wait_until(&format!("{unit} is live on both servers"), || {
        let Ok(list) = cluster.json(&["deployment", "list"]) else { return false };
        let row = list.as_array().and_then(|rows| rows.iter().find(|row| row["unit"] == unit));
        let live = row.and_then(|row| row["live"].as_array()).cloned().unwrap_or_default();
        live.iter().filter(|server| server["state"] == "serving").count() == usize::from(cluster.servers())
    });
}
