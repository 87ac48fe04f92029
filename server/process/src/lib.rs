//! crosstie-process
