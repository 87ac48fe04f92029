//! A cluster is made by one command and answers through its load balancer.

use std::fs;

use crosstie_security::CertificateAuthority;
use crosstie_security::authority::Subject;
use crosstie_security::identity::ComponentKind;
use crosstie_test_support::{Http, wait_until};
use serde_json::{Value, json};

use super::Steady;

#[test]
fn a_cluster_answers_through_its_load_balancer() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let status = cluster.json(&["status"]).unwrap();
    let components = status["components"].as_array().unwrap();
    let of = |key: &str| -> Vec<&str> {
        components.iter().map(|component| component[key].as_str().unwrap_or_default()).collect()
    };
    assert_eq!(of("name"), ["postgresql", "broker", "server1", "server2", "lb"]);
    assert_eq!(of("kind"), ["database", "broker", "server", "server", "load balancer"]);
    assert_eq!(of("state"), ["running"; 5], "{status:#}");
    let leaders = |server: &Value| {
        server["workers"].as_array().map_or(0, |all| all.iter().filter(|it| it["leader"] == true).count())
    };
    assert_eq!(components.iter().map(leaders).sum::<usize>(), 1, "one leader: {status:#}");

    // HTTP and HTTPS, and each server answers a share.
    let tls = Http::trusting(format!("https://{}", cluster.tls_address()), &cluster.ca().unwrap()).unwrap();
    assert_eq!(tls.get("/steady").unwrap().json(), json!({"length": 0}));
    let before = requests(cluster);
    for _ in 0..20 {
        assert_eq!(cluster.http().get("/steady").unwrap().status, 200);
    }
    // Lines of the log are written a moment after their answers.
    wait_until("both servers have answered", || {
        before.iter().zip(requests(cluster)).all(|(before, after)| after > *before)
    });
}

/// How many requests each server has answered.
fn requests(cluster: &crosstie_test_support::Cluster) -> Vec<u64> {
    (1..=cluster.servers())
        .map(|number| {
            let log = fs::read_to_string(cluster.server(number).join("logs/access.log")).unwrap_or_default();
            log.lines().filter(|line| line.contains("\"steady\"")).count() as u64
        })
        .collect()
}

#[test]
fn nobody_reaches_a_server_but_through_the_load_balancer() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    // Without a certificate of the load balancer the servers' listeners do not even speak HTTP.
    let (ca, url) = (cluster.ca().unwrap(), format!("https://{}", cluster.at(0)));
    assert!(Http::trusting(&url, &ca).unwrap().get("/steady").is_err());
    let showing = |certificate: &str| {
        let file = |end: &str| fs::read(cluster.root().join(certificate).with_extension(end)).unwrap();
        Http::showing(&url, &ca, &file("pem"), &file("key")).unwrap().get("/steady")
    };
    for other in ["client/client", "server2/tls/server", "ca/broker", "ca/postgresql"] {
        assert!(showing(other).is_err(), "{other}");
    }
    assert_eq!(showing("lb/tls/lb").unwrap().status, 200);
    let stranger = CertificateAuthority::create("stranger").unwrap();
    let issued = stranger.issue(&Subject::listening(ComponentKind::LoadBalancer, "lb", [])).unwrap();
    let strange =
        Http::showing(&url, &ca, issued.certificate_pem.as_bytes(), issued.key_pem.expose()).unwrap();
    assert!(strange.get("/steady").is_err());
    // What a client says of its own certificate or address is overwritten.
    let lying = cluster.http().header("x-forwarded-for", "10.9.9.9").header("x-ssl-client-verify", "0");
    assert_eq!(lying.get("/steady").unwrap().status, 200);
    let logs = (1..=2)
        .map(|number| fs::read_to_string(cluster.server(number).join("logs/access.log")).unwrap_or_default());
    for log in logs {
        assert!(!log.contains("10.9.9.9"), "{log}");
    }
}
