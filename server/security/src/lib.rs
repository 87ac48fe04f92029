//! crosstie-security
