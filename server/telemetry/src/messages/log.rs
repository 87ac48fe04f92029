//! Where messages are recorded, and the thread that writes them down.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

use super::format;
use super::record::MessageRecord;
use super::segment::{Limits, SegmentWriter, prune};
use crate::batch::{Batch, Importance, Taken, spawn_writer};
use crate::metrics::Counter;
use crate::tally::Tally;

/// Records that may wait before whoever would make another has to wait for room.
const CAPACITY: usize = 64 * 1024;
/// How long records gather before they are written.
const LINGER: Duration = Duration::from_millis(50);
/// Largest batch handed to one write, in bytes, as far as its last record allows.
const MAX_WRITE: usize = 256 * 1024;
/// Most memory that bodies take which wait, in bytes.
const MAX_BODIES: usize = 32 * 1024 * 1024;
/// How long the writer waits after a failure.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the end of the process waits for what is not written yet.
const FAREWELL: Duration = Duration::from_secs(5);

/// The message log of one process. Cheap to clone; the writer ends with the last one.
#[derive(Debug, Clone)]
pub struct MessageLog(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    queue: Batch<MessageRecord>,
    capacity: usize,
    max_bodies: usize,
    /// Records that are not written.
    waiting: AtomicUsize,
    /// Bytes of their bodies.
    bodies: AtomicUsize,
    /// Told when there is room again.
    room: Notify,
    dropped: Tally,
    waited: Tally,
    /// The process ends: nothing that fails is tried again.
    is_closing: AtomicBool,
}

/// What may wait in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) records: usize,
    pub(super) bodies: usize,
}

impl MessageLog {
    /// Opens the log whose segments are in `directory`, for the process of `worker`. Nothing is made there before
    /// there is something to write.
    ///
    /// # Errors
    /// The writer cannot be started.
    pub fn open(directory: PathBuf, worker: u16, limits: Limits) -> io::Result<Self> {
        Self::with_room(directory, worker, limits, Room { records: CAPACITY, bodies: MAX_BODIES })
    }

    pub(super) fn with_room(directory: PathBuf, worker: u16, limits: Limits, room: Room) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Batch::new(room.records, LINGER),
            capacity: room.records,
            max_bodies: room.bodies,
            waiting: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
            room: Notify::new(),
            dropped: Tally::default(),
            waited: Tally::default(),
            is_closing: AtomicBool::new(false),
        });
        let writing = Arc::clone(&shared);
        let writer = spawn_writer("message-log-writer", move || {
            // What an earlier process left may be too old by now, or too much.
            if let Err(error) = prune(&directory, limits) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "old segments of the message log cannot be deleted");
            }
            write_all(&writing, SegmentWriter::new(directory, worker, limits));
        })?;
        Ok(Self(Arc::new(Handle { shared, writer: Mutex::new(Some(writer)) })))
    }

    /// Whether there is room for another message. Who takes one without asking, or in spite of the answer, is not
    /// turned away: the queue has a reserve, and its thread waits only when that is full as well.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.0.shared.has_room()
    }

    /// Waits until there is.
    pub async fn wait_for_room(&self) {
        let shared = &*self.0.shared;
        shared.waited.add(1);
        loop {
            let mut told = std::pin::pin!(shared.room.notified());
            told.as_mut().enable();
            if shared.has_room() {
                return;
            }
            told.await;
        }
    }

    /// Writes down one message, soon. Its bodies are dropped and counted when those that wait take too much memory.
    pub fn record(&self, mut record: MessageRecord) {
        let shared = &*self.0.shared;
        let bodies = record.body_bytes();
        if bodies > 0 && shared.bodies.fetch_add(bodies, Ordering::Relaxed) + bodies > shared.max_bodies {
            shared.bodies.fetch_sub(bodies, Ordering::Relaxed);
            shared.dropped.add(record.drop_bodies());
        }
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        if !shared.queue.push(record, Importance::Kept) {
            // Only once the log is closed.
            shared.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many bodies found no room.
    #[must_use]
    pub fn dropped_bodies(&self) -> u64 {
        self.0.shared.dropped.get()
    }

    /// Counts them in `dropped` as well, and in `waited` how often somebody had to wait for room.
    pub fn count_in(&self, dropped: Counter, waited: Counter) {
        self.0.shared.dropped.share(dropped);
        self.0.shared.waited.share(waited);
    }

    /// Waits, at most `patience`, until everything recorded by now is written; says whether it is.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        self.0.shared.queue.flush(patience)
    }
}

impl Shared {
    fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < self.capacity
    }

    /// `count` records with so many bytes of bodies are written.
    fn written(&self, count: usize, bodies: usize) {
        let before = self.waiting.fetch_sub(count, Ordering::Relaxed);
        self.bodies.fetch_sub(bodies, Ordering::Relaxed);
        if before >= self.capacity && self.has_room() {
            self.room.notify_waiters();
        }
        self.queue.written(count);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let is_complete = self.shared.queue.flush(FAREWELL);
        self.shared.is_closing.store(true, Ordering::Relaxed);
        self.shared.queue.close();
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer.filter(|_| is_complete) {
            let _ = writer.join();
        }
    }
}

fn write_all(shared: &Shared, mut segments: SegmentWriter) {
    let (mut batch, mut frames) = (Vec::new(), Vec::new());
    while shared.queue.take(&mut batch) == Taken::Some {
        let (mut count, mut bodies) = (0, 0);
        let mut left = batch.len();
        for record in batch.drain(..) {
            left -= 1;
            count += 1;
            bodies += record.body_bytes();
            format::append(&record, &mut frames);
            if frames.len() >= MAX_WRITE || left == 0 {
                write(shared, &mut segments, &frames);
                frames.clear();
                shared.written(count, bodies);
                (count, bodies) = (0, 0);
            }
        }
    }
}

/// Writes until it is written: while the disk is full, requests wait rather than go unrecorded.
fn write(shared: &Shared, segments: &mut SegmentWriter, frames: &[u8]) {
    let mut is_told = false;
    while let Err(error) = segments.append(frames) {
        if !is_told {
            is_told = true;
            let error = &error as &dyn std::error::Error;
            tracing::error!(
                error,
                "the message log cannot be written; requests wait when there is no more room"
            );
        }
        if shared.is_closing.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    if is_told {
        tracing::info!("the message log is written again");
    }
}
