//! What is counted about the connections of one database.

use crosstie_telemetry::metrics::{OutgoingMetrics, UnderWay};

/// Counts connections: those that are open, those that calls have, and calls that had to wait for one.
pub(super) struct Meter(OutgoingMetrics);

impl Meter {
    /// Counts among `metrics`.
    pub(super) fn new(metrics: OutgoingMetrics) -> Self {
        Self(metrics)
    }

    /// A connection was made; it is open until the guard is dropped.
    pub(super) fn opened(&self) -> UnderWay {
        self.0.connected()
    }

    /// None could be made.
    pub(super) fn failed(&self) {
        self.0.connection_failed();
    }

    /// A call has a connection, until the guard is dropped.
    pub(super) fn taken(&self) -> UnderWay {
        self.0.connection_in_use()
    }

    /// A call finds all connections busy.
    pub(super) fn waited(&self) {
        self.0.waited_for_connection();
    }
}
