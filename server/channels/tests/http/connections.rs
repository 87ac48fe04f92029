use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Server, Setup, eventually};

fn setup() -> Setup {
    Setup::new()
        .channel("echo", json!({"type": "rest", "path": "/echo", "service": "echo"}))
        .channel("slow", json!({"type": "rest", "path": "/slow", "service": "slow"}))
        .channel("big", json!({"type": "http", "path": "/big", "service": "big"}))
        .channel("stream", json!({"type": "http", "path": "/stream", "service": "stream"}))
}

#[test]
fn a_connection_carries_many_requests_also_pipelined_ones() {
    let server = setup().start();
    let mut client = server.connect();
    for _ in 0..100 {
        assert_eq!(client.get("/echo", "").status, 200);
    }
    client.send("GET /echo?n=1 HTTP/1.1\r\nHost: t\r\n\r\n".repeat(20));
    for _ in 0..20 {
        assert_eq!(client.read(false).unwrap().status, 200);
    }
    assert_eq!(server.http.connections(), 1);
    drop(client);
    eventually("the connection's end", || server.http.connections() == 0);
    assert_eq!(server.setup.share.held.load(Ordering::SeqCst), 0);
}

#[test]
fn http_1_0_and_connection_close_end_the_connection() {
    let server = setup().start();
    let mut client = server.connect();
    client.send("GET /echo HTTP/1.0\r\n\r\n");
    assert_eq!(client.read(false).unwrap().status, 200);
    assert!(client.is_closed());
    let mut client = server.connect();
    assert_eq!(client.get("/echo", "Connection: close\r\n").status, 200);
    assert!(client.is_closed());
}

#[test]
fn heads_beyond_the_limits_get_431_or_414() {
    let server = setup()
        .http(|http| {
            http.max_header_bytes = 10_000;
            http.max_headers = 20;
        })
        .start();
    let header = |bytes: usize| format!("X-Long: {}\r\n", "x".repeat(bytes));
    assert_eq!(server.connect().get("/echo", &header(9_000)).status, 200);
    let answer = server.connect().get("/echo", &header(11_000));
    assert_eq!(
        (answer.status, &answer.json()["type"]),
        (431, &json!("urn:crosstie:problem:header-too-large"))
    );
    // So long that it is not even read to its end: the answer is hyper's own, without a body.
    let mut client = server.connect();
    client.send("GET /echo HTTP/1.1\r\n");
    client.try_send(header(200_000));
    assert_eq!(client.read(false).unwrap().status, 431);

    assert_eq!(server.connect().get("/echo", &"X-A: b\r\n".repeat(19)).status, 200);
    assert_eq!(server.connect().get("/echo", &"X-A: b\r\n".repeat(21)).status, 431);
    let path = |bytes: usize| format!("/echo?{}", "x".repeat(bytes));
    assert_eq!(server.connect().get(&path(5_000), "").status, 200);
    assert_eq!(server.connect().get(&path(17_000), "").status, 414);
    assert_eq!(server.connect().get(&path(70_000), "").status, 414);
}

#[test]
fn more_headers_than_hyper_expects_are_read_when_allowed() {
    let server = setup().http(|http| http.max_headers = 300).start();
    assert_eq!(server.connect().get("/echo", &"X-A: b\r\n".repeat(250)).status, 200);
    assert_eq!(server.connect().get("/echo", &"X-A: b\r\n".repeat(310)).status, 431);
}

fn impatient() -> Server {
    setup()
        .http(|http| {
            http.header_timeout_ms = 300;
            http.body_timeout_ms = 400;
        })
        .start()
}

#[test]
fn slow_heads_and_idle_connections_are_closed() {
    let server = impatient();
    let began = Instant::now();
    let mut silent = server.connect();
    let mut half = server.connect();
    half.send("GET /echo HTTP/1.1\r\nHo");
    let mut used = server.connect();
    assert_eq!(used.get("/echo", "").status, 200);
    // One byte now and then is no progress.
    let mut dripping = server.connect();
    let dripper = std::thread::spawn(move || {
        for byte in "GET /echo HTTP/1.1\r\nX-Slow: 1".bytes().cycle() {
            if !dripping.try_send([byte]) || began.elapsed() > Duration::from_secs(5) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        began.elapsed()
    });
    assert!(silent.is_closed() && used.is_closed());
    let _ = half.read(false);
    assert!(began.elapsed() >= Duration::from_millis(280), "{:?}", began.elapsed());
    assert!(dripper.join().unwrap() < Duration::from_secs(4));
    eventually("all closed", || server.http.connections() == 0);
}

#[test]
fn a_long_request_is_not_idle() {
    let server = impatient();
    let mut client = server.connect();
    assert_eq!(client.get("/slow?ms=1200", "").status, 200);
    assert_eq!(client.get("/echo", "").status, 200);
}

#[test]
fn a_client_that_takes_no_reply_is_closed_and_a_slow_one_is_not() {
    let server = impatient();
    let mut stalled = server.connect();
    stalled.send("GET /big?bytes=30000000 HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the request", || server.fakes().seen().len() == 1);
    let began = Instant::now();
    eventually("the stalled connection's end", || server.http.connections() == 0);
    assert!(began.elapsed() >= Duration::from_millis(350), "{:?}", began.elapsed());

    let mut slow = server.connect();
    slow.send("GET /big?bytes=8000000 HTTP/1.1\r\nHost: t\r\n\r\n");
    let mut total = 0;
    let mut scratch = vec![0u8; 1_000_000];
    while total < 8_000_000 {
        std::thread::sleep(Duration::from_millis(60));
        let read = slow.stream.read(&mut scratch).unwrap();
        assert!(read > 0, "cut after {total} bytes");
        total += read;
    }
}

#[test]
fn a_worker_above_its_share_leaves_connections_to_others() {
    let server = setup().start();
    let share = &server.setup.share;
    assert_eq!(server.connect().get("/echo", "").status, 200);
    eventually("the next accept", || share.asked.load(Ordering::SeqCst) >= 2);
    share.refuses.store(true, Ordering::SeqCst);
    // The accept that was under way when the share changed still takes one.
    let mut first = server.connect();
    first.send("GET /echo HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(first.read(false).unwrap().status, 200);
    let mut waiting = server.connect();
    waiting.send("GET /echo HTTP/1.1\r\nHost: t\r\n\r\n");
    let asked = share.asked.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(share.held.load(Ordering::SeqCst), 1, "a connection was accepted above the share");
    let asked = share.asked.load(Ordering::SeqCst) - asked;
    assert!((3..60).contains(&asked), "asked {asked} times in 400 ms");
    share.refuses.store(false, Ordering::SeqCst);
    assert_eq!(waiting.read(false).unwrap().status, 200);
}

#[test]
fn connections_beyond_the_most_wait_until_one_ends() {
    let server = setup().http(|http| http.max_connections = 2).start();
    let mut clients: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/echo", "").status, 200);
    }
    let mut third = server.connect();
    third.send("GET /echo HTTP/1.1\r\nHost: t\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.http.connections(), 2);
    clients.pop();
    assert_eq!(third.read(false).unwrap().status, 200);
}

#[test]
fn a_streamed_reply_arrives_piece_by_piece_and_a_broken_one_is_cut() {
    let server = setup().start();
    let mut client = server.connect();
    client.send("GET /stream?pieces=3&ms=200 HTTP/1.1\r\nHost: t\r\n\r\n");
    let began = Instant::now();
    let answer = client.read(true).unwrap();
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert_eq!(client.chunk().unwrap(), b"piece 2\n");
    assert!(began.elapsed() < Duration::from_millis(390));
    assert_eq!(client.chunk().unwrap(), b"piece 1\n");
    assert_eq!(client.chunk().unwrap(), b"piece 0\n");
    assert_eq!(client.chunk(), None);
    assert_eq!(client.get("/echo", "").status, 200);

    let mut client = server.connect();
    client.send("GET /stream?pieces=1&fail=1&ms=50 HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.read(true).unwrap().status, 200);
    assert_eq!(client.chunk().unwrap(), b"piece 0\n");
    assert!(client.is_closed(), "a stream that broke must not look complete");
}
