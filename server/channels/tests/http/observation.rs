use crosstie_model::FailureKind;
use crosstie_model::definition::DefinitionKind;
use crosstie_model::refusal::RefusalReason;
use serde_json::json;

use crate::support::{Setup, eventually};

fn setup() -> Setup {
    Setup::new()
        .http(|http| {
            http.access_log_headers = vec!["X-Tenant".into(), "authorization".into(), "cookie".into()]
        })
        .define(
            DefinitionKind::Security,
            "clients",
            json!({"type": "api_key", "in": "query", "name": "key", "key": "env:PATH"}),
        )
        .channel("echo", json!({"type": "rest", "path": "/echo", "service": "echo"}))
        .channel("fail", json!({"type": "rest", "path": "/fail", "service": "fail"}))
        .channel("slow", json!({"type": "rest", "path": "/slow", "service": "slow"}))
        .channel("stream", json!({"type": "http", "path": "/stream", "service": "stream"}))
        .channel("rpc", json!({"type": "jsonrpc", "path": "/rpc", "methods": {"echo": "echo"}}))
}

#[test]
fn every_request_is_reported_once_with_all_that_is_known() {
    let server = setup().start();
    let mut client = server.connect();
    let headers = "User-Agent: test/1\r\nX-Tenant: t1\r\nAuthorization: Basic eDp5\r\nCookie: a=b\r\n";
    let answer = client.post("/echo?key=secret", headers, "[1,2]");
    let seen = server.fakes().seen_at_least(1);
    assert_eq!(seen.len(), 1);
    let seen = &seen[0];
    assert_eq!((seen.channel.as_str(), seen.service.as_deref()), ("echo", Some("echo")));
    assert_eq!((seen.method.as_str(), seen.path.as_str(), seen.status), ("POST", "/echo", 200));
    assert_eq!(
        (seen.query.as_deref(), seen.masked.as_slice()),
        (Some("key=secret"), &["key".to_owned()][..])
    );
    assert_eq!((seen.bytes_in, seen.bytes_out), (5, answer.body.len() as u64));
    assert_eq!(seen.user_agent.as_deref(), Some("test/1"));
    assert_eq!(seen.headers, [("x-tenant".to_owned(), "t1".to_owned())]);
    assert_eq!(Some(seen.cid.as_str()), answer.header("x-crosstie-cid"));
}

#[test]
fn refused_credentials_are_reported_with_their_reason() {
    let server = setup()
        .channel("keys", json!({"type": "http", "path": "/keys", "service": "echo", "security": "clients"}))
        .start();
    let mut client = server.connect();
    let attempts = [("", RefusalReason::Missing), ("?key=wrong", RefusalReason::Wrong)];
    for (index, (query, reason)) in attempts.into_iter().enumerate() {
        assert_eq!(client.get(&format!("/keys{query}"), "").status, 401);
        let seen = server.fakes().seen_at_least(index + 1).pop().unwrap();
        assert_eq!((seen.principal, seen.refused), (None, Some(("clients".to_owned(), reason))));
    }
    let key = form_urlencoded::Serializer::new(String::new())
        .append_pair("key", &std::env::var("PATH").unwrap())
        .finish();
    assert_eq!(client.get(&format!("/keys?{key}"), "").status, 200);
    let seen = server.fakes().seen_at_least(3).pop().unwrap();
    assert_eq!((seen.principal.as_deref(), seen.refused), (Some("clients"), None));
}

#[test]
fn failures_and_unmatched_requests_are_reported_too() {
    let server = setup().start();
    let mut client = server.connect();
    client.get("/fail", "");
    client.get("/nothing", "");
    client.get("/health/live", "");
    let call = json!({"jsonrpc": "2.0", "method": "echo", "id": 1});
    client.post("/rpc", "", call.to_string());
    client.post("/rpc", "", json!([call]).to_string());
    let seen = server.fakes().seen_at_least(5);
    let told: Vec<_> =
        seen.iter().map(|s| (s.channel.as_str(), s.service.as_deref(), s.status, s.failure)).collect();
    assert_eq!(
        told,
        [
            ("fail", Some("fail"), 500, Some(FailureKind::Internal)),
            ("none", None, 404, Some(FailureKind::NotFound)),
            ("builtin", None, 200, None),
            ("rpc", Some("echo"), 200, None),
            ("rpc", None, 200, None),
        ]
    );
}

#[test]
fn streams_are_reported_at_their_end_and_callers_that_leave_as_499() {
    let server = setup().start();
    let mut client = server.connect();
    let answer = client.get("/stream?pieces=2&ms=20", "");
    let seen = server.fakes().seen_at_least(1);
    assert_eq!((seen[0].status, seen[0].bytes_out), (200, answer.body.len() as u64));

    let mut leaver = server.connect();
    leaver.send("GET /slow?ms=60000 HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the request", || server.http.in_flight() == 1);
    drop(leaver);
    assert_eq!(server.fakes().seen_at_least(2)[1].status, 499);

    let mut leaver = server.connect();
    leaver.send("GET /stream?pieces=1000&ms=20 HTTP/1.1\r\nHost: t\r\n\r\n");
    leaver.read(true).unwrap();
    leaver.chunk().unwrap();
    drop(leaver);
    let seen = server.fakes().seen_at_least(3);
    assert_eq!(seen[2].status, 499);
    assert!(seen[2].bytes_out > 0);
    eventually("nothing is in flight", || server.http.in_flight() == 0);
}
