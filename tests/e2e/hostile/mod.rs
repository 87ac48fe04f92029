//! Whoever means harm: documents that are small to send and large to take apart, lengths that are lies, and other
//! systems that misbehave. Each costs bounded time and memory, which is measured, and nobody else anything.

mod documents;
mod upstreams;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crosstie_test_support::environment::Builder;
use crosstie_test_support::http::raw;
use crosstie_test_support::{Environment, HANG};

/// How much a worker may grow by whatever is sent to it, in KiB, beside what the size of what was sent accounts for.
const GROWTH: u64 = 32 * 1024;

/// What a byte that is sent may cost in memory at its peak. The dearest are numbers of one digit: with the comma two
/// bytes, which become a value of 72 in a list that is copied when it grows.
const PER_BYTE: u64 = 80;

/// An environment with one worker, so that its memory tells what everything costs.
fn with_one_worker() -> Builder {
    Environment::builder().setting("server.workers", "1").setting("telemetry.metrics_path", "\"/metrics\"")
}

/// The worker of an environment that has one, and what it cost so far.
pub(crate) struct Watched {
    pid: i32,
    longest: (Duration, String),
    largest: (u64, String),
}

impl Watched {
    pub(crate) fn of(environment: &Environment) -> Self {
        let workers = environment.ready_workers().unwrap();
        assert_eq!(workers.len(), 1);
        Self { pid: workers[0], longest: (Duration::ZERO, String::new()), largest: (0, String::new()) }
    }

    /// Does what sends `bytes` bytes, and holds what it costs the worker against them.
    pub(crate) fn during<T>(&mut self, what: &str, bytes: usize, work: impl FnOnce() -> T) -> T {
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5").unwrap();
        let (before, begun) = (self.peak(), Instant::now());
        let done = work();
        let (growth, took) = (self.peak().saturating_sub(before), begun.elapsed());
        let most = GROWTH + u64::try_from(bytes).unwrap() * PER_BYTE / 1024;
        assert!(growth < most, "{what}: {growth} KiB more for {bytes} bytes, {took:?}");
        if took > self.longest.0 {
            self.longest = (took, what.to_owned());
        }
        if growth > self.largest.0 {
            self.largest = (growth, what.to_owned());
        }
        done
    }

    /// The most memory it had since that was reset, in KiB.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the worker lives");
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Tells what cost most, and that the worker is still the same.
    pub(crate) fn finish(self, environment: &Environment) {
        println!("longest: {:?} for {}", self.longest.0, self.longest.1);
        println!("largest: {} KiB for {}", self.largest.0, self.largest.1);
        assert_eq!(environment.ready_workers().unwrap(), [self.pid], "the worker died");
        assert!(!environment.log_tail("server.log").contains("panicked"));
    }
}

/// What comes back for a request that is sent as it is; status 0 without an answer. `headers` are whole lines.
fn post(environment: &Environment, path: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").into_bytes();
    request.extend_from_slice(body);
    let answer = raw(environment.address(), &request, HANG).unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    (status.unwrap_or_default(), text)
}

fn apply(environment: &Environment, definitions: &serde_json::Value) {
    let apply = environment.command(&["apply", "-f", "-"]).unwrap();
    apply.input(definitions.to_string()).run().unwrap().success().unwrap();
}

/// A system that does with a connection, once it read a request from it, what a test says.
struct Raw {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Raw {
    /// `act` is given the target of the request.
    fn start(act: impl Fn(&mut TcpStream, &str) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let (stopping, act) = (Arc::clone(&stop), Arc::new(act));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                let act = Arc::clone(&act);
                thread::spawn(move || {
                    if let Some(target) = read_request(&stream) {
                        act(&mut stream, &target);
                    }
                });
            }
        });
        Self { address, stop }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// Reads a request to its end; gives its target.
fn read_request(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut length = 0u64;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok()?;
            }
            Some(_) => {}
            None => break,
        }
    }
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
    Some(target)
}

/// Waits until the other end has enough.
fn until_closed(stream: &mut TcpStream) {
    // However it ends, it ends.
    let _ = std::io::copy(stream, &mut std::io::sink());
}
