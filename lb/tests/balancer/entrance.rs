//! What clients may say and what they get: headers, certificates, protocols, limits, and the agent's own API.

use crosstie_security::identity::ComponentKind;
use crosstie_test_support::{Http, wait_until};
use serde_json::Value;

use crate::world::World;

/// What arrived at a server of a request over plain HTTP.
fn arrived(world: &World, headers: &[(&str, &str)]) -> Value {
    let mut http = Http::new(format!("http://{}", world.http()));
    for (name, value) in headers {
        http = http.header(name, value);
    }
    http.get("/x").unwrap().json()["headers"].clone()
}

#[test]
fn what_a_client_says_of_itself_is_overwritten() {
    let world = World::running(1);
    let lies = [
        ("x-forwarded-for", "10.9.9.9"),
        ("X-Forwarded-Proto", "https"),
        ("x-forwarded-host", "bank.example"),
        ("X-FORWARDED-PORT", "1"),
        ("forwarded", "for=10.9.9.9"),
        ("x-ssl-client-verify", "SUCCESS"),
        ("X-SSL-Client-DN", "CN=admin"),
        ("x-ssl-client-cert", "AAAA"),
        ("x-ssl-client-s-dn", "CN=admin"),
        ("x_ssl_client_dn", "CN=admin"),
        ("X-SSL_Client-Verify", "SUCCESS"),
        ("x_forwarded_for", "10.9.9.9"),
        ("X-Forwarded_Proto", "https"),
    ];
    let plain = arrived(&world, &lies);
    assert_eq!(plain["x-forwarded-for"], serde_json::json!([world.caller()]));
    assert_eq!(plain["x-forwarded-proto"], serde_json::json!(["http"]));
    assert_eq!(plain["x-forwarded-host"][0], world.http().to_string());
    assert_eq!(plain["x-ssl-client-verify"], serde_json::json!(["NONE"]));
    for gone in ["forwarded", "x-forwarded-port", "x-ssl-client-dn", "x-ssl-client-cert", "x-ssl-client-s-dn"]
    {
        assert!(plain.get(gone).is_none(), "{gone}: {plain}");
    }
    assert!(!plain.to_string().contains('_'), "{plain}");
    let (status, body, protocol) = world.exchange(world.https(), "/x", None, &lies).unwrap();
    assert_eq!((status, protocol.as_str()), (200, "h2"));
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told["headers"]["x-forwarded-proto"], serde_json::json!(["https"]));
    assert_eq!(told["headers"]["x-ssl-client-verify"], serde_json::json!(["NONE"]));
    assert!(told["headers"].get("x-ssl-client-dn").is_none());
    assert!(!told["headers"].to_string().contains('_'), "{told}");
}

#[test]
fn a_trusted_proxys_word_is_kept_and_added_to() {
    let world = World::running(1);
    let before = world.stats().unwrap()["configuration"]["digest"].clone();
    world.configure(|settings| settings.lb.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]);
    wait_until("the setting is in use", || {
        let stats = world.stats().unwrap();
        stats["configuration"]["digest"] != before && stats["haproxy"]["reloads"] == 1
    });
    let headers = arrived(
        &world,
        &[("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https"), ("x-ssl-client-dn", "CN=a")],
    );
    assert_eq!(headers["x-forwarded-for"], serde_json::json!(["192.0.2.7", world.caller()]));
    assert_eq!(headers["x-forwarded-proto"], serde_json::json!(["https"]));
    assert!(headers.get("x-ssl-client-dn").is_none(), "only this load balancer speaks of certificates");
}

#[test]
fn a_clients_certificate_is_told_to_the_servers() {
    let mut world = World::new(1);
    world.configure(|settings| settings.https.client_ca = Some("tls/ca.pem".into()));
    world.start_agent();
    world.wait_for_servers(1);
    let shown = world.issue(ComponentKind::Client, "ada");
    let lies = [("x-ssl-client-dn", "CN=admin")];
    let (_, body, _) = world.exchange(world.https(), "/x", Some(&shown), &lies).unwrap();
    let headers = serde_json::from_str::<Value>(&body).unwrap()["headers"].clone();
    assert_eq!(headers["x-ssl-client-verify"], serde_json::json!(["SUCCESS"]));
    assert_eq!(headers["x-ssl-client-dn"].as_array().unwrap().len(), 1);
    assert!(headers["x-ssl-client-dn"][0].as_str().unwrap().contains("CN=ada"), "{headers}");
    let fingerprint = crosstie_security::authority::fingerprint(&shown.certificate).unwrap();
    let told = headers["x-ssl-client-sha256"][0].as_str().unwrap().to_lowercase();
    assert_eq!(told, fingerprint);
    assert!(headers["x-ssl-client-cert"][0].as_str().unwrap().starts_with("MII"), "{headers}");
    // Without one it still gets in, and says so.
    let (_, body, _) = world.exchange(world.https(), "/x", None, &lies).unwrap();
    let headers = serde_json::from_str::<Value>(&body).unwrap()["headers"].clone();
    assert_eq!(headers["x-ssl-client-verify"], serde_json::json!(["NONE"]));
    assert!(headers.get("x-ssl-client-dn").is_none());

    world.configure(|settings| settings.https.require_client_certificate = true);
    wait_until("clients must show a certificate", || {
        world.exchange(world.https(), "/x", None, &[]).is_none()
    });
    assert!(world.exchange(world.https(), "/x", Some(&shown), &[]).is_some());
    // One of another authority is worse than none.
    let stranger = crosstie_security::CertificateAuthority::create("stranger").unwrap();
    let issued = stranger.issue_client("ada").unwrap();
    let strange = crate::world::Shown { certificate: issued.certificate_pem, key: issued.key_pem };
    assert!(world.exchange(world.https(), "/x", Some(&strange), &[]).is_none());
}

#[test]
fn an_address_that_asks_too_often_gets_429() {
    let mut world = World::new(1);
    world.configure(|settings| {
        settings.rate_limit.requests = 5;
        settings.rate_limit.period_s = 3_600;
    });
    world.start_agent();
    world.wait_for_servers(1);
    let http = Http::new(format!("http://{}", world.http()));
    let statuses: Vec<_> = (0..8).map(|_| http.get("/x").unwrap().status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429, 429]);
    let refused = http.get("/x").unwrap();
    assert_eq!(refused.header("retry-after"), "3600");
    assert_eq!(refused.json()["status"], 429);
}

#[test]
fn a_server_that_is_too_slow_gets_its_caller_504() {
    let mut world = World::new(1);
    world.configure(|settings| settings.timeouts.response_ms = 200);
    world.start_agent();
    world.wait_for_servers(1);
    let http = Http::new(format!("http://{}", world.http()));
    assert_eq!(http.get("/wait/3000").unwrap().status, 504);
    assert_eq!(http.get("/wait/1").unwrap().status, 200);
}

#[test]
fn the_agents_api_is_for_holders_of_a_certificate() {
    let world = World::running(2);
    assert!(world.ask_api("/api/v1/stats", None).is_none());
    let stranger = crosstie_security::CertificateAuthority::create("stranger").unwrap();
    let issued = stranger.issue_client("ada").unwrap();
    let strange = crate::world::Shown { certificate: issued.certificate_pem, key: issued.key_pem };
    assert!(world.ask_api("/api/v1/stats", Some(&strange)).is_none());
    // A database calls nobody: its certificate is good for being called only.
    assert!(world.ask_api("/api/v1/stats", Some(&world.issue(ComponentKind::Database, "db"))).is_none());
    let shown = world.issue(ComponentKind::Client, "ada");
    let stats = world.stats().unwrap();
    assert_eq!(stats["name"], "lb");
    assert_eq!(stats["members"]["members"].as_array().unwrap().len(), 2);
    assert!(stats["traffic"]["servers"][0]["status"].as_str().unwrap().starts_with("UP"), "{stats}");
    let (status, health) = world.ask_api("/api/v1/health", Some(&shown)).unwrap();
    assert_eq!(
        (status, serde_json::from_str::<Value>(&health).unwrap()["healthy"].clone()),
        (200, true.into())
    );
    let (status, metrics) = world.ask_api("/metrics", Some(&shown)).unwrap();
    assert_eq!(status, 200);
    assert!(metrics.contains("crosstie_lb_server_up{server=\"server2\"} 1\n"), "{metrics}");
    assert_eq!(world.ask_api("/nothing", Some(&shown)).unwrap().0, 404);
    // When the certificates in use end is told, in both.
    let ends: Vec<_> =
        stats["certificates"].as_array().unwrap().iter().map(|end| end["certificate"].clone()).collect();
    assert_eq!(ends, ["load_balancer", "ca"]);
    let own = std::fs::read_to_string(world.balancer().join("tls/lb.pem")).unwrap();
    let seconds = crosstie_security::authority::expires_at(&own).unwrap().unix_timestamp();
    let line = format!("crosstie_certificate_expiry_seconds{{certificate=\"load_balancer\"}} {seconds}\n");
    assert!(metrics.contains(&line), "{metrics}");
}
