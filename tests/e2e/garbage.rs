//! Garbage of every kind gets a 4xx or a closed connection, while good requests are answered.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crosstie_test_support::Environment;

use crate::hot_deploy::service;

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

const PATH: &str = "/eat";

fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// One kind of garbage after the other, each different every time.
fn garbage(kind: u64, chance: &mut Chance) -> Vec<u8> {
    let length = usize::try_from(chance.next() % 2000).unwrap() + 1;
    match kind % 12 {
        0 => chance.bytes(length),
        1 => format!("GET / HTTP/1.1\r\nHost: x\r\nX-Big: {}\r\n\r\n", "a".repeat(100_000 + length))
            .into_bytes(),
        2 => (0..500).fold(b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec(), |mut all, n| {
            all.extend_from_slice(format!("X-{n}: {length}\r\n").as_bytes());
            all
        }),
        3 => [
            format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n")
                .into_bytes(),
            chance.bytes(length),
        ]
        .concat(),
        4 => post("Content-Type: application/json\r\n", "[".repeat(100_000 + length).as_bytes()),
        5 => post("Content-Type: application/json\r\n", &chance.bytes(length)),
        6 => post("Content-Type: application/json\r\n", br#"{"age": {"deep": []}, "name": 7}"#),
        7 => post("Content-Type: multipart/form-data; boundary=x\r\n", &chance.bytes(length)),
        8 => post("Content-Type: application/xml\r\n", b"<a><!DOCTYPE b [<!ENTITY c 'd'>]><a>&c;"),
        9 => post("Content-Encoding: gzip\r\nContent-Type: application/json\r\n", &chance.bytes(length)),
        10 => [
            b"GET /%ff%fe/\xc3\x28 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(),
            chance.bytes(4),
        ]
        .concat(),
        _ => format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\n")
            .into_bytes(),
    }
}

/// Sends `request`, ends the sending side, and reads to the end.
fn answer(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // The server may have answered and closed before it read all.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// A service that says what it takes.
const EAT: &str = r#"
from crosstie import Model, Service, rest

class Eaten(Model):
    name: str
    age: int

class Eat(Service):
    name = "demo.eat"
    channels = [rest("POST", "/eat")]
    input = Eaten

    def handle(self):
        self.response.payload = {"ate": True}
"#;

/// Sends the beginning of a request, and waits until the server gives up on it.
fn never_finish(address: SocketAddr, beginning: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(beginning).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
}

#[test]
fn garbage_is_refused_and_good_requests_are_answered() {
    let requests = crate::volume(10_000, 500);
    let seed = 0x5eed_cafe;
    println!("seed {seed}");
    let environment = Environment::builder()
        .setting("http.header_timeout_ms", "2000")
        .setting("http.body_timeout_ms", "2000")
        .start()
        .unwrap();
    environment.drop_file("eat.py", EAT).unwrap();
    environment.drop_file("good.py", &service("good", "fine")).unwrap();
    environment.wait_for_status("/good", 200);
    environment.wait_for_status("/eat", 405);
    let workers = environment.ready_workers().unwrap();
    let address = environment.address();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let good = scope.spawn(|| {
            let http = environment.http();
            let mut count = 0u64;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(http.get("/good").unwrap().status, 200);
                count += 1;
            }
            count
        });
        // Slow ones, that never finish: a head, and a body.
        for slow in [
            &b"GET /good HTTP/1.1\r\nHost: x\r\nX-Slow: "[..],
            b"POST /eat HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab",
        ] {
            scope.spawn(move || never_finish(address, slow));
        }
        let mut chance = Chance(seed);
        for kind in 0..requests {
            let request = garbage(kind, &mut chance);
            let answer = answer(address, &request);
            let text = String::from_utf8_lossy(&answer);
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "kind {} got {text}", kind % 12);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(good.join().unwrap() > 0);
    });
    assert_eq!(environment.ready_workers().unwrap(), workers, "a worker died of garbage");
    let log = environment.log_tail("server.log");
    assert!(!log.contains("panicked"), "{log}");
}
