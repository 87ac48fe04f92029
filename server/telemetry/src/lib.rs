//! What a server says about itself: log, access log, metrics and traces.
//!
//! Layer 1. Everything here is off the request's way: callers hand over a record or add to an atomic, and a
//! writer thread or an exporter task formats and writes in batches. Each queue is bounded and counts what it
//! had to drop.

pub mod access;
mod batch;
mod files;
pub mod follow;
pub mod logging;
mod masking;
pub mod messages;
pub mod metrics;
pub mod record;
mod tally;
pub mod traces;

pub use access::{AccessLog, AccessRecord, LoggedQuery};
pub use logging::{LogGuard, LogTarget, Terminal};
pub use metrics::{ChannelMetrics, Metrics};
pub use record::LogRecord;
pub use traces::{Exporter, SpanRecord};
