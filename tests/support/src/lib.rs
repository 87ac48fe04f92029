//! crosstie-test-support
