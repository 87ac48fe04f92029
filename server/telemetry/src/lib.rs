//! crosstie-telemetry
