//! crosstie-bench
