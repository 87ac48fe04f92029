//! The access log: one line per request in `logs/access.log`.
//!
//! Recording a request moves one struct into a queue: well under a microsecond, measured by a test. The
//! writer thread formats, masks and appends what gathered in 50 ms with one write; it also pays for dropping
//! the record. When requests come faster than the disk takes them, lines are dropped and counted.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crosstie_model::message::Principal;
use crosstie_model::refusal::RefusedCredentials;
use crosstie_model::settings::{BodyFormat, LogSettings};
use crosstie_model::{Cid, ServiceName};
use http::{HeaderName, HeaderValue, Method, Version};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use crate::batch::{Batch, Importance, Taken, spawn_writer};
use crate::files::{LineFile, Rotation};
use crate::masking::{MASK, is_secret_name};
use crate::metrics::Counter;
use crate::record::TIME_FORMAT;

/// Requests whose lines may wait: about half a second of the most one worker can serve.
const CAPACITY: usize = 32 * 1024;
/// How long lines gather before they are written.
const LINGER: Duration = Duration::from_millis(50);
/// Largest batch handed to one write, in bytes.
const MAX_WRITE: usize = 256 * 1024;
/// Longest path, query or header written down, in bytes.
const MAX_TEXT: usize = 4 * 1024;
/// The access log's name in the log directory.
pub const ACCESS_LOG: &str = "access.log";

/// What is written down about one request. Everything here is moved in or cheap to clone.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// When the request came in.
    pub time: SystemTime,
    /// Its correlation id.
    pub cid: Cid,
    /// The client, behind trusted proxies.
    pub client: IpAddr,
    /// The method.
    pub method: Method,
    /// The path as it came, percent-encoded.
    pub path: String,
    /// The query as it came, if there was one.
    pub query: Option<LoggedQuery>,
    /// The version of HTTP.
    pub version: Version,
    /// The channel it matched, if any.
    pub channel: Option<Arc<str>>,
    /// The service that answered, if it got that far.
    pub service: Option<ServiceName>,
    /// The status sent; 0 when the client left before there was one.
    pub status: u16,
    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the response body, as sent.
    pub bytes_out: u64,
    /// From the request's head to the response's end, in microseconds.
    pub micros: u64,
    /// Who sent it, once authenticated.
    pub principal: Option<Arc<Principal>>,
    /// The credentials that kept it out, if that is what did.
    pub refused: Option<Box<RefusedCredentials>>,
    /// The User-Agent header.
    pub user_agent: Option<HeaderValue>,
    /// Headers that `[http] access_log_headers` asks for.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A query and the parameters of it that nobody may read: the set that was in force when it came.
#[derive(Debug, Clone)]
pub struct LoggedQuery {
    /// The query as it came, without the question mark.
    pub raw: String,
    /// Decoded names of parameters that carry keys.
    pub masked: Arc<BTreeSet<String>>,
}

/// Where requests are written down. Cheap to clone; the writer ends with the last one.
#[derive(Debug, Clone)]
pub struct AccessLog(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    queue: Batch<AccessRecord>,
    enabled: AtomicBool,
    settings: Mutex<LogSettings>,
}

impl AccessLog {
    /// Opens `access.log` in `directory`, which is made if it is missing. With `[log] access = false` nothing
    /// is recorded until [`AccessLog::apply`] says otherwise.
    ///
    /// # Errors
    /// The file cannot be written or the writer not started.
    pub fn open(directory: &Path, settings: &LogSettings) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let file = LineFile::open(directory.join(ACCESS_LOG))?;
        let shared = Arc::new(Shared {
            queue: Batch::new(CAPACITY, LINGER),
            enabled: AtomicBool::new(settings.access),
            settings: Mutex::new(settings.clone()),
        });
        let writing = Arc::clone(&shared);
        let writer = spawn_writer("access-log-writer", move || write_all(&writing, file))?;
        Ok(Self(Arc::new(Handle { shared, writer: Mutex::new(Some(writer)) })))
    }

    /// Whether requests are written down: who makes records may spare the work.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.shared.enabled.load(Ordering::Relaxed)
    }

    /// Writes down one request, soon.
    pub fn record(&self, record: AccessRecord) {
        if self.is_enabled() {
            self.0.shared.queue.push(record, Importance::Droppable);
        }
    }

    /// Obeys changed settings from now on.
    pub fn apply(&self, settings: &LogSettings) {
        self.0.shared.enabled.store(settings.access, Ordering::Relaxed);
        *self.0.shared.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings.clone();
    }

    /// How many requests found the queue full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.shared.queue.dropped()
    }

    /// Counts them in `counter` as well, made of [`crate::metrics::counters::LOG_DROPPED`].
    pub fn count_drops_in(&self, counter: Counter) {
        self.0.shared.queue.count_drops_in(counter);
    }

    /// Waits, at most `patience`, until everything recorded by now is written; says whether it is.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        self.0.shared.queue.flush(patience)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let complete = self.shared.queue.flush(Duration::from_secs(5));
        self.shared.queue.close();
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer.filter(|_| complete) {
            let _ = writer.join();
        }
    }
}

fn write_all(shared: &Shared, mut file: LineFile) {
    let (mut batch, mut lines, mut failing) = (Vec::new(), Vec::new(), false);
    while shared.queue.take(&mut batch) == Taken::Some {
        let settings = shared.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rotation = Rotation {
            max_bytes: settings.rotate_mib.saturating_mul(1024 * 1024),
            keep: usize::from(settings.keep),
        };
        let count = batch.len();
        for (index, record) in batch.drain(..).enumerate() {
            append_line(&record, settings.format, &mut lines);
            if lines.len() < MAX_WRITE && index + 1 < count {
                continue;
            }
            let written = file.append(&lines, rotation);
            lines.clear();
            match written {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the access log cannot be written"
                    );
                }
                Err(_) => {}
            }
        }
        shared.queue.written(count);
    }
}

fn append_line(record: &AccessRecord, format: BodyFormat, lines: &mut Vec<u8>) {
    let start = lines.len();
    match format {
        BodyFormat::Json => {
            if serde_json::to_writer(&mut *lines, record).is_err() {
                lines.truncate(start);
                return;
            }
        }
        BodyFormat::Text => lines.extend_from_slice(text_of(record).as_bytes()),
    }
    lines.push(b'\n');
}

impl Serialize for AccessRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &time_text(self.time))?;
        map.serialize_entry("cid", &self.cid)?;
        map.serialize_entry("client", &self.client)?;
        map.serialize_entry("method", self.method.as_str())?;
        map.serialize_entry("path", cut(&self.path))?;
        if let Some(query) = &self.query {
            map.serialize_entry("query", cut(&query.shown()))?;
        }
        map.serialize_entry("protocol", version_text(self.version))?;
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("bytes_in", &self.bytes_in)?;
        map.serialize_entry("bytes_out", &self.bytes_out)?;
        map.serialize_entry("us", &self.micros)?;
        if let Some(channel) = &self.channel {
            map.serialize_entry("channel", channel)?;
        }
        if let Some(service) = &self.service {
            map.serialize_entry("service", service)?;
        }
        if let Some(principal) = &self.principal {
            map.serialize_entry("security", &principal.definition)?;
            if let Some(username) = &principal.username {
                map.serialize_entry("username", username)?;
            }
        }
        if let Some(refused) = &self.refused {
            map.serialize_entry("security", &refused.definition)?;
            map.serialize_entry("refused", refused.reason.as_str())?;
        }
        if let Some(agent) = &self.user_agent {
            map.serialize_entry("user_agent", cut(&String::from_utf8_lossy(agent.as_bytes())))?;
        }
        for (name, value) in &self.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            map.serialize_entry(&format!("header.{name}"), cut(&value))?;
        }
        map.end()
    }
}

/// `TIME CLIENT USER "METHOD TARGET PROTOCOL" STATUS BYTES_OUT US CHANNEL SERVICE CID "USER AGENT"`
fn text_of(record: &AccessRecord) -> String {
    let user = record.principal.as_ref().and_then(|principal| principal.username.as_deref());
    let query = record.query.as_ref().map(|query| format!("?{}", query.shown())).unwrap_or_default();
    let agent = record.user_agent.as_ref().map(HeaderValue::as_bytes).unwrap_or_default();
    let mut line = String::new();
    let _ = write!(
        line,
        "{} {} {} \"{} {}{} {}\" {} {} {} {} {} {} {:?}",
        time_text(record.time),
        record.client,
        user.unwrap_or("-"),
        record.method,
        cut(&record.path),
        cut(&query),
        version_text(record.version),
        record.status,
        record.bytes_out,
        record.micros,
        record.channel.as_deref().unwrap_or("-"),
        record.service.as_ref().map_or("-", ServiceName::as_str),
        record.cid,
        cut(&String::from_utf8_lossy(agent)),
    );
    line
}

impl LoggedQuery {
    /// The query with the values of secret parameters masked: those that definitions name, and those whose
    /// names say so, which a caller may send to the wrong path or service. A name is compared as a server would
    /// read it, so that percent-encoding it hides nothing.
    fn shown(&self) -> String {
        self.shown_without(|_| false)
    }

    /// The same, with values masked whose names are `secret` as well.
    pub(crate) fn shown_without(&self, secret: impl Fn(&str) -> bool) -> String {
        let mut shown = String::with_capacity(self.raw.len());
        for (index, pair) in self.raw.split('&').enumerate() {
            if index > 0 {
                shown.push('&');
            }
            let name = pair.split('=').next().unwrap_or_default();
            let read = decoded(name);
            let is_secret = self.masked.contains(&read) || is_secret_name(&read) || secret(&read);
            if is_secret && name.len() < pair.len() {
                shown.push_str(name);
                shown.push('=');
                shown.push_str(MASK);
            } else {
                shown.push_str(pair);
            }
        }
        shown
    }
}

/// Undoes `application/x-www-form-urlencoded` in a parameter's name.
fn decoded(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hexadecimal = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = hexadecimal.filter(|_| *first == b'%').and_then(|text| u8::from_str_radix(text, 16).ok());
        match (first, byte) {
            (_, Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', None) => {
                bytes.push(b' ');
                rest = after;
            }
            (other, None) => {
                bytes.push(*other);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn time_text(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(TIME_FORMAT).unwrap_or_default()
}

fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The access log of the server whose log directory is `directory`.
#[must_use]
pub fn path_in(directory: &Path) -> PathBuf {
    directory.join(ACCESS_LOG)
}

#[cfg(test)]
mod tests;
