use crosstie_model::DefinitionKind;
use serde_json::json;

use crate::support::{Server, Setup};

fn server() -> Server {
    Setup::new()
        .channel("int", json!({"type": "rest", "path": "/c/{id:int}", "methods": ["GET"], "service": "echo"}))
        .channel(
            "str",
            json!({"type": "rest", "path": "/c/{name}", "methods": ["GET", "POST"], "service": "echo"}),
        )
        .channel("new", json!({"type": "http", "path": "/c/new", "methods": ["GET"], "service": "echo"}))
        .channel("files", json!({"type": "rest", "path": "/files/{rest:path}", "service": "echo"}))
        .channel("off", json!({"type": "rest", "path": "/off", "service": "echo", "active": false}))
        .channel("gone", json!({"type": "rest", "path": "/gone", "service": "not.there"}))
        .channel("reader", json!({"type": "rest", "path": "/reader", "service": "reader"}))
        .channel(
            "options",
            json!({"type": "rest", "path": "/own-options", "methods": ["OPTIONS"], "service": "echo"}),
        )
        .start()
}

#[test]
fn the_most_specific_channel_that_takes_the_method_answers() {
    let server = server();
    let mut client = server.connect();
    for (method, path, channel, params) in [
        ("GET", "/c/7", "int", json!([["id", "7"]])),
        ("POST", "/c/7", "str", json!([["name", "7"]])),
        ("GET", "/c/new", "new", json!([])),
        ("POST", "/c/new", "str", json!([["name", "new"]])),
        ("GET", "/c/a%2Fb%20%C3%A9", "str", json!([["name", "a/b é"]])),
        ("PURGE", "/files/a/b/", "files", json!([["rest", "a/b/"]])),
    ] {
        let answer = client.request(method, path, "", b"");
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        let heard = answer.json();
        assert_eq!((&heard["channel"], &heard["params"]), (&json!(channel), &params), "{method} {path}");
        assert_eq!((&heard["path"], &heard["method"]), (&json!(path), &json!(method)));
    }
}

#[test]
fn what_no_channel_matches_is_404_and_a_wrong_method_405_with_allow() {
    let server = server();
    let mut client = server.connect();
    for path in ["/", "/nothing", "/c", "/c/", "/c/7/", "/files/", "/off"] {
        let answer = client.get(path, "");
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["type"], "urn:crosstie:problem:not-found");
    }
    let answer = client.request("DELETE", "/c/7", "", b"");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, POST, OPTIONS")));
    let answer = client.post("/reader", "", "");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    assert_eq!(client.request("TRACE", "/files/a", "", b"").status, 405);
}

#[test]
fn a_path_that_is_no_text_or_climbs_is_400() {
    let server = server();
    for path in ["/c/%FF", "/files/../../etc/passwd", "/files/%2e%2e/x", "/c/a%00b"] {
        let answer = server.connect().get(path, "");
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.json()["faults"][0]["detail"].as_str().unwrap().contains("path"), "{answer:?}");
    }
    let answer = server.connect().get("/c/a?x=%FF", "");
    assert_eq!((answer.status, answer.json()["faults"][0]["pointer"].as_str()), (400, Some("")));
}

#[test]
fn head_is_get_without_a_body() {
    let server = server();
    let mut client = server.connect();
    let head = client.request("HEAD", "/c/new", "", b"");
    assert_eq!((head.status, head.header("content-type")), (200, Some("application/json")));
    let length: usize = head.header("content-length").unwrap().parse().unwrap();
    assert!(length > 50);
    // The connection is in step: the next response is whole.
    assert_eq!(client.get("/c/new", "").json()["method"], "GET");
    assert_eq!(client.request("HEAD", "/nothing", "", b"").status, 404);
}

#[test]
fn options_are_answered_by_the_server_unless_a_channel_wants_them() {
    let server = server();
    let mut client = server.connect();
    let answer = client.request("OPTIONS", "/c/7", "", b"");
    assert_eq!((answer.status, answer.header("allow")), (204, Some("GET, HEAD, POST, OPTIONS")));
    assert_eq!(client.request("OPTIONS", "*", "", b"").status, 204);
    assert_eq!(client.request("OPTIONS", "/nothing", "", b"").status, 404);
    assert_eq!(client.request("OPTIONS", "/own-options", "", b"").json()["method"], "OPTIONS");
}

#[test]
fn every_response_has_the_cid_and_a_callers_trace_is_kept() {
    let server = server();
    let mut client = server.connect();
    let answer =
        client.get("/c/1", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n");
    assert_eq!(answer.header("x-crosstie-cid"), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(answer.json()["cid"], "4bf92f3577b34da6a3ce929d0e0e4736");
    let answer = client.get("/nothing", "traceparent: nonsense\r\n");
    let cid = answer.header("x-crosstie-cid").unwrap();
    assert_eq!((cid.len(), &answer.json()["cid"]), (32, &json!(cid)));
}

#[test]
fn a_channel_whose_service_is_not_deployed_is_503() {
    let answer = server().connect().get("/gone", "");
    assert_eq!(answer.status, 503);
    assert!(answer.json()["detail"].as_str().unwrap().contains("not.there"));
}

#[test]
fn new_routes_serve_open_connections_at_once() {
    let server = server();
    let mut client = server.connect();
    assert_eq!(client.get("/later", "").status, 404);
    let later = Setup::new().define(
        DefinitionKind::Channel,
        "later",
        json!({"type": "rest", "path": "/later", "service": "echo"}),
    );
    server.routes.store(std::sync::Arc::new(later.routes()));
    assert_eq!(client.get("/later", "").status, 200);
    assert_eq!(client.get("/c/7", "").status, 404);
}

#[test]
fn a_service_that_fails_or_panics_is_a_problem_and_not_a_cut_connection() {
    let server = Setup::new()
        .channel("fail", json!({"type": "rest", "path": "/fail", "service": "fail"}))
        .channel("panic", json!({"type": "http", "path": "/panic", "service": "panic"}))
        .channel("reply", json!({"type": "rest", "path": "/reply", "service": "reply"}))
        .start();
    let mut client = server.connect();
    for (kind, status) in
        [("internal", 500), ("faults", 400), ("teapot", 418), ("busy", 503), ("timeout", 504)]
    {
        let answer = client.get(&format!("/fail?kind={kind}"), "");
        assert_eq!((answer.status, &answer.json()["status"]), (status, &json!(status)), "{kind}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        match kind {
            "faults" => assert_eq!(answer.json()["faults"][1]["pointer"], "/b/0"),
            "busy" => assert_eq!(answer.header("retry-after"), Some("3")),
            "teapot" => assert_eq!(answer.json()["detail"], "short and stout"),
            _ => {}
        }
    }
    let answer = client.get("/panic", "");
    assert_eq!((answer.status, answer.json()["detail"].as_str()), (500, Some("The service failed")));
    assert_eq!(
        client.get("/reply?status=201&text=a&type=text/html", "").header("content-type"),
        Some("text/html")
    );
    assert_eq!(client.get("/reply", "").status, 204);
    assert_eq!(client.get("/reply?status=999", "").status, 500);
}

#[test]
fn an_http_1_1_request_has_one_host() {
    let server = server();
    for head in ["", "Host: a\r\nHost: b\r\n"] {
        let mut client = server.connect();
        client.send(format!("GET /c/1 HTTP/1.1\r\n{head}\r\n"));
        assert_eq!(client.read(false).unwrap().status, 400, "{head}");
    }
    let mut client = server.connect();
    client.send("GET http://a/c/1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read(false).unwrap().status, 200);
}

#[test]
fn channels_with_faults_stay_closed_and_are_reported() {
    let setup = Setup::new()
        .channel("a", json!({"type": "rest", "path": "/x/{n:int}", "service": "echo"}))
        .channel("b", json!({"type": "rest", "path": "/x/{m:int}", "service": "echo", "methods": ["GET"]}))
        .channel("c", json!({"type": "rest", "path": "/y/{m:colour}", "service": "echo"}))
        .channel("d", json!({"type": "rest", "path": "/openapi/ui", "service": "echo"}))
        .channel("e", json!({"type": "rest", "path": "/fine", "service": "echo"}));
    let (routes, faults) = setup.routes_and_faults(false);
    let named: Vec<_> = faults.iter().map(|fault| fault.channel.as_str()).collect();
    assert_eq!((routes.open_channels(), named), (2, vec!["c", "d", "b"]));
    let (routes, faults) = setup.routes_and_faults(true);
    assert_eq!(routes.open_channels(), 0);
    assert!(faults.iter().any(|fault| fault.channel.as_str() == "e" && fault.pointer == "/security"));
}
