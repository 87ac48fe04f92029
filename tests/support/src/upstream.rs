//! Another system: an HTTP/1.1 server on loopback that remembers what it was asked and answers what a test
//! says. One thread per connection; ends when dropped.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::{HeaderMap, HeaderName, HeaderValue};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body, chunks put together.
    pub body: Vec<u8>,
}

impl Asked {
    /// A header field as text; empty without one.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What it answers.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// The status; 0 to break the connection off.
    pub status: u16,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// The body, in pieces that are sent one by one with the pause between them.
    pub pieces: Vec<Vec<u8>>,
    /// Before the answer, and between its pieces.
    pub pause: Duration,
}

impl Said {
    /// JSON text with a status.
    #[must_use]
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::typed(status, "application/json", body.to_string())
    }

    /// A body of some media type.
    #[must_use]
    pub fn typed(status: u16, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type".to_owned(), media_type.to_owned())];
        Self { status, headers, pieces: vec![body.into()], pause: Duration::ZERO }
    }

    /// The same after a pause.
    #[must_use]
    pub fn after(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }
}

/// See the module.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Upstream {
    /// Starts it.
    ///
    /// # Errors
    /// There is no port.
    pub fn start(answer: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let upstream = Self {
            address: listener.local_addr()?,
            asked: Arc::default(),
            connections: Arc::default(),
            stop: Arc::default(),
        };
        let (asked, connections) = (Arc::clone(&upstream.asked), Arc::clone(&upstream.connections));
        let (stop, answer) = (Arc::clone(&upstream.stop), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                connections.fetch_add(1, Ordering::SeqCst);
                let (asked, answer, stop) = (Arc::clone(&asked), Arc::clone(&answer), Arc::clone(&stop));
                std::thread::spawn(move || {
                    // What ends a connection early is the other end's doing, or the test's wish.
                    let _ = serve(&stream, &asked, answer.as_ref(), &stop);
                });
            }
        });
        Ok(upstream)
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last request.
    ///
    /// # Errors
    /// There was none.
    pub fn last(&self) -> Result<Asked> {
        self.asked().pop().context("the upstream was not asked anything")
    }

    /// Connections made to it so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    stream: &TcpStream,
    asked: &Mutex<Vec<Asked>>,
    answer: &(dyn Fn(&Asked) -> Said + Send + Sync),
    stop: &AtomicBool,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while !stop.load(Ordering::SeqCst) {
        let request = read(&mut reader)?;
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        let said = answer(&request);
        std::thread::sleep(said.pause);
        if said.status == 0 {
            return Ok(());
        }
        write(stream, &said, request.method == "HEAD")?;
    }
    Ok(())
}

fn read(reader: &mut BufReader<TcpStream>) -> Result<Asked> {
    let line = read_line(reader)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { bail!("no request: {line}") };
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut headers = HeaderMap::new();
    loop {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value.trim())?);
    }
    let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut body = Vec::new();
    if let Some(length) = length {
        reader.by_ref().take(length).read_to_end(&mut body)?;
    } else if headers.contains_key("transfer-encoding") {
        loop {
            let size = u64::from_str_radix(read_line(reader)?.trim(), 16)?;
            reader.by_ref().take(size).read_to_end(&mut body)?;
            read_line(reader)?;
            if size == 0 {
                break;
            }
        }
    }
    Ok(Asked { method, target, headers, body })
}

fn read_line(reader: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        bail!("the other end has left");
    }
    Ok(line.trim_end().to_owned())
}

fn write(mut stream: &TcpStream, said: &Said, is_head: bool) -> Result<()> {
    let mut head = format!("HTTP/1.1 {} Status\r\n", said.status);
    for (name, value) in &said.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let is_whole = said.pieces.len() <= 1;
    let length: usize = said.pieces.iter().map(Vec::len).sum();
    if is_whole {
        head.push_str(&format!("Content-Length: {length}\r\n\r\n"));
    } else {
        head.push_str("Transfer-Encoding: chunked\r\n\r\n");
    }
    stream.write_all(head.as_bytes())?;
    if is_head {
        return Ok(());
    }
    for piece in &said.pieces {
        if !is_whole {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
        }
        stream.write_all(piece)?;
        if !is_whole {
            stream.write_all(b"\r\n")?;
            std::thread::sleep(said.pause);
        }
    }
    if !is_whole {
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}
