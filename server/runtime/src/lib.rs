//! crosstie-runtime
