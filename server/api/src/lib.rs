//! crosstie-api
