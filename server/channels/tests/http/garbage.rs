use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::support::client::{Client, half_close};
use crate::support::{Server, Setup, eventually};

fn server() -> Server {
    Setup::new()
        .http(|http| {
            http.header_timeout_ms = 500;
            http.body_timeout_ms = 500;
        })
        .channel("rest", json!({"type": "rest", "path": "/rest/{x}", "service": "echo"}))
        .channel("rpc", json!({"type": "jsonrpc", "path": "/rpc", "methods": {"echo": "echo"}}))
        .start()
}

/// Sends bytes, ends the sending side, and says what came back: a status, or nothing.
fn outcome(server: &Server, bytes: &[u8]) -> Option<u16> {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let mut client = Client::over(stream.try_clone().unwrap());
    if client.try_send(bytes) {
        half_close(&stream);
    }
    client.read(false).map(|answer| answer.status)
}

fn request_with_noise() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "GET /rest/a HTTP/1.1\r\n",
        "POST /rest/a HTTP/1.1\r\n",
        "POST /rpc HTTP/1.1\r\n",
        "GET / HTTP/9.9\r\n",
        "G@T / HTTP/1.1\r\n",
        "GET  / HTTP/1.1\r\n",
        "GET /\u{1} HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST /rest/%ff HTTP/1.1\r\n",
        "\r\n\r\n",
    ]);
    let header = prop::sample::select(vec![
        "Host: t\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Content-Type: application/json\r\n",
        "Content-Type: \u{ff}\r\n",
        "Content-Encoding: gzip\r\n",
        "Expect: 100-continue\r\n",
        "no colon\r\n",
        "traceparent: 00-x\r\n",
        "X: \0\r\n",
        "Accept: ;;;,q=\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\n",
        "Origin: \u{80}\r\n",
    ]);
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        prop::sample::select(vec![
            "5\r\nhello\r\n0\r\n\r\n",
            "zz\r\nhello\r\n",
            "ffffffffffffffffff\r\n",
            "5\r\nhel",
            "{\"a\":",
            "[[[[[[",
            "{\"jsonrpc\":\"2.0\",\"method\":1}",
            "0\r\n",
            "-5\r\nhello",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    (line, prop::collection::vec(header, 0..4), body).prop_map(|(line, headers, body)| {
        let mut all = line.as_bytes().to_vec();
        all.extend(headers.concat().into_bytes());
        all.extend(b"\r\n");
        all.extend(body);
        all
    })
}

#[test]
fn garbage_gets_4xx_or_a_closed_connection_and_harms_nobody() {
    let server = server();
    let stop = Arc::new(AtomicBool::new(false));
    let (address, stopping) = (server.address, Arc::clone(&stop));
    let good = std::thread::spawn(move || {
        let (mut client, mut served) = (Client::connect(address), 0);
        while !stopping.load(Ordering::SeqCst) {
            assert_eq!(client.post("/rest/a", "Content-Type: application/json\r\n", "{}").status, 200);
            served += 1;
        }
        served
    });
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let noise = prop_oneof![prop::collection::vec(any::<u8>(), 0..300), request_with_noise()];
    TestRunner::new(config)
        .run(&noise, |bytes| {
            let status = outcome(&server, &bytes);
            let fine = status.is_none_or(|code| code == 200 || code == 204 || (400..500).contains(&code));
            prop_assert!(fine, "{status:?} for {:?}", String::from_utf8_lossy(&bytes));
            Ok(())
        })
        .unwrap();
    stop.store(true, Ordering::SeqCst);
    assert!(good.join().unwrap() > 100);
    eventually("no connection is left behind", || server.http.connections() == 0);
}

#[test]
fn request_smuggling_forms_are_refused() {
    let server = server();
    for head in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5 5\r\n",
    ] {
        let bytes = format!("POST /rest/a HTTP/1.1\r\nHost: t\r\n{head}\r\nhello");
        let status = outcome(&server, bytes.as_bytes());
        assert!(status.is_none_or(|code| code == 400), "{head}: {status:?}");
    }
}

#[test]
fn a_deep_or_endless_document_is_refused() {
    let server = server();
    for (media, body) in [
        ("application/json", "[".repeat(100_000)),
        ("application/json", "{\"a\":".repeat(50_000)),
        ("application/xml", "<a>".repeat(50_000)),
        ("application/x-www-form-urlencoded", "a&".repeat(50_000)),
    ] {
        let answer = server.connect().post("/rest/a", &format!("Content-Type: {media}\r\n"), body);
        assert_eq!(answer.status, 400, "{media}");
    }
}
