//! A table of cells for tests, in ordinary memory and of any size.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crosstie_model::ports::{CounterCells, GaugeCell, GaugeCells};

pub(crate) struct TestCells {
    cells: Mutex<BTreeMap<String, &'static AtomicU64>>,
    room: usize,
}

impl TestCells {
    pub(crate) fn new(room: usize) -> Self {
        Self { cells: Mutex::new(BTreeMap::new()), room }
    }

    pub(crate) fn len(&self) -> usize {
        self.cells.lock().unwrap().len()
    }
}

impl CounterCells for TestCells {
    fn cell(&self, key: &str) -> Option<&'static AtomicU64> {
        let mut cells = self.cells.lock().unwrap();
        if let Some(cell) = cells.get(key) {
            return Some(cell);
        }
        if cells.len() >= self.room {
            return None;
        }
        let cell: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
        cells.insert(key.to_owned(), cell);
        Some(cell)
    }

    fn read_all(&self) -> Vec<(String, u64)> {
        let cells = self.cells.lock().unwrap();
        cells.iter().map(|(key, cell)| (key.clone(), cell.load(Ordering::Relaxed))).collect()
    }
}

/// Gauges for tests.
#[derive(Default)]
pub(crate) struct TestGauges(Mutex<BTreeMap<String, Arc<TestGauge>>>);

#[derive(Default)]
struct TestGauge(AtomicI64);

impl TestGauges {
    pub(crate) fn value(&self, key: &str) -> i64 {
        self.0.lock().unwrap().get(key).map_or(0, |gauge| gauge.0.load(Ordering::Relaxed))
    }
}

impl GaugeCells for TestGauges {
    fn gauge(&self, key: &str) -> Arc<dyn GaugeCell> {
        Arc::clone(self.0.lock().unwrap().entry(key.to_owned()).or_default()) as _
    }
}

impl GaugeCell for TestGauge {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn subtract(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
