//! What is counted about the requests of one channel.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crosstie_model::ports::CounterCells;

use super::families::{BUCKETS, DURATION_BUCKET, DURATION_SUM, RECEIVED, REQUESTS, SENT, key};

/// Status codes with a label of their own; the others are counted by class, so that a service that makes up
/// codes makes no series.
const CODES: &[u16] = &[
    200, 201, 202, 203, 204, 206, 207, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 408,
    409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 425, 426, 428, 429, 431, 451, 499, 500, 501,
    502, 503, 504, 505, 507, 511,
];
const CLASSES: &[&str] = &["0xx", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx", "7xx", "8xx", "9xx"];
/// The label of channels the table of cells has no room for.
const OTHER: &str = "_other";

/// The handle of one channel and service. Cheap to clone; keep one with the route.
#[derive(Clone)]
pub struct ChannelMetrics(Arc<Cells>);

struct Cells {
    table: Arc<dyn CounterCells>,
    channel: String,
    service: String,
    codes: Vec<Slot>,
    buckets: Vec<Slot>,
    sum: Slot,
    received: Slot,
    sent: Slot,
}

/// A cell, looked for when it is first added to: a channel without traffic, or a bucket without hits, takes
/// no room in the table.
#[derive(Default)]
pub(super) struct Slot(OnceLock<Option<&'static AtomicU64>>);

impl Slot {
    pub(super) fn add(&self, count: u64, find: impl FnOnce() -> Option<&'static AtomicU64>) {
        if let Some(cell) = self.0.get_or_init(find) {
            cell.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl ChannelMetrics {
    pub(super) fn new(table: Arc<dyn CounterCells>, channel: &str, service: &str) -> Self {
        let slots = |count| std::iter::repeat_with(Slot::default).take(count).collect();
        Self(Arc::new(Cells {
            table,
            channel: channel.to_owned(),
            service: service.to_owned(),
            codes: slots(CODES.len() + CLASSES.len()),
            buckets: slots(BUCKETS.len()),
            sum: Slot::default(),
            received: Slot::default(),
            sent: Slot::default(),
        }))
    }

    /// The handle that counts what finds no room. Its cells are taken at once, while there is some.
    pub(super) fn other(table: Arc<dyn CounterCells>) -> Self {
        let other = Self::new(table, OTHER, OTHER);
        for code in CODES.iter().copied().chain((0..1000).step_by(100)) {
            other.count_code(code, 0);
        }
        for (bucket, _) in BUCKETS {
            other.count_duration(*bucket, 0);
        }
        other.count_bytes(0, 0);
        other
    }

    /// Counts one request: its status (0 when the client left before there was one), how long it took, and
    /// the bytes of both bodies. Five atomic additions once the cells are found.
    pub fn request(&self, status: u16, duration: Duration, bytes_in: u64, bytes_out: u64) {
        self.count_code(status, 1);
        self.count_duration(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), 1);
        self.count_bytes(bytes_in, bytes_out);
    }

    fn count_code(&self, status: u16, count: u64) {
        let cells = &*self.0;
        let known = CODES.binary_search(&status);
        let class = usize::from(status / 100).min(CLASSES.len() - 1);
        let index = known.unwrap_or(CODES.len() + class);
        if let Some(slot) = cells.codes.get(index) {
            slot.add(count, || {
                let number = status.to_string();
                let class = CLASSES.get(class).copied().unwrap_or_default();
                let code = if known.is_ok() { number.as_str() } else { class };
                cells.find(REQUESTS.name, Some(("code", code)))
            });
        }
    }

    fn count_duration(&self, micros: u64, count: u64) {
        let cells = &*self.0;
        let index = BUCKETS.iter().position(|(bound, _)| micros <= *bound).unwrap_or(BUCKETS.len() - 1);
        if let (Some(slot), Some((_, le))) = (cells.buckets.get(index), BUCKETS.get(index)) {
            slot.add(count, || cells.find(DURATION_BUCKET, Some(("le", le))));
        }
        let sum = if count == 0 { 0 } else { micros };
        cells.sum.add(sum, || cells.find(DURATION_SUM, None));
    }

    fn count_bytes(&self, received: u64, sent: u64) {
        let cells = &*self.0;
        cells.received.add(received, || cells.find(RECEIVED.name, None));
        cells.sent.add(sent, || cells.find(SENT.name, None));
    }
}

impl Cells {
    fn find(&self, name: &str, last: Option<(&str, &str)>) -> Option<&'static AtomicU64> {
        let cell_of = |channel: &str, service: &str| {
            let labels: Vec<_> =
                [("channel", channel), ("service", service)].into_iter().chain(last).collect();
            self.table.cell(&key(name, &labels))
        };
        cell_of(&self.channel, &self.service).or_else(|| cell_of(OTHER, OTHER))
    }
}

impl std::fmt::Debug for ChannelMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChannelMetrics")
            .field("channel", &self.0.channel)
            .field("service", &self.0.service)
            .finish_non_exhaustive()
    }
}
