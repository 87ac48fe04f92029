//! A table of cells for tests, in ordinary memory and of any size.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crosstie_model::ports::CounterCells;

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
