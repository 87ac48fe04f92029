//! What is counted about the calls of one outgoing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crosstie_model::outgoing::Trouble;
use crosstie_model::ports::{CounterCells, GaugeCell, GaugeCells};

use super::channel::Slot;
use super::families::{BUCKETS, Family, OUTGOING_BUCKET, OUTGOING_CALLS, OUTGOING_SUM, counters, key};

/// The label of outgoings the table of cells has no room for.
const OTHER: &str = "_other";

/// How a call of another system ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// With a result.
    Ok,
    /// With an answer that says that the caller was wrong: HTTP statuses 400 to 499.
    ClientError,
    /// With an answer that says that the other system failed: HTTP statuses from 500.
    ServerError,
    /// Its caller went away before it ended.
    Abandoned,
    /// With none.
    Failed(Trouble),
}

impl CallOutcome {
    /// The value of the label `outcome`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::Abandoned => "abandoned",
            Self::Failed(trouble) => trouble.as_str(),
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::ClientError => 1,
            Self::ServerError => 2,
            Self::Abandoned => 3,
            Self::Failed(trouble) => {
                4 + Trouble::ALL.iter().position(|known| *known == trouble).unwrap_or_default()
            }
        }
    }
}

/// The handle of one outgoing. Cheap to clone; make it when the outgoing is opened and keep it.
#[derive(Clone)]
pub struct OutgoingMetrics(Arc<Cells>);

struct Cells {
    table: Arc<dyn CounterCells>,
    outgoing: String,
    type_name: &'static str,
    outcomes: Vec<Slot>,
    buckets: Vec<Slot>,
    sum: Slot,
    retries: Slot,
    waits: Slot,
    connections: [Slot; 2],
    gauges: OnceLock<Gauges>,
    gauge_cells: Arc<dyn GaugeCells>,
    circuit_open: AtomicBool,
}

struct Gauges {
    calls: Arc<dyn GaugeCell>,
    connections: Arc<dyn GaugeCell>,
    in_use: Arc<dyn GaugeCell>,
    circuits: Arc<dyn GaugeCell>,
}

/// What the gauges of one outgoing are called in shared memory, and what they show.
pub const OUTGOING_GAUGES: [(&str, &str, &str); 4] = [
    ("calls", "crosstie_outgoing_calls_in_flight", "Calls of external systems under way, by outgoing."),
    ("connections", "crosstie_outgoing_connections", "Open connections to external systems, by outgoing."),
    (
        "in_use",
        "crosstie_outgoing_connections_in_use",
        "Connections of pools that calls have at the moment, by outgoing.",
    ),
    (
        "circuits",
        "crosstie_outgoing_circuits_open",
        "Workers that refuse calls because earlier ones failed, by outgoing.",
    ),
];

/// The key of a gauge of `outgoing`; `gauge` is a word of [`OUTGOING_GAUGES`].
#[must_use]
pub fn outgoing_gauge(outgoing: &str, gauge: &str) -> String {
    format!("outgoing:{gauge}:{outgoing}")
}

impl OutgoingMetrics {
    pub(super) fn new(
        table: Arc<dyn CounterCells>,
        gauges: &Arc<dyn GaugeCells>,
        outgoing: &str,
        type_name: &'static str,
    ) -> Self {
        let slots = |count| std::iter::repeat_with(Slot::default).take(count).collect();
        Self(Arc::new(Cells {
            table,
            outgoing: outgoing.to_owned(),
            type_name,
            outcomes: slots(4 + Trouble::ALL.len()),
            buckets: slots(BUCKETS.len()),
            sum: Slot::default(),
            retries: Slot::default(),
            waits: Slot::default(),
            connections: Default::default(),
            gauges: OnceLock::new(),
            gauge_cells: Arc::clone(gauges),
            circuit_open: AtomicBool::new(false),
        }))
    }

    /// Counts a call that begins; it is under way until the guard is dropped.
    pub fn begin(&self) -> UnderWay {
        UnderWay::new(&self.0.gauges().calls)
    }

    /// Counts a call that ended.
    pub fn call(&self, outcome: CallOutcome, duration: Duration) {
        let cells = &*self.0;
        if let Some(slot) = cells.outcomes.get(outcome.index()) {
            slot.add(1, || cells.find(&OUTGOING_CALLS, Some(("outcome", outcome.as_str()))));
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let index = BUCKETS.iter().position(|(bound, _)| micros <= *bound).unwrap_or(BUCKETS.len() - 1);
        if let (Some(slot), Some((_, le))) = (cells.buckets.get(index), BUCKETS.get(index)) {
            slot.add(1, || cells.find_named(OUTGOING_BUCKET, Some(("le", le))));
        }
        cells.sum.add(micros, || cells.find_named(OUTGOING_SUM, None));
    }

    /// Counts a call that is tried again.
    pub fn retried(&self) {
        let cells = &*self.0;
        cells.retries.add(1, || cells.find(&counters::OUTGOING_RETRIES, None));
    }

    /// Counts a connection that was made; it is open until the guard is dropped.
    pub fn connected(&self) -> UnderWay {
        self.count_connection(0, "opened");
        UnderWay::new(&self.0.gauges().connections)
    }

    /// Counts a connection that could not be made.
    pub fn connection_failed(&self) {
        self.count_connection(1, "failed");
    }

    /// Counts a connection of a pool that a call has, until the guard is dropped.
    pub fn connection_in_use(&self) -> UnderWay {
        UnderWay::new(&self.0.gauges().in_use)
    }

    /// Counts a call that finds all connections of a pool busy.
    pub fn waited_for_connection(&self) {
        let cells = &*self.0;
        cells.waits.add(1, || cells.find(&counters::OUTGOING_WAITS, None));
    }

    /// Shows whether this worker refuses calls.
    pub fn circuit(&self, open: bool) {
        if self.0.circuit_open.swap(open, Ordering::AcqRel) != open {
            let circuits = &self.0.gauges().circuits;
            if open { circuits.add() } else { circuits.subtract() }
        }
    }

    fn count_connection(&self, index: usize, outcome: &'static str) {
        let cells = &*self.0;
        if let Some(slot) = cells.connections.get(index) {
            slot.add(1, || cells.find(&counters::OUTGOING_CONNECTIONS, Some(("outcome", outcome))));
        }
    }
}

impl Cells {
    fn gauges(&self) -> &Gauges {
        self.gauges.get_or_init(|| {
            let gauge = |word| self.gauge_cells.gauge(&outgoing_gauge(&self.outgoing, word));
            Gauges {
                calls: gauge("calls"),
                connections: gauge("connections"),
                in_use: gauge("in_use"),
                circuits: gauge("circuits"),
            }
        })
    }

    fn find(
        &self,
        family: &Family,
        last: Option<(&str, &str)>,
    ) -> Option<&'static std::sync::atomic::AtomicU64> {
        self.find_named(family.name, last)
    }

    fn find_named(
        &self,
        name: &str,
        last: Option<(&str, &str)>,
    ) -> Option<&'static std::sync::atomic::AtomicU64> {
        let cell_of = |outgoing: &str, type_name: &str| {
            let labels: Vec<_> =
                [("outgoing", outgoing), ("type", type_name)].into_iter().chain(last).collect();
            self.table.cell(&key(name, &labels))
        };
        cell_of(&self.outgoing, self.type_name).or_else(|| cell_of(OTHER, OTHER))
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        if *self.circuit_open.get_mut() {
            self.gauges().circuits.subtract();
        }
    }
}

/// Something that is counted for as long as this lives.
#[must_use = "what is counted ends when this is dropped"]
pub struct UnderWay(Arc<dyn GaugeCell>);

impl UnderWay {
    fn new(gauge: &Arc<dyn GaugeCell>) -> Self {
        gauge.add();
        Self(Arc::clone(gauge))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.subtract();
    }
}

impl std::fmt::Debug for OutgoingMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutgoingMetrics").field("outgoing", &self.0.outgoing).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for UnderWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UnderWay")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::metrics::test_cells::{TestCells, TestGauges};

    #[test]
    fn calls_are_counted_by_outcome_and_what_is_under_way_by_guards() {
        let cells = Arc::new(TestCells::new(1_000));
        let gauges = Arc::new(TestGauges::default());
        let metrics = Metrics::new(Arc::clone(&cells) as _);
        let crm = metrics.outgoing(&(Arc::clone(&gauges) as Arc<dyn GaugeCells>), "crm", "rest");
        let call = crm.begin();
        let connection = crm.connected();
        let in_use = crm.connection_in_use();
        crm.waited_for_connection();
        crm.circuit(true);
        crm.circuit(true);
        assert_eq!(gauges.value("outgoing:calls:crm"), 1);
        assert_eq!(gauges.value("outgoing:connections:crm"), 1);
        assert_eq!(gauges.value("outgoing:in_use:crm"), 1);
        assert_eq!(gauges.value("outgoing:circuits:crm"), 1);
        crm.call(CallOutcome::Failed(Trouble::Deadline), Duration::from_millis(3));
        crm.call(CallOutcome::Ok, Duration::from_millis(3));
        crm.retried();
        crm.connection_failed();
        drop((call, connection, in_use));
        drop(crm);
        for gauge in ["calls", "connections", "in_use", "circuits"] {
            assert_eq!(gauges.value(&outgoing_gauge("crm", gauge)), 0, "{gauge}");
        }
        let text = metrics.render(&[], &[]);
        for line in [
            r#"crosstie_outgoing_calls_total{outgoing="crm",type="rest",outcome="deadline"} 1"#,
            r#"crosstie_outgoing_calls_total{outgoing="crm",type="rest",outcome="ok"} 1"#,
            r#"crosstie_outgoing_retries_total{outgoing="crm",type="rest"} 1"#,
            r#"crosstie_outgoing_connections_total{outgoing="crm",type="rest",outcome="failed"} 1"#,
            r#"crosstie_outgoing_connection_waits_total{outgoing="crm",type="rest"} 1"#,
            r#"crosstie_outgoing_call_duration_seconds_count{outgoing="crm",type="rest"} 2"#,
            "# TYPE crosstie_outgoing_call_duration_seconds histogram",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn every_outcome_has_a_place_of_its_own() {
        let failed = Trouble::ALL.map(CallOutcome::Failed);
        let mut all =
            vec![CallOutcome::Ok, CallOutcome::ClientError, CallOutcome::ServerError, CallOutcome::Abandoned];
        all.extend(failed);
        let places: std::collections::BTreeSet<_> = all.iter().map(|outcome| outcome.index()).collect();
        assert_eq!(places.into_iter().collect::<Vec<_>>(), (0..all.len()).collect::<Vec<_>>());
    }
}
