//! Counts what a queue lost, in this process and, once there is one, in a cell that outlives it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::metrics::Counter;

/// One such count. Losses are rare, so a mutex is no burden.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    count: u64,
    cell: Option<Counter>,
}

impl Tally {
    pub(crate) fn add(&self, count: u64) {
        let mut state = self.lock();
        state.count = state.count.saturating_add(count);
        if let Some(cell) = state.cell {
            cell.add(count);
        }
    }

    /// What this process counted.
    pub(crate) fn get(&self) -> u64 {
        self.lock().count
    }

    /// Counts in `cell` as well from now on, what was counted already included. The first cell stays.
    pub(crate) fn share(&self, cell: Counter) {
        let mut state = self.lock();
        if state.cell.is_none() {
            cell.add(state.count);
            state.cell = Some(cell);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
