//! A steady load over keep-alive connections that accounts for every single request.
//!
//! `wrk` tells how much a server bears; this tells what became of each request while parts of a cluster die.
//! Each client is a thread with one connection and its own clock: requests leave at fixed points of time, and
//! one that is answered late delays only the next ones of its own client.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wait::{HANG, wait_until};

/// How many failures are kept in full; the others are only counted.
const KEPT: usize = 50;

/// One kind of request. Clients send the kinds of a load in turn.
#[derive(Debug, Clone)]
pub struct Kind {
    method: String,
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Kind {
    /// GET of `path`.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self::new("GET", path, Vec::new())
    }

    /// `method` of `path` with a JSON string of `size` bytes as its body.
    #[must_use]
    pub fn sized(method: &str, path: &str, size: usize) -> Self {
        Self::new(method, path, format!("\"{}\"", "x".repeat(size.saturating_sub(2))).into_bytes())
    }

    fn new(method: &str, path: &str, body: Vec<u8>) -> Self {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: load\r\n");
        if !body.is_empty() {
            head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        Self { method: method.to_owned(), head: head.into_bytes(), body }
    }

    /// Whether it may be sent again when nobody knows what became of it (RFC 9110, section 9.2.2).
    fn is_idempotent(&self) -> bool {
        self.method != "POST"
    }
}

/// What may go wrong with a request, by when it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No connection could be made.
    Connect,
    /// The connection ended before the first byte of a response.
    NoResponse,
    /// The connection ended within a response.
    Broken,
    /// The response was not a success.
    Status(u16),
}

/// A request that was lost.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When, counted from the load's begin.
    pub at: Duration,
    /// Its method.
    pub method: String,
    /// What went wrong.
    pub phase: Phase,
    /// The error's text, or the response's body.
    pub detail: String,
}

/// What became of a load's requests.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// Requests answered with success.
    pub answered: u64,
    /// Requests that failed, by method and phase.
    pub failed: BTreeMap<(String, Phase), u64>,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// Idempotent requests that met a connection closed while it was idle and were sent once more, as every
    /// client must (RFC 9112, section 9.3.1).
    pub resent: u64,
    /// The longest time from a request to its answer.
    pub slowest: Duration,
    /// How long the load lasted.
    pub lasted: Duration,
}

impl Account {
    /// How many requests of `method` failed; of all methods when it is empty.
    #[must_use]
    pub fn lost(&self, method: &str) -> u64 {
        let counted = self.failed.iter().filter(|((known, _), _)| method.is_empty() || known == method);
        counted.map(|(_, count)| count).sum()
    }

    /// Requests per second that were answered.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.lasted.as_secs_f64().max(0.001)
    }

    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        for (what, count) in other.failed {
            *self.failed.entry(what).or_default() += count;
        }
        self.failures.extend(other.failures);
        self.resent += other.resent;
        self.slowest = self.slowest.max(other.slowest);
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.rate();
        write!(f, "{} answered ({rate:.0}/s), slowest {:?}", self.answered, self.slowest)?;
        write!(f, ", {} sent again after an idle close", self.resent)?;
        for ((method, phase), count) in &self.failed {
            write!(f, "; {method} {phase:?}: {count}")?;
        }
        for failure in self.failures.iter().take(KEPT) {
            let Failure { at, method, phase, detail } = failure;
            write!(f, "\n  at {at:?}: {method} {phase:?}: {detail}")?;
        }
        Ok(())
    }
}

/// A load that runs until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    begin: Instant,
    clients: Vec<JoinHandle<Account>>,
}

impl Load {
    /// Starts `clients` connections to `address` that together send `rate` requests a second, and returns when
    /// every kind has been answered.
    ///
    /// # Panics
    /// Nothing answers.
    #[must_use]
    pub fn start(address: SocketAddr, clients: u32, rate: u32, kinds: &[Kind]) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let begin = Instant::now();
        let interval = Duration::from_secs(1) * clients / rate.max(1);
        let threads = (0..clients).map(|number| {
            let client = Client {
                address,
                begin,
                answered: Arc::clone(&answered),
                stop: Arc::clone(&stop),
                connection: None,
                account: Account::default(),
            };
            let mut kinds = kinds.to_vec();
            let turn = number as usize % kinds.len().max(1);
            kinds.rotate_left(turn);
            let first = begin + interval * number / clients.max(1);
            std::thread::spawn(move || client.run(&kinds, first, interval))
        });
        let load = Self { clients: threads.collect(), stop, answered, begin };
        load.wait_for_more(u64::from(clients) * kinds.len() as u64);
        load
    }

    /// Waits until `count` more requests have been answered.
    ///
    /// # Panics
    /// They are not.
    pub fn wait_for_more(&self, count: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + count;
        wait_until("the load is answered", || self.answered.load(Ordering::Relaxed) >= goal);
    }

    /// How long it has run.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Ends the load and says what became of its requests.
    ///
    /// # Panics
    /// A client panicked.
    #[must_use]
    pub fn stop(mut self) -> Account {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Account::default();
        for client in self.clients.drain(..) {
            #[expect(clippy::expect_used, reason = "a test fails by panicking")]
            total.add(client.join().expect("a client of the load panicked"));
        }
        total.lasted = self.begin.elapsed();
        total.failures.sort_by_key(|failure| failure.at);
        total
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Client {
    address: SocketAddr,
    begin: Instant,
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    connection: Option<TcpStream>,
    account: Account,
}

impl Client {
    fn run(mut self, kinds: &[Kind], first: Instant, interval: Duration) -> Account {
        let mut due = first;
        for kind in kinds.iter().cycle() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            // What a stall delayed is not made up for: the load is steady and never a burst.
            due = (due + interval).max(Instant::now());
            self.request(kind);
        }
        self.account
    }

    fn request(&mut self, kind: &Kind) {
        let (at, started) = (self.begin.elapsed(), Instant::now());
        let reused = self.connection.is_some();
        let mut outcome = self.exchange(kind);
        if let (Err((Phase::NoResponse, _)), true, true) = (&outcome, reused, kind.is_idempotent()) {
            self.account.resent += 1;
            outcome = self.exchange(kind);
        }
        match outcome {
            Ok(()) => {
                self.account.answered += 1;
                self.account.slowest = self.account.slowest.max(started.elapsed());
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err((phase, detail)) => {
                *self.account.failed.entry((kind.method.clone(), phase)).or_default() += 1;
                if self.account.failures.len() < KEPT {
                    let method = kind.method.clone();
                    self.account.failures.push(Failure { at, method, phase, detail });
                }
            }
        }
    }

    fn exchange(&mut self, kind: &Kind) -> Result<(), (Phase, String)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(self.address).map_err(|error| (Phase::Connect, error.to_string()))?,
        };
        let sent = connection.write_all(&kind.head).and_then(|()| connection.write_all(&kind.body));
        // A server may answer and close before it has read all: what it said counts, if it said something.
        let answer = Answer::read(&mut connection);
        match (answer, sent) {
            (Ok(answer), _) => {
                if !answer.closes {
                    self.connection = Some(connection);
                }
                if (200..300).contains(&answer.status) {
                    return Ok(());
                }
                Err((Phase::Status(answer.status), answer.body))
            }
            (Err((_, _)), Err(error)) => Err((Phase::NoResponse, error.to_string())),
            (Err(failed), Ok(())) => Err(failed),
        }
    }
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, HANG)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HANG))?;
    stream.set_write_timeout(Some(HANG))?;
    Ok(stream)
}

/// A response of the kinds a server sends to these requests: with a length, or in chunks.
struct Answer {
    status: u16,
    closes: bool,
    body: String,
}

impl Answer {
    fn read(stream: &mut TcpStream) -> Result<Self, (Phase, String)> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = find(&bytes, b"\r\n\r\n") {
                break end;
            }
            more(stream, &mut bytes)?;
        };
        let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).to_ascii_lowercase();
        let broken = |what: &str| (Phase::Broken, format!("{what}: {head}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.ok_or_else(|| broken("no status"))?;
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let start = end + 4;
        if field("transfer-encoding:") == Some("chunked") {
            while !bytes.ends_with(b"0\r\n\r\n") {
                more(stream, &mut bytes)?;
            }
        } else {
            let length = field("content-length:").and_then(|length| length.parse::<usize>().ok());
            let length = length.ok_or_else(|| broken("no length"))?;
            while bytes.len() < start + length {
                more(stream, &mut bytes)?;
            }
        }
        let body = String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned();
        Ok(Self { status, closes: field("connection:") == Some("close"), body })
    }
}

/// Reads on; an end of the stream is a failure here, as nothing is read past a response's end.
fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), (Phase, String)> {
    let phase = if bytes.is_empty() { Phase::NoResponse } else { Phase::Broken };
    let mut piece = [0u8; 16 * 1024];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Err((phase, "the connection was closed".to_owned())),
            Ok(count) => {
                bytes.extend_from_slice(piece.get(..count).unwrap_or_default());
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err((phase, error.to_string())),
        }
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers each connection with the next of `answers`, then closes it.
    fn server(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for answer in answers.iter().cycle() {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0u8; 1024];
                while stream.read(&mut request).unwrap_or(0) > 0 {
                    stream.write_all(answer.as_bytes()).unwrap();
                    if !answer.contains("\r\n\r\n") || answer.contains("500") {
                        break;
                    }
                }
            }
        });
        address
    }

    #[test]
    fn every_request_is_accounted_for() {
        let good = server(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]);
        let load = Load::start(good, 1, 500, &[Kind::get("/"), Kind::sized("POST", "/", 100)]);
        load.wait_for_more(20);
        let account = load.stop();
        assert!(account.answered >= 20 && account.lost("") == 0 && account.resent == 0, "{account}");
    }

    #[test]
    fn losses_are_told_by_method_and_phase() {
        const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let bad = server(&[
            OK,
            "HTTP/1.1 500 No\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno",
            "HTTP/1.1 200 OK\r\ncont",
        ]);
        let mut client = Client {
            address: bad,
            begin: Instant::now(),
            answered: Arc::default(),
            stop: Arc::default(),
            connection: None,
            account: Account::default(),
        };
        client.request(&Kind::get("/"));
        client.connection = None;
        client.request(&Kind::get("/"));
        client.request(&Kind::get("/"));
        assert_eq!(client.account.answered, 1);
        let phases: Vec<_> = client.account.failures.iter().map(|failure| failure.phase).collect();
        assert_eq!(phases, [Phase::Status(500), Phase::Broken]);
    }
}
