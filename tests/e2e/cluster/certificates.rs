//! Certificates of a whole cluster: when they end is known of each, and each is renewed while it is used.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crosstie_security::authority;
use crosstie_test_support::{Cluster, Http, wait_until};
use serde_json::Value;

use super::{Steady, everything, load, nothing_lost, service, wait_until_live};

/// The serial number of the certificate that is shown at `address`. The server's own certificate is shown in
/// return; `protocol` is what is spoken before TLS.
fn shown(cluster: &Cluster, address: SocketAddr, protocol: Option<&str>) -> String {
    let tls = cluster.server(1).join("tls");
    let mut command = Command::new("openssl");
    command.args(["s_client", "-showcerts", "-connect", &address.to_string()]);
    command.arg("-cert").arg(tls.join("server.pem")).arg("-key").arg(tls.join("server.key"));
    command.args(protocol.into_iter().flat_map(|protocol| ["-starttls", protocol]));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    authority::describe(&text).map(|certificate| certificate.serial).unwrap_or_default()
}

fn metrics(cluster: &Cluster, address: SocketAddr, path: &str) -> String {
    let file = |name: &str| fs::read(cluster.root().join("client").join(name)).unwrap();
    let url = format!("https://{address}");
    let client = Http::showing(url, &file("ca.pem"), &file("client.pem"), &file("client.key")).unwrap();
    let reply = client.get(path).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text()
}

/// A figure in Prometheus' text.
fn figure(metrics: &str, series: &str) -> Option<i64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

fn end_of(cluster: &Cluster, certificate: &str) -> i64 {
    let text = fs::read_to_string(cluster.root().join(certificate)).unwrap();
    authority::expires_at(&text).unwrap().unix_timestamp()
}

#[test]
fn when_certificates_end_is_known_of_every_component() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let status = cluster.json(&["status"]).unwrap();
    for (name, own) in [
        ("postgresql", "database"),
        ("broker", "broker"),
        ("server1", "server"),
        ("server2", "server"),
        ("lb", "load_balancer"),
    ] {
        let components = status["components"].as_array().unwrap();
        let component = components.iter().find(|component| component["name"] == name).unwrap();
        let ends = component["certificates"].as_array().unwrap();
        let names: Vec<_> = ends.iter().map(|end| end["certificate"].as_str().unwrap()).collect();
        assert_eq!(names, [own, "ca"], "{name}");
        assert!(ends.iter().all(|end| end["renew"] == false && end["expires"].is_string()), "{component}");
    }
    let of_servers = metrics(cluster, cluster.management_address(2), "/api/v1/metrics");
    for (kind, name, file) in [
        ("database", "postgresql", "ca/postgresql.pem"),
        ("broker", "broker", "ca/broker.pem"),
        ("server", "server1", "server1/tls/server.pem"),
        ("server", "server2", "server2/tls/server.pem"),
        ("load_balancer", "lb", "lb/tls/lb.pem"),
        ("client", "admin", "client/client.pem"),
    ] {
        let series =
            format!("crosstie_component_certificate_expiry_seconds{{kind=\"{kind}\",name=\"{name}\"}}");
        assert_eq!(figure(&of_servers, &series), Some(end_of(cluster, file)), "{series}");
    }
    let of_agent = metrics(cluster, cluster.at(201), "/metrics");
    for (certificate, file) in [("load_balancer", "lb/tls/lb.pem"), ("ca", "client/ca.pem")] {
        let series = format!("crosstie_certificate_expiry_seconds{{certificate=\"{certificate}\"}}");
        assert_eq!(figure(&of_agent, &series), Some(end_of(cluster, file)), "{series}");
    }
}

#[test]
fn renewed_certificates_are_used_without_a_restart_and_cost_no_request() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let processes = || {
        [
            cluster.postgresql(),
            cluster.broker(),
            cluster.haproxy(),
            cluster.agent(),
            cluster.pid("server1/work/server.pid"),
        ]
    };
    let before = processes();
    assert!(before.iter().all(Option::is_some));
    let load = load(cluster, &everything());
    for (name, address, protocol, file) in [
        ("postgresql", cluster.at(320), Some("postgres"), "ca/postgresql.pem"),
        ("broker", cluster.at(310), None, "ca/broker.pem"),
        ("lb", cluster.tls_address(), None, "lb/tls/lb.pem"),
        ("server1", cluster.management_address(1), None, "server1/tls/server.pem"),
    ] {
        let on_disk = || {
            let text = fs::read_to_string(cluster.root().join(file)).unwrap();
            authority::describe(&text).unwrap().serial
        };
        let old = on_disk();
        assert_eq!(shown(cluster, address, protocol), old, "{name}");
        let renewed: Value = cluster.json(&["ca", "renew", name]).unwrap();
        assert_eq!(renewed[0]["name"], name, "{renewed}");
        assert_ne!(renewed[0]["takes_effect"], "with its next start", "{renewed}");
        assert_ne!(on_disk(), old);
        wait_until(&format!("{name} shows its new certificate"), || {
            shown(cluster, address, protocol) == on_disk()
        });
    }
    load.wait_for_more(300);
    nothing_lost("renewing certificates", &load.stop());
    assert_eq!(processes(), before);
    // Database and broker are used on: a change is everywhere.
    cluster.drop_file(2, "later.py", &service("later", "afterwards")).unwrap();
    wait_until_live(cluster, "later");
}

#[test]
fn a_load_balancer_without_a_valid_certificate_reaches_no_server() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let listed = cluster.json(&["ca", "list"]).unwrap();
    let row = listed.as_array().unwrap().iter().find(|row| row["kind"] == "load_balancer").unwrap();
    let file = |name: &str| fs::read(cluster.root().join("lb/tls").join(name)).unwrap();
    let (ca, chain, key) = (file("ca.pem"), file("lb.pem"), file("lb.key"));
    let enters = |number: u16| {
        let url = format!("https://{}", cluster.at(number - 1));
        Http::showing(url, &ca, &chain, &key).unwrap().get("/steady").is_ok_and(|reply| reply.status == 200)
    };
    assert!(enters(1) && enters(2));
    cluster.run(&["ca", "revoke", row["serial"].as_str().unwrap()]).unwrap().success().unwrap();
    for number in [1, 2] {
        wait_until("a server refuses it", || !enters(number));
    }
    // Each check is a connection of its own, so HAProxy finds out by itself.
    let both_are = |up: i64| {
        let metrics = metrics(cluster, cluster.at(201), "/metrics");
        let series = |name| format!("crosstie_lb_server_up{{server=\"{name}\"}}");
        ["server1", "server2"].map(series).iter().all(|series| figure(&metrics, series) == Some(up))
    };
    wait_until("it reaches none of them", || both_are(0));
    cluster.run(&["ca", "renew", "lb"]).unwrap().success().unwrap();
    wait_until("it reaches both again", || both_are(1));
    for _ in 0..20 {
        assert_eq!(cluster.http().get("/steady").unwrap().status, 200);
    }
}
