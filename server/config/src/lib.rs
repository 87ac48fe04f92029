//! crosstie-config
