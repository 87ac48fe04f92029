use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::{Server, Setup};

fn server() -> Server {
    Setup::new()
        .http(|http| {
            http.max_body_bytes = 200_000;
            http.max_body_bytes_ceiling = 300_000;
            http.body_timeout_ms = 300;
        })
        .channel("rest", json!({"type": "rest", "path": "/rest", "service": "echo"}))
        .channel("typed", json!({"type": "rest", "path": "/typed", "service": "typed"}))
        .channel("json", json!({"type": "rest", "path": "/json", "service": "echo", "data_format": "json"}))
        .channel("raw", json!({"type": "http", "path": "/raw", "service": "echo"}))
        .channel("small", json!({"type": "rest", "path": "/small", "service": "echo", "max_body_bytes": 10}))
        .channel(
            "large",
            json!({"type": "http", "path": "/large", "service": "echo", "max_body_bytes": 900_000}),
        )
        .start()
}

fn payload(answer: &crate::support::client::Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["payload"].clone()
}

#[test]
fn bodies_arrive_decoded_by_their_type() {
    let server = server();
    let mut client = server.connect();
    for (media, body, expected) in [
        ("application/json", "{\"a\":[1]}", json!({"json": {"a": [1]}})),
        ("application/xml", "<r><a>1</a><a>2</a></r>", json!({"json": {"a": ["1", "2"]}})),
        ("application/x-www-form-urlencoded", "a=1&a=%C3%A9", json!({"form": [["a", "1"], ["a", "é"]]})),
        ("text/plain", "hi", json!({"text": "hi"})),
        ("application/octet-stream", "\0\u{1}", json!({"bytes": 2})),
        (
            "multipart/form-data; boundary=X",
            "--X\r\nContent-Disposition: form-data; name=\"f\"; filename=\"t\"\r\n\r\nabc\r\n--X--\r\n",
            json!({"parts": [["f", "t", 3]]}),
        ),
    ] {
        let answer = client.post("/rest", &format!("Content-Type: {media}\r\n"), body);
        assert_eq!(payload(&answer), expected, "{media}");
    }
    assert_eq!(payload(&client.post("/rest", "", "[1]")), json!({"json": [1]}));
    assert_eq!(
        payload(&client.post("/rest", "Content-Type: application/json\r\n", "")),
        json!({"empty": true})
    );
    assert_eq!(payload(&client.post("/raw", "Content-Type: image/png\r\n", "png")), json!({"bytes": 3}));
    let xml = client.post("/typed", "Content-Type: text/xml\r\n", "<r><n>7</n></r>");
    assert_eq!(payload(&xml), json!({"json": {"n": 7}}));
}

#[test]
fn malformed_bodies_are_400_and_wrong_types_415() {
    let server = server();
    let mut client = server.connect();
    for (media, body) in [
        ("application/json", &b"{\"a\":"[..]),
        ("application/json", b"\"\xff\""),
        ("application/json", b"[[[[1"),
        ("application/xml", b"<a><b></a>"),
        ("application/xml", b"<!DOCTYPE a><a/>"),
        ("application/x-www-form-urlencoded", b"a=%ff"),
        ("multipart/form-data; boundary=X", b"--Y"),
        ("multipart/form-data", b"--Y"),
        ("text/plain", b"\xff"),
    ] {
        let answer = client.post("/rest", &format!("Content-Type: {media}\r\n"), body);
        assert_eq!(answer.status, 400, "{media} {answer:?}");
        assert_eq!(answer.json()["faults"][0]["pointer"], "");
    }
    for (path, media) in [
        ("/rest", "image/png"),
        ("/rest", "application/json; charset=utf-16"),
        ("/json", "application/x-www-form-urlencoded"),
        ("/typed", "text/plain"),
    ] {
        let answer = client.post(path, &format!("Content-Type: {media}\r\n"), "x");
        assert_eq!(answer.status, 415, "{path} {media}");
        // It is not the coding that is wrong (RFC 9110, section 12.5.3).
        assert_eq!(answer.header("accept-encoding"), None, "{path} {media}");
    }
}

#[test]
fn bodies_nest_as_deep_as_the_settings_allow() {
    let server = Setup::new()
        .http(|http| http.max_depth = 3)
        .channel("rest", json!({"type": "rest", "path": "/rest", "service": "echo"}))
        .channel("rpc", json!({"type": "jsonrpc", "path": "/rpc", "methods": {"echo": "echo"}}))
        .start();
    let mut client = server.connect();
    for (media, body, status) in [
        ("application/json", "[[[1]]]", 200),
        ("application/json", "[[[[1]]]]", 400),
        ("application/xml", "<a><b><c/></b></a>", 200),
        ("application/xml", "<a><b><c><d/></c></b></a>", 400),
    ] {
        let answer = client.post("/rest", &format!("Content-Type: {media}\r\n"), body);
        assert_eq!(answer.status, status, "{body}");
    }
    let call = |params: &str| {
        format!("{{\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"id\": 1, \"params\": {params}}}")
    };
    assert_eq!(client.post("/rpc", "", call("[[1]]")).status, 200);
    assert_eq!(client.post("/rpc", "", call("[[[1]]]")).json()["error"]["code"], -32600);
}

#[test]
fn chunked_bodies_arrive() {
    let server = server();
    let mut client = server.connect();
    client.send("POST /rest HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("3\r\n{\"a\r\n");
    std::thread::sleep(Duration::from_millis(20));
    client.send("4\r\n\":1}\r\n0\r\nTrailer: x\r\n\r\n");
    assert_eq!(payload(&client.read(false).unwrap()), json!({"json": {"a": 1}}));
    assert_eq!(client.get("/rest", "").status, 200);
}

#[test]
fn large_bodies_arrive_whole() {
    let server = server();
    let text = format!("[\"{}\"]", "x".repeat(199_000));
    let mut client = server.connect();
    let answer = client.post("/rest", "Content-Type: application/json\r\n", &text);
    assert_eq!((answer.status, answer.json()["raw"].as_u64()), (200, Some(text.len() as u64)));
}

#[test]
fn an_oversized_body_gets_413_and_not_a_cut_connection() {
    let server = server();
    // Declared too large, and sent in full all the same before the client reads.
    let mut client = server.connect();
    client.send("POST /rest HTTP/1.1\r\nHost: t\r\nContent-Length: 3000000\r\n\r\n");
    for _ in 0..30 {
        assert!(client.try_send(vec![b'x'; 100_000]), "the connection was cut while the client still sent");
    }
    let answer = client.read(false).expect("413 arrives");
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    assert!(client.is_closed());

    // Too large without a declared length.
    let mut client = server.connect();
    client.send("POST /rest HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..30 {
        assert!(client.try_send([b"186a0\r\n".as_slice(), &vec![b'x'; 100_000], b"\r\n"].concat()));
    }
    assert_eq!(client.read(false).expect("413 arrives").status, 413);

    // A channel's own limit, and the ceiling over it.
    assert_eq!(server.connect().post("/small", "", "[1,2,3,4,5]").status, 413);
    assert_eq!(server.connect().post("/small", "", "[1,2,3,4]").status, 200);
    assert_eq!(server.connect().post("/large", "", vec![b'x'; 300_000]).status, 200);
    assert_eq!(server.connect().post("/large", "", vec![b'x'; 300_001]).status, 413);
}

#[test]
fn a_small_body_nobody_reads_leaves_the_connection_usable() {
    let server = server();
    let mut client = server.connect();
    for _ in 0..3 {
        client.send("POST /nothing HTTP/1.1\r\nHost: t\r\nContent-Length: 30000\r\n\r\n");
        std::thread::sleep(Duration::from_millis(10));
        client.send(vec![b'x'; 30_000]);
        let answer = client.read(false).unwrap();
        assert_eq!((answer.status, answer.header("connection")), (404, None));
    }
    assert_eq!(client.get("/rest", "").status, 200);
}

#[test]
fn a_client_that_waits_for_100_continue_is_told_or_refused() {
    let server = server();
    let mut client = server.connect();
    client.send("POST /rest HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    std::thread::sleep(Duration::from_millis(20));
    client.send("[1]");
    assert_eq!(payload(&client.read(false).unwrap()), json!({"json": [1]}));
    let mut client = server.connect();
    client.send("POST /rest HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n");
    assert_eq!(client.read(false).unwrap().status, 413);
}

#[test]
fn a_body_that_stops_arriving_is_408() {
    let server = server();
    for framing in ["Content-Length: 10\r\n\r\n[1", "Transfer-Encoding: chunked\r\n\r\n5\r\n[1"] {
        let mut client = server.connect();
        let began = Instant::now();
        client.send(format!("POST /rest HTTP/1.1\r\nHost: t\r\n{framing}"));
        let answer = client.read(false).expect("408 arrives");
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
        assert!(began.elapsed() >= Duration::from_millis(300));
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn coded_bodies_are_decoded_within_the_limit() {
    let server = server();
    let mut client: Client = server.connect();
    let headers = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let answer = client.post("/rest", headers, gzip(b"{\"a\":1}"));
    assert_eq!(payload(&answer), json!({"json": {"a": 1}}));
    assert_eq!((&answer.json()["coded"], &answer.json()["raw"]), (&json!(false), &json!(7)));
    assert_eq!(client.post("/raw", headers, gzip(&[b'x'; 200_000])).json()["raw"], 200_000);
    assert_eq!(client.post("/raw", headers, gzip(&[b'x'; 200_001])).status, 413);
    assert_eq!(client.post("/rest", headers, "not gzip").status, 400);
    let answer = client.post("/rest", "Content-Encoding: compress\r\n", "x");
    assert_eq!((answer.status, answer.header("accept-encoding")), (415, Some("gzip, deflate, br, zstd")));
}
