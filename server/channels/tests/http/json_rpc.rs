use std::time::{Duration, Instant};

use crosstie_model::DefinitionKind;
use serde_json::{Value, json};

use crate::support::client::Answer;
use crate::support::{Server, Setup};

fn server() -> Server {
    Setup::new()
        .channel(
            "rpc",
            json!({"type": "jsonrpc", "path": "/rpc", "max_batch": 10,
                "methods": {"echo": "echo", "fail": "fail", "stream": "stream", "slow": "slow", "gone": "not.there"}}),
        )
        .channel(
            "limited",
            json!({"type": "jsonrpc", "path": "/limited", "methods": {"echo": "echo"},
                "rate_limit": [{"limit": 3, "per": "hour"}]}),
        )
        .start()
}

fn call(server: &Server, body: &Value) -> Answer {
    server.connect().post("/rpc", "Content-Type: application/json\r\n", body.to_string())
}

#[test]
fn a_call_is_answered_under_its_id() {
    let server = server();
    for id in [json!(1), json!("x"), json!(null), json!(1.5)] {
        let answer =
            call(&server, &json!({"jsonrpc": "2.0", "method": "echo", "params": {"a": 1}, "id": id}));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        let body = answer.json();
        assert_eq!((&body["id"], &body["jsonrpc"]), (&id, &json!("2.0")));
        assert_eq!(body["result"]["payload"], json!({"json": {"a": 1}}));
        assert_eq!(body["result"]["service"], "echo");
        assert!(answer.header("x-crosstie-cid").is_some());
    }
}

#[test]
fn notifications_get_no_answer_but_run() {
    let server = server();
    let answer = call(&server, &json!({"jsonrpc": "2.0", "method": "echo"}));
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let answer =
        call(&server, &json!([{"jsonrpc": "2.0", "method": "fail"}, {"jsonrpc": "2.0", "method": "none"}]));
    assert_eq!(answer.status, 204);
}

#[test]
fn errors_have_the_codes_of_the_specification() {
    let server = server();
    let code = |body: Value| call(&server, &body).json()["error"]["code"].clone();
    assert_eq!(code(json!({"jsonrpc": "2.0", "method": "none", "id": 1})), -32601);
    assert_eq!(code(json!({"jsonrpc": "2.0", "method": "fail", "id": 1})), -32603);
    assert_eq!(code(json!({"jsonrpc": "2.0", "method": "stream", "id": 1})), -32603);
    assert_eq!(code(json!({"jsonrpc": "2.0", "method": "gone", "id": 1})), -32053);
    let answer = call(&server, &json!({"jsonrpc": "1.0", "method": "echo", "id": 7}));
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"], &answer.json()["id"]),
        (400, &json!(-32600), &json!(7))
    );
    for body in [&b"{"[..], b"\"\xff\"", b"[]"] {
        let answer = server.connect().post("/rpc", "", body);
        assert_eq!((answer.status, &answer.json()["id"]), (400, &json!(null)));
    }
    let answer = server.connect().post(
        "/rpc?kind=faults",
        "",
        json!({"jsonrpc": "2.0", "method": "fail", "id": 1}).to_string(),
    );
    assert_eq!(answer.json()["error"]["code"], -32602);
    assert_eq!(answer.json()["error"]["data"]["faults"][0]["pointer"], "/a");
    assert_eq!(answer.json()["error"]["data"]["cid"].as_str(), answer.header("x-crosstie-cid"));
}

#[test]
fn a_batch_is_answered_in_order_and_runs_at_once() {
    let server = server();
    let calls: Vec<_> = (0..6).map(|id| json!({"jsonrpc": "2.0", "method": "slow", "id": id})).collect();
    let began = Instant::now();
    let answer = server.connect().post("/rpc?ms=200", "", Value::from(calls).to_string());
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    let ids: Vec<_> =
        answer.json().as_array().unwrap().iter().map(|one| one["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5]);

    let mixed = json!([{"jsonrpc": "2.0", "method": "echo", "id": 1}, 7, {"jsonrpc": "2.0", "method": "echo"},
        {"jsonrpc": "2.0", "method": "none", "id": 2}]);
    let answers = call(&server, &mixed).json();
    assert_eq!(answers.as_array().unwrap().len(), 3);
    assert_eq!((&answers[1]["error"]["code"], &answers[1]["id"]), (&json!(-32600), &json!(null)));
    assert_eq!(answers[2]["error"]["code"], -32601);

    let many: Vec<_> = (0..11).map(|id| json!({"jsonrpc": "2.0", "method": "echo", "id": id})).collect();
    let answer = call(&server, &many.into());
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(-32600)));
}

#[test]
fn a_batch_is_no_way_around_a_rate_limit() {
    let server = server();
    let calls: Vec<_> = (0..5).map(|id| json!({"jsonrpc": "2.0", "method": "echo", "id": id})).collect();
    let answer = server.connect().post("/limited", "", Value::from(calls).to_string());
    let failed: Vec<_> = answer
        .json()
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["error"]["code"] == -32029)
        .cloned()
        .collect();
    assert_eq!((answer.status, failed.len()), (200, 2));
    assert!(failed[0]["error"]["data"]["retry_after"].as_u64().unwrap() > 0);
    let answer = server.connect().post("/limited", "", "{}");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (429, &json!(-32029)));
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn calls_come_by_post_with_json() {
    let server = server();
    let answer = server.connect().request("PUT", "/rpc", "", b"{}");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, POST, OPTIONS")));
    let answer = server.connect().post("/rpc", "Content-Type: text/plain\r\n", "{}");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (415, &json!(-32015)));
}

#[test]
fn a_channel_describes_itself_by_get_and_by_a_call() {
    let server = server();
    let answer = server.connect().get("/rpc", "Accept: text/html\r\n");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    let document = answer.json();
    let names: Vec<_> =
        document["methods"].as_array().unwrap().iter().map(|method| &method["name"]).collect();
    assert_eq!(names, ["echo", "fail", "slow", "stream", "rpc.discover"]);
    assert_eq!(server.connect().request("HEAD", "/rpc", "", b"").status, 200);

    for params in [json!(null), json!([]), json!({})] {
        let mut body = json!({"jsonrpc": "2.0", "method": "rpc.discover", "id": 1});
        if !params.is_null() {
            body["params"] = params;
        }
        assert_eq!(call(&server, &body).json()["result"], document);
    }
    let batch = json!([{"jsonrpc": "2.0", "method": "rpc.discover"},
        {"jsonrpc": "2.0", "method": "rpc.discover", "params": [1], "id": 2}]);
    assert_eq!(call(&server, &batch).json()[0]["error"]["code"], -32602);
    let openapi = server.connect().get("/openapi", "").json();
    let limited = json!({"name": "limited", "url": "/limited"});
    assert_eq!(openapi["x-openrpc"], json!([limited, {"name": "rpc", "url": "/rpc"}]));
}

#[test]
fn a_channel_is_described_to_those_who_may_call_it() {
    let server = Setup::new()
        .define(
            DefinitionKind::Security,
            "clients",
            json!({"type": "api_key", "in": "header", "name": "x-key", "key": "env:PATH"}),
        )
        .channel(
            "guarded",
            json!({"type": "jsonrpc", "path": "/guarded", "methods": {"echo": "echo"}, "security": "clients",
                "rate_limit": [{"limit": 2, "per": "hour"}]}),
        )
        .channel(
            "silent",
            json!({"type": "jsonrpc", "path": "/silent", "methods": {"echo": "echo"}, "openrpc": false}),
        )
        .start();
    let mut client = server.connect();
    let refused = client.get("/guarded", "");
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!(-32001)));
    let discover = json!({"jsonrpc": "2.0", "method": "rpc.discover", "id": 1}).to_string();
    assert_eq!(client.post("/guarded", "", &discover).status, 401);
    let credentials = format!("X-Key: {}\r\n", std::env::var("PATH").unwrap());
    assert_eq!(client.get("/guarded", &credentials).json()["openrpc"], "1.3.2");
    assert_eq!(client.post("/guarded", &credentials, &discover).json()["result"]["openrpc"], "1.3.2");
    assert_eq!(client.get("/guarded", &credentials).status, 429, "it counts as the channel's requests do");

    let silent = client.get("/silent", "");
    assert_eq!((silent.status, silent.header("allow")), (405, Some("POST, OPTIONS")));
    assert_eq!(client.post("/silent", "", &discover).json()["error"]["code"], -32601);
}
