//! The log: `tracing` events to `logs/server.log` and, in the foreground, to the terminal.
//!
//! An event is captured on the thread that makes it (a few microseconds; a disabled one costs a load and a
//! branch) and queued; a writer thread formats and appends. Records of warn and above are never dropped; of
//! the rest, those that find the queue full are counted and the count is logged. When the file cannot be
//! written, warnings and errors go to stderr.
//!
//! The fields `cid` and `service`, of the event or of a span around it, have a place of their own in the
//! record; all others stand under `fields`. To log on behalf of a service, use the target `service` and those
//! two fields.

mod capture;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crosstie_model::settings::{LogLevel, LogSettings};
use tracing::Subscriber;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt;

use crate::batch::{Batch, Importance};
use crate::files::LineFile;
use crate::metrics::Counter;
use crate::record::LogRecord;
use capture::LogLayer;
use writer::Writer;

/// Records that may wait for the writer. At 8 times as many, threads that log warnings wait.
const CAPACITY: usize = 8 * 1024;
/// How long a stop waits for the last records.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The log's name in its directory.
pub const SERVER_LOG: &str = "server.log";

/// Whether the log is also shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// No.
    Quiet,
    /// On stderr as text, coloured if that is a terminal.
    Stderr,
}

/// Where and how to log.
#[derive(Debug, Clone)]
pub struct LogTarget {
    /// `[log]`.
    pub settings: LogSettings,
    /// The server's `logs` directory; made if it is missing.
    pub directory: PathBuf,
    /// What this process is called in its records: `supervisor`, `worker 1` …
    pub process: String,
    /// Whether the log is also shown.
    pub terminal: Terminal,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log file or its directory cannot be written.
    #[error("cannot write the log {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The writer thread could not be started.
    #[error("cannot start the log's writer: {0}")]
    Thread(#[source] io::Error),
    /// Something logs in this process already.
    #[error("logging is set up already")]
    Twice,
}

/// Keeps the log going; dropping it writes what is queued and ends the writer.
#[derive(Debug)]
pub struct LogGuard {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Batch<LogRecord>,
    level: AtomicU8,
    settings: Mutex<LogSettings>,
    process: Arc<str>,
    pid: u32,
    path: PathBuf,
}

/// Sets up logging for this process, panics included. Call it once, before other threads start: signals stay
/// blocked in the writer thread, whatever the caller does with them later.
///
/// # Errors
/// Why it cannot be done.
pub fn init(target: LogTarget) -> Result<LogGuard, LogError> {
    let (subscriber, guard) = build(target)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    log_panics();
    Ok(guard)
}

/// The parts of [`init`] that touch nothing global.
fn build(target: LogTarget) -> Result<(impl Subscriber + Send + Sync, LogGuard), LogError> {
    let path = target.directory.join(SERVER_LOG);
    let failed = |source| LogError::File { path: path.clone(), source };
    std::fs::create_dir_all(&target.directory).map_err(failed)?;
    let file = LineFile::open(path.clone()).map_err(failed)?;
    let shared = Arc::new(Shared {
        queue: Batch::new(CAPACITY, Duration::ZERO),
        level: AtomicU8::new(level_number(target.settings.level)),
        settings: Mutex::new(target.settings),
        process: target.process.into(),
        pid: std::process::id(),
        path,
    });
    let writer = Writer::new(Arc::clone(&shared), file, target.terminal);
    let writer = crate::batch::spawn_writer("log-writer", move || writer.run()).map_err(LogError::Thread)?;
    let subscriber = Registry::default().with(LogLayer::new(Arc::clone(&shared)));
    Ok((subscriber, LogGuard { shared, writer: Some(writer) }))
}

impl LogGuard {
    /// Obeys changed settings from now on: level, format, rotation.
    pub fn apply(&self, settings: &LogSettings) {
        *self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings.clone();
        self.shared.level.store(level_number(settings.level), Ordering::Relaxed);
        // Call sites remember whether they are enabled.
        tracing::callsite::rebuild_interest_cache();
    }

    /// How many records found the queue full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.queue.dropped()
    }

    /// Counts them in `counter` as well, made of [`crate::metrics::counters::LOG_DROPPED`].
    pub fn count_drops_in(&self, counter: Counter) {
        self.shared.queue.count_drops_in(counter);
    }

    /// Waits, at most 5 s, until everything logged by now is written; says whether it is.
    #[must_use]
    pub fn flush(&self) -> bool {
        self.shared.queue.flush(LAST_WORDS)
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.shared.queue.flush(LAST_WORDS);
        self.shared.queue.close();
        if let Some(writer) = self.writer.take().filter(|_| self.shared.queue.flush(Duration::ZERO)) {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn level(&self) -> LogLevel {
        level_from_number(self.level.load(Ordering::Relaxed))
    }

    fn settings(&self) -> LogSettings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Queues a record. A child that a service forked has no writer thread, so it appends for itself.
    fn submit(&self, record: LogRecord) {
        if record.pid != self.pid {
            let settings = self.settings.try_lock().map(|settings| settings.clone()).unwrap_or_default();
            if let Ok(mut file) = LineFile::open(self.path.clone()) {
                let line = writer::format(&record, &settings);
                let _ = file.append(&line, writer::rotation(&settings));
            }
            return;
        }
        let importance =
            if record.level >= LogLevel::Warn { Importance::Kept } else { Importance::Droppable };
        self.queue.push(record, importance);
    }
}

/// Makes a panic a record of the log: a server's stderr may lead nowhere.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let message = text.unwrap_or_else(|| "no message".to_owned());
        tracing::error!(target: "panic", thread, location, "a thread panicked: {message}");
        before(panic);
    }));
}

fn level_number(level: LogLevel) -> u8 {
    match level {
        LogLevel::Trace => 0,
        LogLevel::Debug => 1,
        LogLevel::Info => 2,
        LogLevel::Warn => 3,
        LogLevel::Error => 4,
    }
}

fn level_from_number(number: u8) -> LogLevel {
    match number {
        0 => LogLevel::Trace,
        1 => LogLevel::Debug,
        2 => LogLevel::Info,
        3 => LogLevel::Warn,
        _ => LogLevel::Error,
    }
}

#[cfg(test)]
mod tests;
