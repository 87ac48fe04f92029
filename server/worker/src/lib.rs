//! crosstie-worker
