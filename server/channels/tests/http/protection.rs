use crosstie_model::DefinitionKind;
use serde_json::json;

use crate::support::{Setup, eventually};

/// A secret every process has: the authenticators read it as any other `env:` reference.
fn secret() -> String {
    std::env::var("PATH").unwrap()
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {text}\r\n")
}

fn setup() -> Setup {
    Setup::new()
        .define(
            DefinitionKind::Security,
            "clients",
            json!({"type": "basic_auth", "username": "crm", "password": "env:PATH", "realm": "books"}),
        )
        .define(
            DefinitionKind::Security,
            "key",
            json!({"type": "api_key", "in": "query", "name": "key", "key": "env:PATH",
                "rate_limit": [{"limit": 2, "per": "hour"}]}),
        )
        .channel("basic", json!({"type": "rest", "path": "/basic", "service": "echo", "security": "clients"}))
        .channel(
            "guess",
            json!({"type": "rest", "path": "/guess", "service": "echo", "security": "clients",
                "rate_limit": [{"limit": 3, "per": "minute", "by": "address"}]}),
        )
        .channel("key", json!({"type": "http", "path": "/key", "service": "echo", "security": "key"}))
        .channel(
            "limited",
            json!({"type": "rest", "path": "/limited", "service": "echo", "rate_limit": [{"limit": 2, "per": "minute"}]}),
        )
        .channel("few", json!({"type": "rest", "path": "/few", "service": "slow", "max_concurrency": 1}))
        .channel("slow", json!({"type": "rest", "path": "/slow", "service": "slow"}))
        .channel("near", json!({"type": "rest", "path": "/near", "service": "echo", "allow_from": ["192.0.2.0/24"]}))
        .channel("echo", json!({"type": "rest", "path": "/echo", "service": "echo"}))
}

#[test]
fn a_channel_with_security_lets_in_who_it_should() {
    let server = setup().start();
    let mut client = server.connect();
    let answer = client.get("/basic", "");
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").unwrap().contains("realm=\"books\""));
    assert_eq!(client.get("/basic", &basic("crm", "wrong")).status, 401);
    let answer = client.get("/basic", &basic("crm", &secret()));
    assert_eq!((answer.status, &answer.json()["principal"]), (200, &json!("clients")));
}

#[test]
fn wrong_credentials_use_up_their_addresss_allowance() {
    let server = setup().start();
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/guess", &basic("crm", "wrong")).status, 401);
    }
    let answer = client.get("/guess", &basic("crm", "wrong"));
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("20")));
    // The right password tells a guesser nothing once he is over the limit.
    assert_eq!(client.get("/guess", &basic("crm", &secret())).status, 429);
}

#[test]
fn rate_limits_of_channel_and_credentials_show_their_state() {
    let server = setup().start();
    let mut client = server.connect();
    let answer = client.get("/limited", "");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("ratelimit-policy"), Some("\"channel\";q=2;w=60"));
    assert_eq!(answer.header("ratelimit"), Some("\"channel\";r=1;t=30"));
    assert_eq!(client.get("/limited", "").status, 200);
    let answer = client.get("/limited", "");
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("30")));
    assert_eq!(answer.header("ratelimit"), Some("\"channel\";r=0;t=30"));

    let key = form_urlencoded::Serializer::new(String::new()).append_pair("key", &secret()).finish();
    for status in [200, 200, 429] {
        let answer = client.get(&format!("/key?{key}"), "");
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"security\";q=2;w=3600"));
    }
}

#[test]
fn a_channel_runs_no_more_at_once_than_it_may() {
    let server = setup().start();
    let mut busy = server.connect();
    busy.send("GET /few?ms=500 HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the first request", || server.fakes().running("channel:few") == 1);
    let answer = server.connect().get("/few", "");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(busy.read(false).unwrap().status, 200);
    assert_eq!(server.connect().get("/few?ms=1", "").status, 200);
    // A caller that goes away gives its place back.
    let mut gone = server.connect();
    gone.send("GET /few?ms=60000 HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the request", || server.fakes().running("channel:few") == 1);
    drop(gone);
    eventually("its end", || server.fakes().running("channel:few") == 0);
}

#[test]
fn settings_of_a_service_are_obeyed() {
    let server = setup()
        .http(|http| http.deadline_ms = 40_000)
        .define(DefinitionKind::Service, "slow", json!({"max_concurrency": 1}))
        .define(DefinitionKind::Service, "big", json!({"active": false}))
        .define(DefinitionKind::Service, "echo", json!({"deadline_ms": 7_000}))
        .channel("off", json!({"type": "rest", "path": "/off", "service": "big"}))
        .channel("short", json!({"type": "rest", "path": "/short", "service": "echo", "deadline_ms": 2_000}))
        .channel("long", json!({"type": "rest", "path": "/long", "service": "echo", "deadline_ms": 90_000}))
        .channel("code", json!({"type": "rest", "path": "/code", "service": "reader"}))
        .channel("default", json!({"type": "rest", "path": "/default", "service": "typed"}))
        .start();
    let mut client = server.connect();
    let answer = client.get("/off", "");
    assert_eq!(answer.status, 503);
    assert!(answer.json()["detail"].as_str().unwrap().contains("not active"));
    let mut busy = server.connect();
    busy.send("GET /slow?ms=500 HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the first request", || server.fakes().running("service:slow") == 1);
    assert_eq!(client.get("/slow", "").status, 503);
    for (path, deadline) in
        [("/echo", 7_000), ("/short", 2_000), ("/long", 7_000), ("/code", 5_000), ("/default", 40_000)]
    {
        let left = client.get(path, "").json()["deadline"].as_u64().unwrap();
        assert!((deadline - 1_500..=deadline).contains(&left), "{path}: {left}");
    }
}

#[test]
fn a_quarantined_service_says_so() {
    let server = setup().start();
    let mut client = server.connect();
    server.fakes().quarantined.lock().unwrap().insert("echo".into());
    let answer = client.get("/echo", "");
    assert_eq!(answer.status, 503);
    assert!(answer.json()["detail"].as_str().unwrap().contains("quarantined"), "{answer:?}");
    server.fakes().quarantined.lock().unwrap().clear();
    assert_eq!(client.get("/echo", "").status, 200);
}

#[test]
fn addresses_outside_allow_from_are_refused_and_proxies_believed_only_when_trusted() {
    let server = setup().start();
    assert_eq!(server.connect().get("/near", "X-Forwarded-For: 192.0.2.7\r\n").status, 403);

    let server = setup().http(|http| http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).start();
    let mut client = server.connect();
    let answer =
        client.get("/near", "X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n");
    assert_eq!((answer.status, &answer.json()["client"]), (200, &json!("192.0.2.7")));
    assert_eq!(answer.json()["secure"], true);
    assert_eq!(client.get("/near", "X-Forwarded-For: 192.0.2.7, 198.51.100.1\r\n").status, 403);
}
