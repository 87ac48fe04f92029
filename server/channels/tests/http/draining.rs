use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::Client;
use crate::support::{Server, Setup, eventually};

fn server(linger: Duration) -> Server {
    setup(linger).start()
}

fn setup(linger: Duration) -> Setup {
    let mut setup = Setup::new()
        .channel("echo", json!({"type": "rest", "path": "/echo", "service": "echo"}))
        .channel("slow", json!({"type": "rest", "path": "/slow", "service": "slow"}));
    setup.linger = linger;
    setup
}

fn wait_drained(server: &Server) {
    let http = server.http.clone();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
        tokio::time::timeout(Duration::from_secs(10), http.drained()).await.expect("drained");
    });
}

#[test]
fn an_idle_connection_of_a_draining_server_still_gets_its_next_request_answered() {
    let server = server(Duration::from_secs(20));
    let mut clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/echo", "").header("connection"), None);
    }
    let mut unused = server.connect();
    eventually("all accepted", || server.http.connections() == 6);
    server.http.drain();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.http.connections(), 6, "an idle connection was closed first");
    for client in clients.iter_mut().chain([&mut unused]) {
        let answer = client.get("/echo", "");
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert!(client.is_closed());
    }
    drop(clients);
    drop(unused);
    wait_drained(&server);
}

#[test]
fn idle_connections_are_closed_after_the_linger() {
    let server = server(Duration::from_millis(500));
    let mut idle = server.connect();
    assert_eq!(idle.get("/echo", "").status, 200);
    let mut posted = server.connect();
    assert_eq!(posted.post("/echo", "", "[1]").status, 200);
    let mut unused = server.connect();
    eventually("all accepted", || server.http.connections() == 3);
    let began = Instant::now();
    server.http.drain();
    assert!(idle.is_closed());
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    assert!(unused.is_closed() && posted.is_closed());
    wait_drained(&server);
}

#[test]
fn a_request_under_way_is_finished_and_nothing_new_is_accepted() {
    let server = server(Duration::ZERO);
    let mut busy = server.connect();
    busy.send("GET /slow?ms=600 HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the request", || server.http.in_flight() == 1);
    server.http.drain();
    // Connecting works, the listener is the supervisor's; this worker takes nothing from it any more.
    let mut late = server.connect();
    late.send("GET /echo HTTP/1.1\r\nHost: t\r\n\r\n");
    let answer = busy.read(false).unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    drop(busy);
    wait_drained(&server);
    assert_eq!(server.fakes().seen().len(), 1);
}

#[test]
fn a_half_sent_head_is_waited_for() {
    let server = server(Duration::from_millis(100));
    let mut half = server.connect();
    half.send("GET /echo HTTP/1.1\r\nHost");
    eventually("accepted", || server.http.connections() == 1);
    std::thread::sleep(Duration::from_millis(50));
    server.http.drain();
    std::thread::sleep(Duration::from_millis(400));
    half.send(": t\r\n\r\n");
    assert_eq!(half.read(false).unwrap().status, 200);
}

#[test]
fn abort_ends_what_does_not_end_by_itself() {
    let server = server(Duration::from_secs(20));
    let mut busy = server.connect();
    busy.send("GET /slow?ms=60000 HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the request", || server.http.in_flight() == 1);
    server.http.abort();
    assert!(busy.is_closed());
    wait_drained(&server);
    assert_eq!(server.fakes().seen_at_least(1)[0].status, 499);
}

/// What a roll does to keep-alive clients, on one listening socket as workers share it: none may see an error.
#[test]
fn keep_alive_clients_lose_nothing_when_a_server_drains() {
    let linger = Duration::from_secs(20);
    let mut old = server(linger);
    let address = old.address;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let (mut client, mut served) = (Client::connect(address), 0);
                while !stop.load(Ordering::SeqCst) {
                    let answer = client.get("/echo", "");
                    assert_eq!(answer.status, 200);
                    served += 1;
                    if answer.header("connection") == Some("close") {
                        client = Client::connect(address);
                    }
                }
                served
            })
        })
        .collect();
    for _ in 0..10 {
        let new = setup(linger).start_on(old.listener.try_clone().unwrap());
        std::thread::sleep(Duration::from_millis(20));
        old.http.drain();
        wait_drained(&old);
        old = new;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.join().unwrap() > 10);
    }
}
